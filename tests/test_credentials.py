"""One Authorization line of one shape, or a refusal that says which kind."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.credentials import MAX_LENGTH, Credential, has_query_token, read_credential
from asgi_mcp_auth.errors import BadRequest, NoCredential, Reason

BEARER = frozenset({b"bearer"})
TOKEN = b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"Bearer " + TOKEN, TOKEN, id="RS-10 as usual"),
        pytest.param(b"bEaReR " + TOKEN, TOKEN, id="RS-10 any case"),
        pytest.param(b"BEARER " + TOKEN, TOKEN, id="RS-10 upper case"),
        pytest.param(b"Bearer  " + TOKEN, TOKEN, id="RS-11 two spaces"),
        pytest.param(b"Bearer" + b" " * 5000 + TOKEN, TOKEN, id="RS-11 many spaces"),
        pytest.param(b" \tBearer " + TOKEN + b"\t ", TOKEN, id="RS-11 outer whitespace"),
        pytest.param(b"Bearer " + ALPHABET, ALPHABET, id="RS-11 every character of token68"),
        pytest.param(b"Bearer x==", b"x==", id="RS-11 padding"),
        pytest.param(b"Bearer x=======", b"x=======", id="RS-11 any amount of padding"),
        pytest.param(b"Bearer abc", b"abc", id="RS-17 a well-formed token of any kind"),
        pytest.param(b"Bearer Bearer", b"Bearer", id="RS-17 the scheme again"),
        pytest.param(b"Bearer " + b"a" * MAX_LENGTH, b"a" * MAX_LENGTH, id="RS-16 as long as allowed"),
    ],
)
def test_a_credential(value: bytes, expected: bytes) -> None:
    assert read_credential([value], BEARER) == Credential(b"bearer", expected)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(None, id="RS-13 absent"),
        pytest.param([b""], id="RS-13 empty"),
        pytest.param([b" \t "], id="RS-13 whitespace"),
        pytest.param([b", Bearer x"], id="RS-13 nothing like a scheme"),
        pytest.param(["é x".encode()], id="RS-13 a scheme outside of ASCII"),
        pytest.param([b"\x00Bearer x"], id="RS-13 NUL"),
    ],
)
def test_no_credential(lines: list[bytes] | None) -> None:
    found = read_credential(lines, BEARER)
    assert isinstance(found, NoCredential)
    assert (found.reason, found.status, found.wire_code) == (Reason.NO_CREDENTIAL, 401, None)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        pytest.param(b"Basic dTpw", "basic", id="RS-13 Basic"),
        pytest.param(b"Digest x", "digest", id="RS-13 Digest"),
        pytest.param(b"Token x", "token", id="RS-13 Token"),
        pytest.param(b"DPoP " + TOKEN, "dpop", id="RS-13 DPoP while it is off"),
        pytest.param(b"Bearerx " + TOKEN, "unknown", id="RS-13 a longer name"),
        pytest.param(b"Bear er", "unknown", id="RS-13 a shorter name"),
        pytest.param(b"x" * 1000 + b" y", "unknown", id="RS-13 a name without end"),
    ],
)
def test_an_unsupported_scheme_is_no_credential(value: bytes, scheme: str) -> None:
    found = read_credential([value], BEARER)
    assert isinstance(found, NoCredential)
    assert (found.reason, found.wire_code) == (Reason.UNSUPPORTED_SCHEME, None)
    assert found.found == scheme


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"s3cr3t-opaque-token", id="RS-13 a short one"),
        pytest.param(TOKEN, id="RS-13 a JWT"),
        pytest.param(b"  0123456789abcdef0123456789abcdef  ", id="RS-13 within whitespace"),
    ],
)
def test_a_token_without_scheme_is_no_credential_and_is_not_logged(secret: bytes) -> None:
    """A client that forgot `Bearer` sent a token all the same (errors.py: no field ever holds a token)."""
    found = read_credential([secret], BEARER)
    assert isinstance(found, NoCredential)
    assert secret.strip()[:8].lower().decode() not in str(found.details()).lower()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Bearer", id="RS-11 nothing after"),
        pytest.param(b"Bearer ", id="RS-11 only a space after"),
        pytest.param(b"Bearer    \t", id="RS-11 only whitespace after"),
        pytest.param(b"Bearer\t" + TOKEN, id="RS-11 a tab"),
        pytest.param(b"Bearer \t" + TOKEN, id="RS-11 a space and a tab"),
        pytest.param(b"Bearer a b", id="RS-11 two tokens"),
        pytest.param(b"Bearer a,b", id="RS-11 a comma"),
        pytest.param(b"Bearer a=b", id="RS-11 a parameter"),
        pytest.param(b"Bearer =a", id="RS-11 padding first"),
        pytest.param(b"Bearer ==", id="RS-11 only padding"),
        pytest.param("Bearer é".encode(), id="RS-11 UTF-8"),
        pytest.param("Bearer é".encode("latin-1"), id="RS-11 latin-1"),
        pytest.param(b'Bearer "tok"', id="RS-11 quotes"),
        pytest.param(b"Bearer, " + TOKEN, id="RS-11 a comma after the scheme"),
        pytest.param(b"Bearer=" + TOKEN, id="RS-11 an equals sign after the scheme"),
        pytest.param(b"Bearer " + TOKEN + b"\x00", id="RS-11 NUL"),
        pytest.param(b"Bearer " + TOKEN + b"\r\nX: y", id="RS-11 a line break"),
        pytest.param(b"Bearer " + TOKEN + b", Bearer " + TOKEN, id="RS-12 two credentials on one line"),
        pytest.param(b"Bearer\xa0" + TOKEN, id="RS-11 a no-break space"),
        pytest.param(b"Bearer " + b"a" * (MAX_LENGTH + 1), id="RS-16 one too long"),
        pytest.param(b"Bearer " + b"a" * (20 * 1024), id="RS-16 20 KiB"),
    ],
)
def test_malformed(value: bytes) -> None:
    found = read_credential([value], BEARER)
    assert isinstance(found, BadRequest)
    assert (found.reason, found.status, found.wire_code) == (Reason.MALFORMED_AUTHORIZATION, 400, "invalid_request")
    assert found.description == "Malformed Authorization header"
    assert TOKEN.decode() not in str(found.details())


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Bearer " + TOKEN] * 2, id="RS-12 identical"),
        pytest.param([b"Bearer " + TOKEN, b"Basic dTpw"], id="RS-12 another scheme"),
        pytest.param([b"Basic dTpw", b"Digest x"], id="RS-12 both unsupported"),
        pytest.param([b"", b""], id="RS-12 both empty"),
        pytest.param([b""] * 1000, id="RS-12 a thousand"),
    ],
)
def test_more_than_one_line(lines: list[bytes]) -> None:
    found = read_credential(lines, BEARER)
    assert isinstance(found, BadRequest)
    assert (found.reason, found.wire_code) == (Reason.MULTIPLE_AUTHORIZATION, "invalid_request")
    assert found.description == "Multiple Authorization headers"
    assert found.found == f"{len(lines)} lines"


@pytest.mark.parametrize(
    ("value", "expected", "found"),
    [
        pytest.param(
            b"Bearer " + b"a" * (MAX_LENGTH + 1),
            "at most 16384 bytes after the scheme",
            "16385 bytes after the scheme",
            id="D6 RS-16 one too long",
        ),
        pytest.param(
            b"Bearer " + b"," * 20_000,
            "at most 16384 bytes after the scheme",
            "20000 bytes after the scheme",
            id="D6 RS-16 too long and malformed",
        ),
        pytest.param(b"Bearer a,b", "scheme 1*SP token68", "characters outside token68", id="RS-11 a comma"),
        pytest.param(b"Bearer ", "scheme 1*SP token68", "nothing after the scheme", id="RS-11 nothing after"),
        pytest.param(b"Bearer,a", "scheme 1*SP token68", "no space after the scheme", id="RS-11 no space"),
    ],
)
def test_the_record_of_a_malformed_credential_names_the_rule(value: bytes, expected: str, found: str) -> None:
    refusal = read_credential([value], BEARER)
    assert isinstance(refusal, BadRequest)
    assert (refusal.expected, refusal.found) == (expected, found)


def test_another_row_of_the_table_of_schemes() -> None:
    both = frozenset({b"bearer", b"dpop"})
    assert read_credential([b"DPoP " + TOKEN], both) == Credential(b"dpop", TOKEN)
    assert isinstance(read_credential([b"DPoP a b"], both), BadRequest)
    assert isinstance(read_credential([b"Bearer " + TOKEN], frozenset({b"dpop"})), NoCredential)


def test_a_credential_does_not_show_its_token() -> None:
    assert repr(Credential(b"bearer", TOKEN)) == "<Credential bearer>"
    assert f"{Credential(b'bearer', TOKEN)}" == "<Credential bearer>"


# The grammar in one line, to hold the reader to it.
GRAMMAR = re.compile(rb"[ \t]*bearer +([A-Za-z0-9\-._~+/]+=*)[ \t]*", re.IGNORECASE)
near_misses = st.lists(
    st.sampled_from(
        [b"Bearer", b"bearer", b"Basic", b" ", b"\t", b"=", b"a", b"a.b", b",", b'"', b"\xe9", b"\x00", b"\n"]
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40) | near_misses)
@example(b"Bearer a\n")
def test_any_bytes(value: bytes) -> None:
    found = read_credential([value], BEARER)
    match = GRAMMAR.fullmatch(value)
    if match is not None:
        assert found == Credential(b"bearer", match.group(1))
    else:
        assert isinstance(found, (NoCredential, BadRequest))
        claims_bearer = re.match(rb"[ \t]*bearer(?![!#$%&'*+\-.^_`|~0-9A-Za-z])", value, re.IGNORECASE) is not None
        assert isinstance(found, BadRequest) is claims_bearer


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Bearer " + b" " * 1_000_000, id="RS-16 spaces"),
        pytest.param(b"a" * 1_000_000, id="RS-16 a scheme without end"),
        pytest.param(b"Bearer " + b"=" * 1_000_000, id="RS-16 padding"),
        pytest.param(b"Bearer " + b"a=" * 500_000, id="RS-16 alternating"),
    ],
)
def test_long_values_are_fast(value: bytes) -> None:
    start = time.perf_counter()
    assert not isinstance(read_credential([value], BEARER), Credential)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(b"", False, id="RS-14 none"),
        pytest.param(b"access_token=x", True, id="RS-14 alone"),
        pytest.param(b"a=b&access_token=x", True, id="RS-14 after another"),
        pytest.param(b"access_token=", True, id="RS-14 empty"),
        pytest.param(b"xaccess_token=x", False, id="RS-14 a longer name"),
        pytest.param(b"access_token_hint=x", False, id="RS-14 a name that goes on"),
        pytest.param(b"q=access_token=x", False, id="RS-14 inside a value"),
        pytest.param(b"ACCESS_TOKEN=x", False, id="RS-14 another case"),
    ],
)
def test_a_token_in_the_query(query: bytes, expected: bool) -> None:
    assert has_query_token(query) is expected


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_query_has_an_answer(query: bytes) -> None:
    assert has_query_token(query) is any(part.startswith(b"access_token=") for part in query.split(b"&"))
