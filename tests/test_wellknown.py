"""asgi_mcp_auth/_asgi/small_apps.py: the metadata documents apart from the protected app, above a mount (RS-53)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import ISS, PRM_PATH, R, RecordingApp, call, websocket
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata

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
        assert answer.body == auth._protection.config.resources[0].document.response.body


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
