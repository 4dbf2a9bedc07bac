"""The read-only view of a scope: one pass over the header fields, repeated fields as separate lines."""

from __future__ import annotations

from typing import Any

import pytest
from harness import http_scope
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._mcp.headers import header_params
from asgi_mcp_auth._request import API_KEY_FIELD, CREDENTIAL_FIELDS, MAX_ROOT_PATH, MESSAGE_FIELDS, RequestInfo
from asgi_mcp_auth.errors import MessageRefused


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], {}, id="none"),
        pytest.param([(b"authorization", b"Bearer x")], {b"authorization": [b"Bearer x"]}, id="one"),
        pytest.param(
            [(b"authorization", b"a"), (b"accept", b"*/*"), (b"authorization", b"a")],
            {b"authorization": [b"a", b"a"]},
            id="RS-12 two lines stay two",
        ),
        pytest.param([(b"authorization", b"")], {b"authorization": [b""]}, id="an empty value is a line"),
        pytest.param(
            [(b"proxy-authorization", b"Bearer x"), (b"x-api-key", b"x"), (b"cookie", b"access_token=x")],
            {},
            id="RS-15 no other field is looked at",
        ),
        pytest.param([(b"sec-authorization", b"x"), (b"x-forwarded-host", b"evil.example")], {}, id="RS-8 forwarded"),
        pytest.param(
            [(b"host", b"h"), (b"origin", b"o1"), (b"origin", b"o2"), (b"dpop", b"p")],
            {b"host": [b"h"], b"origin": [b"o1", b"o2"], b"dpop": [b"p"]},
            id="RS-221 two origins stay two",
        ),
    ],
)
def test_fields(headers: list[tuple[bytes, bytes]], expected: dict[bytes, list[bytes]]) -> None:
    assert RequestInfo(http_scope() | {"headers": headers}).fields == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(MESSAGE_FIELDS | {b"accept", b"x"})), st.binary(max_size=20)), max_size=8)
)
def test_fields_are_the_lines_in_order(headers: list[tuple[bytes, bytes]]) -> None:
    fields = RequestInfo(http_scope() | {"headers": headers}).fields
    assert set(fields) == {name for name, _ in headers} & MESSAGE_FIELDS
    for name, lines in fields.items():
        assert lines == [value for other, value in headers if other == name]


@pytest.mark.parametrize(
    "spelling",
    [b"mcp-session-id", b"mcp_session_id", b"mcp-session_id", b"mcp_session-id"],
)
def test_underscores_are_hyphens(spelling: bytes) -> None:
    """A WSGI adapter behind the middleware reads both as HTTP_MCP_SESSION_ID."""
    request = RequestInfo(http_scope() | {"headers": [(spelling, b"s")]})
    assert request.fields == {b"mcp-session-id": [b"s"]}
    assert request.forwarded == [(spelling, b"s")]


def test_credentials_are_not_forwarded() -> None:
    headers = [(b"accept", b"a"), (b"authorization", b"Bearer x"), (b"host", b"h"), (b"dpop", b"p")]
    assert RequestInfo(http_scope() | {"headers": headers}).forwarded == [(b"accept", b"a"), (b"host", b"h")]


def test_headers_may_be_any_iterable() -> None:
    assert RequestInfo(http_scope() | {"headers": iter([(b"host", b"h")])}).fields == {b"host": [b"h"]}


def test_credentials_are_among_what_is_read() -> None:
    assert {b"authorization", b"dpop", API_KEY_FIELD} == CREDENTIAL_FIELDS
    assert {API_KEY_FIELD} == CREDENTIAL_FIELDS - MESSAGE_FIELDS  # read where a field for API keys is configured


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({"raw_path": b"/a%2Fb"}, b"/a%2Fb", id="RS-50 as received"),
        pytest.param({"raw_path": b"/a?access_token=x"}, b"/a", id="RS-14 a raw path with a query"),
        pytest.param({"raw_path": None, "path": "/café"}, "/café".encode(), id="RS-50 a server that gives None"),
        pytest.param({"raw_path": b"", "path": "/a"}, b"", id="RS-50 an empty one"),
        pytest.param({"raw_path": None, "path": "/\ud800"}, b"/\xed\xa0\x80", id="RS-50 a lone surrogate"),
    ],
)
def test_raw_path(scope: dict[str, Any], expected: bytes) -> None:
    assert RequestInfo(http_scope() | scope).raw_path == expected


def test_raw_path_of_a_server_that_gives_none() -> None:
    scope = http_scope(path="/mcp")
    del scope["raw_path"]
    assert RequestInfo(scope).raw_path == b"/mcp"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({}, "https://mcp.example.com/mcp", id="RS-8 the configured origin"),
        pytest.param({"query_string": b"access_token=x"}, "https://mcp.example.com/mcp", id="RS-14 without the query"),
        pytest.param(
            {"raw_path": b"/mcp?access_token=x"}, "https://mcp.example.com/mcp", id="RS-14 a query in the raw path"
        ),
        pytest.param({"raw_path": b"/\xff\r\n"}, "https://mcp.example.com/\\xff\r\n", id="any bytes"),
    ],
)
def test_public_url(scope: dict[str, Any], expected: str) -> None:
    headers = {"host": "evil.example", "x-forwarded-host": "evil.example"}
    request = RequestInfo(http_scope(headers=headers, host=None) | scope)
    assert request.public_url("https://mcp.example.com") == expected


def test_a_websocket_is_a_get() -> None:
    scope = http_scope() | {"type": "websocket"}
    del scope["method"], scope["query_string"]
    request = RequestInfo(scope)
    assert (request.is_websocket, request.method, request.query_string) == (True, "GET", b"")
    assert RequestInfo(http_scope()).is_websocket is False


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([b"mcp-param-tenant"], {"tenant": "0"}, id="hyphens"),
        pytest.param([b"mcp_param_tenant"], None, id="underscores in the prefix"),
        pytest.param([b"mcp-param-tenant_id"], {"tenant_id": "0"}, id="an underscore of the name stays"),
        pytest.param([b"mcp-param-a", b"mcp-param-b"], {"a": "0", "b": "1"}, id="two names"),
        pytest.param([b"mcp-param-a", b"mcp-param-a"], None, id="repeated"),
        pytest.param([b"mcp-param-a", b"mcp_param-a"], None, id="repeated in another spelling"),
        pytest.param([b"mcp-param-a-b", b"mcp-param-a_b"], None, id="names that differ in an underscore"),
    ],
)
def test_header_params_fold_underscores(names: list[bytes], expected: dict[str, str] | None) -> None:
    """No field reaches a server behind a WSGI adapter as `Mcp-Param-*` that the hook does not see."""
    headers = [(name, str(index).encode()) for index, name in enumerate(names)]
    if expected is None:
        with pytest.raises(MessageRefused):
            header_params(headers, None)
    else:
        assert header_params(headers, None) == expected


def test_a_root_path_is_removed_from_a_well_known_path_up_to_a_length() -> None:
    """Daphne takes the root path from a header field, so its length is a client's choice."""
    for length in (MAX_ROOT_PATH, MAX_ROOT_PATH + 1):
        root = "/" + "é" * (length - 1)
        raw = f"{root}/.well-known/x".encode()
        scope = http_scope(path=f"{root}/.well-known/x", raw_path=raw) | {"root_path": root}
        found = RequestInfo(scope).well_known_path
        assert found == (b"/.well-known/x" if length == MAX_ROOT_PATH else raw)
