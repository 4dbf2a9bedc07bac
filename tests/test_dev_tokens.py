"""Resources, scopes and the token endpoint of the development authorization server."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
from dev import (
    BASE,
    CALLBACK,
    CHALLENGE,
    MCP,
    VERIFIER,
    Session,
    answer_of,
    claims_of,
    dev_server,
    error_of,
    header_of,
)
from harness import Clock, RecordingApp, bearer, call

from asgi_mcp_auth import AuthServerConfig, MCPAuthMiddleware
from asgi_mcp_auth.dev._tokens import verify_code_challenge

pytestmark = pytest.mark.anyio

OTHER = "http://localhost:8001/mcp"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def basic(user: str, password: str, *, raw: bool = False) -> dict[str, str]:
    """A Basic credential: each half form-encoded as RFC 6749 wants it, or raw as the TypeScript SDK sends it."""
    halves = (user, password) if raw else (quote(user, safe=""), quote(password, safe=""))
    return {"authorization": "Basic " + base64.b64encode(":".join(halves).encode()).decode()}


# --- resources (RFC 8707) ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-36")
@pytest.mark.parametrize(
    ("configured", "asked_for", "aud"),
    [
        pytest.param(["http://localhost:8000"], "http://localhost:8000/", "http://localhost:8000", id="AS-21 a slash more"),
        pytest.param(["http://localhost:8000/"], "http://localhost:8000", "http://localhost:8000/", id="AS-21 a slash less"),
        pytest.param(["https://mcp.example.com/mcp"], "HTTPS://MCP.example.com:443/mcp", "https://mcp.example.com/mcp", id="AS-21 case and port"),
        pytest.param([MCP], ..., MCP, id="AS-22 the only one"),
        pytest.param([MCP, OTHER], OTHER, OTHER, id="AS-20 one of two"),
        pytest.param([MCP, OTHER], [OTHER, MCP], [OTHER, MCP], id="AS-20 both"),
        pytest.param([MCP, OTHER], [MCP, MCP.upper().replace("/MCP", "/mcp")], MCP, id="AS-21 one in two spellings"),
        pytest.param([], "http://127.0.0.1:1/x", "http://127.0.0.1:1/x", id="any on this machine"),
    ],
)  # fmt: skip
async def test_the_audience_is_the_configured_identifier(configured: list[str], asked_for: Any, aud: Any) -> None:
    async with Session(dev_server(resources=configured)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id, resource=asked_for)
        refreshed = (await session.refresh(client_id, tokens["refresh_token"])).json()
    assert claims_of(tokens["access_token"])["aud"] == aud
    assert claims_of(refreshed["access_token"])["aud"] == aud


@pytest.mark.parametrize(
    ("configured", "asked_for"),
    [
        pytest.param([MCP], "https://other", id="AS-20 unknown"),
        pytest.param([MCP], f"{MCP}/", id="AS-21 a slash on a path"),
        pytest.param([MCP], f"{MCP}?a=1", id="AS-21 a query"),
        pytest.param([MCP], "http://localhost:8000", id="AS-21 a parent"),
        pytest.param([MCP, OTHER], ..., id="AS-22 none of two"),
        pytest.param([], ..., id="AS-22 none of any"),
        pytest.param([], "https://mcp.example.com/mcp", id="AS-20 any on this machine, and no other"),
        pytest.param([], "ftp://localhost/x", id="AS-20 no http"),
        pytest.param([], [f"http://localhost/{n}" for n in range(17)], id="AS-20 too many"),
    ],
)
async def test_other_resources_are_refused(configured: list[str], asked_for: Any) -> None:
    async with Session(dev_server(resources=configured)) as session:
        client_id = (await session.register())["client_id"]
        assert (await session.authorize(client_id, resource=asked_for))["error"] == "invalid_target"
        response = await session.token("client_credentials", **M2M_AUTH, resource=asked_for)
        assert error_of(response) == (400, "invalid_target")


M2M_AUTH: dict[str, Any] = {"auth": ("m2m", "m2m-secret")}


@pytest.mark.requirement("AS-22")
async def test_a_token_request_narrows_and_never_widens() -> None:
    """Authorised A, token asks B → 400 invalid_target."""
    async with Session(dev_server(resources=[MCP, OTHER])) as session:
        client_id = (await session.register())["client_id"]
        code = (await session.authorize(client_id, resource=MCP))["code"]
        assert error_of(await session.exchange(client_id, code, resource=OTHER)) == (400, "invalid_target")
        assert error_of(await session.exchange(client_id, code, resource=[MCP, OTHER])) == (400, "invalid_target")
        assert claims_of((await session.exchange(client_id, code, resource=...)).json()["access_token"])["aud"] == MCP
        code = (await session.authorize(client_id, resource=[MCP, OTHER]))["code"]
        narrowed = (await session.exchange(client_id, code, resource=OTHER)).json()
        assert claims_of(narrowed["access_token"])["aud"] == OTHER
        both = (await session.refresh(client_id, narrowed["refresh_token"])).json()
        assert claims_of(both["access_token"])["aud"] == [MCP, OTHER], "the grant is for both"
        response = await session.refresh(client_id, both["refresh_token"], resource="https://other")
        assert error_of(response) == (400, "invalid_target")


# --- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-23")
@pytest.mark.parametrize(
    ("options", "asked_for", "granted"),
    [
        pytest.param({}, "mcp:read unknown", "mcp:read", id="AS-23 what is known of it"),
        pytest.param({}, "files:write  mcp:read files:write", "files:write mcp:read", id="AS-23 each once"),
        pytest.param({}, ..., "mcp:read", id="AS-23 the first by default"),
        pytest.param({"default_scopes": ["files:write"]}, ..., "files:write", id="AS-23 the default"),
        pytest.param({}, "mcp:read offline_access", "mcp:read", id="AS-24 offline_access is of no resource"),
        pytest.param({}, "openid mcp:read", "mcp:read", id="AS-24 nor openid"),
        pytest.param({}, "offline_access", "mcp:read", id="AS-24 alone"),
        pytest.param({"scopes": ["a", "offline_access"]}, "a offline_access", "a offline_access", id="AS-24 configured"),
        pytest.param({"scopes": []}, "what ever", "what ever", id="any scope"),
        pytest.param({"scopes": []}, ..., "", id="any scope, none asked for"),
    ],
)  # fmt: skip
async def test_granted_scopes(options: dict[str, Any], asked_for: Any, granted: str) -> None:
    async with Session(dev_server(**options)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id, scope=asked_for)
    assert tokens["scope"] == granted, "always returned"
    assert claims_of(tokens["access_token"]).get("scope", "") == granted


async def test_an_id_token_is_no_access_token(clock: Clock) -> None:
    server = dev_server(clock=clock)
    protected = protect(server)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id, scope="openid mcp:read", nonce="n")
        claims = claims_of(tokens["id_token"])
        assert (claims["aud"], claims["nonce"], claims["sub"]) == (client_id, "n", "alice")
        assert (
            await call(protected, path="/mcp", headers=bearer(tokens["access_token"]), host="localhost:8000")
        ).status == 200
        assert (
            await call(protected, path="/mcp", headers=bearer(tokens["id_token"]), host="localhost:8000")
        ).status == 401


def protect(server: Any, **config: Any) -> MCPAuthMiddleware:
    """An app that trusts the server, in process."""
    return MCPAuthMiddleware(
        RecordingApp(),
        resource=MCP,
        authorization_servers=[AuthServerConfig(issuer=server.url, **config)],
        required_scopes=["mcp:read"],
        http_client=server.http_client,
        clock=server.clock,
    )


# --- the endpoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "headers", "error"),
    [
        pytest.param('{"grant_type":"authorization_code"}', {"content-type": "application/json"}, "invalid_request", id="AS-30 JSON"),
        pytest.param("grant_type=x", {"content-type": "text/plain"}, "invalid_request", id="AS-30 text"),
        pytest.param("grant_type=x", {}, "invalid_request", id="AS-30 no type"),
        pytest.param("grant_type=a&grant_type=b&client_id=m2m", FORM, "invalid_request", id="AS-30 grant_type twice"),
        pytest.param("client_id=a&client_id=b", FORM, "invalid_request", id="AS-30 client_id twice"),
        pytest.param("grant_type=x&a=\xff".encode("latin-1"), FORM, "invalid_request", id="AS-30 no ASCII"),
        pytest.param("grant_type=x&a=%ff", FORM, "invalid_request", id="AS-30 no UTF-8"),
        pytest.param("&".join(f"p{n}=1" for n in range(100)), FORM, "invalid_request", id="AS-30 a hundred parameters"),
    ],
)  # fmt: skip
async def test_the_token_endpoint_accepts_only_forms(content: Any, headers: dict[str, str], error: str) -> None:
    async with Session(dev_server()) as session:
        assert error_of(await session.post("/token", content=content, headers=headers)) == (400, error)


@pytest.mark.requirement("AS-30")
async def test_a_long_body_is_refused() -> None:
    answer = await call(dev_server(), "POST", "/token", FORM, body=b"a=" + b"x" * 70_000, host="localhost:9000")
    assert (answer.status, answer.json()["error"]) == (413, "invalid_request")


SECRETS = [
    pytest.param("client_secret_basic", True, True, 200, None, id="AS-31 basic"),
    pytest.param("client_secret_post", False, True, 200, None, id="AS-31 post"),
    pytest.param("client_secret_basic", False, True, 401, "invalid_client", id="AS-31 post where basic is registered"),
    pytest.param("client_secret_post", True, True, 401, "invalid_client", id="AS-31 basic where post is registered"),
    pytest.param("client_secret_basic", True, False, 401, "invalid_client", id="AS-31 wrong secret, basic"),
    pytest.param("client_secret_post", False, False, 401, "invalid_client", id="AS-31 wrong secret, post"),
]


@pytest.mark.parametrize(("method", "use_basic", "right", "status", "error"), SECRETS)
@pytest.mark.parametrize("raw", [False, True], ids=["as the Python SDK encodes", "as the TypeScript SDK encodes"])
async def test_client_authentication(
    method: str, use_basic: bool, right: bool, status: int, *, error: str | None, raw: bool
) -> None:
    async with Session(dev_server()) as session:
        client = await session.register(token_endpoint_auth_method=method)
        code = (await session.authorize(client["client_id"]))["code"]
        secret = client["client_secret"] if right else "wrong"
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        if use_basic:
            response = await session.post("/token", data=form, headers=basic(client["client_id"], secret, raw=raw))
        else:
            form |= {"client_id": client["client_id"], "client_secret": secret}
            response = await session.post("/token", data=form)
    assert response.status_code == status
    if error is not None:
        assert error_of(response) == (status, error)
        challenge = response.headers.get("www-authenticate")
        assert challenge == ('Basic realm="token"' if use_basic else None)


@pytest.mark.parametrize(
    ("form", "headers", "expected"),
    [
        pytest.param({"client_secret": "m2m-secret"}, basic("m2m", "m2m-secret"), (400, "invalid_request"), id="AS-31 two methods"),
        pytest.param({"client_id": "other"}, basic("m2m", "m2m-secret"), (400, "invalid_request"), id="AS-31 two clients"),
        pytest.param({}, {"authorization": "Basic !!!"}, (401, "invalid_client"), id="AS-31 no base64"),
        pytest.param({}, {"authorization": "Basic " + base64.b64encode(b"nocolon").decode()}, (401, "invalid_client"), id="AS-31 no colon"),
        pytest.param({}, {"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}, (401, "invalid_client"), id="AS-31 no UTF-8"),
        pytest.param({}, {"authorization": "Bearer x"}, (401, "invalid_client"), id="AS-31 another scheme"),
        pytest.param({}, basic("m2m", ""), (401, "invalid_client"), id="AS-31 an empty secret"),
        pytest.param({"client_id": "m2m"}, {}, (401, "invalid_client"), id="AS-31 no secret"),
        pytest.param({"client_id": "m2m", "client_secret": "é"}, {}, (401, "invalid_client"), id="AS-31 another secret"),
        pytest.param({}, {}, (401, "invalid_client"), id="AS-31 no client"),
        pytest.param({"client_id": "unknown"}, {}, (401, "invalid_client"), id="AS-38 unknown client"),
        pytest.param({"client_id": "unknown"}, basic("unknown", "x"), (401, "invalid_client"), id="AS-38 unknown, basic"),
        pytest.param({"client_id": "m2m", "grant_type": "password"}, basic("m2m", "m2m-secret"), (400, "unsupported_grant_type"), id="AS-38 password"),
        pytest.param({"grant_type": ""}, basic("m2m", "m2m-secret"), (400, "invalid_request"), id="AS-38 no grant type"),
        pytest.param({"grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER}, basic("m2m", "m2m-secret"), (400, "unauthorized_client"), id="AS-38 not registered for codes"),
    ],
)  # fmt: skip
async def test_the_token_endpoint_refuses_bad_requests(
    form: dict[str, str], headers: dict[str, str], expected: Any
) -> None:
    async with Session(dev_server()) as session:
        response = await session.post("/token", data={"grant_type": "client_credentials"} | form, headers=headers)
    assert error_of(response) == expected
    assert ("www-authenticate" in response.headers) is (expected[0] == 401 and "authorization" in headers)


@pytest.mark.requirement("AS-31")
async def test_two_authorization_lines_are_refused() -> None:
    async with Session(dev_server()) as session:
        line = ("authorization", basic("m2m", "m2m-secret")["authorization"])
        content = "grant_type=client_credentials"
        response = await session.post("/token", content=content, headers=[line, line, *FORM.items()])
    assert error_of(response) == (400, "invalid_request")


@pytest.mark.requirement("AS-38")
async def test_a_public_client_cannot_use_client_credentials() -> None:
    async with Session(dev_server()) as session:
        client = await session.register()
        response = await session.token("client_credentials", client_id=client["client_id"])
    assert error_of(response) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("verifier", "challenge", "fits"),
    [
        pytest.param(VERIFIER, CHALLENGE, True, id="AS-32 RFC 7636 appendix B"),
        pytest.param(VERIFIER + "x", CHALLENGE, False, id="AS-32 a character more"),
        pytest.param("x" * 129, CHALLENGE, False, id="AS-32 too long"),
        pytest.param(VERIFIER[:-1] + "+", CHALLENGE, False, id="AS-32 a reserved character"),
        pytest.param(VERIFIER + "\n", CHALLENGE, False, id="AS-32 a line feed"),
    ],
)
async def test_a_code_verifier_matches_its_challenge(verifier: str, challenge: str, fits: bool) -> None:
    assert verify_code_challenge(verifier, challenge) is fits


@pytest.mark.requirement("AS-33", "AS-34")
async def test_a_token_response_has_the_standard_members() -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        code = (await session.authorize(client_id, scope="mcp:read offline_access", prompt="consent"))["code"]
        response = await session.exchange(client_id, code)
    content = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.headers["cache-control"] == "no-store"
    assert set(content) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (content["token_type"], content["scope"]) == ("Bearer", "mcp:read")
    assert type(content["expires_in"]) is int
    assert 0 < content["expires_in"] <= 600
    assert content["refresh_token"].startswith("rt_")


@pytest.mark.requirement("AS-34")
async def test_the_token_is_an_rfc_9068_token(clock: Clock) -> None:
    """Validates under profile `at+jwt`."""
    server = dev_server(clock=clock)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["access_token"]
        claims = claims_of(token)
        assert header_of(token)["typ"] == "at+jwt"
        assert set(claims) == {"iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "auth_time"}
        assert claims["exp"] - claims["iat"] <= 600
        answer = await call(protect(server, profile="at+jwt"), headers=bearer(token), host="localhost:8000")
    assert answer.status == 200
    assert answer.json()["client_id"] == client_id


@pytest.mark.requirement("AS-62")
async def test_client_credentials() -> None:
    async with Session(dev_server()) as session:
        response = await session.token("client_credentials", **M2M_AUTH, scope="mcp:read", resource=MCP)
    content = response.json()
    assert set(content) == {"access_token", "token_type", "expires_in", "scope"}, "no refresh token"
    claims = claims_of(content["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"], claims["scope"]) == ("m2m", "m2m", MCP, "mcp:read")
    assert "auth_time" not in claims


# --- refreshing -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-35")
async def test_refresh_tokens_rotate_and_reuse_revokes_the_family() -> None:
    """R1→R2; R1 again → 400 invalid_grant, then R2 → 400 invalid_grant."""
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        first = await session.login(client_id)
        second = (await session.refresh(client_id, first["refresh_token"])).json()
        assert second["refresh_token"] != first["refresh_token"]
        assert error_of(await session.refresh(client_id, first["refresh_token"])) == (400, "invalid_grant")
        assert error_of(await session.refresh(client_id, second["refresh_token"])) == (400, "invalid_grant")
        assert not await session.is_active(second["access_token"], client_id)
        assert not await session.is_active(first["access_token"], client_id)


@pytest.mark.requirement("AS-36")
async def test_a_refresh_token_is_bound_to_its_client_and_scope() -> None:
    async with Session(dev_server()) as session:
        client_id, thief = [(await session.register())["client_id"] for _ in range(2)]
        token = (await session.login(client_id, scope="mcp:read files:write"))["refresh_token"]
        assert error_of(await session.refresh(thief, token)) == (400, "invalid_grant")
        narrow = (await session.refresh(client_id, token, scope="mcp:read")).json()
        assert (narrow["scope"], claims_of(narrow["access_token"])["scope"]) == ("mcp:read", "mcp:read")
        whole = (await session.refresh(client_id, narrow["refresh_token"])).json()
        assert whole["scope"] == "mcp:read files:write", "the new refresh token keeps the original scope"
        again = await session.refresh(client_id, whole["refresh_token"], scope="mcp:read other")
        assert error_of(again) == (400, "invalid_scope")
        offline = await session.refresh(client_id, whole["refresh_token"], scope="offline_access")
        assert error_of(offline) == (400, "invalid_scope"), "it was never requested"


@pytest.mark.parametrize(
    ("changes", "scope", "issued"),
    [
        pytest.param({}, "mcp:read", True, id="AS-37 registered"),
        pytest.param({"grant_types": ["authorization_code"]}, "mcp:read", False, id="AS-37 neither"),
        pytest.param({"grant_types": ["authorization_code"]}, "mcp:read offline_access", True, id="AS-37 AS-24 asked for"),
        pytest.param({"grant_types": ...}, "mcp:read", False, id="AS-37 AS-41 by default"),
    ],
)  # fmt: skip
async def test_refresh_tokens_need_the_grant_type_or_offline_access(
    changes: dict[str, Any], scope: str, issued: bool
) -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register(**changes))["client_id"]
        tokens = await session.login(client_id, scope=scope)
        assert ("refresh_token" in tokens) is issued
        if issued:
            refreshed = await session.refresh(client_id, tokens["refresh_token"], scope=scope)
            assert refreshed.status_code == 200


@pytest.mark.requirement("AS-38")
async def test_a_refresh_token_expires(clock: Clock) -> None:
    async with Session(dev_server(clock=clock, refresh_lifetime=100)) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["refresh_token"]
        clock.now += 100
        assert error_of(await session.refresh(client_id, token)) == (400, "invalid_grant")
        assert not await session.is_active(token, client_id)


@pytest.mark.requirement("AS-38")
@pytest.mark.parametrize("how", ["a new process", "forget"])
async def test_after_a_restart_clients_register_again(how: str) -> None:
    """Restart, then refresh → 401 invalid_client."""
    first = dev_server()
    async with Session(first) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["refresh_token"]
        code = (await session.authorize(client_id))["code"]
    if how == "forget":
        first.forget()
    async with Session(first if how == "forget" else dev_server()) as session:
        assert error_of(await session.refresh(client_id, token)) == (401, "invalid_client")
        assert error_of(await session.exchange(client_id, code)) == (401, "invalid_client")
        again = await session.register()
        assert (await session.login(again["client_id"]))["scope"] == "mcp:read"


async def test_a_token_names_the_user_who_signed_in() -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        for hint, user in ((..., "alice"), ("bob", "bob"), ("root", "alice")):
            token = (await session.login(client_id, login_hint=hint))["access_token"]
            assert claims_of(token)["sub"] == user


@pytest.mark.requirement("AS-32")
async def test_an_exchange_may_omit_redirect_uri() -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register(redirect_uris=[CALLBACK, f"{BASE}/cb"]))["client_id"]
        answer = answer_of(await session.get("/authorize", params=session.request(client_id)))
        response = await session.exchange(client_id, answer["code"], redirect_uri=...)
    assert response.status_code == 200, "redirect_uri if sent"
