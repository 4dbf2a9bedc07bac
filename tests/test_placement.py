"""The warning when the well-known path cannot reach the middleware: once, with the paths to route, as early as may be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from harness import PRM_PATH, R, RecordingApp, bearer, call, protect, token
from litestar import Litestar, get
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

BELOW_API = (
    f"Mounted below '/api': {PRM_PATH} of the host root has to be routed to this middleware, as it is or below "
    "the mount; or serve MCPAuth.metadata_app() at the host root."
)
IN_LITESTAR = (
    f"Litestar gives its middlewares no path without a route, so {PRM_PATH} of the host root does not reach this one. "
    "Wrap the app, MCPAuthMiddleware(Litestar(...), ...), or give these paths a route: "
    "asgi(path, copy_scope=True)(auth.metadata_app())."
)


@pytest.fixture
def auth(issuer: Issuer) -> MCPAuth:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    return MCPAuth(ResourceServerConfig(metadata=metadata), http_client=issuer.http_client, clock=issuer.clock)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def fastapi() -> FastAPI:
    app = FastAPI()
    app.root_path = "/api"  # what FastAPI(root_path=...), which is deprecated, does
    return app


@get(["/notes", "/others"])
async def notes() -> str:
    return "notes"


class Inside:
    """A middleware of the user's, further inside."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def litestar(auth: MCPAuth, *inside: Any) -> Litestar:
    return Litestar([notes], middleware=[DefineMiddleware(MCPAuthMiddleware, auth=auth), *inside])


async def start(app: Any) -> None:
    """Run the lifespan up to its shutdown message."""
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        assert message["type"].endswith(".complete")

    await app({"type": "lifespan", "state": {}, "asgi": {"version": "3.0"}}, receive, send)


def around_fastapi(auth: MCPAuth) -> Any:
    return auth.wrap(fastapi())


def in_fastapi(auth: MCPAuth) -> Any:
    app = fastapi()
    app.add_middleware(MCPAuthMiddleware, auth=auth)
    return app


def outside_of_others(auth: MCPAuth) -> Any:
    return litestar(auth, Inside, Inside)


def around_litestar(auth: MCPAuth) -> Any:
    return Inside(auth.wrap(Inside(Litestar([notes]))))


def around_layers(auth: MCPAuth) -> Any:
    return auth.wrap(GZipMiddleware(FastAPI()))


def in_starlette(auth: MCPAuth) -> Any:
    return Starlette(middleware=[Middleware(MCPAuthMiddleware, auth=auth)])


@pytest.mark.parametrize(
    ("build", "at_construction", "at_start_up"),
    [
        pytest.param(around_fastapi, [BELOW_API], [BELOW_API], id="RS-53 around FastAPI(root_path)"),
        pytest.param(in_fastapi, [], [BELOW_API], id="RS-53 in FastAPI(root_path)"),
        pytest.param(litestar, [IN_LITESTAR], [IN_LITESTAR], id="RS-53 on Litestar's routes"),
        pytest.param(outside_of_others, [IN_LITESTAR], [IN_LITESTAR], id="RS-53 on Litestar's routes, layered"),
        pytest.param(around_litestar, [], [], id="around Litestar"),
        pytest.param(around_layers, [], [], id="around FastAPI"),
        pytest.param(in_starlette, [], [], id="in Starlette"),
    ],
)
async def test_at_start_up_where_it_can_be_known(
    build: Callable[[MCPAuth], Any],
    at_construction: list[str],
    at_start_up: list[str],
    auth: MCPAuth,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = build(auth)
    assert warnings(caplog) == at_construction
    await start(app)
    assert warnings(caplog) == at_start_up


async def test_litestars_own_asgi_handler_sees_every_path(auth: MCPAuth, caplog: pytest.LogCaptureFixture) -> None:
    app = Litestar([notes])
    app.asgi_handler = MCPAuthMiddleware(app.asgi_handler, auth=auth)
    assert warnings(caplog) == []
    assert (await call(app, "GET", PRM_PATH)).status == 200


async def test_at_the_first_request_where_nothing_tells_before(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette(routes=[Mount("/api", app=protect(issuer, RecordingApp()))])
    await start(app)
    assert warnings(caplog) == []
    for _ in range(3):
        assert (await call(app, path="/api/mcp", headers=bearer(token(issuer)))).status == 200
    assert warnings(caplog) == [BELOW_API]


async def test_a_root_path_of_the_users_is_told_once(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """A mount with a parameter has as many root paths as callers like."""
    app = Starlette(routes=[Mount("/{tenant}", app=protect(issuer, RecordingApp()))])
    for tenant in ("a", "b", "c"):
        await call(app, path=f"/{tenant}/mcp")
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("serve", [MCPAuth.metadata_app, MCPAuth.resource_metadata_router])
async def test_who_serves_the_document_is_not_warned(
    serve: Callable[[MCPAuth], Any], auth: MCPAuth, caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette(routes=[Mount("/api", app=auth.wrap(RecordingApp())), Mount("/", app=serve(auth))])
    assert (await call(app, path="/api/mcp")).status == 401
    assert (await call(app, "GET", PRM_PATH)).status == 200
    litestar(auth)
    assert warnings(caplog) == []


async def test_mcpauths_middleware_has_no_document_to_route(auth: MCPAuth, caplog: pytest.LogCaptureFixture) -> None:
    bearer_auth = auth.bearer_auth_middleware("jwt", resource=R)
    app = Starlette(routes=[Mount("/api", app=RecordingApp(), middleware=[Middleware(bearer_auth)])])
    assert (await call(app, path="/api/mcp")).status == 401
    assert warnings(caplog) == []
