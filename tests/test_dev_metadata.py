"""Options, metadata, CORS and keys of the development authorization server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from dev import BASE, M2M, MCP, VERIFIER, Session, dev_server, error_of
from harness import Clock, call, websocket

from asgi_mcp_auth import fetch_server_config_async
from asgi_mcp_auth._oauth.token_exchange import EXCHANGE_GRANT
from asgi_mcp_auth.dev import DevServer, Exchange
from asgi_mcp_auth.dev._server import MAX_KEYS
from asgi_mcp_auth.errors import ConfigurationError

pytestmark = pytest.mark.anyio

OAUTH = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"

BLOCK: dict[str, Any] = {
    "issuer": "http://localhost:9000",
    "authorization_endpoint": "http://localhost:9000/authorize",
    "token_endpoint": "http://localhost:9000/token",
    "registration_endpoint": "http://localhost:9000/register",
    "jwks_uri": "http://localhost:9000/jwks",
    "revocation_endpoint": "http://localhost:9000/revoke",
    "introspection_endpoint": "http://localhost:9000/introspect",
    "scopes_supported": ["mcp:read", "files:write", "offline_access"],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", EXCHANGE_GRANT],
    "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
    "code_challenge_methods_supported": ["S256"],
    "dpop_signing_alg_values_supported": ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"],
    "tls_client_certificate_bound_access_tokens": True,
    "client_id_metadata_document_supported": True,
    "authorization_response_iss_parameter_supported": True,
}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"issuer": "http://auth.example.com"}, "issuer", id="AS-1 http beyond loopback"),
        pytest.param({"issuer": "https://auth.example.com"}, "issuer", id="AS-1 another machine"),
        pytest.param(
            {"issuer": "http://auth.example.com", "dangerously_allow_remote": True},
            "issuer",
            id="AS-1 http beyond loopback, in danger",
        ),
        pytest.param({"issuer": "localhost:9000"}, "issuer", id="AS-1 no URL"),
        pytest.param({"issuer": "http://localhost:9000?x=1"}, "issuer", id="AS-1 a query"),
        pytest.param({"issuer": "ftp://localhost"}, "issuer", id="AS-1 no http"),
        pytest.param({"issuer": None}, "issuer", id="AS-1 nothing"),
        pytest.param({"resources": ["http://mcp.example.com"]}, "resources[0]", id="an http resource elsewhere"),
        pytest.param({"resources": "http://localhost"}, "resources", id="a lone string"),
        pytest.param({"scopes": ["a b"]}, "scopes", id="a scope with a space"),
        pytest.param({"scopes": "mcp:read"}, "scopes", id="scopes as a string"),
        pytest.param({"default_scopes": ["other"]}, "default_scopes", id="a default that cannot be granted"),
        pytest.param({"users": []}, "users", id="no user"),
        pytest.param({"users": ["a\nb"]}, "users", id="a name of two lines"),
        pytest.param({"algorithms": ["HS256"]}, "algorithms", id="a shared secret"),
        pytest.param({"algorithms": []}, "algorithms", id="no key"),
        pytest.param({"dialect": "esperanto"}, "dialect", id="an unknown dialect"),
        pytest.param({"faults": ["gremlins"]}, "faults", id="an unknown fault"),
        pytest.param({"token_lifetime": 0}, "token_lifetime", id="tokens dead on arrival"),
        pytest.param({"refresh_lifetime": 1.5}, "refresh_lifetime", id="half a second"),
        pytest.param({"code_lifetime": 61}, "code_lifetime", id="AS-18 more than a minute"),
        pytest.param({"default_auth_method": "private_key_jwt"}, "default_auth_method", id="AS-41 no such method"),
        pytest.param({"clients": [{"client_secret": "x"}]}, "clients[0]", id="AS-50 without an id"),
        pytest.param({"clients": [{"client_id": "https://x.example/c"}]}, "clients[0]", id="AS-50 a URL"),
        pytest.param({"clients": [{"client_id": "c"}]}, "clients[0]", id="AS-50 without redirect URIs"),
        pytest.param(
            {"clients": [{"client_id": "c", "redirect_uris": ["http://localhost/"], "token_endpoint_auth_method": "client_secret_post"}]},
            "clients[0]",
            id="AS-50 without its secret",
        ),
        pytest.param({"clients": {}}, "clients", id="AS-50 no list"),
        pytest.param({"redirect_schemes": "cursor"}, "redirect_schemes", id="AS-12 schemes as a string"),
        pytest.param({"redirect_schemes": ["cursor://"]}, "redirect_schemes[0]", id="AS-12 not a scheme"),
        pytest.param({"redirect_schemes": ["zed", "javascript"]}, "redirect_schemes[1]", id="AS-12 javascript"),
        pytest.param({"state": 1}, "state", id="a state file that is a number"),
        pytest.param({"state": ""}, "state", id="a state file without a name"),
        pytest.param({"state": "a\0b"}, "state", id="a state file with a null character"),
    ],
)  # fmt: skip
async def test_a_bad_option_is_named(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        dev_server(**options)
    assert [problem.where for problem in refused.value.problems] == [where]
    assert all(problem.fix for problem in refused.value.problems)


async def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as refused:
        dev_server("http://auth.example.com", users=[], scopes=["a b"])
    assert {problem.where for problem in refused.value.problems} == {"issuer", "users", "scopes"}


@pytest.mark.parametrize(
    ("options", "scope", "status"),
    [
        pytest.param({}, {"client": ("127.0.0.1", 1)}, 200, id="AS-1 this machine"),
        pytest.param({}, {"client": ("::1", 1)}, 200, id="AS-1 this machine, IPv6"),
        pytest.param({}, {"client": None}, 200, id="AS-1 a socket in the file system"),
        pytest.param({}, {"client": ("testclient", 1)}, 200, id="AS-1 a test client"),
        pytest.param({}, {"client": ("192.0.2.1", 1)}, 403, id="AS-1 another machine"),
        pytest.param({}, {"host": "evil.example"}, 421, id="AS-1 a name rebound to this machine"),
        pytest.param({}, {"host": "localhost.evil.example:9000"}, 421, id="AS-1 a name that looks like it"),
        pytest.param({}, {"host": None}, 421, id="AS-1 no Host"),
        pytest.param({"dangerously_allow_remote": True}, {"client": ("192.0.2.1", 1)}, 200, id="AS-1 in danger"),
    ],
)
async def test_only_loopback_peers_and_host_names_are_served(
    options: dict[str, Any], scope: dict[str, Any], status: int
) -> None:
    more: dict[str, Any] = {"host": "localhost:9000"} | scope
    answer = await call(dev_server(**options), "GET", OAUTH, **more)
    assert answer.status == status


async def test_an_issuer_beyond_loopback_needs_an_option() -> None:
    server = dev_server("https://auth.example.com/t1", dangerously_allow_remote=True)
    assert server.metadata["token_endpoint"] == "https://auth.example.com/t1/token"


@pytest.mark.parametrize(
    ("issuer", "path", "content"),
    [
        pytest.param(BASE, OAUTH, BLOCK, id="AS-2 AS-3 AS-49 the root"),
        pytest.param(
            f"{BASE}/t1",
            f"{OAUTH}/t1",
            {
                name: value.replace("9000", "9000/t1") if isinstance(value, str) else value
                for name, value in BLOCK.items()
            },
            id="AS-2 AS-3 AS-49 a path",
        ),
    ],
)
async def test_the_metadata_has_exactly_these_members(issuer: str, path: str, content: dict[str, Any]) -> None:
    async with Session(dev_server(issuer)) as session:
        response = await session.get(f"{BASE}{path}")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == content


@pytest.mark.requirement("AS-2")
@pytest.mark.parametrize("path", ["", "/t1"])
async def test_an_issuer_with_a_slash_at_the_end(path: str) -> None:
    """As at Auth0, the slash is part of the issuer identifier but not of the endpoint URLs."""
    server = dev_server(f"{BASE}{path}/")
    config = await fetch_server_config_async(server.url, http_client=server.http_client)
    assert config.metadata is not None
    assert config.metadata.token_endpoint == f"{BASE}{path}/token"
    async with Session(server) as session:
        session.http.base_url = f"{BASE}{path}"
        client_id = (await session.register())["client_id"]
        assert (await session.authorize(client_id))["iss"] == f"{BASE}{path}/"


@pytest.mark.parametrize(
    ("issuer", "path"),
    [
        pytest.param(BASE, OIDC, id="AS-4 the root"),
        pytest.param(f"{BASE}/t1", f"{OIDC}/t1", id="AS-4 inserted"),
        pytest.param(f"{BASE}/t1", f"/t1{OIDC}", id="AS-4 appended"),
    ],
)
async def test_the_oidc_document(issuer: str, path: str) -> None:
    async with Session(dev_server(issuer)) as session:
        response = await session.get(f"{BASE}{path}")
        oauth = (await session.get(f"{BASE}{OAUTH}{'/t1' if issuer != BASE else ''}")).json()
    document = response.json()
    assert document["subject_types_supported"] == ["public"]
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]
    assert document["scopes_supported"] == ["openid", "mcp:read", "files:write", "offline_access"]
    assert {name: value for name, value in document.items() if name in oauth} == oauth | {
        "scopes_supported": document["scopes_supported"]
    }


@pytest.mark.requirement("AS-4")
async def test_without_oidc_its_paths_are_404() -> None:
    async with Session(dev_server(f"{BASE}/t1", oidc=False)) as session:
        for path in (f"{OIDC}/t1", f"/t1{OIDC}", OIDC):
            response = await session.get(f"{BASE}{path}")
            assert error_of(response) == (404, "not_found")
            assert response.headers["access-control-allow-origin"] == "*"
        assert (await session.get(f"{BASE}{OAUTH}/t1")).status_code == 200


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        pytest.param({"registration": False}, "registration_endpoint", id="AS-40 no registration"),
        pytest.param({"client_documents": False}, "client_id_metadata_document_supported", id="AS-49 no documents"),
        pytest.param({"scopes": []}, "scopes_supported", id="any scope"),
    ],
)
async def test_the_metadata_omits_what_is_switched_off(options: dict[str, Any], absent: str) -> None:
    assert absent not in dev_server(**options).metadata


@pytest.mark.requirement("AS-5")
@pytest.mark.parametrize("path", ["/token", "/register", "/revoke", "/jwks", OAUTH, OIDC])
async def test_any_origin_may_use_the_endpoints_for_programs(path: str) -> None:
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, mcp-protocol-version, content-type, dpop",
    }
    async with Session(dev_server()) as session:
        preflight = await session.http.options(path, headers=headers)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == "*"
        allowed = {name.strip().lower() for name in preflight.headers["access-control-allow-headers"].split(",")}
        assert allowed == {"mcp-protocol-version", "content-type", "authorization", "dpop"}
        assert "POST" in preflight.headers["access-control-allow-methods"]
        used = await (session.get if "well-known" in path or path == "/jwks" else session.post)(path, headers=headers)
        assert used.headers["access-control-allow-origin"] == "*"


@pytest.mark.requirement("AS-5")
@pytest.mark.parametrize("path", ["/authorize", "/consent", "/introspect", "/dev/faults", "/"])
async def test_no_other_origin_may_use_pages_and_controls(path: str) -> None:
    """None on /authorize."""
    async with Session(dev_server()) as session:
        for method in ("OPTIONS", "GET", "POST"):
            response = await session.http.request(method, path, headers={"origin": "https://app.example"})
            assert not [name for name in response.headers if name.startswith("access-control")]
            assert response.status_code != 204


@pytest.mark.requirement("AS-6")
@pytest.mark.parametrize("path", ["/authorize", "/token", "/register"])
async def test_default_endpoints_are_at_the_root_too(path: str) -> None:
    """Below a path, the endpoints are at the origin's root too."""
    async with Session(dev_server(f"{BASE}/t1")) as session:
        here = await session.http.request("POST" if path != "/authorize" else "GET", f"{BASE}{path}")
        there = await session.http.request("POST" if path != "/authorize" else "GET", f"{BASE}/t1{path}")
        elsewhere = await session.get(f"{BASE}/t2{path}")
    assert (here.status_code, here.text) == (there.status_code, there.text)
    assert here.status_code == 400
    assert elsewhere.status_code == 404


