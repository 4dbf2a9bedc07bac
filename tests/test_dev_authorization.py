"""The authorization endpoint and its consent page (requirements AS-10 to AS-19), asked as a browser would."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from dev import BASE, CALLBACK, CHALLENGE, MCP, VERIFIER, Asked, Form, answer_of, claims_of, dev_server
from harness import Clock

from asgi_mcp_auth.dev.authorization import MAX_QUERY, PENDING_SECONDS
from asgi_mcp_auth.dev.pages import scope_in_words
from asgi_mcp_auth.dev.redirects import find_redirect, is_loopback_redirect, redirect_host, why_not_redirect

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}


def is_page(page: Any, status: int = 400) -> bool:
    """An HTML page that leads nowhere."""
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "form-action" not in page.headers["content-security-policy"]  # Chromium holds redirects to it
    assert "location" not in page.headers
    return bool(page.status_code == status)


# --- who asks, and where the answer would go --------------------------------------------------------------------------


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
async def test_wrong_clients_and_redirects_get_a_page(changes: dict[str, Any], auto_approve: bool) -> None:
    async with Asked(dev_server(auto_approve=auto_approve)) as asked:
        client = await asked.register()
        assert is_page(await asked.get("/authorize", params=asked.request(client["client_id"], **changes)))


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
    pytest.param("http://127.0.0.2/cb", "http://127.0.0.2:1/cb", False, id="AS-11 other addresses to the letter"),
    pytest.param("https://app.example/cb", "https://app.example/cb/", False, id="AS-11 a slash more"),
    pytest.param("https://app.example/cb", "https://app.example:8443/cb", False, id="AS-11 a port of https"),
    pytest.param("https://app.example/cb", "HTTPS://app.example/cb", False, id="AS-11 to the letter"),
    pytest.param("https://localhost/cb", "https://localhost:8443/cb", False, id="AS-11 a port of https on loopback"),
    pytest.param("cursor://x/cb", "cursor://x/cb", True, id="AS-11 an app's own scheme"),
    pytest.param("http://localhost/cb?a=1", "http://localhost:9/cb?a=1&code=x", False, id="AS-16 a code in the query"),
]


@pytest.mark.parametrize(("registered", "requested", "fits"), REDIRECTS)
async def test_redirects_fit_to_the_letter(registered: str, requested: str, fits: bool) -> None:
    assert find_redirect([registered], requested) is fits
    async with Asked(dev_server()) as asked:
        client = await asked.register(redirect_uris=[registered])
        response = await asked.get("/authorize", params=asked.request(client["client_id"], redirect_uri=requested))
    if fits:
        assert response.headers["location"].startswith(requested)
        assert answer_of_any(response)["code"]
    else:
        assert is_page(response)


def answer_of_any(response: httpx.Response) -> dict[str, str]:
    """As `answer_of`, for redirect URIs with a query or a scheme of their own."""
    query: str = urlsplit(response.headers["location"].replace("cursor:", "http:")).query
    return dict(pair.split("=", 1) for pair in query.split("&"))


@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        pytest.param("https://claude.ai/api/mcp/auth_callback", True, id="AS-12 https"),
        pytest.param("http://localhost:6274/oauth/callback", True, id="AS-12 loopback by name"),
        pytest.param("http://127.0.0.1:33418/", True, id="AS-12 loopback"),
        pytest.param("http://[::1]:33418/", True, id="AS-12 loopback, IPv6"),
        pytest.param("cursor://anysphere.cursor-mcp/oauth/callback", True, id="AS-12 Cursor"),
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
async def test_which_redirects_may_be_registered(uri: str, accepted: bool) -> None:
    assert (why_not_redirect(uri) is None) is accepted


async def test_as_12_private_schemes_can_be_refused() -> None:
    assert why_not_redirect("cursor://x/cb", private_schemes=False) is not None, "AS-12"


async def test_a_single_redirect_need_not_be_named() -> None:
    async with Asked(dev_server()) as asked:
        client = await asked.register()
        answer = await asked.authorize(client["client_id"], redirect_uri=...)
        assert (await asked.exchange(client["client_id"], answer["code"], redirect_uri=...)).status_code == 200
        other = await asked.register(redirect_uris=[CALLBACK, "https://app.example/cb"])
        assert is_page(await asked.get("/authorize", params=asked.request(other["client_id"], redirect_uri=...)))


# --- errors by redirect -----------------------------------------------------------------------------------------------


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
async def test_errors_go_back_by_redirect(changes: dict[str, Any], error: str, auto_approve: bool) -> None:
    """AS-13: with error, description, state and iss."""
    async with Asked(dev_server(auto_approve=auto_approve)) as asked:
        client = await asked.register()
        response = await asked.get("/authorize", params=asked.request(client["client_id"], **changes))
    answer = answer_of(response)
    assert set(answer) == {"error", "error_description", "state", "iss"}
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s", BASE)
    assert response.headers["location"].startswith(f"{CALLBACK}?error={error}&")
    assert response.headers["location"].endswith("&state=s&iss=http%3A%2F%2Flocalhost%3A9000")


async def test_as_15_a_state_that_is_repeated_is_not_sent_back() -> None:
    async with Asked(dev_server()) as asked:
        client = await asked.register()
        answer = await asked.authorize(client["client_id"], state=["a", "b"])
    assert (answer["error"], "state" in answer) == ("invalid_request", False), "AS-15"


async def test_a_client_for_something_else_is_told_so() -> None:
    static = {"client_id": "static", "grant_types": ["client_credentials"], "client_secret": "x"}
    async with Asked(dev_server(clients=[static | {"redirect_uris": [CALLBACK]}])) as asked:
        assert (await asked.authorize("static"))["error"] == "unauthorized_client"


# --- success ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        pytest.param({"foo": "1", "prompt": "consent"}, "s", id="AS-15 unknown ignored, prompt honoured"),
        pytest.param({"state": ...}, None, id="AS-16 no state"),
        pytest.param({"state": ""}, None, id="AS-16 an empty state is none"),
        pytest.param({"state": "a b+c&d=é/%41"}, "a b+c&d=é/%41", id="AS-16 verbatim"),
        pytest.param({"max_age": "300"}, "s", id="AS-19 max_age"),
        pytest.param({"prompt": "none"}, "s", id="AS-17 nobody to ask"),
        pytest.param({"response_mode": "query"}, "s", id="response_mode"),
    ],
)
async def test_success_goes_back_by_redirect(changes: dict[str, Any], state: str | None) -> None:
    async with Asked(dev_server()) as asked:
        client = await asked.register()
        response = await asked.get("/authorize", params=asked.request(client["client_id"], **changes))
    answer = answer_of(response)
    assert response.status_code == 302, "AS-16"
    assert (answer.get("state"), answer["iss"]) == (state, BASE)
    assert re.fullmatch(r"ac_[\w-]{43}", answer["code"])
    assert set(answer) == {"code", "iss"} | ({"state"} if state is not None else set[str]())


async def test_as_16_a_state_that_is_no_text_comes_back_as_it_was() -> None:
    """AS-16: verbatim, to the byte."""
    async with Asked(dev_server()) as asked:
        client = await asked.register()
        query = urlencode(asked.request(client["client_id"], state=...)) + "&state=%ff%00%E9"
        response = await asked.get(f"/authorize?{query}")
    assert "&state=%FF%00%E9&iss=" in response.headers["location"]


async def test_as_15_as_16_a_post_of_a_form_is_a_request_too() -> None:
    async with Asked(dev_server()) as asked:
        client = await asked.register()
        params = asked.request(client["client_id"])
        response = await asked.post("/authorize", data=params)
        assert (response.status_code, "code" in answer_of(response)) == (303, True), "AS-15 AS-16: never 307"
        assert is_page(await asked.post("/authorize", json=params))


async def test_a_query_stays_in_the_redirect_uri() -> None:
    async with Asked(dev_server()) as asked:
        client = await asked.register(redirect_uris=["https://app.example/cb?a=1"])
        answer = await asked.authorize(client["client_id"], redirect_uri="https://app.example/cb?a=1")
    assert answer["a"] == "1"


# --- codes ------------------------------------------------------------------------------------------------------------


async def test_as_18_a_code_works_once_and_its_reuse_revokes() -> None:
    """AS-18: second exchange → 400 invalid_grant; first access token introspects inactive."""
    async with Asked(dev_server()) as asked:
        client_id = (await asked.register())["client_id"]
        code = (await asked.authorize(client_id))["code"]
        tokens = (await asked.exchange(client_id, code)).json()
        assert await asked.is_active(tokens["access_token"], client_id)
        again = await asked.exchange(client_id, code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        assert not await asked.is_active(tokens["access_token"], client_id)
        assert not await asked.is_active(tokens["refresh_token"], client_id)
        assert (await asked.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_as_18_a_code_lives_a_minute_at_most(clock: Clock) -> None:
    async with Asked(dev_server(clock=clock)) as asked:
        client_id = (await asked.register())["client_id"]
        young, old = [(await asked.authorize(client_id))["code"] for _ in range(2)]
        clock.now += 59
        assert (await asked.exchange(client_id, young)).status_code == 200
        clock.now += 1
        assert (await asked.exchange(client_id, old)).json()["error"] == "invalid_grant", "AS-18"


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
async def test_a_code_is_bound(changes: dict[str, Any], error: str) -> None:
    async with Asked(dev_server()) as asked:
        client_id, other = [(await asked.register())["client_id"] for _ in range(2)]
        code = (await asked.authorize(client_id))["code"]
        named = changes | ({"client_id": other} if "client_id" in changes else {})
        response = await asked.exchange(client_id, code, **named)
        assert (response.status_code, response.json()["error"]) == (400, error)
        assert (await asked.exchange(client_id, code)).status_code == 200, "a failed attempt does not use it up"


@pytest.mark.parametrize(
    ("changes", "acr"),
    [
        pytest.param({"acr_values": "urn:mfa"}, "urn:mfa", id="AS-19 acr"),
        pytest.param({"acr_values": "urn:mfa urn:pwd", "max_age": "0"}, "urn:mfa", id="AS-19 the first of two"),
        pytest.param({}, None, id="AS-19 none asked"),
    ],
)
async def test_step_up(clock: Clock, changes: dict[str, Any], acr: str | None) -> None:
    async with Asked(dev_server(clock=clock)) as asked:
        client_id = (await asked.register())["client_id"]
        tokens = await asked.login(client_id, **changes)
        claims = claims_of(tokens["access_token"])
        assert (claims.get("acr"), claims["auth_time"]) == (acr, int(clock.now))
        clock.now += 100
        later = claims_of((await asked.refresh(client_id, tokens["refresh_token"])).json()["access_token"])
        assert (later.get("acr"), later["auth_time"]) == (acr, int(clock.now) - 100), "refreshing is no sign-in"


# --- consent ----------------------------------------------------------------------------------------------------------


async def ask(asked: Asked, **changes: Any) -> tuple[str, Form]:
    client = await asked.register()
    response = await asked.get("/authorize", params=asked.request(client["client_id"], **changes))
    assert is_page(response, 200), "AS-17"
    return response.text, Form(response.text)


async def test_as_17_the_page_says_what_is_asked() -> None:
    """AS-17: client, redirect host, scopes in words, resource, loopback warning."""
    scopes = {"mcp:read": "Read <everything>", "files:write": ""}
    async with Asked(dev_server(auto_approve=False, scopes=scopes)) as asked:
        page, form = await ask(asked, scope="mcp:read files:write offline_access", login_hint="bob")
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


async def test_as_17_no_loopback_warning_for_a_web_application() -> None:
    async with Asked(dev_server(auto_approve=False)) as asked:
        client = await asked.register(redirect_uris=["https://app.example/cb"])
        page = await asked.get("/authorize", params=asked.request(client["client_id"], redirect_uri=...))
    assert "a program on this computer" not in page.text, "AS-17"
    assert "app.example" in page.text


@pytest.mark.parametrize("user", ["alice", "bob"])
async def test_as_16_allowing_gives_a_code(user: str) -> None:
    async with Asked(dev_server(auto_approve=False)) as asked:
        page, form = await ask(asked)
        response = await asked.post(form.action, data=form.fields | {"decision": "allow", "user": user})
        answer = answer_of(response)
        assert response.status_code == 303, "AS-16"
        assert (answer["state"], answer["iss"]) == ("s", BASE)
        client_id = re.findall(r"dcr_[\w-]+", page)[0]
        tokens = (await asked.exchange(client_id, answer["code"])).json()
    assert claims_of(tokens["access_token"])["sub"] == user


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({"decision": "deny"}, id="AS-17 denied"),
        pytest.param({}, id="AS-17 no decision"),
        pytest.param({"decision": "allow", "user": "root"}, id="AS-17 a user that is not there"),
    ],
)
async def test_denying_goes_back(decision: dict[str, str]) -> None:
    async with Asked(dev_server(auto_approve=False)) as asked:
        _, form = await ask(asked)
        answer = answer_of(await asked.post(form.action, data=form.fields | decision))
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "s", BASE), "AS-13"
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
    ],
)
async def test_a_forged_answer_gets_a_page(fields: dict[str, Any], headers: dict[str, str]) -> None:
    async with Asked(dev_server(auto_approve=False)) as asked:
        _, form = await ask(asked)
        sent = {
            name: value for name, value in (form.fields | {"decision": "allow"} | fields).items() if value is not ...
        }
        cookies = dict(asked.http.cookies)
        if "cookie" in headers:
            asked.http.cookies.clear()
        response = await asked.post(form.action, content=urlencode(sent), headers=FORM | headers)
        assert is_page(response)
        if "cookie" in headers:
            asked.http.cookies.update(cookies)
        allowed = await asked.post(form.action, data=form.fields | {"decision": "allow"})
        assert "code" in answer_of(allowed), "the real one is still good"


async def test_an_answer_counts_once_and_not_for_ever(clock: Clock) -> None:
    async with Asked(dev_server(auto_approve=False, clock=clock)) as asked:
        _, form = await ask(asked)
        decided = form.fields | {"decision": "allow"}
        assert (await asked.post(form.action, data=decided)).status_code == 303
        assert is_page(await asked.post(form.action, data=decided))
        _, form = await ask(asked)
        clock.now += PENDING_SECONDS
        assert is_page(await asked.post(form.action, data=form.fields | {"decision": "allow"}))


async def test_two_pages_in_one_browser_do_not_disturb_each_other() -> None:
    async with Asked(dev_server("http://localhost:9000/t1", auto_approve=False)) as asked:
        asked.http.base_url = "http://localhost:9000/t1"
        client = await asked.register()
        pages = [await asked.get("/authorize", params=asked.request(client["client_id"], state=s)) for s in "ab"]
        for state, page in zip("ab", pages, strict=True):
            form = Form(page.text)
            assert form.action == "/t1/consent"
            decided = form.fields | {"decision": "allow"}
            assert answer_of(await asked.post(f"{BASE}{form.action}", data=decided))["state"] == state
    cookie = pages[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/t1" in cookie


async def test_nobody_can_be_asked_without_a_page() -> None:
    async with Asked(dev_server(auto_approve=False)) as asked:
        client = await asked.register()
        assert (await asked.authorize(client["client_id"], prompt="none"))["error"] == "consent_required"


async def test_everything_is_escaped() -> None:
    name = "<script>alert(1)</script>\u202egpj.exe\"'&" + "x" * 150
    async with Asked(dev_server(auto_approve=False, users=["<b>", '"x"'])) as asked:
        client = await asked.register(client_name=name, redirect_uris=["https://app.example/cb?a='%22"])
        params = asked.request(client["client_id"], redirect_uri=..., acr_values="<i>", login_hint='"')
        page = (await asked.get("/authorize", params=params)).text
        wrong = (await asked.get("/authorize", params={"client_id": "<script>"})).text
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
        pytest.param("offline_access", "Stay connected until you take it back", id="offline"),
        pytest.param("openid", "Know who you are", id="openid"),
        pytest.param("https://api.example.com/x.read", "Use the permission", id="a URL"),
        pytest.param("whatever", "Use the permission", id="unknown"),
    ],
)
async def test_scopes_in_words(scope: str, words: str) -> None:
    assert scope_in_words(scope, {"described": "What it means"}) == words


async def test_redirects_in_words() -> None:
    assert [redirect_host(uri) for uri in (CALLBACK, "https://a.example/cb", "cursor://x/cb", "com.a:/b")] == [
        "localhost:6274",
        "a.example",
        "cursor:",
        "com.a:",
    ]
    assert is_loopback_redirect("https://localhost/cb")
    assert not is_loopback_redirect("cursor://localhost/cb")
