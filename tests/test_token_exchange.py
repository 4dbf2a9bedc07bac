"""Token exchange as requests and answers (RFC 8693): forms, cache keys, answers, failures and destinations. Pure."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import ConfigurationError, ExchangedToken, ExchangeReason
from asgi_mcp_auth._oauth.token_exchange import (
    ACCESS_TOKEN,
    Destinations,
    ExchangeRequest,
    Failure,
    cached_until,
    make_request,
    read_answer,
    refuses_client,
)
from asgi_mcp_auth._policy.exchange_settings import compile_destinations
from asgi_mcp_auth.errors import ExchangeError, InvalidToken, NoCredential, Unavailable

ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
JSON = "application/json;charset=UTF-8"
NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "access_token": "up.st.ream",
    "issued_token_type": ACCESS_TOKEN,
    "token_type": "Bearer",
    "expires_in": 300,
}
ORDERS = ExchangeRequest(audiences=("https://api.example.com",), scopes=("orders:read",))


def request_of(**changes: Any) -> ExchangeRequest:
    arguments: dict[str, Any] = {"audience": (), "resource": (), "scopes": (), "actor_token": None}
    return make_request(**(arguments | {"requested_token_type": ACCESS_TOKEN} | changes))


def read(content: Any, status: int = 200, request: ExchangeRequest = ORDERS, grant: Any = "token_exchange") -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_answer(status, JSON, body, request, grant=grant, now=NOW)


# --- requests -------------------------------------------------------------------------------------------------------

FORMS: list[tuple[str, dict[str, Any], str, dict[str, list[str]]]] = [
    (
        "audience and scopes",
        {"audience": "https://api.example.com", "scopes": ["orders:read", "orders:write"]},
        "token_exchange",
        {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": ["SUBJECT"],
            "subject_token_type": [ACCESS_TOKEN],
            "requested_token_type": [ACCESS_TOKEN],
            "audience": ["https://api.example.com"],
            "scope": ["orders:read orders:write"],
        },
    ),
    (
        "several resources and audiences, no scope",
        {"audience": ["orders", "stock"], "resource": ["https://a.example.com/x?y", "https://b.example.com"]},
        "token_exchange",
        {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": ["SUBJECT"],
            "subject_token_type": [ACCESS_TOKEN],
            "requested_token_type": [ACCESS_TOKEN],
            "resource": ["https://a.example.com/x?y", "https://b.example.com"],
            "audience": ["orders", "stock"],
        },
    ),
    (
        "actor_token_type exactly with an actor_token",
        {"audience": "orders", "actor_token": "ACTOR"},
        "token_exchange",
        {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": ["SUBJECT"],
            "subject_token_type": [ACCESS_TOKEN],
            "requested_token_type": [ACCESS_TOKEN],
            "audience": ["orders"],
            "actor_token": ["ACTOR"],
            "actor_token_type": [ACCESS_TOKEN],
        },
    ),
    (
        "on behalf of, as Microsoft Entra ID documents it",
        {"scopes": ["https://graph.microsoft.com/user.read", "offline_access"]},
        "on_behalf_of",
        {
            "grant_type": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
            "assertion": ["SUBJECT"],
            "requested_token_use": ["on_behalf_of"],
            "scope": ["https://graph.microsoft.com/user.read offline_access"],
        },
    ),
    (
        "ID-JAG",
        {"audience": "https://as.chat.example", "scopes": ["chat.read"], "requested_token_type": ID_JAG},
        "token_exchange",
        {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": ["SUBJECT"],
            "subject_token_type": [ACCESS_TOKEN],
            "requested_token_type": [ID_JAG],
            "audience": ["https://as.chat.example"],
            "scope": ["chat.read"],
        },
    ),
]


@pytest.mark.requirement("TX-1", "TX-8")
@pytest.mark.parametrize(("arguments", "grant", "expected"), [pytest.param(*row[1:], id=row[0]) for row in FORMS])
def test_a_request_becomes_a_form(arguments: Any, grant: Any, expected: Any) -> None:
    request = request_of(**arguments)
    assert request.unfit_for(grant) is None
    assert parse_qs(urlencode(request.form("SUBJECT", grant))) == expected


@pytest.mark.requirement("TX-1")
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param({}, "Nothing is asked for", id="nothing"),
        pytest.param({"resource": "orders"}, "not an absolute URL", id="a resource that is a name"),
        pytest.param({"resource": "https://a.example/#x"}, "fragment", id="a resource with a fragment"),
        pytest.param({"audience": ""}, "printable ASCII", id="an empty audience"),
        pytest.param({"audience": "a\nb"}, "printable ASCII", id="a line break"),
        pytest.param({"audience": ["a"] * 17}, "more than 16", id="too many audiences"),
        pytest.param({"audience": [1]}, "not a text", id="an audience of another type"),
        pytest.param({"audience": "a", "scopes": ['x"y']}, "not a scope", id="a malformed scope"),
        pytest.param({"audience": "a", "actor_token": "s3 cret"}, "not a token", id="a malformed actor token"),
        pytest.param({"audience": "a", "requested_token_type": " "}, "not a URI", id="a malformed type"),
    ],
)
def test_arguments_that_cannot_be_sent_are_a_value_error(arguments: Any, part: str) -> None:
    with pytest.raises(ValueError, match=part) as caught:
        request_of(**arguments)
    assert "s3" not in str(caught.value)


@pytest.mark.requirement("TX-8")
@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ORDERS, id="an audience"),
        pytest.param(ExchangeRequest(scopes=("a",), requested_token_type=ID_JAG), id="another token type"),
        pytest.param(ExchangeRequest(scopes=("a",), actor_token="x"), id="an actor"),
        pytest.param(ExchangeRequest(), id="no scope"),
    ],
)
def test_on_behalf_of_has_scopes_only(request_: ExchangeRequest) -> None:
    assert request_.unfit_for("on_behalf_of") is not None


# --- cache keys -----------------------------------------------------------------------------------------------------

texts = st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple)
requests = st.builds(
    ExchangeRequest,
    audiences=texts,
    resources=texts,
    scopes=texts,
    requested_token_type=st.sampled_from([ACCESS_TOKEN, ID_JAG]),
    actor_token=st.none() | st.text(max_size=3),
)
callers = st.tuples(st.text(max_size=3), st.text(max_size=3), st.binary(max_size=3))


def identity(request: ExchangeRequest, caller: tuple[str, str, bytes]) -> tuple[Any, ...]:
    scopes = frozenset(request.scopes)
    return caller, request.audiences, request.resources, scopes, request.requested_token_type, request.actor_token


@pytest.mark.requirement("TX-6")
@settings(max_examples=50)
@given(requests, callers, requests, callers)
def test_two_keys_are_equal_exactly_if_the_exchanges_are(one: Any, caller: Any, other: Any, another: Any) -> None:
    """Each part has its length in front, so that no two exchanges share a key; the order of scopes means nothing."""
    same = identity(one, caller) == identity(other, another)
    assert (one.key(*caller) == other.key(*another)) is same
    assert len(one.key(*caller)) == 32


@pytest.mark.requirement("TX-6")
def test_parts_cannot_be_moved_from_one_field_to_the_next() -> None:
    moved = [
        ExchangeRequest(audiences=("a", "b")),
        ExchangeRequest(audiences=("ab",)),
        ExchangeRequest(audiences=("a",), resources=("b",)),
        ExchangeRequest(resources=("a", "b")),
        ExchangeRequest(audiences=("a",), scopes=("b",)),
    ]
    keys = {request.key("i", "c", b"d") for request in moved}
    assert len(keys | {moved[0].key("ic", "", b"d"), moved[0].key("i", "cd", b"")}) == 7
    assert ExchangeRequest(scopes=("b", "a", "b")).key("i", "c", b"") == ExchangeRequest(scopes=("a", "b")).key(
        "i", "c", b""
    )


# --- answers --------------------------------------------------------------------------------------------------------

UNUSABLE: list[tuple[str, Any]] = [
    ("no access_token", GOOD | {"access_token": None}),
    ("an access_token that no header field can carry", GOOD | {"access_token": "a b"}),
    ("an access_token with a line break", GOOD | {"access_token": "a\r\nx: y"}),
    ("an empty access_token", GOOD | {"access_token": ""}),
    ("an access_token of another type", GOOD | {"access_token": ["x"]}),
    ("no issued_token_type", GOOD | {"issued_token_type": None}),
    ("an issued_token_type that was not requested", GOOD | {"issued_token_type": ID_JAG}),
    ("a refresh token", GOOD | {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}),
    ("no token_type", GOOD | {"token_type": None}),
    ("N_A for an access token", GOOD | {"token_type": "N_A"}),
    ("a DPoP-bound token", GOOD | {"token_type": "DPoP"}),
    ("a malformed scope", GOOD | {"scope": 'a"b'}),
    ("duplicate members", b'{"access_token": "a", "access_token": "b"}'),
    ("a list", [GOOD]),
    ("no JSON", b"<html>"),
    ("too deep", b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
]


@pytest.mark.requirement("TX-3")
@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in UNUSABLE])
def test_an_answer_that_is_no_bearer_token_is_not_used(content: Any) -> None:
    answer = read(content)
    assert isinstance(answer, Failure)
    assert answer.reason is ExchangeReason.INVALID_ANSWER


@pytest.mark.requirement("TX-3")
def test_an_answer_of_another_media_type_is_not_used() -> None:
    body = json.dumps(GOOD).encode()
    for media_type in ("text/html", "", "application/jsonx"):
        answer = read_answer(200, media_type, body, ORDERS, grant="token_exchange", now=NOW)
        assert isinstance(answer, Failure), media_type


@pytest.mark.requirement("TX-3")
@pytest.mark.parametrize(
    ("changes", "scopes", "expires_at"),
    [
        pytest.param({}, None, NOW + 300, id="no scope"),
        pytest.param({"token_type": "bearer", "scope": "a b"}, ("a", "b"), NOW + 300, id="scopes, and lower case"),
        pytest.param({"expires_in": "3599"}, None, NOW + 3599, id="expires_in as a string"),
        pytest.param({"expires_in": None}, None, None, id="no expires_in"),
        pytest.param({"expires_in": -1}, None, None, id="a negative expires_in"),
        pytest.param({"expires_in": True}, None, None, id="a boolean expires_in"),
        pytest.param({"expires_in": 10**30}, None, None, id="an expires_in beyond every clock"),
        pytest.param({"refresh_token": "r", "extra": {"a": [1]}}, None, NOW + 300, id="members that are not used"),
    ],
)
def test_an_answer_becomes_a_token(changes: Any, scopes: Any, expires_at: Any) -> None:
    token = read(GOOD | changes)
    assert isinstance(token, ExchangedToken)
    assert (token.access_token, token.scopes, token.expires_at) == ("up.st.ream", scopes, expires_at)
    assert token.is_bearer
    assert "up.st.ream" not in repr(token)


@pytest.mark.requirement("TX-8")
def test_recorded_answers_of_on_behalf_of_and_id_jag() -> None:
    """As the documentation of Microsoft Entra ID, and draft-ietf-oauth-identity-assertion-authz-grant, show them."""
    entra = {
        "token_type": "Bearer",
        "scope": "https://graph.microsoft.com/user.read",
        "expires_in": 3269,
        "ext_expires_in": 0,
        "access_token": "eyJ0eXAiOiJKV1QiLCJub25jZSI6IkFRQUJBQUFBQUFCbmZpRy1tQTZOVGFlN0NkV1c3UWZkQ0NDYy0tY0hGa18wZE50MVEtc2loVzRMd2RwQVZISGpnTVdQZ0tQeVJIaGlDbUN2NkdyMEpmYmRfY1RmMUFxU21TcFJkVXVydVJqX3Nqd0JoN211eHlBQSIsImFsZyI6IlJTMjU2In0.e30.c2ln",
        "refresh_token": "OAQABAAAAAABnfiG-mA6NTae7CdWW7QfdAALzDWjw6qSn4GUDfxWzJDZ6lk9qRw4An",
    }
    token = read(
        entra, request=ExchangeRequest(scopes=("https://graph.microsoft.com/user.read",)), grant="on_behalf_of"
    )
    assert isinstance(token, ExchangedToken)
    assert (token.is_bearer, token.scopes) == (True, ("https://graph.microsoft.com/user.read",))
    jag = {
        "issued_token_type": ID_JAG,
        "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6Im9hdXRoLWlkLWphZytqd3QifQ.e30.c2ln",
        "token_type": "N_A",
        "scope": "chat.read chat.history",
        "expires_in": 300,
    }
    token = read(jag, request=ExchangeRequest(audiences=("https://as.chat.example",), requested_token_type=ID_JAG))
    assert isinstance(token, ExchangedToken)
    assert (token.is_bearer, token.token_type) == (False, "N_A")


CLAIMS = '{"access_token":{"polids":{"essential":true,"values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}'
ENTRA = {
    "error": "interaction_required",
    "error_description": "AADSTS50079: Due to a configuration change … Trace ID: …",
    "error_codes": [50079],
    "claims": CLAIMS,
}
FAILURES: list[tuple[str, int, dict[str, Any], ExchangeReason, str | None]] = [
    ("subject token invalid (RFC 8693)", 400, {"error": "invalid_request"}, ExchangeReason.SUBJECT_REFUSED, None),
    ("subject token invalid (RFC 7523)", 400, {"error": "invalid_grant"}, ExchangeReason.SUBJECT_REFUSED, None),
    ("target", 400, {"error": "invalid_target"}, ExchangeReason.INVALID_TARGET, None),
    ("scope", 400, {"error": "invalid_scope"}, ExchangeReason.INVALID_SCOPE, None),
    ("policy denies it", 403, {"error": "access_denied"}, ExchangeReason.DENIED, None),
    ("grant not allowed", 400, {"error": "unauthorized_client"}, ExchangeReason.DENIED, None),
    ("grant unknown", 400, {"error": "unsupported_grant_type"}, ExchangeReason.DENIED, None),
    ("Entra: interaction", 400, ENTRA, ExchangeReason.INTERACTION_REQUIRED, CLAIMS),
    (
        "Entra: consent",
        400,
        {"error": "invalid_grant", "suberror": "consent_required"},
        ExchangeReason.INTERACTION_REQUIRED,
        None,
    ),
    (
        "Entra: a token that is bad for another reason",
        400,
        {"error": "invalid_grant", "suberror": "bad_token"},
        ExchangeReason.SUBJECT_REFUSED,
        None,
    ),
    ("overloaded", 400, {"error": "temporarily_unavailable"}, ExchangeReason.UNAVAILABLE, None),
    ("another error", 400, {"error": "weird"}, ExchangeReason.INVALID_ANSWER, None),
    ("no error code", 400, {"message": "no"}, ExchangeReason.INVALID_ANSWER, None),
    ("an error code of another type", 400, {"error": ["invalid_grant"]}, ExchangeReason.INVALID_ANSWER, None),
    ("an error code with a line break", 400, {"error": "a\nb"}, ExchangeReason.INVALID_ANSWER, None),
    ("a redirect", 302, {"error": "x"}, ExchangeReason.INVALID_ANSWER, None),
    (
        "claims of another type",
        400,
        {"error": "interaction_required", "claims": {"a": 1}},
        ExchangeReason.INTERACTION_REQUIRED,
        None,
    ),
]


@pytest.mark.requirement("TX-7")
@pytest.mark.parametrize(
    ("status", "content", "reason", "claims"), [pytest.param(*row[1:], id=row[0]) for row in FAILURES]
)
def test_an_error_has_a_meaning(status: int, content: Any, reason: ExchangeReason, claims: str | None) -> None:
    answer = read(content, status)
    assert isinstance(answer, Failure)
    assert (answer.reason, answer.claims) == (reason, claims)
    assert "AADSTS" not in answer.message


REFUSES: list[tuple[str, int, dict[str, str], bool]] = [
    ("invalid_client", 401, {"error": "invalid_client"}, True),
    ("invalid_client with 400", 400, {"error": "invalid_client"}, True),
    ("401 without an error", 401, {}, True),
    ("a denial for one user", 403, {"error": "access_denied"}, False),
    ("the subject token", 400, {"error": "invalid_grant"}, False),
    ("the subject token, with 401", 401, {"error": "invalid_grant"}, False),
    ("success", 200, {"error": "invalid_client"}, False),
]


@pytest.mark.requirement("TX-7")
@pytest.mark.parametrize(("status", "content", "expected"), [pytest.param(*row[1:], id=row[0]) for row in REFUSES])
def test_only_a_refusal_of_our_credentials_stops_calls_for_everyone(status: int, content: Any, expected: bool) -> None:
    assert refuses_client(status, JSON, json.dumps(content).encode()) is expected


@pytest.mark.requirement("TX-7")
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param(ExchangeReason.NO_CALLER, NoCredential, id="no caller"),
        pytest.param(ExchangeReason.SUBJECT_REFUSED, InvalidToken, id="subject refused"),
        pytest.param(ExchangeReason.REVOKED, InvalidToken, id="subject revoked"),
        pytest.param(ExchangeReason.UNAVAILABLE, Unavailable, id="outage"),
        pytest.param(ExchangeReason.INVALID_ANSWER, Unavailable, id="an answer that cannot be used"),
        pytest.param(ExchangeReason.INVALID_TARGET, type(None), id="target: the app decides"),
        pytest.param(ExchangeReason.INVALID_SCOPE, type(None), id="scope: the app decides"),
        pytest.param(ExchangeReason.INTERACTION_REQUIRED, type(None), id="consent: the app decides"),
        pytest.param(ExchangeReason.DESTINATION, type(None), id="destination: a fault of the app"),
    ],
)
def test_a_failure_has_an_answer_or_is_for_the_app(reason: ExchangeReason, expected: type[Any]) -> None:
    assert type(ExchangeError(reason, "message").refusal()) is expected


@given(st.integers(200, 499), st.text(max_size=40), st.binary(max_size=200))
def test_no_answer_raises(status: int, media_type: str, body: bytes) -> None:
    for kind in (media_type, JSON):
        assert isinstance(read_answer(status, kind, body, ORDERS, grant="token_exchange", now=NOW), Failure)
        assert refuses_client(status, kind, body) in (True, False)


members = st.dictionaries(
    st.sampled_from([*GOOD, "error", "claims", "suberror", "scope"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(list(GOOD.values())),
)


@settings(max_examples=50)
@given(st.sampled_from([200, 400, 401, 403]), members)
def test_every_token_can_be_sent(status: int, content: dict[str, Any]) -> None:
    answer = read(json.dumps(content).encode(), status)
    if isinstance(answer, ExchangedToken):
        assert status == 200
        assert answer.is_bearer
        assert answer.access_token.isascii()
        assert not set(answer.access_token) & set(" \r\n,;")


# --- lifetime -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("TX-6")
@pytest.mark.parametrize(
    ("expires_at", "subject_until", "expected"),
    [
        pytest.param(NOW + 300, NOW + 900, NOW + 270, id="the token ends first"),
        pytest.param(NOW + 900, NOW + 300, NOW + 270, id="the subject token ends first"),
        pytest.param(NOW + 300, None, NOW + 270, id="a subject token without an end"),
        pytest.param(None, NOW + 300, None, id="a token without an end is not cached"),
    ],
)
def test_a_token_is_used_as_long_as_both_tokens_are_valid(expires_at: Any, subject_until: Any, expected: Any) -> None:
    token = ExchangedToken(access_token="t", token_type="Bearer", issued_token_type=ACCESS_TOKEN, expires_at=expires_at)
    assert cached_until(token, subject_until, 30.0) == expected


# --- destinations ---------------------------------------------------------------------------------------------------

ALLOWED = ["https://api.example.com", ".corp.example.com", "https://api.example.com:8443", "http://127.0.0.1:9000"]
DESTINATIONS: list[tuple[str, tuple[str, str, int | None], bool]] = [
    ("the origin", ("https", "api.example.com", None), True),
    ("upper case", ("https", "API.example.com", None), True),
    ("the default port", ("https", "api.example.com", 443), True),
    ("a listed port", ("https", "api.example.com", 8443), True),
    ("another port", ("https", "api.example.com", 444), False),
    ("http", ("http", "api.example.com", None), False),
    ("a subdomain of an exact origin", ("https", "x.api.example.com", None), False),
    ("below the suffix", ("https", "a.corp.example.com", None), True),
    ("two levels below", ("https", "a.b.corp.example.com", None), True),
    ("the domain of the suffix itself", ("https", "corp.example.com", None), False),
    ("a name that only ends alike", ("https", "badcorp.example.com", None), False),
    ("the suffix on another port", ("https", "a.corp.example.com", 8443), False),
    ("the suffix with http", ("http", "a.corp.example.com", None), False),
    ("the suffix inside", ("https", "a.corp.example.com.evil.example", None), False),
    ("a dot at the end", ("https", "a.corp.example.com.", None), False),
    ("loopback", ("http", "127.0.0.1", 9000), True),
    ("another loopback port", ("http", "127.0.0.1", 9001), False),
    ("a host that is none", ("https", "a b", None), False),
    ("an empty host", ("https", "", None), False),
]


@pytest.mark.requirement("TX-5")
@pytest.mark.parametrize(("origin", "expected"), [pytest.param(*row[1:], id=row[0]) for row in DESTINATIONS])
def test_a_destination_is_an_exact_origin_or_below_a_suffix(origin: Any, expected: bool) -> None:
    assert compile_destinations(ALLOWED, allow_http=False).allow(*origin) is expected


@pytest.mark.requirement("TX-5")
@settings(max_examples=50)
@given(st.from_regex(r"[a-z0-9.-]{0,20}", fullmatch=True))
def test_a_suffix_begins_at_a_label(prefix: str) -> None:
    allowed = Destinations(frozenset(), (".example.com",)).allow("https", f"{prefix}example.com", None)
    assert not allowed or prefix.endswith(".")


@pytest.mark.requirement("TX-5")
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("api.example.com", id="a host without a scheme"),
        pytest.param("*.example.com", id="a wildcard"),
        pytest.param("https://api.example.com/path", id="a path"),
        pytest.param("https://api.example.com?x", id="a query"),
        pytest.param("https://u@api.example.com", id="user information"),
        pytest.param("http://api.example.com", id="http"),
        pytest.param("https://*.example.com", id="a wildcard in an origin"),
        pytest.param(".com", id="a top-level domain"),
        pytest.param(".", id="a dot"),
        pytest.param("..example.com", id="two dots"),
        pytest.param(".example.com.", id="a dot at the end"),
        pytest.param(".example.com:8443", id="a suffix with a port"),
        pytest.param(".0.1", id="an address"),
        pytest.param("", id="empty"),
    ],
)
def test_entries_that_are_neither_are_reported(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="allow"):
        compile_destinations([entry, "https://fine.example.com"], allow_http=False)


@pytest.mark.requirement("TX-5")
def test_an_empty_list_is_reported_and_all_problems_are() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        compile_destinations([], allow_http=False)
    with pytest.raises(ConfigurationError) as caught:
        compile_destinations(["a", "b"], allow_http=False)
    assert len(caught.value.problems) == 2
