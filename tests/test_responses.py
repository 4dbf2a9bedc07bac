"""`_oauth.responses`: complete responses, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import CH0, PRM, chr_, chs, cht
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.challenge import BEARER, CredentialScheme
from asgi_mcp_auth._oauth.responses import (
    ChallengeSource,
    Response,
    in_band_denied,
    json_response,
    refusal_response,
)
from asgi_mcp_auth.errors import (
    BadRequest,
    Forbidden,
    InsufficientScope,
    InvalidToken,
    Misdirected,
    NoCredential,
    NotFound,
    OriginNotAllowed,
    Reason,
    Refusal,
    Unavailable,
)

SOURCE = ChallengeSource((BEARER,), PRM, ("mcp:read",))


def whole(status: int, body: str, *headers: tuple[str, str]) -> Response:
    """Return a JSON response with `Cache-Control: no-store`."""
    fields = [("content-type", "application/json"), ("content-length", str(len(body))), ("cache-control", "no-store")]
    return Response(status, tuple((k.encode(), v.encode()) for k, v in [*fields, *headers]), body.encode())


def challenged(status: int, body: str, challenge: str) -> Response:
    return whole(status, body, ("www-authenticate", challenge))


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        pytest.param(
            NoCredential(Reason.NO_CREDENTIAL),
            challenged(401, '{"detail":"Authentication required"}', CH0),
            id="RS-13 RS-30 RS-40 no credential",
        ),
        pytest.param(
            NoCredential(Reason.UNSUPPORTED_SCHEME, found="basic"),
            challenged(401, '{"detail":"Authentication required"}', CH0),
            id="RS-13 RS-39 another scheme",
        ),
        pytest.param(
            InvalidToken(Reason.TOKEN_EXPIRED, description="The access token expired"),
            challenged(
                401,
                '{"error":"invalid_token","error_description":"The access token expired"}',
                cht("The access token expired"),
            ),
            id="RS-33 RS-40 expired",
        ),
        pytest.param(
            InvalidToken(Reason.WRONG_AUDIENCE, expected="a", found="b", issuer="c", kid="d", alg="e"),
            challenged(401, '{"error":"invalid_token","error_description":"The access token is invalid"}', cht()),
            id="RS-39 wrong audience, no details",
        ),
        pytest.param(
            InvalidToken(Reason.UNKNOWN_ISSUER, found="https://evil.example"),
            challenged(401, '{"error":"invalid_token","error_description":"The access token is invalid"}', cht()),
            id="RS-39 wrong issuer, the same",
        ),
        pytest.param(
            BadRequest(Reason.MALFORMED_AUTHORIZATION, found="x"),
            challenged(400, '{"error":"invalid_request","error_description":"Malformed Authorization header"}', chr_()),
            id="RS-17 RS-33 RS-40 malformed",
        ),
        pytest.param(
            BadRequest(Reason.TOKEN_IN_URI, description="Token in URI"),
            challenged(400, '{"error":"invalid_request","error_description":"Token in URI"}', chr_("Token in URI")),
            id="RS-14 token in the URI",
        ),
        pytest.param(
            InsufficientScope(required=("mcp:read", "files:write"), found="mcp:read"),
            challenged(
                403,
                '{"error":"insufficient_scope","error_description":"Additional scope required"}',
                chs("mcp:read files:write"),
            ),
            id="RS-42 RS-115 the operation's scopes, not the first challenge's",
        ),
        pytest.param(
            Forbidden(Reason.WEBSOCKETS_DISABLED), whole(403, '{"error":"access_denied"}'), id="RS-43 a plain denial"
        ),
        pytest.param(
            OriginNotAllowed(Reason.ORIGIN_NOT_ALLOWED, found="https://evil.example"),
            whole(403, '{"jsonrpc":"2.0","error":{"code":-32600,"message":"Origin not allowed"}}'),
            id="RS-1 RS-220 another origin, no challenge",
        ),
        pytest.param(
            NotFound(Reason.NO_SUCH_RESOURCE), whole(404, '{"detail":"Not found"}'), id="RS-54 a path of no resource"
        ),
        pytest.param(
            Misdirected(Reason.HOST_NOT_ALLOWED), whole(421, '{"detail":"Host not allowed"}'), id="RS-223 another host"
        ),
        pytest.param(
            Unavailable(Reason.KEYS_UNAVAILABLE, retry_after=5),
            whole(503, '{"error":"temporarily_unavailable"}', ("retry-after", "5")),
            id="RS-6 we cannot know",
        ),
    ],
)
def test_a_refusal_is_rendered_exactly(refusal: Refusal, expected: Response) -> None:
    assert refusal_response(refusal, SOURCE) == expected


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        pytest.param(None, "1", id="RS-6 not known"),
        pytest.param(0, "1", id="RS-6 now"),
        pytest.param(-3.0, "1", id="RS-6 in the past"),
        pytest.param(0.2, "1", id="RS-6 rounded up"),
        pytest.param(4.0, "4", id="RS-6 whole seconds"),
        pytest.param(4.1, "5", id="RS-6 never too early"),
    ],
)
def test_retry_after_is_rounded_up_to_at_least_one_second(retry_after: float | None, expected: str) -> None:
    found = refusal_response(Unavailable(Reason.KEYS_UNAVAILABLE, retry_after=retry_after), SOURCE)
    assert found == whole(503, '{"error":"temporarily_unavailable"}', ("retry-after", expected))


def test_before_a_resource_is_known_there_is_no_challenge() -> None:
    refusal = BadRequest(Reason.AMBIGUOUS_PATH, description="Ambiguous request path")
    body = '{"error":"invalid_request","error_description":"Ambiguous request path"}'
    assert refusal_response(refusal, None) == whole(400, body)


@pytest.mark.parametrize(
    ("used", "blamed"),
    [
        pytest.param(b"bearer", {"Bearer"}, id="RS-38 Bearer was used"),
        pytest.param(b"dpop", {"DPoP"}, id="RS-38 DPoP was used"),
        pytest.param(None, {"Bearer", "DPoP"}, id="RS-12 the scheme is not known"),
    ],
)
def test_there_is_one_challenge_per_scheme_and_the_used_scheme_has_the_error(
    used: bytes | None, blamed: set[str]
) -> None:
    source = ChallengeSource((BEARER, CredentialScheme("DPoP", (("algs", "ES256"),))), PRM, ())
    found = refusal_response(InvalidToken(Reason.BAD_SIGNATURE), source, used=used)
    lines = [value.decode() for name, value in found.headers if name == b"www-authenticate"]
    assert [line.split(" ")[0] for line in lines] == ["Bearer", "DPoP"]
    assert {line.split(" ")[0] for line in lines if "error=" in line} == blamed


def test_fields_of_the_refusal_itself_come_last() -> None:
    refusal = InvalidToken(Reason.BAD_SIGNATURE, response_headers=((b"dpop-nonce", b"n"),))
    assert refusal_response(refusal, SOURCE).headers[-1] == (b"dpop-nonce", b"n")


@pytest.mark.requirement("RS-39")
def test_details_are_for_debugging_only() -> None:
    """Off by default; if on, they contain the values for the operator."""
    refusal = InvalidToken(Reason.WRONG_AUDIENCE, expected="a", found="b\n", issuer="c", kid="d", alg="e")
    cause = {"reason": "wrong_audience", "issuer": "c", "kid": "d", "alg": "e", "expected": "a", "found": "b\\n"}
    plain = {"error": "invalid_token", "error_description": "The access token is invalid"}
    assert json.loads(refusal_response(refusal, SOURCE).body) == plain
    found = refusal_response(refusal, SOURCE, details=True)
    assert json.loads(found.body) == plain | {"cause": cause}
    assert dict(found.headers)[b"content-length"] == str(len(found.body)).encode()


def test_details_do_not_change_a_refusal_for_the_next_request() -> None:
    refusal = OriginNotAllowed(Reason.ORIGIN_NOT_ALLOWED, found="x")
    before = refusal_response(refusal, SOURCE)
    refusal_response(refusal, SOURCE, details=True)
    assert refusal_response(refusal, SOURCE) == before


@pytest.mark.parametrize(
    ("content", "store", "expected"),
    [
        pytest.param(
            {"a": "é"}, False, [b"content-type", b"content-length", b"cache-control", b"x"], id="RS-40 no-store"
        ),
        pytest.param([], True, [b"content-type", b"content-length", b"x"], id="RS-61 to be stored"),
    ],
)
def test_json_response(content: Any, store: bool, expected: list[bytes]) -> None:
    found = json_response(200, content, [(b"x", b"y")], store=store)
    assert [name for name, _ in found.headers] == expected
    assert dict(found.headers)[b"content-length"] == str(len(found.body)).encode()
    assert json.loads(found.body) == content


def test_with_headers_is_a_new_response() -> None:
    first = json_response(200, {})
    second = first.with_headers([(b"vary", b"Origin")])
    assert second == Response(200, (*first.headers, (b"vary", b"Origin")), b"{}")
    assert (b"vary", b"Origin") not in first.headers


texts = st.none() | st.text(max_size=200)


@pytest.mark.requirement("RS-39")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(Reason)), st.tuples(*[texts] * 5))
def test_nothing_of_the_details_reaches_the_caller(reason: Reason, details: tuple[str | None, ...]) -> None:
    """The response contains the same bytes for every invalid token."""
    expected, found, issuer, kid, alg = details
    detailed = InvalidToken(reason, expected=expected, found=found, issuer=issuer, kid=kid, alg=alg)
    assert refusal_response(detailed, SOURCE) == refusal_response(InvalidToken(Reason.BAD_SIGNATURE), SOURCE)


@pytest.mark.parametrize(
    ("scopes", "scope"),
    [
        pytest.param(["files:write"], "files:write", id="RS-45 one scope"),
        pytest.param(["mcp:read", "files:write"], "mcp:read files:write", id="RS-45 several"),
    ],
)
def test_a_denial_after_the_start_of_the_response_is_a_json_rpc_error(scopes: list[str], scope: str) -> None:
    denied: Any = in_band_denied(scopes, id=7)
    assert denied == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {
            "code": 40300,
            "message": "Additional scope required",
            "data": {"error": "insufficient_scope", "scope": scope},
        },
    }
    assert not -32768 <= denied["error"]["code"] <= -32000
