"""The authorization endpoint and its consent page, as a browser sees them."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from dev import BASE, CALLBACK, CHALLENGE, MCP, VERIFIER, Form, Session, answer_of, claims_of, dev_server, error_of
from harness import Clock

from asgi_mcp_auth.dev._authorization import MAX_QUERY, PENDING_SECONDS
from asgi_mcp_auth.dev._pages import describe_scope
from asgi_mcp_auth.dev._redirects import is_loopback_redirect, is_registered, redirect_host, redirect_uri_error

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}


def is_page(page: Any, status: int = 400) -> bool:
    """Check that a response is an HTML page without a redirect, and return whether it has the status."""
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "form-action" not in page.headers["content-security-policy"]  # Chromium applies it to redirects
    assert "location" not in page.headers
    return bool(page.status_code == status)


# --- client and redirect URI ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client_id": "dcr_unknown"}, id="AS-10 unknown client"),
        pytest.param({"client_id": ...}, id="AS-10 no client"),
        pytest.param({"client_id": ""}, id="AS-10 empty client"),
        pytest.param({"redirect_uri": "https://evil.example/cb"}, id="AS-10 unregistered redirect"),
        pytest.param({"redirect_uri": ["http://localhost:6274/oauth/callback"] * 2}, id="AS-10 redirect twice"),
        pytest.param({"redirect_uri": "https://evil.example/cb", "response_type": "token"}, id="AS-10 both wrong"),
        pytest.param({"client_id": "https://app.example"}, id="AS-10 AS-45 a URL without a path"),
        pytest.param({"state": "x" * MAX_QUERY}, id="AS-10 a query without end"),
    ],
)
@pytest.mark.parametrize("auto_approve", [True, False])
async def test_unknown_clients_and_unregistered_redirect_uris_get_an_error_page(
    changes: dict[str, Any], auto_approve: bool
) -> None:
    async with Session(dev_server(auto_approve=auto_approve)) as session:
        client = await session.register()
        assert is_page(await session.get("/authorize", params=session.request(client["client_id"], **changes)))


REDIRECTS = [
    pytest.param("http://localhost/callback", "http://localhost:58135/callback", True, id="AS-11 any port"),
    pytest.param("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb", True, id="AS-11 another port"),
    pytest.param("http://[::1]/cb", "http://[::1]:8080/cb", True, id="AS-11 IPv6"),
    pytest.param("http://localhost:1234/cb", "http://localhost/cb", True, id="AS-11 without the port"),
    pytest.param("http://localhost/cb?a=1", "http://localhost:9/cb?a=1", True, id="AS-11 with a query"),
    pytest.param("http://localhost/callback", "http://localhost:58135/cb", False, id="AS-11 another path"),
    pytest.param("http://localhost/callback", "http://localhost.evil.com/callback", False, id="AS-11 a longer host"),
    pytest.param("http://localhost/callback", "http://127.0.0.1/callback", False, id="AS-11 another loopback"),
    pytest.param("http://localhost/callback", "https://localhost/callback", False, id="AS-11 another scheme"),
    pytest.param("http://localhost/callback", "http://localhost:1/callback?x=1", False, id="AS-11 a query more"),
    pytest.param("http://localhost/callback", "http://u@localhost:1/callback", False, id="AS-11 user information"),
    pytest.param("http://localhost/callback", "http://localhost:1/callback#f", False, id="AS-11 a fragment"),
    pytest.param("http://localhost/callback", "http://localhost:99999/callback", False, id="AS-11 no port"),
    pytest.param("http://127.0.0.2/cb", "http://127.0.0.2:1/cb", False, id="AS-11 a port of another loopback address"),
    pytest.param("https://app.example/cb", "https://app.example/cb/", False, id="AS-11 a slash more"),
    pytest.param("https://app.example/cb", "https://app.example:8443/cb", False, id="AS-11 a port of https"),
    pytest.param("https://app.example/cb", "HTTPS://app.example/cb", False, id="AS-11 another case"),
    pytest.param("https://localhost/cb", "https://localhost:8443/cb", False, id="AS-11 a port of https on loopback"),
    pytest.param("cursor://x/cb", "cursor://x/cb", True, id="AS-11 an app's own scheme"),
    pytest.param("http://localhost/cb?a=1", "http://localhost:9/cb?a=1&code=x", False, id="AS-16 a code in the query"),
]


@pytest.mark.parametrize(("registered", "requested", "fits"), REDIRECTS)
async def test_redirect_uris_match_exactly_except_for_loopback_ports(
    registered: str, requested: str, fits: bool
) -> None:
    assert is_registered([registered], requested) is fits
    async with Session(dev_server()) as session:
        client = await session.register(redirect_uris=[registered])
        response = await session.get("/authorize", params=session.request(client["client_id"], redirect_uri=requested))
    if fits:
        assert response.headers["location"].startswith(requested)
        assert answer_of_any(response)["code"]
    else:
        assert is_page(response)


def answer_of_any(response: httpx.Response) -> dict[str, str]:
    """Return the response parameters, for redirect URIs with a query or a private-use scheme."""
    query: str = urlsplit(response.headers["location"].replace("cursor:", "http:")).query
    return dict(pair.split("=", 1) for pair in query.split("&"))


@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        pytest.param("https://claude.ai/api/mcp/auth_callback", True, id="AS-12 https"),
        pytest.param("http://localhost:6274/oauth/callback", True, id="AS-12 loopback by name"),
        pytest.param("http://127.0.0.1:33418/", True, id="AS-12 loopback"),
        pytest.param("http://[::1]:33418/", True, id="AS-12 loopback, IPv6"),
        pytest.param("cursor://anysphere.cursor-mcp/oauth/callback", False, id="AS-12 a scheme without a dot"),
        pytest.param("ssh://evil.example/x", False, id="AS-12 ssh"),
        pytest.param("smb://evil.example/share", False, id="AS-12 smb"),
        pytest.param("telnet://evil.example", False, id="AS-12 telnet"),
        pytest.param("ldap://evil.example/o=x", False, id="AS-12 ldap"),
        pytest.param("jnlp://evil.example/x.jnlp", False, id="AS-12 jnlp"),
        pytest.param("itms-services://?action=download-manifest", False, id="AS-12 itms-services"),
        pytest.param("mailto:a@evil.example", False, id="AS-12 mailto"),
        pytest.param("SSH://evil.example/x", False, id="AS-12 ssh in upper case"),
        pytest.param("com.example.app:/oauth", True, id="AS-12 a reverse domain"),
        pytest.param("http://evil.example/cb", False, id="AS-12 http elsewhere"),
        pytest.param("http://localhost.evil.example/cb", False, id="AS-12 http almost here"),
        pytest.param("javascript:alert(1)", False, id="AS-12 javascript"),
        pytest.param("JavaScript://x/%0aalert(1)", False, id="AS-12 javascript in disguise"),
        pytest.param("data:text/html,x", False, id="AS-12 data"),
        pytest.param("file:///etc/passwd", False, id="AS-12 file"),
        pytest.param("vbscript:x", False, id="AS-12 vbscript"),
        pytest.param("blob:https://x/1", False, id="AS-12 blob"),
        pytest.param("ms-msdt:/id", False, id="AS-12 a program of the system"),
        pytest.param("https://app.example/cb#f", False, id="AS-12 fragment"),
        pytest.param("https://u:p@app.example/cb", False, id="AS-12 user information"),
        pytest.param("https:///cb", False, id="AS-12 no host"),
        pytest.param("/cb", False, id="AS-12 relative"),
        pytest.param("//app.example/cb", False, id="AS-12 without a scheme"),
        pytest.param("https://app.example/c b", False, id="AS-12 a space"),
        pytest.param("https://app.example/\ncb", False, id="AS-12 a line feed"),
        pytest.param("https://äpp.example/cb", False, id="AS-12 not ASCII"),
        pytest.param("https://app.example/cb?state=1", False, id="AS-16 a state in the query"),
        pytest.param("https://app.example/" + "x" * 2048, False, id="AS-12 without end"),
        pytest.param("", False, id="AS-12 nothing"),
    ],
)
async def test_redirect_uris_are_https_loopback_http_reverse_domain_or_listed(uri: str, accepted: bool) -> None:
    assert (redirect_uri_error(uri) is None) is accepted


@pytest.mark.requirement("AS-12")
async def test_private_schemes_can_be_listed_and_switched_off() -> None:
    assert redirect_uri_error("cursor://x/cb", listed=["cursor"]) is None
    assert redirect_uri_error("CURSOR://x/cb", listed=["cursor"]) is None, "schemes ignore case"
    assert redirect_uri_error("cursor://x/cb", listed=["cursor"], private_schemes=False) is not None
    assert redirect_uri_error("com.example.app:/oauth", private_schemes=False) is not None
    async with Session(dev_server(redirect_schemes=["zed"])) as session:
        assert (await session.register(redirect_uris=["zed://x/cb"]))["redirect_uris"] == ["zed://x/cb"]
        refused = await session.post("/register", json={"redirect_uris": ["cursor://x/cb"]})
        assert error_of(refused) == (400, "invalid_redirect_uri")


async def test_a_client_with_one_redirect_uri_may_omit_redirect_uri() -> None:
    async with Session(dev_server()) as session:
        client = await session.register()
        answer = await session.authorize(client["client_id"], redirect_uri=...)
        assert (await session.exchange(client["client_id"], answer["code"], redirect_uri=...)).status_code == 200
        other = await session.register(redirect_uris=[CALLBACK, "https://app.example/cb"])
        assert is_page(await session.get("/authorize", params=session.request(other["client_id"], redirect_uri=...)))


# --- errors by redirect -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-13")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="AS-13 token"),
        pytest.param({"response_type": "code id_token"}, "unsupported_response_type", id="AS-13 hybrid"),
        pytest.param({"response_type": ...}, "invalid_request", id="AS-13 none"),
        pytest.param({"response_mode": "fragment"}, "invalid_request", id="AS-13 response_mode"),
        pytest.param({"code_challenge": ...}, "invalid_request", id="AS-14 no challenge"),
        pytest.param({"code_challenge": ""}, "invalid_request", id="AS-14 empty challenge"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="AS-14 plain"),
        pytest.param({"code_challenge_method": ...}, "invalid_request", id="AS-14 plain by default"),
        pytest.param({"code_challenge": CHALLENGE[:-1]}, "invalid_request", id="AS-14 too short"),
        pytest.param({"code_challenge": CHALLENGE[:-1] + "é"}, "invalid_request", id="AS-14 not base64url"),
        pytest.param({"scope": ["mcp:read", "files:write"]}, "invalid_request", id="AS-15 scope twice"),
        pytest.param({"foo": ["1", "2"]}, "invalid_request", id="AS-15 an unknown one twice"),
        pytest.param({"max_age": "-1"}, "invalid_request", id="AS-19 max_age negative"),
        pytest.param({"max_age": "٣"}, "invalid_request", id="AS-19 max_age in other digits"),
        pytest.param({"max_age": "1" * 5000}, "invalid_request", id="AS-19 max_age without end"),
        pytest.param({"resource": "https://other"}, "invalid_target", id="AS-20 another resource"),
        pytest.param({"resource": "/mcp"}, "invalid_target", id="AS-20 relative"),
        pytest.param({"resource": MCP + "#f"}, "invalid_target", id="AS-20 fragment"),
        pytest.param({"resource": [MCP, "https://other"]}, "invalid_target", id="AS-20 one of two"),
        pytest.param({"scope": "nothing known"}, "invalid_scope", id="AS-23 nothing remains"),
        pytest.param({"scope": 'mcp:read "'}, "invalid_scope", id="AS-23 malformed"),
        pytest.param({"scope": " ".join(f"s{n}" for n in range(65))}, "invalid_scope", id="AS-23 too many"),
    ],
)
@pytest.mark.parametrize("auto_approve", [True, False])
async def test_errors_are_sent_by_redirect_to_loopback(changes: dict[str, Any], error: str, auto_approve: bool) -> None:
    """With error, description, state and iss."""
    async with Session(dev_server(auto_approve=auto_approve)) as session:
        client = await session.register()
        response = await session.get("/authorize", params=session.request(client["client_id"], **changes))
    answer = answer_of(response)
    assert set(answer) == {"error", "error_description", "state", "iss"}
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s", BASE)
    assert response.headers["location"].startswith(f"{CALLBACK}?error={error}&")
    assert response.headers["location"].endswith("&state=s&iss=http%3A%2F%2Flocalhost%3A9000")


PUBLIC_URI = "https://app.example/cb"
LOOPBACK_URI = "http://127.0.0.1/cb"


@pytest.mark.parametrize(
    ("configured", "uri", "redirected"),
    [
        pytest.param(False, PUBLIC_URI, False, id="A22 registered, https"),
        pytest.param(False, "com.example.app:/cb", False, id="A22 registered, private-use scheme"),
        pytest.param(False, "cursor://x/cb", False, id="A22 registered, listed scheme"),
        pytest.param(False, LOOPBACK_URI, True, id="AS-13 registered, loopback http"),
        pytest.param(False, "https://localhost:8443/cb", True, id="AS-13 registered, loopback https"),
        pytest.param(True, PUBLIC_URI, True, id="AS-13 configured, https"),
        pytest.param(True, "com.example.app:/cb", True, id="AS-13 configured, private-use scheme"),
    ],
)
@pytest.mark.parametrize("auto_approve", [True, False])
async def test_errors_are_not_redirected_to_uris_that_anyone_can_register(
    configured: bool, uri: str, redirected: bool, auto_approve: bool
) -> None:
    """RFC 9700 section 4.11.2: an automatic redirect would make the server an open redirector."""
    static = {"client_id": "static", "redirect_uris": [uri]}
    async with Session(dev_server(auto_approve=auto_approve, clients=[static])) as session:
        client_id = "static" if configured else (await session.register(redirect_uris=[uri]))["client_id"]
        params = session.request(client_id, redirect_uri=uri, response_type="token")
        response = await session.get("/authorize", params=params)
    location = f"{uri}?error=unsupported_response_type&error_description=The%20response_type%20has%20to%20be%20code."
    if redirected:
        assert response.headers["location"].startswith(location)
    else:
        assert is_page(response)
        assert f'<a href="{html.escape(location)}' in response.text, "the person may follow the link"


async def test_errors_are_not_redirected_to_uris_in_a_client_document() -> None:
    url = "https://app.example/client.json"
    document = {"client_id": url, "client_name": "App", "redirect_uris": [PUBLIC_URI]}

    def client() -> httpx.AsyncClient:
        answer = httpx.MockTransport(lambda _: httpx.Response(200, json=document))
        return httpx.AsyncClient(transport=answer)

    async with Session(dev_server(document_client=client)) as session:
        params = session.request(url, redirect_uri=PUBLIC_URI, scope="unknown")
        assert is_page(await session.get("/authorize", params=params))


@pytest.mark.requirement("AS-15")
async def test_a_repeated_state_is_not_returned() -> None:
    async with Session(dev_server()) as session:
        client = await session.register()
        answer = await session.authorize(client["client_id"], state=["a", "b"])
    assert (answer["error"], "state" in answer) == ("invalid_request", False)


async def test_a_client_without_authorization_code_gets_unauthorized_client() -> None:
    static = {"client_id": "static", "grant_types": ["client_credentials"], "client_secret": "x"}
    async with Session(dev_server(clients=[static | {"redirect_uris": [CALLBACK]}])) as session:
        assert (await session.authorize("static"))["error"] == "unauthorized_client"


# --- success ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-16")
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        pytest.param({"foo": "1", "prompt": "consent"}, "s", id="AS-15 unknown ignored, prompt honoured"),
        pytest.param({"state": ...}, None, id="AS-16 no state"),
        pytest.param({"state": ""}, None, id="AS-16 an empty state is none"),
        pytest.param({"state": "a b+c&d=é/%41"}, "a b+c&d=é/%41", id="AS-16 verbatim"),
        pytest.param({"max_age": "300"}, "s", id="AS-19 max_age"),
        pytest.param({"prompt": "none"}, "s", id="AS-17 prompt none with auto_approve"),
        pytest.param({"response_mode": "query"}, "s", id="response_mode"),
    ],
)
async def test_success_is_sent_by_redirect(changes: dict[str, Any], state: str | None) -> None:
    async with Session(dev_server()) as session:
        client = await session.register()
        response = await session.get("/authorize", params=session.request(client["client_id"], **changes))
    answer = answer_of(response)
    assert response.status_code == 302
    assert (answer.get("state"), answer["iss"]) == (state, BASE)
    assert re.fullmatch(r"ac_[\w-]{43}", answer["code"])
    assert set(answer) == {"code", "iss"} | ({"state"} if state is not None else set[str]())


@pytest.mark.requirement("AS-16")
async def test_a_state_that_is_not_utf_8_is_returned_unchanged() -> None:
    """Verbatim, to the byte."""
    async with Session(dev_server()) as session:
        client = await session.register()
        query = urlencode(session.request(client["client_id"], state=...)) + "&state=%ff%00%E9"
        response = await session.get(f"/authorize?{query}")
    assert "&state=%FF%00%E9&iss=" in response.headers["location"]


@pytest.mark.requirement("AS-15", "AS-16")
async def test_an_authorization_request_may_be_a_form_post() -> None:
    async with Session(dev_server()) as session:
        client = await session.register()
        params = session.request(client["client_id"])
        response = await session.post("/authorize", data=params)
        assert (response.status_code, "code" in answer_of(response)) == (303, True), "never 307"
        assert is_page(await session.post("/authorize", json=params))


async def test_the_query_of_a_redirect_uri_is_kept() -> None:
    async with Session(dev_server()) as session:
        client = await session.register(redirect_uris=["https://app.example/cb?a=1"])
        answer = await session.authorize(client["client_id"], redirect_uri="https://app.example/cb?a=1")
    assert answer["a"] == "1"


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-18")
async def test_a_code_works_once_and_its_reuse_revokes_the_grant() -> None:
    """Second exchange → 400 invalid_grant; first access token introspects inactive."""
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        code = (await session.authorize(client_id))["code"]
        tokens = (await session.exchange(client_id, code)).json()
        assert await session.is_active(tokens["access_token"], client_id)
        again = await session.exchange(client_id, code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        assert not await session.is_active(tokens["access_token"], client_id)
        assert not await session.is_active(tokens["refresh_token"], client_id)
        assert (await session.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.requirement("AS-18")
async def test_a_code_expires_after_a_minute(clock: Clock) -> None:
    async with Session(dev_server(clock=clock)) as session:
        client_id = (await session.register())["client_id"]
        young, old = [(await session.authorize(client_id))["code"] for _ in range(2)]
        clock.now += 59
        assert (await session.exchange(client_id, young)).status_code == 200
        clock.now += 1
        assert (await session.exchange(client_id, old)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"client_id": "other"}, "invalid_grant", id="AS-18 of another client"),
        pytest.param({"redirect_uri": "http://localhost:9/oauth/callback"}, "invalid_grant", id="AS-18 another port"),
        pytest.param({"code_verifier": "x" * 43}, "invalid_grant", id="AS-32 wrong verifier"),
        pytest.param({"code_verifier": VERIFIER[:42]}, "invalid_grant", id="AS-32 short verifier"),
        pytest.param({"code_verifier": "é" * 43}, "invalid_grant", id="AS-32 verifier not ASCII"),
        pytest.param({"code_verifier": ...}, "invalid_request", id="AS-32 no verifier"),
        pytest.param({"code": ...}, "invalid_request", id="AS-32 no code"),
        pytest.param({"code": "ac_unknown"}, "invalid_grant", id="AS-38 unknown code"),
        pytest.param({"resource": "https://other"}, "invalid_target", id="AS-20 AS-22 another resource"),
    ],
)
async def test_a_code_is_bound_to_client_redirect_uri_challenge_and_resources(
    changes: dict[str, Any], error: str
) -> None:
    async with Session(dev_server()) as session:
        client_id, other = [(await session.register())["client_id"] for _ in range(2)]
        code = (await session.authorize(client_id))["code"]
        named = changes | ({"client_id": other} if "client_id" in changes else {})
        response = await session.exchange(client_id, code, **named)
        assert (response.status_code, response.json()["error"]) == (400, error)
        assert (await session.exchange(client_id, code)).status_code == 200, "a failed attempt does not use it up"


@pytest.mark.parametrize(
    ("changes", "acr"),
    [
        pytest.param({"acr_values": "urn:mfa"}, "urn:mfa", id="AS-19 acr"),
        pytest.param({"acr_values": "urn:mfa urn:pwd", "max_age": "0"}, "urn:mfa", id="AS-19 the first of two"),
        pytest.param({}, None, id="AS-19 none asked"),
    ],
)
async def test_acr_and_auth_time_are_in_the_token_and_kept_by_a_refresh(
    clock: Clock, changes: dict[str, Any], acr: str | None
) -> None:
    async with Session(dev_server(clock=clock)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id, **changes)
        claims = claims_of(tokens["access_token"])
        assert (claims.get("acr"), claims["auth_time"]) == (acr, int(clock.now))
        clock.now += 100
        later = claims_of((await session.refresh(client_id, tokens["refresh_token"])).json()["access_token"])
        assert (later.get("acr"), later["auth_time"]) == (acr, int(clock.now) - 100), "refreshing is no sign-in"


# --- consent ----------------------------------------------------------------------------------------------------------


async def ask(session: Session, **changes: Any) -> tuple[str, Form]:
    client = await session.register()
    response = await session.get("/authorize", params=session.request(client["client_id"], **changes))
    assert is_page(response, 200)
    return response.text, Form(response.text)


@pytest.mark.requirement("AS-17")
async def test_the_page_shows_what_is_requested() -> None:
    """Client, redirect host, scopes in words, resource, loopback warning."""
    scopes = {"mcp:read": "Read <everything>", "files:write": ""}
    async with Session(dev_server(auto_approve=False, scopes=scopes)) as session:
        page, form = await ask(session, scope="mcp:read files:write offline_access", login_hint="bob")
    for said in (
        *("DEVELOPMENT ONLY", "Inspector", "localhost:6274", MCP, "a program on this computer"),
        *("Read &lt;everything&gt;", "mcp:read", "Change files", "files:write", "offline_access", BASE),
    ):
        assert said in page
    assert (form.method, form.action) == ("post", "/consent")
    assert form.users == ["alice", "bob"]
    assert form.fields["user"] == "bob"
    assert form.buttons == [("decision", "deny"), ("decision", "allow")]  # Enter presses the first
    assert "<script" not in page
    assert " on" not in re.sub(r">[^<]*<", "><", page.partition("</style>")[2]).replace(" only", "")


@pytest.mark.requirement("AS-17")
async def test_no_loopback_warning_for_a_web_application() -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        client = await session.register(redirect_uris=["https://app.example/cb"])
        page = await session.get("/authorize", params=session.request(client["client_id"], redirect_uri=...))
    assert "a program on this computer" not in page.text
    assert "app.example" in page.text


@pytest.mark.requirement("AS-16")
@pytest.mark.parametrize("user", ["alice", "bob"])
async def test_allowing_gives_a_code(user: str) -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        page, form = await ask(session)
        response = await session.post(form.action, data=form.fields | {"decision": "allow", "user": user})
        answer = answer_of(response)
        assert response.status_code == 303
        assert (answer["state"], answer["iss"]) == ("s", BASE)
        client_id = re.findall(r"dcr_[\w-]+", page)[0]
        tokens = (await session.exchange(client_id, answer["code"])).json()
    assert claims_of(tokens["access_token"])["sub"] == user


@pytest.mark.requirement("AS-13")
@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({"decision": "deny"}, id="AS-17 denied"),
        pytest.param({}, id="AS-17 no decision"),
        pytest.param({"decision": "allow", "user": "root"}, id="AS-17 a user that is not there"),
    ],
)
async def test_denying_redirects_to_loopback_with_access_denied(decision: dict[str, str]) -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        _, form = await ask(session)
        answer = answer_of(await session.post(form.action, data=form.fields | decision))
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "s", BASE)
    assert "code" not in answer


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        pytest.param({"csrf": ...}, {}, id="AS-17 no CSRF token"),
        pytest.param({"csrf": "x"}, {}, id="AS-17 another CSRF token"),
        pytest.param({}, {"cookie": ""}, id="AS-17 without the cookie"),
        pytest.param({}, {"cookie": "mcp_dev_consent_9000=another"}, id="AS-17 another browser"),
        pytest.param({}, {"cookie": "mcp_dev_consent_9000=a; mcp_dev_consent_9000=b"}, id="AS-17 two cookies"),
        pytest.param({}, {"sec-fetch-site": "cross-site"}, id="AS-17 another site's form"),
        pytest.param({}, {"sec-fetch-site": "same-site"}, id="AS-17 another port's form"),
        pytest.param({}, {"content-type": "text/plain"}, id="AS-17 no form"),
        pytest.param({}, {"origin": "https://evil.example"}, id="AS-17 A22 another origin without Sec-Fetch-Site"),
        pytest.param({}, {"origin": "http://localhost:9001"}, id="AS-17 A22 another port"),
        pytest.param({}, {"origin": "http://127.0.0.1:9000"}, id="AS-17 A22 another loopback name"),
        pytest.param({}, {"origin": "https://localhost:9000"}, id="AS-17 A22 another scheme"),
        pytest.param({}, {"origin": "null"}, id="AS-17 A22 an opaque origin"),
        pytest.param({}, {"origin": ""}, id="AS-17 A22 an empty origin"),
        pytest.param({}, {"origin": "http://localhost:9000/"}, id="AS-17 A22 an origin with a path"),
        pytest.param(
            {},
            {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
            id="AS-17 A22 another origin with Sec-Fetch-Site",
        ),
    ],
)
async def test_a_forged_consent_form_gets_an_error_page(fields: dict[str, Any], headers: dict[str, str]) -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        _, form = await ask(session)
        sent = {
            name: value for name, value in (form.fields | {"decision": "allow"} | fields).items() if value is not ...
        }
        cookies = dict(session.http.cookies)
        if "cookie" in headers:
            session.http.cookies.clear()
        response = await session.post(form.action, content=urlencode(sent), headers=FORM | headers)
        assert is_page(response)
        if "cookie" in headers:
            session.http.cookies.update(cookies)
        allowed = await session.post(form.action, data=form.fields | {"decision": "allow"})
        assert "code" in answer_of(allowed), "the real one is still good"


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        pytest.param(BASE, {"origin": BASE, "sec-fetch-site": "same-origin"}, id="AS-17 both fields"),
        pytest.param(BASE, {"origin": BASE}, id="AS-17 Origin alone"),
        pytest.param(
            "http://127.0.0.1:9000", {"origin": "http://127.0.0.1:9000"}, id="AS-17 another name of the server"
        ),
        pytest.param(BASE, {}, id="AS-17 a program that sends neither"),
    ],
)
async def test_the_consent_form_of_this_server_is_accepted(base: str, headers: dict[str, str]) -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        session.http.base_url = base
        _, form = await ask(session)
        response = await session.post(form.action, data=form.fields | {"decision": "allow"}, headers=headers)
        assert "code" in answer_of(response)


async def test_denying_shows_a_page_if_the_redirect_uri_is_not_trusted() -> None:
    """RFC 9700 section 4.11.2: a person who denies must not land on an attacker's page."""
    async with Session(dev_server(auto_approve=False)) as session:
        client = await session.register(redirect_uris=[PUBLIC_URI])
        page = await session.get("/authorize", params=session.request(client["client_id"], redirect_uri=...))
        form = Form(page.text)
        response = await session.post(form.action, data=form.fields | {"decision": "deny"})
    assert is_page(response)
    assert "access_denied" in response.text
    assert f'<a href="{PUBLIC_URI}?error=access_denied' in response.text


