"""What to do about a refused token: by the reason, and by what is known of its provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.providers import Provider, recognise

__all__ = ("hint",)

HINTS: Final[Mapping[Reason, str]] = {
    Reason.MALFORMED_AUTHORIZATION: "This is no token. Pipe in the access token alone.",
    Reason.MALFORMED_TOKEN: "Only signed JWTs are verified. Ask the provider for JWT access tokens; many give opaque "
    "ones when the client does not send `resource` or an audience. For opaque tokens set a `verifier`.",
    Reason.UNSUPPORTED_HEADER: "It needs an extension (crit) that is not supported here.",
    Reason.ALGORITHM_NOT_ALLOWED: "Set `algorithms`; shared secrets (HS256) and none are never accepted.",
    Reason.TYP_NOT_ACCEPTED: 'It may be no access token. Where the provider does so, set profile="jwt".',
    Reason.UNKNOWN_ISSUER: "Configure the issuer exactly as `iss` has it.",
    Reason.UNKNOWN_KID: "The key is not in the issuer's key set: it is withdrawn, or the token is of another server.",
    Reason.KEY_MISMATCH: "The key set says another algorithm for this key, or another issuer.",
    Reason.AMBIGUOUS_KEY: "Let tokens name their key (kid), or set max_keys_without_kid.",
    Reason.KEYS_UNAVAILABLE: "Run: asgi-mcp-auth doctor, with the issuer.",
    Reason.KEY_NOT_YET_KNOWN: "Try again in a moment.",
    Reason.BAD_SIGNATURE: "It was changed or cut, or it is of another server with the same kid.",
    Reason.MISSING_CLAIM: "The provider has to put the claim into access tokens.",
    Reason.MALFORMED_CLAIM: "The claim has another type than RFC 7519 or RFC 9068 say.",
    Reason.TOKEN_EXPIRED: "Get a new one; if it is new, compare the clocks.",
    Reason.NOT_YET_VALID: "Compare the clocks of the two machines, or set `leeway`.",
    Reason.WRONG_AUDIENCE: "The token is for somebody else. Let the client send `resource`, and let the provider put "
    "the resource into `aud`; where it cannot, set `extra_audiences`.",
    Reason.WRONG_TOKEN_KIND: "Send the access token, not the ID or refresh token.",
    Reason.SENDER_CONSTRAINED: "It is bound to a key (DPoP, mTLS), which is not supported here. Ask for bearer tokens.",
    Reason.CLIENT_NOT_ALLOWED: "Add the client to `allowed_clients`, if it is to be trusted.",
    Reason.INSUFFICIENT_SCOPE: "Let the client ask for the scopes, and the provider grant them; `scope_claims` and "
    "`implies` say how they are read.",
    Reason.REVOKED: "is_revoked did not answer False.",
    Reason.HOOK_FAILED: "Your hook raised: see the log.",
    Reason.REJECTED_BY_VERIFIER: "Your verify function refused it.",
}

OF_THE_PROVIDER: Final = frozenset(
    {
        *(Reason.WRONG_AUDIENCE, Reason.MISSING_CLAIM, Reason.TYP_NOT_ACCEPTED, Reason.INSUFFICIENT_SCOPE),
        *(Reason.CLIENT_NOT_ALLOWED, Reason.UNKNOWN_ISSUER, Reason.MALFORMED_CLAIM),
    }
)


def _row(issuer: str, header: Mapping[str, Any]) -> Provider | None:
    """The row of the issuer whose tokens look like this one, or else its first."""
    rows = recognise(issuer)
    alike = [row for row in rows if header.get("typ") in row.typ]
    return next(iter(alike or rows), None)


def hint(reason: Reason, issuer: object, header: Mapping[str, Any], trusted: tuple[str, ...] = ()) -> str:
    """What to do.

    Args:
        reason: Why it was refused.
        issuer: The token's `iss`.
        header: Its header.
        trusted: The configured issuers.
    """
    told = [HINTS.get(reason, "")]
    if not isinstance(issuer, str):
        return told[0]
    if reason is Reason.UNKNOWN_ISSUER and any(other.rstrip("/") == issuer.rstrip("/") for other in trusted):
        told.append("Only the slash at the end differs.")
    row = _row(issuer, header) if reason in OF_THE_PROVIDER else None
    if row is not None:
        settings = [f"{name}={json.dumps(value)}" for name, value in (*row.config.items(), *row.policy.items())]
        told.append(f"{row.name}: {'set ' + ', '.join(settings) + '. ' if settings else ''}{row.advice}")
    return " ".join(told)
