"""Token exchange with oidc-provider, whose grant for it the test registers, over real HTTP."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anyio
import pytest
from harness import R, RecordingApp, bearer, call
from processes import AuthorizationServer, authorization_server, require_authorization_server

from asgi_mcp_auth import ExchangeError, MCPAuthMiddleware, TokenExchange

pytestmark = [pytest.mark.anyio, pytest.mark.full]

API = "https://api.example.com/orders"


@pytest.fixture(scope="module")
def server() -> Generator[AuthorizationServer]:
    require_authorization_server()
    with authorization_server(alg="ES256") as running_server:
        yield running_server


def guard(server: AuthorizationServer, app: Any, resource: str = R, **options: Any) -> MCPAuthMiddleware:
    return MCPAuthMiddleware(
        app, resource=resource, authorization_servers=[server.issuer], required_scopes=["mcp:read"], **options
    )


async def exchange(server: AuthorizationServer, raw: str, **settings: Any) -> list[Any]:
    """Return what fifty parallel exchanges in one request return: the token or the reason of the error."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def one() -> None:
            try:
                found.append((await guarded.auth.exchange(audience=API, scopes=["mcp:read"])).access_token)
            except ExchangeError as error:
                found.append(error.reason.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one)
        await RecordingApp()(scope, receive, send)

    given: dict[str, Any] = {"client_id": "mcp-server", "client_secret": "mcp-secret"}
    guarded = guard(server, app, token_exchange=[TokenExchange(**(given | settings))])
    assert (await call(guarded, headers=bearer(raw))).status == 200
    assert len(found) == 50
    return found


@pytest.mark.requirement("TX-1", "TX-2", "TX-6")
async def test_oidc_provider_exchanges_a_callers_token(server: AuthorizationServer, blocking_calls: None) -> None:
    raw: str = server.authorization_code(resource=R)["access_token"]
    server.reset_stats()
    found = set(await exchange(server, raw))
    assert len(found) == 1
    assert server.stats()["/token"] == 1
    app = RecordingApp()
    api = guard(server, app, API)
    assert (await call(api, path="/orders", headers=bearer(found.pop()), host="api.example.com")).status == 200
    claims = app.scopes[0]["state"]["claims"]
    assert (claims["sub"], claims["aud"], claims["act"]) == ("alice", API, {"sub": "mcp-server"})
    assert (await call(api, path="/orders", headers=bearer(raw), host="api.example.com")).status == 401


@pytest.mark.requirement("TX-7")
async def test_oidc_provider_refuses_wrong_credentials(server: AuthorizationServer, blocking_calls: None) -> None:
    raw: str = server.authorization_code(resource=R)["access_token"]
    assert set(await exchange(server, raw, client_secret="wrong")) == {"unavailable"}