async def test_a_consent_form_counts_once_and_expires(clock: Clock) -> None:
    async with Session(dev_server(auto_approve=False, clock=clock)) as session:
        _, form = await ask(session)
        decided = form.fields | {"decision": "allow"}
        assert (await session.post(form.action, data=decided)).status_code == 303
        assert is_page(await session.post(form.action, data=decided))
        _, form = await ask(session)
        clock.now += PENDING_SECONDS
        assert is_page(await session.post(form.action, data=form.fields | {"decision": "allow"}))


async def test_two_consent_pages_in_one_browser_are_independent() -> None:
    async with Session(dev_server("http://localhost:9000/t1", auto_approve=False)) as session:
        session.http.base_url = "http://localhost:9000/t1"
        client = await session.register()
        pages = [await session.get("/authorize", params=session.request(client["client_id"], state=s)) for s in "ab"]
        for state, page in zip("ab", pages, strict=True):
            form = Form(page.text)
            assert form.action == "/t1/consent"
            decided = form.fields | {"decision": "allow"}
            assert answer_of(await session.post(f"{BASE}{form.action}", data=decided))["state"] == state
    cookie = pages[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/t1" in cookie


async def test_prompt_none_needs_auto_approve() -> None:
    async with Session(dev_server(auto_approve=False)) as session:
        client = await session.register()
        assert (await session.authorize(client["client_id"], prompt="none"))["error"] == "consent_required"


async def test_pages_escape_every_value() -> None:
    name = "<script>alert(1)</script>\u202egpj.exe\"'&" + "x" * 150
    async with Session(dev_server(auto_approve=False, users=["<b>", '"x"'])) as session:
        client = await session.register(client_name=name, redirect_uris=["https://app.example/cb?a='%22"])
        params = session.request(client["client_id"], redirect_uri=..., acr_values="<i>", login_hint='"')
        page = (await session.get("/authorize", params=params)).text
        wrong = (await session.get("/authorize", params={"client_id": "<script>"})).text
    for bad in ("<script", "<b>", "<i>", "\u202e", 'value=""x""'):
        assert bad not in page
        assert bad not in wrong
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\ufffdgpj.exe&quot;&#x27;&amp;" in page
    assert Form(page).users == ["<b>", '"x"']


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        pytest.param("notes:read", "Read notes", id="read"),
        pytest.param("mail.messages.write", "Change mail messages", id="dots"),
        pytest.param("files/delete", "Delete files", id="slash"),
        pytest.param("described", "What it means", id="described"),
        pytest.param("offline_access", "Stay connected until you revoke the access", id="offline"),
        pytest.param("openid", "Know who you are", id="openid"),
        pytest.param("https://api.example.com/x.read", "Use the permission", id="a URL"),
        pytest.param("whatever", "Use the permission", id="unknown"),
    ],
)
async def test_scopes_are_described_in_words(scope: str, words: str) -> None:
    assert describe_scope(scope, {"described": "What it means"}) == words


async def test_redirect_targets_are_described_in_words() -> None:
    assert [redirect_host(uri) for uri in (CALLBACK, "https://a.example/cb", "cursor://x/cb", "com.a:/b")] == [
        "localhost:6274",
        "a.example",
        "cursor:",
        "com.a:",
    ]
    assert is_loopback_redirect("https://localhost/cb")
    assert not is_loopback_redirect("cursor://localhost/cb")