@pytest.mark.requirement("AS-7")
async def test_the_key_set_is_public_and_has_both_algorithms() -> None:
    """`/jwks` has no `d`."""
    async with Session(DevServer(BASE)) as session:
        response = await session.get("/jwks")
        keys = response.json()["keys"]
        assert response.headers["content-type"] == "application/json"
    assert {key["alg"] for key in keys} == {"RS256", "ES256"}
    assert all({"kid", "use", "alg"} <= set(key) and key["use"] == "sig" for key in keys)
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & {member for key in keys for member in key}


@pytest.mark.requirement("AS-7")
async def test_old_keys_stay_for_the_lifetime_of_tokens(clock: Clock) -> None:
    """Rotate → both kids listed."""
    server = dev_server(clock=clock, token_lifetime=100)
    (old,) = (key["kid"] for key in server.jwks()["keys"])
    new = server.rotate().kid
    assert [key["kid"] for key in server.jwks()["keys"]] == [new, old]
    clock.now += 99
    assert len(server.jwks()["keys"]) == 2
    clock.now += 2
    assert [key["kid"] for key in server.jwks()["keys"]] == [new]
    assert server.rotate(keep=False).kid == server.jwks()["keys"][0]["kid"]
    assert len(server.jwks()["keys"]) == 1


