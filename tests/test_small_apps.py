"""asgi_mcp_auth/_asgi/small_apps.py: the metadata documents above a mount, and the readiness app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from harness import ISS, PRM_PATH, R, RecordingApp, call, websocket
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.auth import protection_of
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.fixture
def auth() -> MCPAuth:
    return MCPAuth(ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[ISS])))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", PRM_PATH, 200, id="RS-53 RS-50 the document"),
        pytest.param("GET", f"{PRM_PATH}/", 200, id="RS-51 with a slash"),
        pytest.param("GET", "/.well-known/oauth-protected-resource", 200, id="RS-52 at the root"),
        pytest.param("OPTIONS", PRM_PATH, 204, id="RS-62 preflight"),
        pytest.param("POST", PRM_PATH, 405, id="RS-61 another method"),
        pytest.param("GET", "/.well-known/openid-configuration", 404, id="RS-54 another well-known path"),
        pytest.param("GET", "/mcp", 404, id="RS-53 nothing else is here"),
    ],
)
async def test_the_metadata_app(auth: MCPAuth, method: str, path: str, status: int) -> None:
    answer = await call(auth.metadata_app(), method, path)
    assert answer.status == status
    if status == 200:
        assert answer.body == protection_of(auth).config.resources[0].document.response.body


async def test_the_metadata_app_refuses_websockets(auth: MCPAuth) -> None:
    shaken = await websocket(auth.metadata_app(), PRM_PATH)
    assert shaken.denial is not None
    assert (shaken.accepted, shaken.denial.status) == (False, 404)


async def test_the_metadata_app_completes_a_lifespan(auth: MCPAuth) -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await auth.metadata_app()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def mounted(auth: MCPAuth) -> list[BaseRoute]:
    return [Mount("/.well-known", app=auth.metadata_app())]


def routed(auth: MCPAuth) -> list[BaseRoute]:
    return auth.resource_metadata_router().routes


@pytest.mark.parametrize(
    "routes", [pytest.param(mounted, id="RS-53 the app, mounted"), pytest.param(routed, id="RS-53 the router's routes")]
)
async def test_above_a_protected_mount(auth: MCPAuth, routes: Callable[[MCPAuth], list[BaseRoute]]) -> None:
    app = RecordingApp()
    site = Starlette(routes=[*routes(auth), Mount("/mcp", app=auth.wrap(app))])
    assert (await call(site, "GET", PRM_PATH)).json()["resource"] == R
    answer = await call(site, "GET", "/mcp/tools")
    assert (answer.status, app.calls) == (401, 0)


# --- health paths ---------------------------------------------------------------------------------------------------

LOOPBACK = "http://localhost:8000/mcp"
PROBE = "http://10.0.0.7:8000"
"""How a kubelet calls: by the address of the pod."""


def health(auth: MCPAuth) -> list[BaseRoute]:
    return [
        Route("/readyz", endpoint=auth.readiness_app()),
        Route("/healthz", endpoint=RecordingApp()),
        Route("/mcp", endpoint=RecordingApp()),
    ]


def in_starlette(auth: MCPAuth) -> Any:
    return auth.wrap(Starlette(routes=health(auth)))


def in_fastapi(auth: MCPAuth) -> Any:
    return auth.wrap(FastAPI(routes=health(auth)))


def added_to_fastapi(auth: MCPAuth) -> Any:
    app = FastAPI()
    app.router.routes.extend(health(auth))
    return auth.wrap(app)


def outside_of_the_protected_app(auth: MCPAuth) -> Any:
    return Starlette(routes=[*health(auth)[:2], Mount("/", app=auth.wrap(RecordingApp()))])


@pytest.mark.parametrize("build", [in_starlette, in_fastapi, added_to_fastapi, outside_of_the_protected_app])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/readyz", 200, id="RS-223 the readiness app"),
        pytest.param("/healthz", 200, id="RS-223 a health path of the app"),
        pytest.param("/mcp", 421, id="RS-223 the resource"),
    ],
)
async def test_health_checks_call_by_address(
    build: Callable[[MCPAuth], Any], path: str, expected: int, issuer: Issuer
) -> None:
    """Redirects are followed, as health checks do; the recipe for the readiness app leads to none."""
    metadata = ResourceServerMetadata(resource=LOOPBACK, authorization_servers=[issuer.url])
    auth = MCPAuth(
        ResourceServerConfig(metadata=metadata), http_client=issuer.http_client, public_paths=["/readyz", "/healthz"]
    )
    assert await auth.warm_up() == ()
    transport = httpx.ASGITransport(build(auth))
    async with httpx.AsyncClient(transport=transport, base_url=PROBE, follow_redirects=True) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.history) == (expected, [])
    if path == "/readyz":
        assert answer.json() == {"ready": True}


@pytest.mark.requirement("RS-223")
async def test_the_readiness_app_answers_any_host(auth: MCPAuth) -> None:
    """Also without the middleware around it."""
    for host in ("10.0.0.7:8080", "evil.example", None):
        assert (await call(auth.readiness_app(), "GET", "/readyz", host=host)).status == 503


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/healthz", 200, id="RS-223 exact"),
        pytest.param("/static/a", 200, id="RS-223 below"),
        pytest.param("/mcp", 421, id="RS-223 the resource"),
        pytest.param(PRM_PATH, 421, id="RS-223 its document"),
        pytest.param("/.well-known/x", 421, id="RS-223 another well-known path"),
        pytest.param("/healthz/", 421, id="RS-223 not quite public"),
    ],
)
async def test_the_host_of_public_paths_is_not_checked(path: str, status: int) -> None:
    metadata = ResourceServerMetadata(resource=LOOPBACK, authorization_servers=[ISS])
    config = ResourceServerConfig(metadata=metadata)
    app = MCPAuth(config, public_paths=["/healthz", "/static/*"]).wrap(RecordingApp())
    assert (await call(app, "GET", path, host="10.0.0.7:8000")).status == status
