"""The checks of an access token's header and claims, by the rules of one issuer for one resource.

`check_header` and `unverified_time` read a token whose signature has not been verified. `check_claims` requires that
the signature has been verified, and returns the caller's identity. RFC 9068 sections 2 and 4, RFC 7519 section 4.1,
RFC 8707 section 2, RFC 8725 sections 3.11 and 3.12.

A claim whose value is `null` is absent, whatever the claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asgi_mcp_auth._oauth.confirmation import read_confirmation
from asgi_mcp_auth._oauth.json_types import JSONValue, is_list, is_object
from asgi_mcp_auth._oauth.jws import Header
from asgi_mcp_auth._oauth.urls import Url, same_resource
from asgi_mcp_auth.config import DEFAULT_SCOPE_CLAIMS, DEFAULT_SUBJECT_CLAIMS, Profile
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = (
    "ScopeClaim",
    "TokenRules",
    "check_audience",
    "check_claims",
    "check_header",
    "check_times",
    "claim_at",
    "scope_claim",
    "unverified_time",
    "valid_from",
)

CLIENT_ID_CLAIMS: Final = ("client_id", "azp", "appid", "cid")
AT_JWT: Final = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 4
# Most providers send one of these. RFC 7515 section 4.1.9: "JWT" and "application/jwt" are the same media type.
ANY_JWT: Final = AT_JWT | {"jwt", "JWT", "application/jwt", None}
MAX_TIME: Final = 10**12  # seconds: the year 33658; times in milliseconds are above

# Marks of another kind of JWT (RFC 8725 section 3.12; OpenID Connect Core section 2, Back-Channel Logout section 2.4).
FOREIGN_CLAIMS: Final = ("at_hash", "c_hash", "s_hash", "events")
FOREIGN_TOKEN_USES: Final = frozenset({"id", "refresh"})
FOREIGN_TYPES: Final = frozenset({"id", "refresh", "offline", "logout"})
MARKS: Final = frozenset((*FOREIGN_CLAIMS, "nonce", "token_use", "typ"))

Claims = Mapping[str, JSONValue]

ScopeClaim = tuple[str, tuple[str, ...]]
"""The name of a claim that holds scopes, and the path of member names that the name means if no claim has the name."""


def scope_claim(name: str) -> ScopeClaim:
    r"""Compile the name of a claim: `realm_access.roles` is a path, and `\.` is a dot within a member's name.

    A claim that has the whole name wins over the path: claims such as `https://example.com/roles` contain dots.
    """
    return name, tuple(part.replace("\0", ".") for part in name.replace("\\.", "\0").split("."))


STRICT_SCOPE_CLAIMS: Final = (scope_claim("scope"),)


def claim_at(claims: Mapping[str, object], claim: ScopeClaim) -> object:
    """Return the value of a claim that `scope_claim` compiled, or None if it is absent."""
    name, path = claim
    value: object = claims.get(name)
    if value is not None or len(path) == 1:
        return value
    value = claims.get(path[0])
    for member in path[1:]:
        if not is_object(value):
            return None
        value = value.get(member)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What one resource requires of the tokens that carry one `iss` value."""

    issuer: str
    """The value of `iss`."""
    resource: str
    resource_url: Url
    profile: Profile = "jwt"
    algorithms: frozenset[str]
    leeway: float = 30.0
    extra_audiences: frozenset[str] = frozenset()
    require_single_audience: bool = False
    subject_claims: tuple[str, ...] = DEFAULT_SUBJECT_CLAIMS
    scope_claims: tuple[ScopeClaim, ...] = tuple(map(scope_claim, DEFAULT_SCOPE_CLAIMS))
    accept_nonce: bool = False
    allowed_clients: frozenset[str] | None = None
    tenant: tuple[str, str] | None = None
    """The claim that names the tenant, and the required value."""
    confirmations: frozenset[str] = frozenset()
    """The members of `cnf` that the resource verifies after these checks; see `read_confirmation`."""
    own_scope_prefixes: tuple[str, ...] = ()
    """Profile `no-aud`: a scope with one of these prefixes names this resource."""


def _missing(claim: str) -> InvalidToken:
    return InvalidToken(Reason.MISSING_CLAIM, expected=claim)


def _malformed(claim: str, value: object) -> InvalidToken:
    return InvalidToken(Reason.MALFORMED_CLAIM, expected=f"a well-formed {claim}", found=value)


def _text(claims: Claims, claim: str) -> str:
    """Return a required claim that is a non-empty string."""
    value = claims.get(claim)
    if value is None:
        raise _missing(claim)
    if type(value) is not str or not value:
        raise _malformed(claim, value)
    return value