async def test_the_key_set_is_bounded() -> None:
    server = dev_server()
    for _ in range(MAX_KEYS + 3):
        server.rotate()
    assert len(server.jwks()["keys"]) == MAX_KEYS


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        pytest.param("GET", "/token", 405, "invalid_request", id="GET token"),
        pytest.param("PUT", "/register", 405, "invalid_request", id="PUT register"),
        pytest.param("POST", "/jwks", 405, "invalid_request", id="POST jwks"),
        pytest.param("DELETE", OAUTH, 405, "invalid_request", id="DELETE metadata"),
        pytest.param("GET", "/nothing", 404, "not_found", id="nothing there"),
    ],
)
async def test_wrong_methods_get_405_and_unknown_paths_404(method: str, path: str, status: int, error: str) -> None:
    async with Session(dev_server()) as session:
        response = await session.http.request(method, path)
        assert error_of(response) == (status, error)
        assert ("allow" in response.headers) is (status == 405)


async def test_a_head_is_a_get_without_a_body() -> None:
    async with Session(dev_server()) as session:
        response: httpx.Response = await session.http.head(OAUTH)
    assert (response.status_code, response.content) == (200, b"")


async def test_a_lifespan_is_completed() -> None:
    sent: list[Any] = []
    queue = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await dev_server()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("denial", [True, False])
