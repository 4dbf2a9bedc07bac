"""Introspection against real authorization servers as processes: npm oidc-provider, and the development server."""

from __future__ import annotations

import socket
import sys
from collections.abc import Generator
from typing import Any

import anyio
import httpx
import pytest
from harness import R, RecordingApp, bearer, call
from processes import AuthorizationServer, authorization_server, free_port, require_authorization_server, running

from asgi_mcp_auth import AuthServerConfig, Choose, Introspection, MCPAuthMiddleware

pytestmark = pytest.mark.anyio

PATH = "/token/introspection"


@pytest.fixture(scope="module")
def server() -> Generator[AuthorizationServer]:
    require_authorization_server()
    with authorization_server(opaque=True) as running_server:
        yield running_server


def guard(issuer: str, **changes: Any) -> MCPAuthMiddleware:
    settings: dict[str, Any] = {"client_id": "rs", "client_secret": "rs-secret"}
    return MCPAuthMiddleware(
        RecordingApp(),
        resource=R,
        authorization_servers=[AuthServerConfig(issuer=issuer, subject_claims=["sub", "client_id"])],
        required_scopes=["mcp:read"],
        verifier=Choose(opaque=Introspection(**(settings | changes))),
    )


async def status(guarded: Any, raw: str) -> int:
    return (await call(guarded, headers=bearer(raw))).status


@pytest.mark.requirement("RS-160", "IN-5", "IN-7")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"signed": True}, id="signed"),
    ],
)
async def test_opaque_tokens_of_oidc_provider(
    server: AuthorizationServer, changes: dict[str, Any], blocking_calls: None
) -> None:
    guarded = guard(server.issuer, **changes)
    raw: str = server.authorization_code(resource=R)["access_token"]
    assert "." not in raw
    server.reset_stats()
    statuses: list[int] = []

    async def one() -> None:
        statuses.append(await status(guarded, raw))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(one)
    assert statuses == [200] * 100
    assert server.stats()[PATH] == 1
    assert await status(guarded, server.client_credentials(resource=R)) == 200
    assert await status(guarded, server.client_credentials(resource=R, scope="mcp:write")) == 403
    assert await status(guarded, server.client_credentials(resource="https://other.example/mcp")) == 401
    assert await status(guarded, "unknown") == 401


@pytest.mark.requirement("IN-4")
async def test_oidc_provider_refuses_wrong_credentials(
    server: AuthorizationServer, blocking_calls: None, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = guard(server.issuer, client_secret="wrong")
    assert await status(guarded, server.client_credentials(resource=R)) == 503
    assert "refused the credentials" in caplog.text


@pytest.mark.requirement("IN-4")
async def test_a_slow_oidc_provider_is_a_503(server: AuthorizationServer, blocking_calls: None) -> None:
    guarded = guard(server.issuer, timeout=0.2)
    raw = server.client_credentials(resource=R)
    server.fault(PATH, delay_ms=1000)
    try:
        assert await status(guarded, raw) == 503
    finally:
        server.clear_faults()


@pytest.mark.requirement("IN-9")
@pytest.mark.parametrize("changes", [pytest.param({}, id="plain"), pytest.param({"signed": True}, id="signed")])
async def test_a_revoked_token_of_the_development_server(changes: dict[str, Any], blocking_calls: None) -> None:
    """Its tokens are JWTs: `always=True` asks about them after the local verification."""
    pytest.importorskip("uvicorn")
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    code = (
        "import uvicorn; from asgi_mcp_auth.dev import DevServer; "
        f"uvicorn.run(DevServer({issuer!r}, resources=[{R!r}], scopes=['mcp:read'], clients=["
        "{'client_id': 'rs', 'client_secret': 'rs-secret', 'grant_types': ['client_credentials']}, "
        "{'client_id': 'm2m', 'client_secret': 'm2m-secret', 'grant_types': ['client_credentials']}]), "
        f"port={port}, log_level='warning')"
    )

    with running([sys.executable, "-c", code], ready_port=port):
        async with httpx.AsyncClient(trust_env=False, base_url=issuer, auth=("m2m", "m2m-secret")) as client:
            form = {"grant_type": "client_credentials", "resource": R, "scope": "mcp:read"}
            raw: str = (await client.post("/token", data=form)).json()["access_token"]
            guarded = guard(issuer, always=True, ttl=0, inactive_ttl=0, **changes)
            assert await status(guarded, raw) == 200
            assert (await client.post("/revoke", data={"token": raw})).status_code == 200
            assert await status(guarded, raw) == 401
    with socket.socket() as sock:  # the server is gone
        assert sock.connect_ex(("127.0.0.1", port))
    assert await status(guarded, raw) == 503
