"""`asgi_mcp_auth.testing.assert_challenge`: accepted challenges, messages of failures, and supported responses."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
import requests
from harness import CH0, PRM, chs, cht
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response as StarletteResponse
from starlette.testclient import TestClient

from asgi_mcp_auth import testing
from asgi_mcp_auth.testing import assert_challenge


def response(status: int, *challenges: str) -> httpx.Response:
    return httpx.Response(status, headers=[("WWW-Authenticate", value) for value in challenges])


DPOP = f'DPoP algs="ES256", resource_metadata="{PRM}"'
STEP_UP = f'Bearer error="insufficient_user_authentication", acr_values="mfa", max_age="60", resource_metadata="{PRM}"'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(response(401, CH0), {}, id="RS-30 a 401 with a Bearer challenge"),
        pytest.param(response(401, CH0), {"error": None}, id="RS-13 no error"),
        pytest.param(response(401, CH0), {"resource_metadata": PRM}, id="RS-31 the metadata"),
        pytest.param(response(401, CH0), {"scopes": "mcp:read"}, id="RS-32 a scope as text"),
        pytest.param(response(401, CH0), {"scopes": ["mcp:read"]}, id="RS-32 a scope in a list"),
        pytest.param(response(401, cht()), {"error": "invalid_token", "error_description": "The access token is invalid"}, id="RS-33 an error and its description"),
        pytest.param(response(403, chs("a b")), {"status": 403, "scopes": "b a", "error": "insufficient_scope"}, id="RS-42 scopes in any order"),
        pytest.param(response(403, chs("a b")), {"status": 403, "scopes": {"b", "a"}}, id="RS-42 scopes in a set"),
        pytest.param(response(401, "Bearer"), {"scopes": None, "resource_metadata": None, "error": None}, id="RS-36 nothing in it"),
        pytest.param(response(401, CH0, DPOP), {}, id="RS-139 two lines, and the other scheme"),
        pytest.param(response(401, f"{DPOP}, {CH0}"), {"error": None}, id="RS-139 one line, and the other scheme first"),
        pytest.param(response(401, CH0, DPOP), {"scheme": "dpop", "algs": "ES256"}, id="RS-139 the other scheme, in another case"),
        pytest.param(response(401, "bEARER Error=x"), {"error": "x", "scheme": "BEARER"}, id="RS-30 cases do not matter"),
        pytest.param(response(401, STEP_UP), {"acr_values": "mfa", "max_age": "60"}, id="RS-122 other parameters"),
    ],
)  # fmt: skip
def test_expected_challenges_pass(given: httpx.Response, expected: dict[str, Any]) -> None:
    challenge = assert_challenge(given, **expected)
    assert challenge.scheme.lower() == expected.get("scheme", "bearer").lower()


@pytest.mark.parametrize(
    ("given", "expected", "differences"),
    [
        pytest.param(response(200), {}, ["status: expected 401, found 200", "scheme: expected one challenge of Bearer, found no challenge"], id="no challenge at all"),
        pytest.param(response(403, CH0), {}, ["status: expected 401, found 403"], id="another status"),
        pytest.param(response(421, CH0), {}, ["status: expected 401, found 421", "Host: not allowed; pass base_url=base_url(auth) to the test client"], id="RS-223 another host"),
        pytest.param(response(401, DPOP), {}, ["scheme: expected one challenge of Bearer, found DPoP"], id="another scheme"),
        pytest.param(response(401, CH0, CH0), {}, ["scheme: expected one challenge of Bearer, found Bearer, Bearer"], id="two of one scheme"),
        pytest.param(response(401, CH0), {"error": "invalid_token"}, ['error: expected "invalid_token", found none'], id="an error that is not there"),
        pytest.param(response(401, cht()), {"error": None}, ['error: expected none, found "invalid_token"'], id="an error that must not be there"),
        pytest.param(response(401, CH0), {"resource_metadata": f"{PRM}/"}, [f'resource_metadata: expected "{PRM}/", found "{PRM}"'], id="the metadata is compared exactly"),
        pytest.param(response(401, CH0), {"scopes": "mcp:write"}, ['scope: expected "mcp:write", found "mcp:read" (missing: mcp:write; not expected: mcp:read)'], id="another scope"),
        pytest.param(response(401, CH0), {"scopes": ["mcp:read", "mcp:write"]}, ['scope: expected "mcp:read mcp:write", found "mcp:read" (missing: mcp:write)'], id="a scope too few"),
        pytest.param(response(403, chs("a b")), {"status": 403, "scopes": "a"}, ['scope: expected "a", found "a b" (not expected: b)'], id="a scope too many"),
        pytest.param(response(401, CH0), {"scopes": None}, ['scope: expected none, found "mcp:read"'], id="a scope that must not be there"),
        pytest.param(response(401, "Bearer"), {"scopes": "a"}, ['scope: expected "a", found none'], id="a scope that is not there"),
        pytest.param(response(401, 'Bearer scope=""'), {"scopes": None}, ['scope: expected none, found ""'], id="RS-36 an empty scope is not none"),
        pytest.param(response(401, CH0), {"max_age": "60"}, ['max_age: expected "60", found none'], id="another parameter"),
        pytest.param(response(403, CH0), {"error": "x", "scopes": "mcp:read"}, ["status: expected 401, found 403", 'error: expected "x", found none'], id="every difference at once"),
    ],
)  # fmt: skip
def test_the_message_lists_every_difference(
    given: httpx.Response, expected: dict[str, Any], differences: list[str]
) -> None:
    with pytest.raises(AssertionError) as raised:
        assert_challenge(given, **expected)
    sent = given.headers.get_list("www-authenticate")
    assert str(raised.value).splitlines() == [
        "not the expected challenge:",
        *(f"  {difference}" for difference in differences),
        f"The response has status {given.status_code} and",
        *([f"  WWW-Authenticate: {value}" for value in ([", ".join(sent)] if sent else [])] or ["  no WWW-Authenticate"]),
    ]  # fmt: skip


def of_httpx2(status: int, value: str) -> httpx2.Response:
    return httpx2.Response(status, headers=[("www-authenticate", value)])


def of_requests(status: int, value: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers["www-authenticate"] = value
    return made


def of_starlette(status: int, value: str) -> Any:
    return TestClient(StarletteResponse(status_code=status, headers={"www-authenticate": value})).get("/")


def of_django(status: int, value: str) -> Any:
    http: Any = import_module("django.http")
    kind = "text/plain; charset=utf-8"  # else it asks the settings
    return http.HttpResponse(status=status, headers={"WWW-Authenticate": value}, content_type=kind)


def of_werkzeug(status: int, value: str) -> Any:
    made: Any = import_module("werkzeug").Response(status=status)
    made.headers.extend([("WWW-Authenticate", line) for line in value.split("; ")])
    return made


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(response, id="httpx"),
        pytest.param(of_httpx2, id="httpx2"),
        pytest.param(of_requests, id="requests"),
        pytest.param(of_starlette, id="Starlette's test client"),
        pytest.param(of_django, id="Django"),
        pytest.param(of_werkzeug, id="Werkzeug, as Quart's test client"),
    ],
)
def test_responses_of_common_clients_are_read(make: Callable[[int, str], Any]) -> None:
    wanted: dict[str, Any] = {"scopes": "mcp:read", "error": None, "resource_metadata": PRM}
    assert_challenge(make(401, CH0), **wanted)
    with pytest.raises(AssertionError, match="status: expected 401, found 403"):
        assert_challenge(make(403, CH0), **wanted)


def test_separate_header_lines_are_read() -> None:
    assert_challenge(of_werkzeug(401, f"{DPOP}; {CH0}"), scopes="mcp:read")


@given(st.integers(100, 599), st.lists(st.text(st.characters(codec="latin-1")), max_size=3))
def test_any_header_value_passes_or_is_an_assertion_error(status: int, values: list[str]) -> None:
    headers = SimpleNamespace(items=lambda: [("WWW-Authenticate", value) for value in values])
    odd: Any = SimpleNamespace(status_code=status, headers=headers)
    message = ""
    try:
        challenge = assert_challenge(odd, error="x", scopes="a")
    except AssertionError as error:
        message = str(error)
    else:
        assert (status, challenge.params["error"], challenge.params["scope"]) == (401, "x", "a")
    assert not message or message.startswith("not the expected challenge")


def test_the_message_in_the_readme() -> None:
    readme = (Path(testing.__file__).parent / "README.md").read_text("utf-8")
    metadata = "https://api.example.com/.well-known/oauth-protected-resource/notes"
    found = response(401, f'Bearer scope="notes:read", resource_metadata="{metadata}"')
    with pytest.raises(AssertionError) as raised:
        assert_challenge(found, 403, scopes="notes:read notes:export")
    assert f"```text\n{raised.value}\n```" in readme