async def test_a_websocket_is_refused(denial: bool) -> None:
    handshake = await websocket(dev_server(), "/token", denial=denial)
    assert not handshake.accepted
    assert (handshake.denial.status if handshake.denial else handshake.closed) == (404 if denial else 1008)


async def test_counted_paths_are_bounded() -> None:
    server = dev_server()
    for path in ("/" + "x" * 2000, *(f"/{number}" for number in range(1100))):
        await call(server, "GET", path, host="localhost:9000")
    assert len(server.requests) == 1000


async def test_exchanges_contain_no_secrets() -> None:
    """A log line has no code, token, secret, verifier or query."""
    exchanges: list[Exchange] = []
    async with Session(dev_server(on_exchange=exchanges.append, clients=[M2M])) as session:
        client = await session.register(token_endpoint_auth_method="client_secret_post")
        client_id, secret = client["client_id"], client["client_secret"]
        code = (await session.authorize(client_id, scope="mcp:read offline_access"))["code"]
        tokens = (await session.exchange(client_id, code, client_secret=secret)).json()
        access, refresh = tokens["access_token"], tokens["refresh_token"]
        for attempt in (
            session.exchange(client_id, code, client_secret=secret),
            session.exchange(client_id, code, client_secret=secret + "x"),
            session.refresh(client_id, refresh, client_secret=secret, scope="other"),
            session.refresh(access, refresh),
            session.post("/introspect", data={"token": access, "client_id": client_id, "client_secret": secret}),
            session.post("/revoke", data={"token": refresh, "client_id": client_id, "client_secret": secret}),
            session.post("/token", data={"grant_type": code, "client_id": client_id, "client_secret": secret}),
            session.get("/authorize", params={"client_id": access, "code": code}),
            session.get("/authorize", params=session.request(client_id, redirect_uri=f"http://localhost/{refresh}")),
            session.get("/authorize", params=session.request(client_id, scope=refresh, state=access)),
        ):
            await attempt
    assert [exchange.status for exchange in exchanges[:3]] == [201, 302, 200]
    assert exchanges[2].note == f"authorization_code client={client_id} scope=mcp:read"
    shown = repr(exchanges)
    assert not [name for name in (code, access, refresh, secret, VERIFIER) if name in shown]


@pytest.mark.requirement("AS-1")
async def test_the_home_page_shows_active_faults() -> None:
    async with Session(dev_server(faults=["no-iss"])) as session:
        page = await session.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "DEVELOPMENT ONLY" in page.text
    assert f"{BASE}/token" in page.text
    assert "no-iss" in page.text


async def test_the_server_is_an_issuer_with_faults_of_the_transport() -> None:
    """`testing.Issuer` provides keys, minting, faults of the transport and counts."""
    async with Session(dev_server()) as session:
        session.server.fail("/jwks", status=502, times=1)
        assert (await session.get("/jwks")).status_code == 502
        assert (await session.get("/jwks")).status_code == 200
        assert session.server.requests["/jwks"] == 2
        assert session.server.mint(MCP).count(".") == 2
