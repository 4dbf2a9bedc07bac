"""The steps of verifying a token, in the verifier's order: the expected value, the token's value, and the refusals.

No step verifies anything. The verifier decides whether a token is accepted, and why not. A step lists the refusals that
it causes: all steps before the one that failed have passed, and all steps after it were not reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from asgi_mcp_auth._oauth.access_token import (
    AT_JWT,
    CLIENT_ID_CLAIMS,
    TokenRules,
    claim_at,
    scope_claim,
    unverified_time,
)
from asgi_mcp_auth.config import DEFAULT_SCOPE_CLAIMS
from asgi_mcp_auth.errors import Reason, Refusal

__all__ = ("STEPS", "Step", "Token", "claim_of", "step_of")

NOTHING: Final[Any] = None


class Token(NamedTuple):
    """A decoded token, not verified, and what the resource requires of it.

    Attributes:
        header: The header.
        claims: The claims.
        rules: The rules of the token's issuer; None if no configured issuer has this name.
        issuers: The configured issuers.
        needed: The scopes that every request needs.
        now: The time, in seconds since the epoch.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    rules: TokenRules | None
    issuers: tuple[str, ...]
    needed: tuple[str, ...]
    now: float


Describe = Callable[[Token], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Args:
        name: What the step checks.
        reasons: The refusals that only this step causes.
        claims: The claims for which this step reports `missing_claim` and `malformed_claim`.
        expected: Returns the accepted values, for people.
        found: Returns the token's value.
    """

    name: str
    reasons: frozenset[Reason] = frozenset()
    claims: frozenset[str] = frozenset()
    expected: Describe = lambda _: NOTHING
    found: Describe = lambda _: NOTHING


def _claim(name: str) -> Describe:
    return lambda token: token.claims.get(name)


def _rule(describe: Callable[[TokenRules], object]) -> Describe:
    return lambda token: None if token.rules is None else describe(token.rules)


def _times(*names: str) -> Describe:
    def describe(token: Token) -> object:
        times = ((name, unverified_time(dict(token.claims), name)) for name in names)
        return ", ".join(_relative(name, time - token.now) for name, time in times if time is not None) or None

    return describe


def _relative(name: str, seconds: float) -> str:
    return f"{name} {abs(seconds):.0f} s {'ago' if seconds < 0 else 'from now'}"


def _client_id(token: Token) -> object:
    return next((f"{name} {token.claims[name]}" for name in CLIENT_ID_CLAIMS if name in token.claims), None)


def _scopes(token: Token) -> object:
    names = map(scope_claim, DEFAULT_SCOPE_CLAIMS) if token.rules is None else token.rules.scope_claims
    values = ((name[0], claim_at(token.claims, name)) for name in names)
    found = [f"{name} {value}" for name, value in values if value is not None]
    return ", ".join(found) or None


def _audiences(rules: TokenRules) -> object:
    return " or ".join([rules.resource, *sorted(rules.extra_audiences)])


def _step(name: str, *reasons: Reason, claims: tuple[str, ...] = (), **describe: Describe) -> Step:
    return Step(name=name, reasons=frozenset(reasons), claims=frozenset(claims), **describe)


CREDENTIAL: Final = _step("credential", Reason.MALFORMED_AUTHORIZATION)
FORM: Final = _step("compact JWS", Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_HEADER)
ISSUER: Final = _step(
    "issuer", Reason.UNKNOWN_ISSUER, expected=lambda token: " or ".join(token.issuers), found=_claim("iss")
)
KEY: Final = _step(
    "key",
    *(Reason.UNKNOWN_KID, Reason.KEY_MISMATCH, Reason.AMBIGUOUS_KEY, Reason.KEYS_UNAVAILABLE),
    Reason.KEY_NOT_YET_KNOWN,
    found=lambda token: f"kid {token.header.get('kid')}",
)
TENANT: Final = _step(
    "tenant",
    expected=_rule(lambda rules: None if rules.tenant is None else " ".join(rules.tenant)),
    found=lambda token: None if not token.rules or not token.rules.tenant else token.claims.get(token.rules.tenant[0]),
)
REVOCATION: Final = _step(
    "revocation", Reason.REVOKED, Reason.HOOK_FAILED, Reason.STORE_UNAVAILABLE, Reason.REJECTED_BY_VERIFIER
)
PROOF: Final = _step(
    "proof",
    *(Reason.INVALID_DPOP_PROOF, Reason.DPOP_KEY_MISMATCH, Reason.DPOP_PROOF_REPLAYED, Reason.DPOP_NONCE_REQUIRED),
    Reason.DPOP_TOO_MANY_PROOFS,
    expected=lambda _: "a DPoP proof with the key of the token",
)
CERTIFICATE: Final = _step(
    "certificate",
    *(Reason.CLIENT_CERTIFICATE_MISSING, Reason.CLIENT_CERTIFICATE_MISMATCH),
    expected=lambda _: "the client certificate of the token",
)
SCOPES: Final = _step(
    "baseline scopes", Reason.INSUFFICIENT_SCOPE, expected=lambda token: " ".join(token.needed), found=_scopes
)

STEPS: Final = (
    CREDENTIAL,
    FORM,
    ISSUER,
    _step(
        "algorithm",
        Reason.ALGORITHM_NOT_ALLOWED,
        expected=_rule(lambda rules: " ".join(sorted(rules.algorithms))),
        found=lambda token: token.header.get("alg"),
    ),
    _step(
        "type",
        Reason.TYP_NOT_ACCEPTED,
        expected=_rule(
            lambda rules: " or ".join(sorted(AT_JWT)) if rules.profile == "at+jwt" else "JWT, at+jwt or none"
        ),
        found=lambda token: token.header.get("typ", "none"),
    ),
    KEY,
    _step("signature", Reason.BAD_SIGNATURE),
    TENANT,
    _step("expiry", Reason.TOKEN_EXPIRED, claims=("exp",), found=_times("exp")),
    _step("not before", Reason.NOT_YET_VALID, claims=("nbf", "iat"), found=_times("nbf", "iat")),
    _step("kind", Reason.WRONG_TOKEN_KIND, claims=("jti",), expected=lambda _: "an access token"),
    _step(
        "binding",
        Reason.SENDER_CONSTRAINED,
        claims=("cnf",),
        expected=_rule(
            lambda rules: " or ".join(("no cnf", *(f"cnf with {name}" for name in sorted(rules.confirmations))))
        ),
        found=_claim("cnf"),
    ),
    _step("subject", claims=("sub",), found=_claim("sub")),
    _step("client id", claims=CLIENT_ID_CLAIMS, found=_client_id),
    _step("scope claims", claims=("scope",), found=_scopes),  # and all other claims: see step_of
    _step("audience", Reason.WRONG_AUDIENCE, claims=("aud",), expected=_rule(_audiences), found=_claim("aud")),
    _step(
        "allowed clients",
        Reason.CLIENT_NOT_ALLOWED,
        expected=_rule(lambda rules: " or ".join(sorted(rules.allowed_clients or ())) or "any"),
        found=_client_id,
    ),
    REVOCATION,
    CERTIFICATE,
    PROOF,
    SCOPES,
)
"""All steps, in the verifier's order."""

BY_NAME: Final = {step.name: step for step in STEPS}


def claim_of(refusal: Refusal) -> str | None:
    """Return the claim that is missing or malformed; None for every other reason."""
    if refusal.reason not in (Reason.MISSING_CLAIM, Reason.MALFORMED_CLAIM):
        return None
    return str(refusal.expected).removeprefix("a well-formed ")


def step_of(refusal: Refusal, token: Token | None) -> Step:
    """Return the step that caused a refusal."""
    reason, claim = refusal.reason, claim_of(refusal)
    if claim is not None:
        return next((step for step in STEPS if claim in step.claims), BY_NAME["scope claims"])
    if reason is Reason.UNKNOWN_ISSUER and token is not None and _names_tenant(str(refusal.expected), token):
        return TENANT
    if reason is Reason.KEY_MISMATCH and str(refusal.found).startswith("a key of "):
        return TENANT
    if reason is Reason.HOOK_FAILED and refusal.found == "the issuer resolver":
        return ISSUER
    return next((step for step in STEPS if reason in step.reasons), REVOCATION)


def _names_tenant(expected: str, token: Token) -> bool:
    return token.rules is not None and token.rules.tenant is not None and expected == " ".join(token.rules.tenant)