def _time(claim: str, value: object) -> float:
    """Return the value of a claim that is a NumericDate (RFC 7519 section 2). A boolean is none, though an `int`."""
    if (type(value) is int or type(value) is float) and -MAX_TIME < value < MAX_TIME:
        return float(value)
    if value is None:
        raise _missing(claim)
    raise _malformed(claim, value)


def unverified_time(claims: Claims, claim: str) -> float | None:
    """Return a NumericDate, or None if the claim is absent or malformed."""
    try:
        return _time(claim, claims.get(claim))
    except InvalidToken:
        return None


def valid_from(claims: Claims) -> float:
    """Return the later of `nbf` and `iat` of checked claims, 0 if both are absent."""
    return max(_time("nbf", claims.get("nbf") or 0.0), _time("iat", claims.get("iat") or 0.0))


def check_header(header: Header, rules: TokenRules) -> None:
    """Check that `alg` is one of the issuer's (RFC 8725 section 3.1), and that the profile accepts `typ`.

    Raises:
        InvalidToken: `algorithm_not_allowed` or `typ_not_accepted`.
    """
    if header.alg not in rules.algorithms:
        raise InvalidToken(Reason.ALGORITHM_NOT_ALLOWED, expected=" ".join(sorted(rules.algorithms)), found=header.alg)
    accepted = AT_JWT if rules.profile == "at+jwt" else ANY_JWT
    if header.typ not in accepted and (header.typ and header.typ.lower()) not in accepted:
        raise InvalidToken(
            Reason.TYP_NOT_ACCEPTED,
            expected="at+jwt" if accepted is AT_JWT else "JWT or at+jwt",
            found=header.typ or "none",
        )


def check_times(claims: Claims, leeway: float, now: float) -> float:
    """Check `exp`, `nbf` and `iat` (RFC 7519 sections 4.1.4 to 4.1.6), and return `exp`.

    `exp` is required and has not passed. `nbf` and `iat` are not in the future, and not after `exp`.

    Raises:
        InvalidToken: `token_expired`, `not_yet_valid`, `missing_claim` or `malformed_claim`.
    """
    expires = _time("exp", claims.get("exp"))
    if now >= expires + leeway:
        found = f"exp {now - expires:.0f} s ago"
        raise InvalidToken(Reason.TOKEN_EXPIRED, found=found, description="The access token expired")
    for claim in ("nbf", "iat"):
        value = claims.get(claim)
        if value is None:
            continue
        starts = _time(claim, value)
        if starts > now + leeway:
            raise InvalidToken(Reason.NOT_YET_VALID, found=f"{claim} in {starts - now:.0f} s")
        if starts >= expires + leeway:
            raise _malformed("exp", f"exp {starts - expires:.0f} s before {claim}")
    return expires


def check_audience(
    audience: object, rules: TokenRules, scopes: tuple[str, ...], client_id: str | None
) -> str | list[str] | None:
    """Check that the resource is among `aud`, and return `aud` (RFC 9068 section 4; MCP: only tokens for this server).

    Without `aud`, only the profile `no-aud` accepts a token, from a listed client and with a scope of this resource.

    Raises:
        InvalidToken: `wrong_audience`, `missing_claim` or `malformed_claim`.
    """
    if audience is None and rules.profile == "no-aud":
        listed = rules.allowed_clients is not None and client_id in rules.allowed_clients
        if not listed or not any(scope.startswith(rules.own_scope_prefixes) for scope in scopes):
            expected = "aud, or a listed client with a scope of this resource"
            raise InvalidToken(Reason.WRONG_AUDIENCE, expected=expected)
        return None
    if audience is None:
        raise _missing("aud")
    named = [audience] if isinstance(audience, str) else _listed(audience)
    if not named or "" in named:
        raise _malformed("aud", audience)
    if rules.require_single_audience and len(named) > 1:
        raise InvalidToken(Reason.WRONG_AUDIENCE, expected="a single audience", found=named)
    is_listed = rules.resource in named or not rules.extra_audiences.isdisjoint(named)
    if not is_listed and not any(same_resource(name, rules.resource_url) for name in named):
        raise InvalidToken(Reason.WRONG_AUDIENCE, expected=rules.resource, found=audience)
    return audience if isinstance(audience, str) else named


def _client_id(claims: Claims, rules: TokenRules) -> str | None:
    """Return the client id: the first claim that names it. Every claim that could name it is well-formed."""
    if rules.profile == "at+jwt":
        return _text(claims, "client_id")
    client_id: str | None = None
    for claim in CLIENT_ID_CLAIMS:
        value = claims.get(claim)
        if value is None:
            continue
        if type(value) is not str or not value:
            raise _malformed(claim, value)
        client_id = client_id or value
    return client_id


def _subject(claims: Claims, rules: TokenRules) -> tuple[str, bool]:
    """Return the subject, and whether the claim that names it is one for the client id."""
    for claim in rules.subject_claims:
        if claims.get(claim) is not None:
            return _text(claims, claim), claim in CLIENT_ID_CLAIMS
    raise _missing(rules.subject_claims[0])


