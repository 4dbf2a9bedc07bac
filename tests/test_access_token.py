"""The rules for headers, times, audiences and claims, as pure functions."""

from __future__ import annotations

import json
from types import NoneType
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.access_token import (
    TokenRules,
    check_audience,
    check_claims,
    check_header,
    check_times,
    claim_at,
    scope_claim,
    valid_from,
)
from asgi_mcp_auth._oauth.jws import Header
from asgi_mcp_auth._oauth.strict_json import load_object
from asgi_mcp_auth._oauth.urls import Url, parse_url
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS, Profile
from asgi_mcp_auth.context import AuthInfo, Principal
from asgi_mcp_auth.errors import InvalidToken, Reason

R: Final = "https://mcp.example.com/mcp"
ISS: Final = "https://auth.example.com"
NOW: Final = 1_800_000_000
OWN: Final = "https://mcp.example.com/read"

CLAIMS: Final = {
    "iss": ISS,
    "sub": "alice",
    "aud": R,
    "client_id": "c1",
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "j1",
    "scope": "mcp:read",
}


def url_of(text: str) -> Url:
    url = parse_url(text)
    assert url is not None
    return url


def rules(profile: Profile = "jwt", *, resource: str = R, **changes: Any) -> TokenRules:
    settings: dict[str, Any] = {
        "issuer": ISS,
        "resource": resource,
        "resource_url": url_of(resource),
        "profile": profile,
        "algorithms": frozenset(DEFAULT_ALGORITHMS),
    }
    if profile == "no-aud":
        settings |= {"allowed_clients": frozenset({"c1"}), "own_scope_prefixes": (R + "/", "https://mcp.example.com/")}
    return TokenRules(**(settings | changes))


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of `T{}`, with changes; `...` removes one."""
    return {name: value for name, value in (CLAIMS | changes).items() if value is not ...}


def outcome(given_claims: dict[str, Any], given_rules: TokenRules, now: float = NOW) -> AuthInfo | Reason:
    try:
        return check_claims(given_claims, given_rules, now)
    except InvalidToken as refusal:
        return refusal.reason


# ---------------------------------------------------------------------------------------------------- the header

ALL: Final = frozenset(DEFAULT_ALGORITHMS)
ALGORITHM = [
    pytest.param("RS256", ALL, True, id="RS-71 RS256"),
    pytest.param("EdDSA", ALL, True, id="RS-71 EdDSA"),
    pytest.param("ES256", frozenset({"ES256"}), True, id="RS-71 the only one configured"),
    pytest.param("RS256", frozenset({"ES256"}), False, id="RS-71 another one configured"),
    pytest.param("none", ALL, False, id="RS-71 none"),
    pytest.param("noNE", ALL, False, id="RS-71 noNE"),
    pytest.param("", ALL, False, id="RS-71 empty"),
    pytest.param("HS256", ALL, False, id="RS-71 HS256"),
    pytest.param("rs256", ALL, False, id="RS-71 rs256"),
    pytest.param("RS256 ", ALL, False, id="RS-71 trailing space"),
    pytest.param("ES256K", ALL, False, id="RS-71 ES256K"),
    pytest.param("ESP256", ALL, False, id="RS-71 ESP256 is COSE"),
    pytest.param("RSA1_5", ALL, False, id="RS-71 RSA1_5"),
    pytest.param("dir", ALL, False, id="RS-71 dir"),
]


@pytest.mark.parametrize("profile", ["jwt", "at+jwt", "no-aud"])
@pytest.mark.parametrize(("alg", "allowed", "good"), ALGORITHM)
def test_the_algorithm_is_on_the_list_to_the_letter(
    alg: str, allowed: frozenset[str], good: bool, profile: Profile
) -> None:
    header, given_rules = Header(alg, "k1", "at+jwt"), rules(profile, algorithms=allowed)
    if good:
        check_header(header, given_rules)
        return
    with pytest.raises(InvalidToken) as caught:
        check_header(header, given_rules)
    assert (caught.value.reason, caught.value.found) == (Reason.ALGORITHM_NOT_ALLOWED, alg)


# typ, accepted by jwt and no-aud, accepted by at+jwt
TYP = [
    pytest.param("at+jwt", True, True, id="RS-74 at+jwt"),
    pytest.param("AT+JWT", True, True, id="RS-74 AT+JWT"),
    pytest.param("application/at+jwt", True, True, id="RS-74 application/at+jwt"),
    pytest.param("Application/AT+JWT", True, True, id="RS-74 Application/AT+JWT"),
    pytest.param(None, True, False, id="RS-74 absent"),
    pytest.param("JWT", True, False, id="RS-74 JWT"),
    pytest.param("jwt", True, False, id="RS-74 jwt"),
    pytest.param("application/jwt", True, False, id="RS-74 D7 application/jwt"),
    pytest.param("Application/JWT", True, False, id="RS-74 D7 Application/JWT"),
    pytest.param("application/application/jwt", False, False, id="RS-74 D7 prefix twice"),
    pytest.param("text/jwt", False, False, id="RS-74 D7 another prefix"),
    pytest.param("", False, False, id="RS-74 empty"),
    pytest.param("at+jwt ", False, False, id="RS-74 trailing space"),
    pytest.param("application/application/at+jwt", False, False, id="RS-74 prefix twice"),
    pytest.param("text/at+jwt", False, False, id="RS-74 another prefix"),
    pytest.param("at", False, False, id="RS-74 at"),
    pytest.param("dpop+jwt", False, False, id="RS-84 dpop+jwt"),
    pytest.param("secevent+jwt", False, False, id="RS-84 secevent+jwt"),
    pytest.param("logout+jwt", False, False, id="RS-84 logout+jwt"),
    pytest.param("txntoken+jwt", False, False, id="RS-90 txntoken+jwt"),
    pytest.param("oauth-id-jag+jwt", False, False, id="RS-90 oauth-id-jag+jwt"),
    pytest.param("token-introspection+jwt", False, False, id="RS-84 token-introspection+jwt"),
    pytest.param("jwt-authorization-grant", False, False, id="RS-84 jwt-authorization-grant"),
    pytest.param("client-authentication+jwt", False, False, id="RS-90 client assertion"),
    pytest.param("application/okta-internal-at+jwt", False, False, id="RS-84 Okta org AS"),
    pytest.param("JOSE", False, False, id="RS-74 JOSE"),
    pytest.param("JWT\x00", False, False, id="RS-74 NUL"),
]


@pytest.mark.parametrize(("typ", "lenient", "strict"), TYP)
def test_the_typ_each_profile_takes(typ: str | None, lenient: bool, strict: bool) -> None:
    expected: dict[Profile, bool] = {"jwt": lenient, "no-aud": lenient, "at+jwt": strict}
    for profile, good in expected.items():
        header, given_rules = Header("RS256", "k1", typ), rules(profile)
        if good:
            check_header(header, given_rules)
            continue
        with pytest.raises(InvalidToken) as caught:
            check_header(header, given_rules)
        assert (caught.value.reason, caught.value.found) == (Reason.TYP_NOT_ACCEPTED, typ or "none")


# ----------------------------------------------------------------------------------------------------- the times

EXP: Final = NOW + 300
TIMES = [
    pytest.param({"exp": EXP}, EXP, id="RS-81 exp ahead"),
    pytest.param({"exp": NOW + 0.5}, NOW + 0.5, id="RS-81 exp float"),
    pytest.param({"exp": NOW - 10}, NOW - 10, id="RS-81 exp -10s, within the leeway"),
    pytest.param({"exp": NOW - 29.999}, NOW - 29.999, id="RS-81 exp just within the leeway"),
    pytest.param({"exp": NOW - 30}, Reason.TOKEN_EXPIRED, id="RS-81 exp -30s"),
    pytest.param({"exp": NOW - 31}, Reason.TOKEN_EXPIRED, id="RS-81 exp -31s"),
    pytest.param({"exp": 0}, Reason.TOKEN_EXPIRED, id="RS-81 exp 0"),
    pytest.param({"exp": -5}, Reason.TOKEN_EXPIRED, id="RS-81 exp negative"),
    pytest.param({}, Reason.MISSING_CLAIM, id="RS-81 no exp"),
    pytest.param({"exp": None}, Reason.MISSING_CLAIM, id="RS-81 exp null"),
    pytest.param({"exp": "123"}, Reason.MALFORMED_CLAIM, id="RS-81 exp string"),
    pytest.param({"exp": str(EXP)}, Reason.MALFORMED_CLAIM, id="RS-81 exp a good string"),
    pytest.param({"exp": True}, Reason.MALFORMED_CLAIM, id="RS-81 exp true"),
    pytest.param({"exp": [EXP]}, Reason.MALFORMED_CLAIM, id="RS-81 exp list"),
    pytest.param({"exp": float("inf")}, Reason.MALFORMED_CLAIM, id="RS-81 exp 1e400"),
    pytest.param({"exp": float("nan")}, Reason.MALFORMED_CLAIM, id="RS-81 exp NaN"),
    pytest.param({"exp": 10**400}, Reason.MALFORMED_CLAIM, id="RS-81 exp of 400 digits"),
    pytest.param({"exp": EXP * 1000}, Reason.MALFORMED_CLAIM, id="RS-81 exp in milliseconds"),
    pytest.param({"exp": EXP, "nbf": NOW + 30}, EXP, id="RS-82 nbf at the leeway"),
    pytest.param({"exp": EXP, "nbf": NOW + 31}, Reason.NOT_YET_VALID, id="RS-82 nbf beyond the leeway"),
    pytest.param({"exp": EXP, "nbf": NOW + 120}, Reason.NOT_YET_VALID, id="RS-82 nbf +120s"),
    pytest.param({"exp": EXP, "nbf": "soon"}, Reason.MALFORMED_CLAIM, id="RS-82 nbf string"),
    pytest.param({"exp": EXP, "nbf": False}, Reason.MALFORMED_CLAIM, id="RS-82 nbf false"),
    pytest.param({"exp": EXP, "nbf": None}, EXP, id="RS-82 D3 nbf null is absent"),
    pytest.param({"exp": EXP, "iat": None}, EXP, id="RS-82 D3 iat null is absent"),
    pytest.param({"exp": NOW, "nbf": NOW}, NOW, id="D2 exp at nbf, within the leeway"),
    pytest.param({"exp": NOW, "nbf": NOW + 29}, NOW, id="D2 exp before nbf, within the leeway"),
    pytest.param({"exp": NOW, "nbf": NOW + 30}, Reason.MALFORMED_CLAIM, id="D2 exp before nbf by the leeway"),
    pytest.param({"exp": NOW - 20, "iat": NOW + 20}, Reason.MALFORMED_CLAIM, id="D2 exp before iat"),
    pytest.param({"exp": NOW - 20, "nbf": NOW - 90, "iat": NOW + 20}, Reason.MALFORMED_CLAIM, id="D2 nbf is good"),
    pytest.param({"exp": NOW - 20, "nbf": NOW + 31}, Reason.NOT_YET_VALID, id="D2 nbf beyond the leeway is the reason"),
    pytest.param({"exp": EXP, "nbf": float("-inf")}, Reason.MALFORMED_CLAIM, id="RS-82 nbf minus infinity"),
    pytest.param({"exp": EXP, "iat": NOW + 30}, EXP, id="RS-82 iat at the leeway"),
    pytest.param({"exp": EXP, "iat": NOW + 120}, Reason.NOT_YET_VALID, id="RS-82 iat +120s"),
    pytest.param({"exp": EXP, "iat": str(NOW)}, Reason.MALFORMED_CLAIM, id="RS-82 iat string"),
    pytest.param({"exp": EXP, "iat": 0}, EXP, id="RS-82 iat 0"),
    pytest.param({"exp": EXP, "iat": -(10**400)}, Reason.MALFORMED_CLAIM, id="RS-82 iat of 400 digits, negative"),
]


@pytest.mark.parametrize(("given_claims", "expected"), TIMES)
def test_times(given_claims: dict[str, Any], expected: float | Reason) -> None:
    if not isinstance(expected, Reason):
        assert check_times(given_claims, 30.0, NOW) == expected
        return
    with pytest.raises(InvalidToken) as caught:
        check_times(given_claims, 30.0, NOW)
    description = "The access token expired" if expected is Reason.TOKEN_EXPIRED else "The access token is invalid"
    assert (caught.value.reason, caught.value.description) == (expected, description)


@settings(deadline=None, max_examples=200)
@given(st.integers(-400, 400), st.integers(0, 300), st.integers(-400, 400))
def test_the_leeway_widens_both_ends_by_itself(until_exp: int, leeway: int, until_nbf: int) -> None:
    good = until_exp + leeway > 0 and until_nbf <= leeway and until_nbf < until_exp + leeway
    times = {"exp": NOW + until_exp, "nbf": NOW + until_nbf}
    if good:
        assert check_times(times, leeway, NOW) == times["exp"]
        return
    with pytest.raises(InvalidToken) as caught:
        check_times(times, leeway, NOW)
    if until_exp + leeway <= 0:
        assert caught.value.reason is Reason.TOKEN_EXPIRED
    else:
        assert caught.value.reason is (Reason.NOT_YET_VALID if until_nbf > leeway else Reason.MALFORMED_CLAIM)


# -------------------------------------------------------------------------------------------------- the audience

WRONG: Final = Reason.WRONG_AUDIENCE
ROOT: Final[dict[str, Any]] = {"resource": "https://mcp.example.com"}
EXTRA: Final[dict[str, Any]] = {"extra_audiences": frozenset({"api://1234", "guid"})}
SINGLE: Final[dict[str, Any]] = {"require_single_audience": True}
AUDIENCE = [
    pytest.param(R, {}, None, id="RS-80 R"),
    pytest.param([R], {}, None, id="RS-80 list of R"),
    pytest.param(["https://other", R], {}, None, id="RS-80 R among others"),
    pytest.param(None, {}, Reason.MISSING_CLAIM, id="RS-80 absent"),
    pytest.param([], {}, Reason.MALFORMED_CLAIM, id="RS-80 empty list"),
    pytest.param("", {}, Reason.MALFORMED_CLAIM, id="RS-80 empty string"),
    pytest.param([1], {}, Reason.MALFORMED_CLAIM, id="RS-80 list of int"),
    pytest.param([R, 1], {}, Reason.MALFORMED_CLAIM, id="RS-80 R and an int"),
    pytest.param([R, ""], {}, Reason.MALFORMED_CLAIM, id="RS-80 R and an empty string"),
    pytest.param([[R]], {}, Reason.MALFORMED_CLAIM, id="RS-80 list in a list"),
    pytest.param({R: 1}, {}, Reason.MALFORMED_CLAIM, id="RS-80 object"),
    pytest.param(5, {}, Reason.MALFORMED_CLAIM, id="RS-80 number"),
    pytest.param(True, {}, Reason.MALFORMED_CLAIM, id="RS-80 true"),
    pytest.param("https://other", {}, WRONG, id="RS-80 another"),
    pytest.param(["https://other", "https://third"], {}, WRONG, id="RS-80 others"),
    pytest.param(f"{R} https://other", {}, WRONG, id="RS-80 a space-delimited list"),
    pytest.param(f"x{R}", {}, WRONG, id="RS-80 superset in front"),
    pytest.param(f"{R}x", {}, WRONG, id="RS-80 superset behind"),
    pytest.param("https://mcp.example.com/", ROOT, None, id="RS-100 root slash"),
    pytest.param("HTTPS://MCP.example.com", ROOT, None, id="RS-100 upper case"),
    pytest.param("https://mcp.example.com:443", ROOT, None, id="RS-100 default port"),
    pytest.param(["x", "HTTPS://mcp.example.com:443/mcp"], {}, None, id="RS-100 folded, among others"),
    pytest.param("https://mcp.example.com", {}, WRONG, id="RS-101 parent"),
    pytest.param(R + "/", {}, WRONG, id="RS-101 trailing slash"),
    pytest.param(R + "/x", {}, WRONG, id="RS-101 child"),
    pytest.param(R + "?client=codex", {}, WRONG, id="RS-101 query"),
    pytest.param(R + "#f", {}, WRONG, id="RS-101 fragment"),
    pytest.param("http://mcp.example.com/mcp", {}, WRONG, id="RS-101 scheme"),
    pytest.param("https://mcp.example.com:8443/mcp", {}, WRONG, id="RS-101 port"),
    pytest.param("https://mcp.example.com/MCP", {}, WRONG, id="RS-101 path case"),
    pytest.param("https://mcp.example.com/mcp2", {}, WRONG, id="RS-101 sibling"),
    pytest.param("api://1234", EXTRA, None, id="RS-102 extra audience"),
    pytest.param(["x", "guid"], EXTRA, None, id="RS-102 extra audience among others"),
    pytest.param("api://1234/", EXTRA, WRONG, id="RS-102 slash added"),
    pytest.param("API://1234", EXTRA, WRONG, id="RS-102 upper case"),
    pytest.param("GUID", EXTRA, WRONG, id="RS-102 exact strings only"),
    pytest.param(R, EXTRA, None, id="RS-102 R stays accepted"),
    pytest.param("api://1234", {}, WRONG, id="RS-102 not configured"),
    pytest.param(R, SINGLE, None, id="RS-103 R alone"),
    pytest.param([R], SINGLE, None, id="RS-103 R alone in a list"),
    pytest.param([R, "https://x"], SINGLE, WRONG, id="RS-103 R and another"),
    pytest.param(["https://x"], SINGLE, WRONG, id="RS-103 another alone"),
    pytest.param(["api://1234", R], SINGLE | EXTRA, WRONG, id="RS-103 R and an extra audience"),
]


@pytest.mark.parametrize("profile", ["jwt", "at+jwt"])
@pytest.mark.parametrize(("audience", "changes", "expected"), AUDIENCE)
def test_the_audience(audience: Any, changes: dict[str, Any], expected: Reason | None, profile: Profile) -> None:
    given_rules = rules(profile, **changes)
    if expected is None:
        check_audience(audience, given_rules, (OWN,), "c1")
        return
    with pytest.raises(InvalidToken) as caught:
        check_audience(audience, given_rules, (OWN,), "c1")
    assert caught.value.reason is expected


# aud, client id, scopes, verdict
NO_AUDIENCE = [
    pytest.param(None, "c1", (OWN,), None, id="RS-91 no aud, listed client, own scope"),
    pytest.param(None, "c1", ("openid", R + "/read"), None, id="RS-91 own scope below the resource"),
    pytest.param(None, "c1", ("mcp:read",), WRONG, id="RS-91 unprefixed scope only"),
    pytest.param(None, "c1", (), WRONG, id="RS-91 no scope"),
    pytest.param(None, "c1", ("https://mcp.example.com",), WRONG, id="RS-91 the prefix without its slash"),
    pytest.param(None, "c1", ("https://mcp.example.com.evil.example/read",), WRONG, id="RS-91 a longer host"),
    pytest.param(None, "c1", ("x" + OWN,), WRONG, id="RS-91 the prefix in the middle"),
    pytest.param(None, "c2", (OWN,), WRONG, id="RS-91 another client"),
    pytest.param(None, None, (OWN,), WRONG, id="RS-91 no client"),
    pytest.param("https://other", "c1", (OWN,), WRONG, id="RS-91 an aud that names someone else"),
    pytest.param(["https://other"], "c1", (OWN,), WRONG, id="RS-91 a list that names someone else"),
    pytest.param("", "c1", (OWN,), Reason.MALFORMED_CLAIM, id="RS-91 empty aud"),
    pytest.param([], "c1", (OWN,), Reason.MALFORMED_CLAIM, id="RS-91 empty list"),
    pytest.param(R, "c1", ("mcp:read",), None, id="RS-91 aud R needs no own scope"),
]


@pytest.mark.parametrize(("audience", "client_id", "scopes", "expected"), NO_AUDIENCE)
def test_no_audience(audience: Any, client_id: str | None, scopes: tuple[str, ...], expected: Reason | None) -> None:
    if expected is None:
        check_audience(audience, rules("no-aud"), scopes, client_id)
        return
    with pytest.raises(InvalidToken) as caught:
        check_audience(audience, rules("no-aud"), scopes, client_id)
    assert caught.value.reason is expected


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"allowed_clients": None}, id="RS-91 no list of clients"),
        pytest.param({"own_scope_prefixes": ()}, id="RS-91 no scope of the resource's own"),
    ],
)
def test_no_audience_needs_both_halves(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken) as caught:
        check_audience(None, rules("no-aud", **changes), (OWN,), "c1")
    assert caught.value.reason is WRONG


# ---------------------------------------------------------------------------------------------------- all claims


@pytest.mark.parametrize(
    ("profile", "changes", "scopes", "audience"),
    [
        pytest.param("jwt", {}, ("mcp:read",), R, id="RS-80 jwt"),
        pytest.param("at+jwt", {}, ("mcp:read",), R, id="RS-83 at+jwt"),
        pytest.param("jwt", {"aud": ["https://other", R]}, ("mcp:read",), ["https://other", R], id="RS-80 list"),
        pytest.param("no-aud", {"aud": ..., "scope": OWN}, (OWN,), None, id="RS-91 no-aud"),
    ],
)
def test_a_good_token_gives_an_identity(
    profile: Profile, changes: dict[str, Any], scopes: tuple[str, ...], audience: Any
) -> None:
    given = claims(**changes)
    assert check_claims(given, rules(profile), NOW) == AuthInfo(
        issuer=ISS,
        subject="alice",
        client_id="c1",
        scopes=scopes,
        audience=audience,
        resource=R,
        expires_at=NOW + 300,
        claims=given,
    )


MISSING, MALFORMED, KIND = Reason.MISSING_CLAIM, Reason.MALFORMED_CLAIM, Reason.WRONG_TOKEN_KIND

# changes, verdict of profile jwt, verdict of profile at+jwt; None: accepted
VERDICTS = [
    pytest.param({}, None, None, id="RS-83 whole"),
    pytest.param({"iss": ...}, Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_ISSUER, id="RS-79 iss missing"),
    pytest.param({"iss": ISS + "/"}, Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_ISSUER, id="RS-79 slash added"),
    pytest.param(
        {"iss": "https://AUTH.example.com"}, Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_ISSUER, id="RS-79 host case"
    ),
    pytest.param(
        {"iss": "https://auth%2Eexample.com"}, Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_ISSUER, id="RS-79 percent-encoding"
    ),
    pytest.param({"iss": [ISS]}, Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_ISSUER, id="RS-79 iss list"),
    pytest.param({"exp": ...}, MISSING, MISSING, id="RS-83 exp missing"),
    pytest.param({"aud": ...}, MISSING, MISSING, id="RS-83 aud missing"),
    pytest.param({"sub": ...}, MISSING, MISSING, id="RS-83 sub missing"),
    pytest.param({"client_id": ...}, None, MISSING, id="RS-83 client_id missing"),
    pytest.param({"iat": ...}, None, MISSING, id="RS-83 iat missing"),
    pytest.param({"jti": ...}, None, MISSING, id="RS-83 jti missing"),
    pytest.param({"scope": ...}, None, None, id="RS-83 scope missing"),
    pytest.param({"sub": ""}, MALFORMED, MALFORMED, id="RS-83 sub empty"),
    pytest.param({"sub": 5}, MALFORMED, MALFORMED, id="RS-83 sub int"),
    pytest.param({"sub": None}, MISSING, MISSING, id="RS-83 sub null"),
    pytest.param({"client_id": 5}, MALFORMED, MALFORMED, id="RS-83 client_id int"),
    pytest.param({"client_id": ""}, MALFORMED, MALFORMED, id="RS-83 client_id empty"),
    pytest.param({"client_id": None}, None, MISSING, id="RS-83 D3 client_id null is absent"),
    pytest.param({"azp": None}, None, None, id="D3 azp null is absent"),
    pytest.param({"azp": ""}, MALFORMED, None, id="D3 azp empty; at+jwt does not read it"),
    pytest.param({"iat": None}, None, MISSING, id="D3 iat null is absent"),
    pytest.param({"nbf": None}, None, None, id="D3 nbf null is absent"),
    pytest.param({"aud": None}, MISSING, MISSING, id="RS-80 D3 aud null is absent"),
    pytest.param({"jti": 5}, MALFORMED, MALFORMED, id="RS-83 A23 jti int"),
    pytest.param({"jti": ["j1"]}, MALFORMED, MALFORMED, id="RS-83 A23 jti list"),
    pytest.param({"jti": True}, MALFORMED, MALFORMED, id="RS-83 A23 jti true"),
    pytest.param({"jti": None}, None, MISSING, id="RS-83 D3 jti null is absent"),
    pytest.param({"sid": "s1"}, None, None, id="A23 sid"),
    pytest.param({"sid": 5}, MALFORMED, MALFORMED, id="A23 sid int"),
    pytest.param({"sid": {"a": "b"}}, MALFORMED, MALFORMED, id="A23 sid object"),
    pytest.param({"sid": None}, None, None, id="D3 sid null is absent"),
    pytest.param({"jti": ""}, None, MALFORMED, id="RS-83 jti empty"),
    pytest.param({"iat": "x"}, MALFORMED, MALFORMED, id="RS-82 iat string"),
    pytest.param({"exp": NOW - 31}, Reason.TOKEN_EXPIRED, Reason.TOKEN_EXPIRED, id="RS-81 expired"),
    pytest.param({"nbf": NOW + 120}, Reason.NOT_YET_VALID, Reason.NOT_YET_VALID, id="RS-82 nbf +120s"),
    pytest.param({"aud": "https://other"}, WRONG, WRONG, id="RS-80 wrong aud"),
    pytest.param({"scope": 5}, MALFORMED, MALFORMED, id="RS-86 scope int"),
    pytest.param({"scope": {"mcp:read": True}}, MALFORMED, MALFORMED, id="RS-86 scope object"),
    pytest.param({"scope": ["mcp:read"]}, None, MALFORMED, id="RS-86 scope list"),
    pytest.param({"scope": ["mcp:read", 1]}, MALFORMED, MALFORMED, id="RS-86 scope list with an int"),
    pytest.param({"scope": None}, None, None, id="RS-86 scope null"),
    pytest.param(
        {"cnf": {"jkt": "x"}}, Reason.SENDER_CONSTRAINED, Reason.SENDER_CONSTRAINED, id="RS-85 cnf jkt over Bearer"
    ),
    pytest.param(
        {"cnf": {"x5t#S256": "x"}}, Reason.SENDER_CONSTRAINED, Reason.SENDER_CONSTRAINED, id="RS-85 cnf x5t#S256"
    ),
    pytest.param(
        {"cnf": {"x": "y"}}, Reason.SENDER_CONSTRAINED, Reason.SENDER_CONSTRAINED, id="RS-85 cnf of an unknown method"
    ),
    pytest.param({"cnf": {}}, Reason.SENDER_CONSTRAINED, Reason.SENDER_CONSTRAINED, id="RS-85 cnf empty"),
    pytest.param({"cnf": None}, None, None, id="RS-85 D3 cnf null is absent"),
    # Other kinds of JWT: the strict profile knows an access token by its typ, the lenient ones by these marks.
    pytest.param({"nonce": "n", "scope": ...}, KIND, None, id="RS-84 nonce without a scope"),
    pytest.param({"nonce": "n"}, None, None, id="RS-84 nonce beside a scope is no ID token"),
    pytest.param({"nonce": "n", "scope": ..., "scp": "x"}, None, None, id="RS-84 nonce beside scp"),
    pytest.param({"nonce": "n", "scope": None}, KIND, None, id="RS-84 D3 nonce, scope null"),
    pytest.param({"nonce": None, "scope": ...}, None, None, id="RS-84 D3 nonce null is absent"),
    pytest.param({"nonce": "n", "scope": ""}, None, None, id="RS-84 nonce beside an empty scope"),
    pytest.param({"nonce": "n", "scope": ..., "roles": ["a"]}, KIND, None, id="RS-84 nonce beside roles"),
    pytest.param({"at_hash": "x"}, KIND, None, id="RS-84 at_hash"),
    pytest.param({"at_hash": None}, None, None, id="RS-84 D3 at_hash null is absent"),
    pytest.param({"events": None}, None, None, id="RS-84 D3 events null is absent"),
    pytest.param({"c_hash": "x"}, KIND, None, id="RS-84 c_hash"),
    pytest.param({"s_hash": "x"}, KIND, None, id="RS-84 s_hash"),
    pytest.param({"events": {}}, KIND, None, id="RS-84 events"),
    pytest.param({"token_use": "id"}, KIND, None, id="RS-84 token_use id"),
    pytest.param({"token_use": "refresh"}, KIND, None, id="RS-90 token_use refresh"),
    pytest.param({"token_use": "access"}, None, None, id="RS-84 token_use access"),
    pytest.param({"typ": "ID"}, KIND, None, id="RS-84 typ claim ID"),
    pytest.param({"typ": "Refresh"}, KIND, None, id="RS-90 typ claim Refresh"),
    pytest.param({"typ": "Offline"}, KIND, None, id="RS-90 typ claim Offline"),
    pytest.param({"typ": "Logout"}, KIND, None, id="RS-84 typ claim Logout"),
    pytest.param({"typ": "Bearer"}, None, None, id="RS-84 typ claim Bearer"),
    pytest.param({"typ": ["ID"], "token_use": 1}, None, None, id="RS-84 typ claim and token_use of other types"),
]


@pytest.mark.parametrize(("changes", "lenient", "strict"), VERDICTS)
def test_claims_in_the_lenient_and_the_strict_profile(
    changes: dict[str, Any], lenient: Reason | None, strict: Reason | None
) -> None:
    for profile, expected in (("jwt", lenient), ("at+jwt", strict)):
        verdict = outcome(claims(**changes), rules("at+jwt" if profile == "at+jwt" else "jwt"))
        assert (verdict if isinstance(verdict, Reason) else None) is expected, profile


@pytest.mark.requirement("RS-91")
@pytest.mark.parametrize(("changes", "lenient", "strict"), VERDICTS)
def test_no_aud_is_as_lenient_as_jwt_and_no_more(
    changes: dict[str, Any], lenient: Reason | None, strict: Reason | None
) -> None:
    """With an `aud` of R the two differ only in the client, which `no-aud` needs."""
    verdict = outcome(claims(**({"scope": OWN} | changes)), rules("no-aud"))
    expected = lenient
    if changes in ({"client_id": ...}, {"client_id": None}):
        expected = Reason.CLIENT_NOT_ALLOWED
    if changes in ({"aud": ...}, {"aud": None}):
        expected = None
    assert (verdict if isinstance(verdict, Reason) else None) is expected


NO_AUD_CLAIMS = [
    pytest.param({"aud": ..., "scope": OWN}, None, id="RS-91 no aud"),
    pytest.param({"aud": ..., "scope": "mcp:read"}, WRONG, id="RS-91 unprefixed scope only"),
    pytest.param({"aud": ..., "scope": OWN, "client_id": "c2"}, WRONG, id="RS-91 another client"),
    pytest.param({"aud": ..., "scope": OWN, "client_id": ...}, WRONG, id="RS-91 no client"),
    pytest.param({"aud": ..., "scope": OWN, "client_id": ..., "azp": "c1"}, None, id="RS-91 the client in azp"),
    pytest.param({"aud": "https://other", "scope": OWN}, WRONG, id="RS-91 aud of someone else"),
    pytest.param({"aud": "", "scope": OWN}, MALFORMED, id="RS-91 aud an empty text"),
    pytest.param({"aud": [], "scope": OWN}, MALFORMED, id="RS-91 aud an empty list"),
    pytest.param({"aud": 0, "scope": OWN}, MALFORMED, id="RS-91 aud a number"),
    pytest.param({"aud": None, "scope": OWN}, None, id="RS-91 D3 aud null is absent"),
    pytest.param({"aud": None, "scope": "mcp:read"}, WRONG, id="RS-91 D3 aud null, unprefixed scope only"),
    pytest.param({"aud": R, "scope": "mcp:read"}, None, id="RS-91 aud R"),
    pytest.param({"aud": R, "client_id": "c2"}, Reason.CLIENT_NOT_ALLOWED, id="RS-91 aud R, another client"),
    pytest.param({"aud": ..., "scope": OWN, "at_hash": "x"}, KIND, id="RS-84 an ID token"),
    pytest.param({"aud": ..., "scope": OWN, "sub": ...}, MISSING, id="RS-91 no sub"),
]


@pytest.mark.parametrize(("changes", "expected"), NO_AUD_CLAIMS)
def test_claims_in_the_profile_without_audience(changes: dict[str, Any], expected: Reason | None) -> None:
    verdict = outcome(claims(**changes), rules("no-aud"))
    assert (verdict if isinstance(verdict, Reason) else None) is expected


CLIENTS = [
    pytest.param({"client_id": "a"}, "a", id="RS-87 client_id"),
    pytest.param({"azp": "a"}, "a", id="RS-87 azp"),
    pytest.param({"appid": "a"}, "a", id="RS-87 appid"),
    pytest.param({"cid": "a"}, "a", id="RS-87 cid"),
    pytest.param({"cid": "d", "appid": "c", "azp": "b", "client_id": "a"}, "a", id="RS-87 client_id first"),
    pytest.param({"cid": "d", "azp": "b"}, "b", id="RS-87 azp before cid"),
    pytest.param({"cid": "d", "appid": "c"}, "c", id="RS-87 appid before cid"),
    pytest.param({}, None, id="RS-87 none"),
    pytest.param({"client_id": "a", "azp": 5}, MALFORMED, id="RS-87 one of two malformed"),
    pytest.param({"client_id": None, "azp": "b"}, "b", id="RS-87 D3 client_id null, azp good"),
    pytest.param({"client_id": "a", "azp": None}, "a", id="RS-87 D3 client_id good, azp null"),
    pytest.param({"client_id": "a", "azp": ""}, MALFORMED, id="RS-87 D3 azp empty"),
    pytest.param({"client_id": "", "azp": "b"}, MALFORMED, id="RS-87 D3 client_id empty, azp good"),
    pytest.param({"cid": ""}, MALFORMED, id="RS-87 D3 cid empty"),
]


@pytest.mark.parametrize(("found", "expected"), CLIENTS)
def test_the_client(found: dict[str, Any], expected: str | Reason | None) -> None:
    verdict = outcome(claims(client_id=...) | found, rules())
    assert (verdict if isinstance(verdict, Reason) else verdict.client_id) == expected


def test_the_strict_profile_reads_the_client_from_client_id_only() -> None:
    assert outcome(claims(client_id=..., azp="a"), rules("at+jwt")) is Reason.MISSING_CLAIM


@pytest.mark.parametrize("profile", ["jwt", "at+jwt"])
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param("c1", None, id="RS-91 listed client"),
        pytest.param("C1", Reason.CLIENT_NOT_ALLOWED, id="RS-91 case matters"),
        pytest.param("c2", Reason.CLIENT_NOT_ALLOWED, id="RS-91 client not listed"),
    ],
)
def test_a_list_of_clients_holds_for_every_profile(client: str, expected: Reason | None, profile: Profile) -> None:
    verdict = outcome(claims(client_id=client), rules(profile, allowed_clients=frozenset({"c1"})))
    assert (verdict if isinstance(verdict, Reason) else None) is expected


DEFAULT: Final = ("scope", "scp", "scopes")
SCOPES = [
    pytest.param({"scope": "mcp:read"}, DEFAULT, ("mcp:read",), id="RS-86 scope string"),
    pytest.param({"scope": "mcp:read  files:write"}, DEFAULT, ("mcp:read", "files:write"), id="RS-86 two spaces"),
    pytest.param({"scope": " a "}, DEFAULT, ("a",), id="RS-86 outer spaces"),
    pytest.param({"scope": ""}, DEFAULT, (), id="RS-86 empty string"),
    pytest.param({"scope": []}, DEFAULT, (), id="RS-86 empty list"),
    pytest.param({"scope": ["a", "", "b"]}, DEFAULT, ("a", "b"), id="RS-86 list with an empty item"),
    pytest.param({"scope": ["a b"]}, DEFAULT, ("a b",), id="RS-86 an item of a list is not split"),
    pytest.param({"scp": ["mcp:read"]}, DEFAULT, ("mcp:read",), id="RS-86 scp list"),
    pytest.param({"scp": "a b"}, DEFAULT, ("a", "b"), id="RS-86 scp string"),
    pytest.param({"scopes": ["a"]}, DEFAULT, ("a",), id="RS-86 scopes list"),
    pytest.param({"scope": "a b", "scp": ["b", "c"]}, DEFAULT, ("a", "b", "c"), id="RS-86 two claims are united"),
    pytest.param({"scope": "a a"}, DEFAULT, ("a",), id="RS-86 twice is once"),
    pytest.param({"scope": "Mcp:Read"}, DEFAULT, ("Mcp:Read",), id="RS-86 case is kept"),
    pytest.param({"scope": "a\tb\nc"}, DEFAULT, ("a\tb\nc",), id="RS-86 only spaces separate"),
    pytest.param({"permissions": ["a"], "roles": ["b"]}, DEFAULT, (), id="RS-86 permissions and roles by option only"),
    pytest.param({"permissions": ["a"], "scope": "x"}, ("permissions",), ("a",), id="RS-86 permissions by option"),
    pytest.param({"roles": ["a"], "scp": "b"}, ("scp", "roles"), ("b", "a"), id="RS-86 scp and roles by option"),
    pytest.param({"scp": ["a", None]}, DEFAULT, MALFORMED, id="RS-86 null in a list"),
    pytest.param({"scope": "a", "scp": 5}, DEFAULT, MALFORMED, id="RS-86 one of two malformed"),
    pytest.param({"scope": True}, DEFAULT, MALFORMED, id="RS-86 true"),
    pytest.param({"scope": None, "scp": "a"}, DEFAULT, ("a",), id="RS-86 D3 scope null, scp good"),
    pytest.param({"scope": {"a": True}}, DEFAULT, MALFORMED, id="RS-86 an object for a standard claim"),
    pytest.param({"scp": {"a": True}}, ("scp",), MALFORMED, id="CK-7 an object for a standard claim, by option"),
    pytest.param({"realm_access": {"roles": ["a", "b"]}}, ("realm_access.roles",), ("a", "b"), id="CK-7 Keycloak"),
    pytest.param(
        {"resource_access": {"mcp": {"roles": ["a"]}}, "scope": "x"},
        ("scope", "resource_access.mcp.roles"),
        ("x", "a"),
        id="CK-7 Keycloak's roles of a client, beside scope",
    ),
    pytest.param(
        {"resource_access": {"mcp.example.com": {"roles": ["a"]}}},
        (r"resource_access.mcp\.example\.com.roles",),
        ("a",),
        id="CK-7 dots in a member's name",
    ),
    pytest.param(
        {"https://example.com/roles": ["a"]}, ("https://example.com/roles",), ("a",), id="CK-7 a name with dots"
    ),
    pytest.param({"a.b": "x", "a": {"b": "y"}}, ("a.b",), ("x",), id="CK-7 a whole name before a path"),
    pytest.param({"a.b": None, "a": {"b": "y"}}, ("a.b",), ("y",), id="CK-7 D3 a whole name that is null"),
    pytest.param({"a": "x"}, ("a.b",), (), id="CK-7 a path through a string"),
    pytest.param({"a": ["b"]}, ("a.b",), (), id="CK-7 a path through a list"),
    pytest.param({"a": {}}, ("a.b",), (), id="CK-7 a path to nothing"),
    pytest.param({"a": {"b": None}}, ("a.b",), (), id="CK-7 D3 a path to null"),
    pytest.param({"a": {"b": 5}}, ("a.b",), MALFORMED, id="CK-7 a path to a number"),
    pytest.param(
        {"urn:zitadel:iam:org:project:roles": {"reader": {"123": "acme.example"}, "admin": {"123": "acme.example"}}},
        ("urn:zitadel:iam:org:project:roles",),
        ("reader", "admin"),
        id="CK-7 ZITADEL's roles",
    ),
    pytest.param(
        {"roles": {"a": True, "b": False, "c": None, "d": {}, "e": 0, "f": [], "g": ""}},
        ("roles",),
        ("a",),
        id="CK-7 members that grant nothing",
    ),
    pytest.param({"x": {"roles": {"a": True}}}, ("x.roles",), ("a",), id="CK-7 an object at a path"),
]


@pytest.mark.parametrize(("found", "names", "expected"), SCOPES)
def test_scopes(found: dict[str, Any], names: tuple[str, ...], expected: tuple[str, ...] | Reason) -> None:
    verdict = outcome(claims(scope=...) | found, rules(scope_claims=tuple(map(scope_claim, names))))
    assert (verdict if isinstance(verdict, Reason) else verdict.scopes) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({"scope": "a  b"}, ("a", "b"), id="RS-86 string"),
        pytest.param({"scp": ["a"]}, (), id="RS-86 scp is not read"),
        pytest.param({"scope": "a", "scp": 5}, ("a",), id="RS-86 a malformed scp does not matter"),
        pytest.param({"scope": ["a"]}, MALFORMED, id="RS-86 list"),
    ],
)
def test_scopes_in_the_strict_profile(found: dict[str, Any], expected: tuple[str, ...] | Reason) -> None:
    verdict = outcome(claims(scope=...) | found, rules("at+jwt"))
    assert (verdict if isinstance(verdict, Reason) else verdict.scopes) == expected


# changes, subject claims, the subject and whether it is a client; or the reason
SUBJECTS = [
    pytest.param({}, ("sub", "client_id"), ("alice", False), id="CK-7 sub"),
    pytest.param({"sub": ...}, ("sub", "client_id"), ("c1", True), id="CK-7 no sub, client_id"),
    pytest.param({"sub": None}, ("sub", "client_id"), ("c1", True), id="CK-7 D3 sub null, client_id"),
    pytest.param({"sub": ...}, ("sub",), MISSING, id="CK-7 no sub, client_id not listed"),
    pytest.param({"sub": ..., "client_id": ...}, ("sub", "client_id"), MISSING, id="CK-7 neither"),
    pytest.param(
        {"sub": ..., "client_id": ..., "azp": "c1"}, ("sub", "client_id"), MISSING, id="CK-7 azp is another claim"
    ),
    pytest.param({"sub": ..., "azp": "c2"}, ("sub", "azp"), ("c2", True), id="CK-7 azp, listed"),
    pytest.param({"sub": ""}, ("sub", "client_id"), MALFORMED, id="CK-7 sub empty is not absent"),
    pytest.param({"sub": 5}, ("sub", "client_id"), MALFORMED, id="CK-7 sub int is not absent"),
    pytest.param({"sub": ..., "client_id": ""}, ("sub", "client_id"), MALFORMED, id="CK-7 client_id empty"),
    pytest.param({"oid": "o1"}, ("oid", "sub"), ("o1", False), id="CK-7 another claim before sub"),
    pytest.param({"oid": None}, ("oid", "sub"), ("alice", False), id="CK-7 D3 another claim that is null"),
]


@pytest.mark.parametrize("profile", ["jwt", "no-aud"])
@pytest.mark.parametrize(("changes", "names", "expected"), SUBJECTS)
def test_the_subject(
    changes: dict[str, Any], names: tuple[str, ...], expected: tuple[str, bool] | Reason, profile: Profile
) -> None:
    clients = frozenset({"c1", "c2"})
    verdict = outcome(claims(**changes), rules(profile, subject_claims=names, allowed_clients=clients))
    found = verdict if isinstance(verdict, Reason) else (verdict.subject, verdict.principal.is_client)
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"nonce": "n", "scope": ...}, None, id="CK-7 nonce without a scope"),
        pytest.param({"nonce": "n", "scope": ..., "at_hash": "x"}, KIND, id="CK-7 at_hash beside it"),
        pytest.param({"nonce": "n", "scope": ..., "token_use": "id"}, KIND, id="CK-7 token_use beside it"),
    ],
)
def test_a_nonce_is_accepted_by_option_and_no_other_mark(changes: dict[str, Any], expected: Reason | None) -> None:
    """authentik writes the nonce into access tokens too."""
    verdict = outcome(claims(**changes), rules(accept_nonce=True))
    assert (verdict if isinstance(verdict, Reason) else None) is expected


@pytest.mark.requirement("RS-84")
def test_roles_do_not_make_an_access_token_of_an_id_token() -> None:
    """ID tokens of Entra ID have roles, and their audience may be an accepted client id."""
    given_rules = rules(scope_claims=(scope_claim("scp"), scope_claim("roles")))
    assert outcome(claims(scope=..., roles=["mcp:read"], nonce="n"), given_rules) is KIND
    assert not isinstance(outcome(claims(scope=..., roles=["mcp:read"]), given_rules), Reason)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param({"nbf": 5, "iat": 7.5}, 7.5, id="the later"),
        pytest.param({"nbf": None, "iat": 7}, 7, id="D3 nbf null"),
        pytest.param({}, 0, id="neither"),
    ],
)
def test_the_start_of_the_validity(times: dict[str, Any], expected: float) -> None:
    assert valid_from(times) == expected


def test_a_claim_at_a_path_is_read_from_claims_of_any_shape() -> None:
    assert claim_at({"a": {"b": {"c": 1}}}, scope_claim("a.b.c")) == 1
    assert claim_at({"a": {"b.c": 1}}, scope_claim(r"a.b\.c")) == 1
    assert claim_at({"a": [{"b": 1}]}, scope_claim("a.b")) is None


@pytest.mark.requirement("RS-87")
def test_the_principal_is_issuer_subject_and_client() -> None:
    """Never the subject alone."""
    other = "https://other.example.com"
    here = check_claims(claims(), rules(), NOW).principal
    there = check_claims(claims(iss=other), rules(issuer=other), NOW).principal
    by_another_client = check_claims(claims(client_id="c2"), rules(), NOW).principal
    assert here == Principal(issuer=ISS, subject="alice", client_id="c1")
    assert len({here, there, by_another_client}) == 3
    assert len({here.key, there.key, by_another_client.key}) == 3
    assert check_claims(claims(jti="j2", iat=NOW - 5), rules(), NOW).principal == here


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"sub": "c1"}, True, id="RS-87 client credentials"),
        pytest.param({}, False, id="RS-87 a person"),
        pytest.param({"client_id": ..., "sub": "c1"}, False, id="RS-87 no client id"),
    ],
)
def test_an_application_principal_is_flagged(changes: dict[str, Any], expected: bool) -> None:
    assert check_claims(claims(**changes), rules(), NOW).principal.is_client is expected


SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(NOW - 400, NOW + 400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([ISS, R, OWN, "c1", "mcp:read", "id", "", "https://other"]),
    st.text(max_size=4),
)
JSON: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES: Final = (
    *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp", "appid", "cid", "scope", "scp", "scopes"),
    *("cnf", "sid", "nonce", "at_hash", "events", "token_use", "typ", "permissions"),
)


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(["jwt", "at+jwt", "no-aud"]),
    st.one_of(
        st.dictionaries(st.sampled_from(NAMES), JSON, max_size=10),
        st.dictionaries(st.sampled_from(NAMES), JSON | st.just(...), max_size=2).map(lambda changes: claims(**changes)),
    ),
)
@example("jwt", claims(exp=10**4000))
@example("jwt", claims(iat=-(10**4000)))
@example("no-aud", claims(aud=..., scope=[OWN]))
def test_any_claims_give_an_identity_or_invalid_token(profile: Profile, given_claims: dict[str, Any]) -> None:
    given_rules = rules(profile)
    verdict = outcome(given_claims, given_rules)
    if isinstance(verdict, Reason):
        return
    # What was accepted is what every profile promises, said without the code under test.
    assert verdict.issuer == given_claims["iss"] == ISS
    assert verdict.subject == given_claims["sub"]
    assert isinstance(verdict.subject, str)
    assert verdict.expires_at is not None
    assert verdict.expires_at + 30 > NOW
    assert max(given_claims.get("nbf") or 0, given_claims.get("iat") or 0) <= NOW + 30
    assert max(given_claims.get("nbf") or 0, given_claims.get("iat") or 0) < verdict.expires_at + 30
    assert given_claims.get("cnf") is None
    assert type(given_claims.get("jti")) in (str, NoneType)
    assert type(given_claims.get("sid")) in (str, NoneType)
    audience = given_claims.get("aud")
    assert R in ([audience] if isinstance(audience, str) else audience or [R])
    if profile != "no-aud":
        assert audience
    if profile == "at+jwt":
        assert isinstance(given_claims["jti"], str)
        assert verdict.client_id == given_claims["client_id"]
    assert all(type(scope) is str and scope for scope in verdict.scopes)
    assert verdict.claims == given_claims
    assert load_object(json.dumps(given_claims).encode()) == given_claims
