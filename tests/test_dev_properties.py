"""Any bytes at any endpoint of the development authorization server get a response, never an exception or a 500."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import anyio
import pytest
from dev import BASE, CALLBACK, CHALLENGE, INSPECTOR, MCP, VERIFIER, dev_server
from harness import Answer, call
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth.dev import DevServer
from asgi_mcp_auth.dev._clients import ClientRules, read_client
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._forms import basic_credentials, read_params
from asgi_mcp_auth.dev._policy import Policy
from asgi_mcp_auth.dev._redirects import is_registered, redirect_host, redirect_uri_error, with_params

T = TypeVar("T")

FORM = {"content-type": "application/x-www-form-urlencoded"}
PUBLIC = {"client_id": "public", "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token"]}
SECRET = {"client_id": "secret", "client_secret": "s", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post"}  # fmt: skip


@functools.cache
def server() -> DevServer:
    return dev_server(clients=[PUBLIC, SECRET], client_documents=False)


def ask(method: str, path: str, **more: Any) -> Answer:
    answers: list[Answer] = []

    async def use() -> None:
        answers.append(await call(server(), method, path, more.pop("headers", {}), host="localhost:9000", **more))

    anyio.run(use)
    (answer,) = answers
    assert answer.status < 500
    return answer


def is_json_error(answer: Answer) -> None:
    content = answer.json()
    assert 400 <= answer.status < 500
    assert content["error_description"].isascii()
    assert not {'"', "\\"} & set(content["error_description"])


FEW = settings(max_examples=60, deadline=None)
names = st.sampled_from(
    [
        *("grant_type", "client_id", "client_secret", "code", "code_verifier", "redirect_uri", "refresh_token"),
        *("resource", "scope", "state", "response_type", "code_challenge", "code_challenge_method", "token"),
        *("max_age", "acr_values", "prompt", "nonce", "login_hint", "response_mode", "csrf", "decision", "user"),
    ]
)
values = st.one_of(
    st.sampled_from(["authorization_code", "refresh_token", "client_credentials", "public", "secret", "s", MCP, CALLBACK]),
    st.sampled_from(["mcp:read", "offline_access openid", "code", "S256", CHALLENGE, VERIFIER, "none", "0", "allow"]),
    st.text(max_size=30),
    st.binary(max_size=20),
)  # fmt: skip
forms = st.lists(st.tuples(names, values), max_size=12).map(lambda pairs: urlencode(pairs).encode("ascii"))
lines = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: b"Basic " + text.encode("utf-8", "replace")),
    st.tuples(st.text(max_size=10), st.text(max_size=10)).map(lambda pair: _basic(":".join(pair))),
)


def _basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode("utf-8", "replace"))


@pytest.mark.requirement("AS-30")
@FEW
@given(body=st.one_of(st.binary(max_size=200), forms), path=st.sampled_from(["/token", "/introspect", "/revoke"]))
def test_any_bytes_at_the_endpoints_of_programs(body: bytes, path: str) -> None:
    answer = ask("POST", path, body=body, headers=FORM)
    if answer.status != 200:
        is_json_error(answer)


@pytest.mark.requirement("AS-31")
@FEW
@given(line=lines, kind=st.one_of(st.just(b"application/x-www-form-urlencoded"), st.binary(max_size=30)))
def test_any_credential(line: bytes, kind: bytes) -> None:
    headers = [("authorization", line), ("content-type", kind)]
    is_json_error(ask("POST", "/token", body=b"grant_type=client_credentials", headers=headers))


json_values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=8,
)
members = st.sampled_from([*INSPECTOR, "scope", "contacts", "client_id", "client_secret", "logo_uri"])


@pytest.mark.requirement("AS-40", "AS-42", "AS-44")
@FEW
@given(changes=st.dictionaries(members, json_values, max_size=4))
def test_any_registration(changes: dict[str, Any]) -> None:
    body = json.dumps(INSPECTOR | changes).encode()
    answer = ask("POST", "/register", body=body, headers={"content-type": "application/json"})
    if answer.status == 201:
        assert not [value for value in answer.json().values() if value in (None, "")]
        assert answer.json()["client_id"].startswith("dcr_")
    else:
        assert answer.status == 400
        is_json_error(answer)


@pytest.mark.requirement("AS-42")
@FEW
@given(body=st.binary(max_size=300))
def test_any_bytes_at_registration(body: bytes) -> None:
    is_json_error(ask("POST", "/register", body=body, headers={"content-type": "application/json"}))


@pytest.mark.requirement("AS-10", "AS-13")
@FEW
@given(changes=st.dictionaries(names, values, max_size=5), more=st.binary(max_size=30))
def test_any_authorization_request(changes: dict[str, Any], more: bytes) -> None:
    params: dict[str, Any] = {
        "response_type": "code",
        "client_id": "public",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "redirect_uri": CALLBACK,
        "resource": MCP,
        "state": "s",
    }
    answer = ask("GET", "/authorize", query=urlencode(params | changes).encode("ascii") + b"&" + more)
    if answer.status == 302:
        location = answer.header("location") or ""
        assert location.isascii()
        assert urlsplit(location)[:3] == urlsplit(location.split("?")[0])[:3]
        assert is_registered([CALLBACK], location.split("?")[0])
        assert location.count("iss=http%3A%2F%2Flocalhost%3A9000") == 1
    else:
        assert answer.status == 400
        assert (answer.header("content-type") or "").startswith("text/html")
        assert answer.header("location") is None


@FEW
@given(
    path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "OPTIONS", "PUT"]), body=st.binary(max_size=40)
)
def test_any_path(path: str, method: str, body: bytes) -> None:
    ask(method, "/" + path, body=body, raw_path=b"/")


@FEW
@given(host=st.binary(max_size=30), cookie=st.binary(max_size=40))
def test_any_host_and_cookie(host: bytes, cookie: bytes) -> None:
    headers = [*FORM.items(), ("cookie", cookie), ("sec-fetch-site", b"same-origin")]
    assert ask("POST", "/consent", body=b"csrf=x", headers=headers).status == 400
    answers: list[Answer] = []

    async def use() -> None:
        answers.append(await call(server(), "GET", "/jwks", [("host", host)], host=None))

    anyio.run(use)
    assert answers[0].status in (200, 421)


def allowed(work: Callable[[], T], *codes: str) -> T | None:
    """Return the result, or None if the work fails with one of the codes."""
    try:
        return work()
    except OAuthError as error:
        if error.error not in codes:
            raise
        return None


# --- the parsers themselves -------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=200))
def test_params_of_any_bytes(data: bytes) -> None:
    params = allowed(lambda: read_params(data), "invalid_request")
    if params is None:
        return
    assert all(found and all(found) for found in params.values.values())
    for name, found in params.values.items():
        if name != "state":
            "".join(found).encode("utf-8")


@pytest.mark.requirement("AS-16")
@given(state=st.binary(min_size=1, max_size=50))
def test_any_state_is_returned_unchanged(state: bytes) -> None:
    params = read_params(urlencode({"state": state}).encode("ascii"))
    sent = params.get("state")
    assert sent is not None
    again = read_params(urlsplit(with_params(CALLBACK, {"state": sent})).query.encode("ascii"))
    assert again.get("state") == sent


@given(line=st.binary(max_size=80))
def test_credentials_of_any_bytes(line: bytes) -> None:
    found = basic_credentials(line)
    assert found is None or len(found) == 2


@pytest.mark.requirement("AS-12")
@given(uri=st.one_of(st.text(max_size=60), st.from_regex(r"[a-z]{2,12}:(//)?[!-~]{0,40}", fullmatch=True)))
def test_redirects_of_any_text(uri: str) -> None:
    if redirect_uri_error(uri) is None:
        assert uri.isascii()
        assert "#" not in uri
        assert is_registered([uri], uri)
        assert with_params(uri, {"code": "x"}).encode("ascii").startswith(uri.encode("ascii"))
        assert redirect_host(uri)
        assert uri.partition(":")[0].lower() not in ("javascript", "data", "file", "vbscript")


@pytest.mark.requirement("AS-11")
@given(
    registered=st.sampled_from(["http://localhost/cb", "https://app.example/cb", "x.y:/cb"]), tail=st.text(max_size=20)
)
def test_a_longer_uri_does_not_match(registered: str, tail: str) -> None:
    assert is_registered([registered], registered + tail) is (not tail)


@given(metadata=st.dictionaries(members, json_values, max_size=6))
def test_clients_of_any_members(metadata: dict[str, Any]) -> None:
    codes = ("invalid_redirect_uri", "invalid_client_metadata")
    client = allowed(
        lambda: read_client(metadata, client_id="c", rules=ClientRules(), default_auth_method="none"), *codes
    )
    if client is None:
        return
    assert client.secret is None
    assert set(client.grant_types) <= {"authorization_code", "refresh_token"}


@pytest.mark.requirement("AS-22", "AS-23")
@given(
    asked=st.lists(st.one_of(st.sampled_from([MCP, f"{BASE}/x", MCP.upper()]), st.text(max_size=40)), max_size=4),
    scope=st.one_of(st.none(), st.text(max_size=40), st.text("ab c", max_size=9)),
)
def test_only_configured_resources_and_scopes_are_granted(asked: list[str], scope: str | None) -> None:
    policy = Policy(resources=(MCP, f"{BASE}/x"), scopes=("a", "b"), default_scopes=("a",))
    resources = allowed(lambda: policy.resources_to_authorize(asked), "invalid_target")
    if resources is not None:
        assert set(resources) <= set(policy.resources)
        narrowed = allowed(lambda: policy.narrowed_resources(asked[:1], resources), "invalid_target")
        assert narrowed is not None
        assert set(narrowed) <= set(resources)
    granted = allowed(lambda: policy.scopes_to_grant(scope), "invalid_scope")
    if granted is not None:
        assert set(granted.scopes) <= {"a", "b"}
        fewer = allowed(lambda: policy.narrowed_scopes(scope, granted), "invalid_scope")
        assert fewer is None or set(fewer.scopes) <= set(granted.scopes)