def _listed(value: object) -> list[str] | None:
    """Return the items of a list of strings, else None."""
    if not is_list(value):
        return None
    texts = [item for item in value if isinstance(item, str)]
    return texts if len(texts) == len(value) else None


def _members(value: object) -> list[str] | None:
    """Return the member names of an object, else None. A value that is false, null, 0 or empty grants nothing."""
    return [name for name, granted in value.items() if granted] if is_object(value) else None


def _scopes(claims: Claims, rules: TokenRules) -> tuple[str, ...]:
    """Return the scopes (RFC 9068 section 2.2.3): a space-delimited string or, but for `at+jwt`, a list of strings.

    A claim that is not one of the standard three may be an object, whose member names are the scopes: ZITADEL writes
    roles so.
    """
    strict = rules.profile == "at+jwt"
    found: list[str] = []
    for claim in STRICT_SCOPE_CLAIMS if strict else rules.scope_claims:
        value = claim_at(claims, claim)
        if value is None:
            continue
        scopes = value.split(" ") if isinstance(value, str) else None if strict else _listed(value)
        if scopes is None and claim[0] not in DEFAULT_SCOPE_CLAIMS:
            scopes = _members(value)
        if scopes is None:
            raise _malformed(claim[0], value)
        found += scopes
    return tuple(dict.fromkeys(filter(None, found)))


def _foreign_kind(claims: Claims, rules: TokenRules) -> str | None:
    """Return the mark of an ID, logout, refresh or other JWT of the same issuer (RFC 9068 section 4), or None."""
    for claim in FOREIGN_CLAIMS:
        if claims.get(claim) is not None:
            return claim
    # OpenID Connect Core section 2: an ID token repeats the nonce, and has no scope claim. It may well have roles.
    has_scope = any(claims.get(claim) is not None for claim in DEFAULT_SCOPE_CLAIMS)
    if claims.get("nonce") is not None and not has_scope and not rules.accept_nonce:
        return "nonce without a scope"
    for claim, kinds in (("token_use", FOREIGN_TOKEN_USES), ("typ", FOREIGN_TYPES)):
        if str(claims.get(claim)).lower() in kinds:
            return f"{claim} {claims[claim]}"
    return None


def _check_kind(claims: Claims, rules: TokenRules) -> None:
    """Check what the profile requires of an access token, and that nothing marks the token as another kind."""
    for claim in ("jti", "sid"):  # revocation compares them with strings
        value = claims.get(claim)
        if value is not None and type(value) is not str:
            raise _malformed(claim, value)
    if rules.profile == "at+jwt":  # RFC 9068 section 2.2; `typ` has shown its kind
        _time("iat", claims.get("iat"))
        _text(claims, "jti")
    elif not MARKS.isdisjoint(claims) and (kind := _foreign_kind(claims, rules)) is not None:
        raise InvalidToken(Reason.WRONG_TOKEN_KIND, expected="an access token", found=kind)
    read_confirmation(claims.get("cnf"), rules.confirmations)


def check_claims(claims: Claims, rules: TokenRules, now: float) -> AuthInfo:
    """Check every claim of a token whose signature has been verified, and return the caller's identity.

    The `AuthInfo` owns `claims` from then on. Not checked: the signature, the header (`check_header`), revocation,
    required scopes, that `jti` is used once, and whether the sender can prove what `cnf` demands.

    Raises:
        InvalidToken: The reason is that of the first failed check.
    """
    if claims.get("iss") != rules.issuer:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, expected=rules.issuer, found=claims.get("iss"))
    if rules.tenant is not None and claims.get(rules.tenant[0]) != rules.tenant[1]:
        claim, tenant = rules.tenant
        raise InvalidToken(Reason.UNKNOWN_ISSUER, expected=f"{claim} {tenant}", found=claims.get(claim))
    expires_at = check_times(claims, rules.leeway, now)
    _check_kind(claims, rules)
    subject, is_client = _subject(claims, rules)
    client_id = _client_id(claims, rules)
    if is_client:
        client_id = subject
    scopes = _scopes(claims, rules)
    audience: str | list[str] | None = rules.resource
    if claims.get("aud") != audience:
        audience = check_audience(claims.get("aud"), rules, scopes, client_id)
    if rules.allowed_clients is not None and client_id not in rules.allowed_clients:
        raise InvalidToken(Reason.CLIENT_NOT_ALLOWED, expected="a listed client", found=client_id)
    return AuthInfo(
        issuer=rules.issuer,
        subject=subject,
        client_id=client_id,
        scopes=scopes,
        audience=audience,
        resource=rules.resource,
        expires_at=expires_at,
        claims=claims,
    )
