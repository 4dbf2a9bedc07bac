"""Grammar rules that several RFCs share: exact, and written once in the package."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asgi_mcp_auth
from asgi_mcp_auth._oauth import grammar
from asgi_mcp_auth._oauth.grammar import NQCHAR, NQSCHAR, QUOTED_STRING, TCHAR, TOKEN, is_scope, is_token68

EVERY = [chr(number) for number in range(0x110)]


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        pytest.param(TCHAR, set(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"), id="RFC 9110 tchar"),
        pytest.param(NQCHAR, {chr(n) for n in (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))}, id="RFC 6749 NQCHAR"),
        pytest.param(
            NQSCHAR, {chr(n) for n in (*range(0x20, 0x22), *range(0x23, 0x5C), *range(0x5D, 0x7F))}, id="NQSCHAR"
        ),
    ],
)
def test_a_class_has_exactly_the_characters_of_its_rfc(characters: str, expected: set[str]) -> None:
    assert {character for character in EVERY if re.fullmatch(f"[{characters}]", character)} == expected
    assert {character for character in EVERY if not re.fullmatch(f"[^{characters}]", character)} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('""', True, id="empty"),
        pytest.param('"a b, c=d"', True, id="a text"),
        pytest.param(r'"\"\\"', True, id="escapes"),
        pytest.param('"a', False, id="not closed"),
        pytest.param(r'"a\"', False, id="closed by an escaped quote"),
        pytest.param('"a"b"', False, id="closed twice"),
    ],
)
def test_quoted_strings(text: str, expected: bool) -> None:
    assert (re.fullmatch(QUOTED_STRING, text) is not None) is expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=8) | st.text(alphabet="aZ9-._~+/=, ", max_size=8).map(str.encode))
def test_token68_is_the_grammar(text: bytes) -> None:
    assert is_token68(text) is (re.fullmatch(rb"[A-Za-z0-9\-._~+/]+=*", text) is not None)


def test_a_rule_is_written_once() -> None:
    """No module has its own copy of `tchar` or `NQCHAR`."""
    root = Path(asgi_mcp_auth.__file__).parent
    copies = {
        file.name
        for file in root.rglob("*.py")
        if re.search(r"!#\$%&'\*\+|x21\\x23", file.read_text("utf-8"), re.IGNORECASE)
    }
    assert copies == {Path(grammar.__file__).name}
    assert re.fullmatch(TOKEN, "mcp-param-x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("mcp:read", True, id="RS-117 ordinary"),
        pytest.param("!", True, id="RS-117 the first allowed character"),
        pytest.param("~", True, id="RS-117 the last allowed character"),
        pytest.param("https://mcp.example.com/read?a=b&c=[d]", True, id="RS-117 a URL"),
        pytest.param("", False, id="RS-117 empty"),
        pytest.param("a b", False, id="RS-117 space"),
        pytest.param("é", False, id="RS-117 not ASCII"),
        pytest.param('a"b', False, id="RS-117 quote"),
        pytest.param("a\\b", False, id="RS-117 backslash"),
        pytest.param("a\tb", False, id="RS-117 tab"),
        pytest.param("a\n", False, id="RS-117 newline at the end"),
        pytest.param("a\x7f", False, id="RS-117 DEL"),
        pytest.param("a\x00", False, id="RS-117 NUL"),
        pytest.param(None, False, id="RS-117 None"),
        pytest.param(5, False, id="RS-117 a number"),
        pytest.param(b"mcp:read", False, id="RS-117 bytes"),
        pytest.param(["mcp:read"], False, id="RS-117 a list"),
    ],
)
def test_is_scope(text: object, expected: bool) -> None:
    assert is_scope(text) is expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=8))
def test_is_scope_is_the_grammar(text: str) -> None:
    allowed = {0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)}  # RFC 6749, appendix A.4
    assert is_scope(text) is (text != "" and all(ord(char) in allowed for char in text))
