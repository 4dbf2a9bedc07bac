"""Mistakes of mounting are warned about once, as early as they can be known, with the line that fixes them."""

from __future__ import annotations

import logging
import re
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
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth._compat.asgi_servers import QUIRKS
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

ROUTED = f"Mounted below '/api': {PRM_PATH} of the host root has to be routed to this middleware. "
BELOW_API = f"{ROUTED}In the proxy, for example nginx: location {PRM_PATH} {{ proxy_pass http://127.0.0.1:8000; }}"
BELOW_A_MOUNT = f"{ROUTED}In the outer app, before other mounts: Mount('/.well-known', app=auth.metadata_app())"
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
    return Litestar([notes], middleware=[DefineMiddleware(MCPAuthMiddleware, auth=auth), *inside], logging_config=None)


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
    return Inside(auth.wrap(Inside(Litestar([notes], logging_config=None))))


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
    app = Litestar([notes], logging_config=None)
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
    assert warnings(caplog) == [BELOW_A_MOUNT]


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


async def test_the_proxys_line_names_the_server_that_it_has_to_reach(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    app = protect(issuer, RecordingApp())
    await call(app, path="/mcp", root_path="/api", server=("10.1.2.3", 9000))
    assert warnings(caplog)[0].endswith(f"nginx: location {PRM_PATH} {{ proxy_pass http://10.1.2.3:9000; }}")


async def test_the_line_of_the_warning_fixes_it(auth: MCPAuth, caplog: pytest.LogCaptureFixture) -> None:
    site = Starlette(
        routes=[Mount("/.well-known", app=auth.metadata_app()), Mount("/api", app=auth.wrap(RecordingApp()))]
    )
    assert (await call(site, "GET", PRM_PATH)).json()["resource"] == R
    await call(site, path="/api/mcp")
    assert warnings(caplog) == []


# --- the resource's own path ----------------------------------------------------------------------------------------

JSON_RPC = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}'


class Answering:
    """An app with one answer."""

    def __init__(self, status: int, body: bytes = b"", location: str | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = [] if location is None else [(b"location", location.encode("latin-1"))]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


REDIRECTED = "The app redirects the resource's own path to '/mcp/'"
NOT_SERVED = "The app answered 404 to '/mcp', the resource's own path."


@pytest.mark.parametrize(
    ("app", "path", "expected"),
    [
        pytest.param(Answering(307, location="/mcp/"), "/mcp", REDIRECTED, id="a redirect to a slash more"),
        pytest.param(
            Answering(308, location="https://mcp.example.com/mcp/?x=1"), "/mcp", REDIRECTED, id="an absolute redirect"
        ),
        pytest.param(
            Answering(301, location="/mcp"),
            "/mcp/",
            "The app redirects the resource's own path to '/mcp'",
            id="a redirect to a slash less",
        ),
        pytest.param(Answering(307, location="/mcp"), "/mcp", None, id="a redirect to itself"),
        pytest.param(Answering(307, location="/login"), "/mcp", None, id="a redirect elsewhere"),
        pytest.param(Answering(307, location="/x/"), "/x", None, id="a redirect of another path"),
        pytest.param(Answering(307, location="http://[/mcp/"), "/mcp", None, id="a redirect to no URL"),
        pytest.param(Answering(307), "/mcp", None, id="a redirect without a location"),
        pytest.param(Answering(404, b"Not Found"), "/mcp", NOT_SERVED, id="404"),
        pytest.param(Answering(404, b'{"detail":"Not Found"}'), "/mcp", NOT_SERVED, id="404 of FastAPI"),
        pytest.param(Answering(404, JSON_RPC), "/mcp", None, id="404 of an MCP server"),
        pytest.param(Answering(404, b"Not Found"), "/x", None, id="404 at another path"),
        pytest.param(Answering(405, b"Not Found"), "/mcp", None, id="405"),
        pytest.param(RecordingApp(), "/mcp", None, id="200"),
    ],
)
async def test_an_app_that_does_not_serve_the_resources_path_is_warned_about_once(
    app: Any, path: str, expected: str | None, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = protect(issuer, app)
    for _ in range(3):
        await call(guarded, path=path, headers=bearer(token(issuer)))
    assert [warning.startswith(expected or "-") for warning in warnings(caplog)] == ([] if expected is None else [True])


async def test_404_for_an_unknown_session_is_not_warned_about(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    guarded = protect(issuer, Answering(404, b"Session not found"))
    await call(guarded, headers=[*bearer(token(issuer)), ("mcp-session-id", "s")])
    assert warnings(caplog) == []


async def test_a_mounted_mcp_app_that_redirects_is_warned_about_and_the_line_fixes_it(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = protect(issuer, Starlette(routes=[Mount("/mcp", app=Starlette(routes=[Route("/", ok, methods=["POST"])]))]))
    assert (await call(wrong, headers=bearer(token(issuer)))).status == 307
    assert [warning.startswith(REDIRECTED) for warning in warnings(caplog)] == [True]
    caplog.clear()
    right = protect(issuer, Starlette(routes=[Mount("/", app=Starlette(routes=[Route("/mcp", ok, methods=["POST"])]))]))
    assert (await call(right, headers=bearer(token(issuer)))).status == 200
    assert warnings(caplog) == []


async def ok(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


# --- what can be protected ------------------------------------------------------------------------------------------


def test_every_quirk_has_a_version_and_a_source() -> None:
    for quirk in QUIRKS:
        assert re.search(r"\d", quirk.product), quirk
        assert quirk.source.startswith("https://"), quirk
