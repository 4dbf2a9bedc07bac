"""Answers of introspection endpoints: plain JSON (RFC 7662 section 2.2), and signed JWTs (RFC 9701 section 5).

An answer that cannot be used is no verdict about the token: the caller answers 503, not 401.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from asgi_mcp_auth._oauth.access_token import TokenRules, check_claims, unverified_time
from asgi_mcp_auth._oauth.confirmation import DPOP_KEY
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.jws import MAX_CLAIM_CONTAINERS, MAX_CLAIM_VALUES, CompactJWS, parse_compact
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = (
    "JWT_TYPE",
    "AnswerRefusedError",
    "check_answer",
    "parse_signed",
    "read_plain",
    "read_signed",
)

JWT_TYPE: Final = "application/token-introspection+jwt"
MAX_SIGNED_AGE: Final = 60.0  # seconds, in addition to the leeway of the issuer
BEARER: Final = "bearer"
PROOF_TYPES: Final = frozenset({"dpop"})


class AnswerRefusedError(ValueError):
    """An answer that cannot be used. The message completes "The introspection endpoint answered with …"."""


def read_plain(body: bytes) -> JSONObject:
    """Return the members of a plain answer.

    Raises:
        AnswerRefusedError: The body is not unambiguous JSON, or not an introspection response.
    """
    try:
        content = load_object(body, max_values=MAX_CLAIM_VALUES, max_containers=MAX_CLAIM_CONTAINERS)
    except JSONRefused as error:
        raise AnswerRefusedError(f"a body that is refused: {error}") from None
    return _with_active(content)


def parse_signed(body: bytes, algorithms: frozenset[str]) -> CompactJWS:
    """Parse a signed answer and check its header; the signature is not verified.

    Raises:
        AnswerRefusedError: The body is not a JWS with an accepted `typ` and `alg`.
    """
    try:
        jws = parse_compact(body.strip(b" \t\r\n"))
    except InvalidToken as error:
        raise AnswerRefusedError(f"a body that is no JWT: {error.found}") from None
    if (jws.header.typ or "").lower().removeprefix("application/") != "token-introspection+jwt":
        raise AnswerRefusedError("a JWT of another typ")
    if jws.header.alg not in algorithms:
        raise AnswerRefusedError("a JWT whose alg is not among the algorithms of the issuer")
    return jws


def read_signed(claims: JSONObject, *, issuer: str, audiences: frozenset[str], leeway: float, now: float) -> JSONObject:
    """Return the `token_introspection` of a signed answer whose signature has been verified.

    Raises:
        AnswerRefusedError: `iss`, `aud` or `iat` is not acceptable, or the member is missing (RFC 9701 section 5).
    """
    if claims.get("iss") != issuer:
        raise AnswerRefusedError("a JWT with another iss")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in audiences for name in named):
        raise AnswerRefusedError("a JWT with another aud")
    issued_at = unverified_time(claims, "iat")
    if issued_at is None or abs(now - issued_at) > MAX_SIGNED_AGE + leeway:
        raise AnswerRefusedError("a JWT with an iat that is not fresh")
    content = claims.get("token_introspection")
    if not isinstance(content, dict):
        raise AnswerRefusedError("a JWT without token_introspection")
    return _with_active(content)


def _with_active(content: JSONObject) -> JSONObject:
    if type(content.get("active")) is not bool:  # only JSON true means active (RFC 7662 section 2.2)
        raise AnswerRefusedError("no boolean active")
    return content


def check_answer(content: JSONObject, rules: TokenRules, now: float, *, issuer_checks_audience: bool) -> AuthInfo:
    """Check an active answer by the rules for the issuer's tokens, and return the caller's identity.

    `iss` may be absent: the issuer was asked. `exp` may be absent: the cached answer expires then, not the identity.

    Raises:
        InvalidToken: A member is not acceptable, or the token needs a proof of possession.
    """
    claims = {name: value for name, value in content.items() if name != "active"}
    token_type = claims.get("token_type")
    if claims.get("iss") is None:
        claims["iss"] = rules.issuer
    if token_type is not None and (not isinstance(token_type, str) or token_type.lower() != BEARER):
        is_bound = isinstance(token_type, str) and token_type.lower() in PROOF_TYPES
        if is_bound and (DPOP_KEY not in rules.confirmations or claims.get("cnf") is None):
            raise InvalidToken(Reason.SENDER_CONSTRAINED, expected="token_type Bearer", found="token_type DPoP")
        if not is_bound:
            raise InvalidToken(Reason.WRONG_TOKEN_KIND, expected="token_type Bearer", found=token_type)
    if claims.get("aud") is None and issuer_checks_audience and token_type is not None:
        claims["aud"] = rules.resource  # refresh tokens are active too, and have no token_type
    expires = claims.get("exp")
    if expires is None:
        claims["exp"] = now + 1.0
    # The answer shows that the token is an access token; profile at+jwt requires claims that only JWTs have.
    profile = "jwt" if rules.profile == "at+jwt" else rules.profile
    info = check_claims(claims, replace(rules, profile=profile), now)
    if expires is not None:
        return info
    return info.replace(expires_at=None, claims={name: value for name, value in info.claims.items() if name != "exp"})
