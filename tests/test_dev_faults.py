"""Fault switches: their effect on the wire, on discovery and on the middleware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import BASE, MCP, Session, answer_of, claims_of, dev_server, header_of
from harness import Clock, RecordingApp, bearer, call

from asgi_mcp_auth import (
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    MCPAuthMiddleware,
    fetch_server_config_async,
    validate_server_config,
)
from asgi_mcp_auth.dev import DevServer, Switch
from asgi_mcp_auth.doctor import examine
from asgi_mcp_auth.errors import ConfigurationError, DiscoveryError, InvalidServerMetadata

pytestmark = pytest.mark.anyio

OAUTH = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"


async def discovered(server: DevServer, kind: AuthServerType | None = None) -> AuthorizationServerMetadata:
    """Return the metadata that discovery finds."""
    config = await fetch_server_config_async(server.url, kind, http_client=server.http_client)
    assert config.metadata is not None
    return config.metadata


def protect(server: DevServer) -> MCPAuthMiddleware:
    return MCPAuthMiddleware(
        RecordingApp(),
        resource=MCP,
        authorization_servers=[server.url],
        http_client=server.http_client,
        clock=server.clock,
    )


async def status(app: MCPAuthMiddleware, token: str) -> int:
    return (await call(app, headers=bearer(token), host="localhost:8000")).status


@pytest.mark.parametrize(
    ("faults", "iss"),
    [
        pytest.param([], BASE, id="AS-63 none"),
        pytest.param([Switch.WRONG_ISS], "https://not-this-issuer.example", id="AS-63 wrong iss"),
        pytest.param([Switch.NO_ISS], None, id="AS-63 absent iss"),
        pytest.param([Switch.TRAILING_SLASH], f"{BASE}/", id="AS-63 trailing slash"),
    ],
)
async def test_faults_change_the_iss_of_responses(faults: list[str], iss: str | None) -> None:
    async with Session(dev_server(faults=faults)) as session:
        client_id = (await session.register())["client_id"]
        assert (await session.authorize(client_id)).get("iss") == iss
        refused = answer_of(await session.get("/authorize", params=session.request(client_id, scope="x")))
        assert refused.get("iss") == iss


@pytest.mark.requirement("AS-63")
async def test_another_issuer_in_the_metadata_is_refused() -> None:
    server = dev_server(faults=[Switch.ISSUER_MISMATCH])
    with pytest.raises((InvalidServerMetadata, DiscoveryError), match="not-this-issuer"):
        await discovered(server)
    server.switch_off(Switch.ISSUER_MISMATCH)
    assert (await discovered(server)).issuer == BASE


@pytest.mark.requirement("AS-63")
async def test_a_trailing_slash_makes_another_issuer() -> None:
    server = dev_server(faults=[Switch.TRAILING_SLASH])
    with pytest.raises((InvalidServerMetadata, DiscoveryError)):
        await discovered(server)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["access_token"]
    assert claims_of(token)["iss"] == f"{BASE}/"
    slashed = MCPAuthMiddleware(
        RecordingApp(), resource=MCP, authorization_servers=[f"{BASE}/"], http_client=server.http_client
    )
    assert await status(slashed, token) == 200
    assert await status(protect(dev_server()), token) == 401


@pytest.mark.requirement("AS-63")
async def test_metadata_without_pkce_is_invalid() -> None:
    metadata = await discovered(dev_server(faults=[Switch.NO_PKCE]))
    result = validate_server_config(AuthServerConfig(metadata=metadata))
    assert [error.code for error in result.errors] == ["pkce_not_supported"]
    fit = validate_server_config(AuthServerConfig(metadata=await discovered(dev_server())))
    assert (fit.is_valid, fit.warnings) == (True, [])


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        pytest.param(Switch.NO_SCOPE, {"scope": ...}, id="AS-63 no scope"),
        pytest.param(Switch.STRING_EXPIRES_IN, {"expires_in": "600"}, id="AS-63 string expires_in"),
    ],
)
async def test_faults_change_token_responses(fault: Switch, changed: dict[str, Any]) -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        good = await session.login(client_id)
        session.server.switch_on(fault)
        bad = await session.login(client_id)
    fresh = {"access_token", "refresh_token"}
    expected = {name: value for name, value in (good | changed).items() if name not in fresh and value is not ...}
    assert {name: value for name, value in bad.items() if name not in fresh} == expected


@pytest.mark.requirement("AS-63")
async def test_a_key_set_can_answer_503(clock: Clock) -> None:
    server = dev_server(faults=[Switch.JWKS_ERROR], clock=clock)
    app, token = protect(server), server.mint(MCP)
    assert await status(app, token) == 503
    server.switch_off()
    clock.now += 60
    assert await status(app, token) == 200


@pytest.mark.requirement("AS-63")
async def test_a_key_set_can_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth.dev._routes.JWKS_SECONDS", 0.5)
    monkeypatch.setattr("asgi_mcp_auth._keys.http.TOTAL_SECONDS", 0.1)
    server = dev_server(faults=[Switch.JWKS_SLOW])
    assert await status(protect(server), server.mint(MCP)) == 503
    monkeypatch.setattr("asgi_mcp_auth._keys.http.TOTAL_SECONDS", 10.0)
    assert await status(protect(server), server.mint(MCP)) == 200


@pytest.mark.requirement("AS-63")
async def test_tokens_can_be_signed_with_an_unpublished_key(clock: Clock) -> None:
    server = dev_server(faults=[Switch.UNKNOWN_KID], clock=clock)
    app = protect(server)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["access_token"]
    assert header_of(token)["kid"] not in {key["kid"] for key in server.jwks()["keys"]}
    clock.now += 1
    assert await status(app, token) == 401
    assert server.requests["/jwks"] == 1


@pytest.mark.requirement("AS-63")
async def test_every_token_can_have_a_new_key(clock: Clock) -> None:
    server = dev_server(faults=[Switch.ROTATE], clock=clock)
    app = protect(server)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        tokens = [(await session.login(client_id))["access_token"] for _ in range(2)]
    kids = [header_of(token)["kid"] for token in tokens]
    assert kids[0] != kids[1]
    assert set(kids) < {key["kid"] for key in server.jwks()["keys"]}
    assert [await status(app, token) for token in tokens] == [200, 200]


@pytest.mark.parametrize(
    ("fault", "place", "asked_for"),
    [
        pytest.param(Switch.ONLY_OAUTH, f"{OAUTH}/t1", 1, id="AS-63 only RFC 8414"),
        pytest.param(Switch.ONLY_OIDC_INSERTED, f"{OIDC}/t1", 2, id="AS-63 only OpenID Connect, inserted"),
        pytest.param(Switch.ONLY_OIDC_APPENDED, f"/t1{OIDC}", 3, id="AS-63 only OpenID Connect, appended"),
    ],
)
async def test_metadata_can_be_at_one_path_only(fault: Switch, place: str, asked_for: int) -> None:
    server = dev_server(f"{BASE}/t1", faults=[fault], oidc=False)
    assert (await discovered(server)).issuer == f"{BASE}/t1"
    assert len(server.requests) == asked_for
    assert list(server.requests)[-1] == place
    if fault is not Switch.ONLY_OAUTH:
        with pytest.raises(DiscoveryError):
            await discovered(server, AuthServerType.OAUTH)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        pytest.param(None, None, id="AS-63 none"),
        pytest.param(Switch.ISSUER_MISMATCH, "issuer_mismatch", id="AS-63 another issuer"),
        pytest.param(Switch.TRAILING_SLASH, "issuer_trailing_slash", id="AS-63 a slash"),
        pytest.param(Switch.NO_PKCE, "pkce_not_supported", id="AS-63 no PKCE"),
        pytest.param(Switch.JWKS_ERROR, "error_status", id="AS-63 no keys"),
        pytest.param(Switch.ONLY_OIDC_APPENDED, None, id="AS-63 only OpenID Connect, appended"),
    ],
)
@pytest.mark.parametrize("path", ["", "/t1"])
async def test_doctor_finds_the_faults(fault: Switch | None, code: str | None, path: str) -> None:
    server = dev_server(f"{BASE}{path}", faults=[] if fault is None else [fault])
    (report,) = await examine([server.url], "issuer", http_client=server.http_client)
    wrong = [str(finding.code.name) for finding in report.findings if finding.severity not in ("ok", "info")]
    assert wrong == ([] if code is None else [code])


async def test_faults_are_switched_by_name() -> None:
    server = dev_server(faults=["no-iss"])
    server.switch_on("no-pkce", "no-scope")
    server.switch_off("no-iss")
    assert server.faults == {Switch.NO_PKCE, Switch.NO_SCOPE}
    with pytest.raises(ConfigurationError, match="gremlins"):
        server.switch_on("gremlins")
    with pytest.raises(ConfigurationError, match="gremlins"):
        server.switch_off("gremlins")
    server.switch_off()
    assert server.faults == frozenset()


def test_every_switch_has_a_description_and_a_test() -> None:
    own = Path(__file__)
    others = ("test_dev_dpop.py", "test_dev_exchange.py", "test_dev_certificates.py")
    source = "".join(own.with_name(name).read_text("utf-8") for name in (own.name, *others))
    for switch in Switch:
        assert switch.meaning
        assert f"Switch.{switch.name}" in source


async def test_faults_of_the_transport_are_available() -> None:
    server = dev_server()
    server.cut("/token", times=1)
    async with Session(server) as session:
        with pytest.raises(httpx.ConnectError):
            await session.post("/token")
        assert (await session.post("/token")).status_code == 400
