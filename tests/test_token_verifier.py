"""`MCPAuth.token_verifier` in servers that do their own authorization: the MCP SDK and fastmcp."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from harness import ISS, Clock, R, bearer, call, token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asgi_mcp_auth import ConfigurationError, Decision, MCPAuth
from asgi_mcp_auth.errors import Unavailable
from asgi_mcp_auth.testing import Issuer


def configured(issuer: Issuer, **options: Any) -> MCPAuth:
    settings = {"resource": R, "authorization_servers": [ISS], "required_scopes": ["mcp:read"]}
    options = {"http_client": issuer.http_client, "clock": issuer.clock} | options
    return MCPAuth.from_mapping(settings, **options)


async def test_a_valid_token_gives_an_access_token_and_an_invalid_token_none(
    issuer: Issuer, anyio_backend: str
) -> None:
    verifier = configured(issuer).token_verifier()
    assert (verifier.required_scopes, verifier.scopes_supported) == (["mcp:read"], ["mcp:read"])
    found = await verifier.verify_token(token(issuer))
    assert (found.subject, found.client_id, found.scopes, found.resource) == ("alice", "c1", ["mcp:read"], R)
    assert found.claims["iss"] == ISS
    for bad in ("", "a b", "x", "é", token(issuer, exp=0), token(issuer, aud="https://other.example.com")):
        assert await verifier.verify_token(bad) is None


async def test_a_token_that_cannot_be_verified_raises_unavailable(issuer: Issuer, anyio_backend: str) -> None:
    def broken() -> Any:
        raise OSError

    with pytest.raises(Unavailable) as raised:
        await configured(issuer, http_client=broken).token_verifier().verify_token(token(issuer))
    assert token(issuer) not in repr(raised.value)


@pytest.mark.requirement("AU-1")
async def test_every_token_is_a_decision(issuer: Issuer, anyio_backend: str) -> None:
    seen: list[Decision] = []
    lines: list[str] = []
    audit: dict[str, Any] = {"audit": "best_effort", "audit_sink": lines.append, "audit_operations": ["*"]}
    verifier = configured(issuer, on_decision=[seen.append], **audit).token_verifier()
    good = token(issuer, jti="j1")
    for text in (good, good, token(issuer, exp=0)):
        await verifier.verify_token(text)
    assert [(one.outcome, one.reason, one.cache_hit) for one in seen] == [
        ("allowed", None, False),
        ("allowed", None, True),
        ("refused", "token_expired", None),
    ]
    for decision in seen:
        assert (decision.resource, decision.path, decision.credential, decision.alg) == (R, "/mcp", "bearer", "RS256")
        assert (decision.issuer, decision.scopes_needed) == (ISS, ("mcp:read",))
        assert decision.kid == issuer.keys[0].kid
        assert (decision.verify_seconds or 0) > 0
    assert (seen[0].client_id, seen[0].scopes_granted) == ("c1", ("mcp:read",))
    assert seen[0].jti_hash == sha256(b"j1").hexdigest()
    assert [json.loads(line)["outcome"] for line in lines] == ["allowed", "allowed", "refused"]


@pytest.mark.requirement("AU-5")
async def test_a_token_that_a_required_audit_log_cannot_record_is_not_accepted(
    issuer: Issuer, anyio_backend: str
) -> None:
    def full(line: str) -> None:
        raise OSError

    audit: dict[str, Any] = {"audit": "required", "audit_sink": full, "audit_operations": ["*"]}
    with pytest.raises(Unavailable):
        await configured(issuer, **audit).token_verifier().verify_token(token(issuer))


def test_a_resource_is_compared_exactly(issuer: Issuer) -> None:
    assert configured(issuer).token_verifier(R).required_scopes == ["mcp:read"]
    with pytest.raises(ConfigurationError, match="is not a configured resource"):
        configured(issuer).token_verifier(R + "/")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_fastmcp_uses_the_token_verifier(issuer: Issuer, anyio_backend: str) -> None:
    from fastmcp import FastMCP
    from fastmcp.server.auth import RemoteAuthProvider
    from fastmcp.server.http import StarletteWithLifespan

    verifier: Any = configured(issuer).token_verifier()
    base = R.removesuffix("/mcp")
    provider = RemoteAuthProvider(verifier, authorization_servers=[AnyHttpUrl(ISS)], base_url=base)
    app: StarletteWithLifespan = FastMCP("x", auth=provider).http_app(path="/mcp", host_origin_protection=False)
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    async with app.router.lifespan_context(app):
        statuses = [
            (await call(app, headers=headers, body=ping)).status
            for headers in ((), bearer("x"), bearer(token(issuer, scope="x")))
        ]
        assert statuses == [401, 401, 403]
        passed = await call(app, headers=[*bearer(token(issuer)), ("content-type", "text/plain")], body=ping)
        assert passed.status not in (401, 403, 500)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_sdk_uses_the_token_verifier(issuer: Issuer, clock: Clock, anyio_backend: str) -> None:
    def broken() -> Any:
        raise OSError

    for client, expected in ((issuer.http_client, [401, 401, 200]), (broken, [401, 401, 400])):
        settings = AuthSettings(
            issuer_url=AnyHttpUrl(ISS),
            resource_server_url=AnyHttpUrl(R),
            required_scopes=["mcp:read"],
            validate_token_resource=True,
        )
        verifier: Any = configured(issuer, http_client=client).token_verifier()
        server = MCPServer("x", token_verifier=verifier, auth=settings)

        async def whoami(request: Request) -> Response:
            return JSONResponse({"sub": request.user.access_token.subject})

        server.custom_route("/whoami", methods=["GET"])(whoami)
        app = server.streamable_http_app()
        raw = issuer.mint(R, scope="mcp:read", exp=int(clock()) + 10**9)  # the SDK's own clock is the real one
        unauthenticated = [(await call(app, headers=headers)).status for headers in ((), bearer("x"))]
        assert [*unauthenticated, (await call(app, "GET", "/whoami", bearer(raw))).status] == expected
