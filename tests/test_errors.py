"""`errors`: one class tree; each class has its status and wire code; `details()` is escaped and cut for operators."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import errors
from asgi_mcp_auth.errors import (
    BadRequest,
    ConfigurationError,
    DiscoveryError,
    ExchangeError,
    Forbidden,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidProof,
    InvalidServerMetadata,
    InvalidToken,
    MCPAuthError,
    MessageRefused,
    MessageTooLarge,
    MethodNotAllowed,
    Misdirected,
    NoCredential,
    NonceRequired,
    NotFound,
    OriginNotAllowed,
    Problem,
    Reason,
    Refusal,
    SessionNotFound,
    Unauthenticated,
    Unavailable,
    UnsupportedContent,
    printable,
)
from asgi_mcp_auth.exceptions import MCPAuthBearerAuthException, MCPAuthTokenVerificationException

TREE = {
    MCPAuthError: Exception,
    ConfigurationError: MCPAuthError,
    DiscoveryError: MCPAuthError,
    InvalidServerMetadata: DiscoveryError,
    ExchangeError: MCPAuthError,
    Refusal: MCPAuthError,
    BadRequest: Refusal,
    Unauthenticated: Refusal,
    NoCredential: Unauthenticated,
    InvalidToken: Unauthenticated,
    InvalidProof: Unauthenticated,
    NonceRequired: Unauthenticated,
    InsufficientAuthentication: Unauthenticated,
    Forbidden: Refusal,
    OriginNotAllowed: Forbidden,
    InsufficientScope: Forbidden,
    NotFound: Refusal,
    MethodNotAllowed: Refusal,
    Misdirected: Refusal,
    Unavailable: Refusal,
    MessageRefused: Refusal,
    MessageTooLarge: MessageRefused,
    UnsupportedContent: MessageRefused,
    SessionNotFound: MessageRefused,
}


def test_the_tree_is_the_documented_one() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes == set(TREE)
    for child, parent in TREE.items():
        assert child.__bases__[0] is parent
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert drawn == [child.__name__ for child in TREE if child is not MCPAuthError]
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidServerMetadata, ConfigurationError)
    for of_mcpauth in (MCPAuthBearerAuthException, MCPAuthTokenVerificationException):
        assert of_mcpauth.__bases__ == (InvalidToken,)


@pytest.mark.parametrize(
    ("leaf", "status", "wire_code", "description"),
    [
        pytest.param(BadRequest, 400, "invalid_request", "Malformed Authorization header", id="RS-33 400"),
        pytest.param(Unauthenticated, 401, None, "The request is not acceptable", id="RS-30 401"),
        pytest.param(NoCredential, 401, None, "Authentication required", id="RS-13 no error code"),
        pytest.param(InvalidToken, 401, "invalid_token", "The access token is invalid", id="RS-33 RS-39 401"),
        pytest.param(Forbidden, 403, "access_denied", "Access denied", id="RS-43 403"),
        pytest.param(OriginNotAllowed, 403, "access_denied", "Origin not allowed", id="RS-220 403"),
        pytest.param(NotFound, 404, None, "Not found", id="RS-54 404"),
        pytest.param(Misdirected, 421, None, "Host not allowed", id="RS-223 421"),
        pytest.param(
            Unavailable, 503, "temporarily_unavailable", "The token cannot be verified right now", id="RS-6 503"
        ),
    ],
)
def test_each_class_has_its_status_code_and_description(
    leaf: type[Refusal], status: int, wire_code: str | None, description: str
) -> None:
    refusal = leaf(Reason.HOOK_FAILED)
    assert (refusal.status, refusal.wire_code, refusal.description) == (status, wire_code, description)
    assert (refusal.code, refusal.reason, str(refusal)) == ("hook_failed", Reason.HOOK_FAILED, description)
    assert repr(refusal) == f"<{leaf.__name__} {status} hook_failed>"
    assert leaf(Reason.HOOK_FAILED, description="Another sentence").description == "Another sentence"


@pytest.mark.requirement("RS-42", "RS-111")
def test_insufficient_scope_lists_the_required_scopes() -> None:
    refusal = InsufficientScope(required=("a", "b"), found="c")
    assert (refusal.status, refusal.wire_code, refusal.reason) == (403, "insufficient_scope", Reason.INSUFFICIENT_SCOPE)
    assert (refusal.required, refusal.details()) == (("a", "b"), {"expected": "a b", "found": "c"})


@pytest.mark.requirement("RS-35", "RS-37")
@pytest.mark.parametrize("leaf", [child for child in TREE if issubclass(child, Refusal)])
def test_descriptions_need_no_quoting(leaf: type[Refusal]) -> None:
    assert re.fullmatch(r'[^"\\=]+', leaf.default_description)
    assert leaf.default_description.isascii()


def test_reasons_are_a_closed_list_of_snake_case_codes() -> None:
    values = [reason.value for reason in Reason]
    assert len(values) == len(set(values)) == len(Reason.__members__)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", value) for value in values)
    assert [name.lower() for name in Reason.__members__] == values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("plain", "plain", id="text"),
        pytest.param("a\r\nb", "a\\r\\nb", id="line breaks"),
        pytest.param("\x1b[31m", "\\x1b[31m", id="escape sequences of a terminal"),
        pytest.param("é\u2028\ud800", "\\xe9\\u2028\\ud800", id="not ASCII"),
        pytest.param("a\\b", "a\\\\b", id="backslash"),
        pytest.param(5, "5", id="a number"),
        pytest.param(["é"], "['\\xe9']", id="another object"),
        pytest.param(b"x", "b'x'", id="bytes"),
        pytest.param(None, "None", id="None"),
        pytest.param("x" * 128, "x" * 128, id="as long as allowed"),
        pytest.param("x" * 129, "x" * 125 + "...", id="cut"),
    ],
)
def test_printable_escapes_and_cuts_a_value(value: object, expected: str) -> None:
    assert printable(value) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | st.binary(max_size=300), st.integers(min_value=10, max_value=200))
def test_printable_is_one_short_line(value: object, limit: int) -> None:
    text = printable(value, limit)
    assert len(text) <= limit
    assert text.isascii()
    assert text.isprintable()


hostile = st.text(max_size=200)


@settings(max_examples=100, deadline=None)
@given(hostile, hostile, hostile, hostile, hostile)
def test_details_are_escaped_and_cut(issuer: str, kid: str, alg: str, expected: str, found: str) -> None:
    refusal = InvalidToken(Reason.UNKNOWN_KID, issuer=issuer, kid=kid, alg=alg, expected=expected, found=found)
    details = refusal.details()
    assert list(details) == ["issuer", "kid", "alg", "expected", "found"]
    assert all(len(value) <= 128 and value.isascii() and value.isprintable() for value in details.values())
    assert repr(refusal) == "<InvalidToken 401 unknown_kid>"
    assert str(refusal) == "The access token is invalid"


def test_details_say_only_what_is_known() -> None:
    assert InvalidToken(Reason.BAD_SIGNATURE).details() == {}
    assert InvalidToken(Reason.WRONG_AUDIENCE, found=["a"], kid="").details() == {"kid": "", "found": "['a']"}


def test_a_configuration_error_lists_every_problem() -> None:
    problems = [Problem("resource", "It is wrong.", "Fix it."), Problem("public_paths", "They are wrong.", "")]
    error = ConfigurationError(iter(problems))
    assert error.problems == tuple(problems)
    assert str(error) == (
        "2 configuration problems\n  - resource: It is wrong. Fix it.\n  - public_paths: They are wrong."
    )
    assert str(ConfigurationError(problems[:1])).startswith("1 configuration problem\n")
    assert error.to_json() == {"error": "invalid_server_config", "error_description": str(error)}


@pytest.mark.parametrize(
    ("error", "show", "expected"),
    [
        pytest.param(
            DiscoveryError("No answer.", transient=True, cause=OSError("boom")),
            False,
            {"error": "fetch_server_config_error", "error_description": "No answer."},
            id="the cause is hidden",
        ),
        pytest.param(
            DiscoveryError("No answer.", transient=True, cause=OSError("bo\nom")),
            True,
            {"error": "fetch_server_config_error", "error_description": "No answer.", "cause": "bo\\nom"},
            id="the cause is escaped",
        ),
        pytest.param(
            InvalidToken(Reason.REVOKED),
            True,
            {"error": "revoked", "error_description": "The access token is invalid"},
            id="no cause",
        ),
    ],
)
def test_to_json_contains_the_cause_only_if_it_is_requested(
    error: MCPAuthError, show: bool, expected: dict[str, str]
) -> None:
    assert error.to_json(show) == expected


def test_invalid_server_metadata_is_a_discovery_error_and_a_configuration_error() -> None:
    error = InvalidServerMetadata("It is wrong.", cause="x")
    assert (error.transient, error.cause, error.problems) == (False, "x", (Problem("metadata", "It is wrong.", ""),))
    assert error.code == "invalid_server_metadata"
