"""How to fix the refusal of a token, by the reason and by the token's provider.

A hint names no setting that the configuration rejects: an issuer that is not an https URL, an algorithm that is not
supported, a leeway above the maximum.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from asgi_mcp_auth._oauth.access_token import ANY_JWT, CLIENT_ID_CLAIMS, unverified_time
from asgi_mcp_auth._oauth.jws import VERIFIABLE
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth._policy.trusted_issuer import MAX_KEYS_WITHOUT_KID
from asgi_mcp_auth.config import MAX_LEEWAY
from asgi_mcp_auth.doctor._steps import Token, claim_of
from asgi_mcp_auth.errors import Reason, Refusal, printable
from asgi_mcp_auth.providers import Provider, recognise

__all__ = ("hint",)

HINTS: Final[Mapping[Reason, str]] = {
    Reason.MALFORMED_AUTHORIZATION: "The text is not a token. Pipe in only the access token.",
    Reason.MALFORMED_TOKEN: "Only signed JWTs are verified. Have the provider issue JWT access tokens: many providers "
    "issue opaque tokens if the client sends no `resource` or audience. For opaque tokens set a `verifier`.",
    Reason.UNSUPPORTED_HEADER: "The token needs an extension (crit) that is not supported.",
    Reason.UNKNOWN_KID: "The issuer's key set does not have this key: the key was withdrawn, or another server issued "
    "the token.",
    Reason.KEY_MISMATCH: "The key in the key set is for another algorithm or another issuer.",
    Reason.KEYS_UNAVAILABLE: "Run asgi-mcp-auth doctor with the issuer.",
    Reason.KEY_NOT_YET_KNOWN: "Try again in a minute.",
    Reason.BAD_SIGNATURE: "The token was changed or cut, or another server with the same kid issued the token.",
    Reason.MISSING_CLAIM: "Have the provider add the claim {claim} to access tokens.",
    Reason.MALFORMED_CLAIM: "The claim {claim} has another type than RFC 7519 or RFC 9068 requires.",
    Reason.TOKEN_EXPIRED: "Get a new token. If the token is new, compare the clocks of the two machines.",
    Reason.WRONG_TOKEN_KIND: "Send the access token, not the ID, refresh or logout token.",
    Reason.SENDER_CONSTRAINED: "The token is bound to a key (DPoP) or a certificate (mTLS), which this resource does "
    "not verify. Set dpop or client_certificates, or request a bearer token.",
    Reason.CLIENT_CERTIFICATE_MISSING: "The token itself is acceptable. Send it over a connection with the client "
    "certificate that it was requested with; pass --certificate to explain one. In a log, `found` says what the "
    "server or the proxy reported.",
    Reason.CLIENT_CERTIFICATE_MISMATCH: "Use the client certificate that the token was requested with. After a new "
    "certificate, request a new token.",
    Reason.INVALID_DPOP_PROOF: "The token itself is acceptable. Send it with the scheme DPoP and, for each request, a "
    "new proof in the field DPoP (RFC 9449 section 4); pass --proof to explain one.",
    Reason.DPOP_KEY_MISMATCH: "Sign the proof with the key that the token was requested with. An unbound token was "
    "requested without a proof at the token endpoint.",
    Reason.DPOP_PROOF_REPLAYED: "Make a new proof, with a new jti, for each request.",
    Reason.DPOP_TOO_MANY_PROOFS: "One key has made more proofs than the room for used proofs allows it. Let the client "
    "wait for Retry-After, use a key for each client, or give MemoryStore a higher max_entries.",
    Reason.DPOP_NONCE_REQUIRED: "The token and the proof are acceptable. Repeat the request with the nonce of the "
    "field DPoP-Nonce in the proof.",
    Reason.INSUFFICIENT_SCOPE: "Have the client request the missing scopes and the provider grant them. The settings "
    "`scope_claims` and `implies` change which scopes a token has.",
    Reason.REVOKED: "The token was issued before a revocation (auth.revoke or a security event), or the is_revoked "
    "hook did not return False.",
    Reason.TOKEN_LIFETIME_TOO_LONG: "With revocation on, tokens need iat and exp, at most max_token_lifetime apart. "
    "Issue tokens with a shorter lifetime, or set max_token_lifetime higher.",
    Reason.INACTIVE_TOKEN: "The authorization server does not call the token active: it expired, was revoked, or is of "
    "another server.",
    Reason.INTROSPECTION_UNAVAILABLE: "Check the endpoint, client_id and the secret of Introspection(...).",
    Reason.INVALID_API_KEY: "List the keys with asgi-mcp-auth api-key list.",
    Reason.API_KEYS_UNAVAILABLE: "Fix the file of ApiKeys(file=...).",
    Reason.HOOK_FAILED: "Your hook raised an exception: see the log.",
    Reason.STORE_UNAVAILABLE: "The shared store does not answer: see the log of asgi_mcp_auth.stores.",
    Reason.REJECTED_BY_VERIFIER: "Your verify function rejected the token.",
}


class ProviderHint(NamedTuple):
    """How to fix one refusal of one provider's tokens; `claim` limits the hint to a missing or malformed claim."""

    slug: str
    reason: Reason
    claim: str | None
    text: str


PROVIDER_HINTS: Final = (
    ProviderHint(
        "keycloak",
        Reason.MISSING_CLAIM,
        "sub",
        "Add the client scope `basic` to the client as a default scope: since Keycloak 25 this scope adds `sub`.",
    ),
    ProviderHint(
        "keycloak",
        Reason.INSUFFICIENT_SCOPE,
        None,
        "Create a client scope with the name of each missing scope, and add the client scopes to the client.",
    ),
    ProviderHint(
        "supabase",
        Reason.INSUFFICIENT_SCOPE,
        None,
        "Its tokens have no scopes: leave the required scopes empty, or add a scope claim with an access token hook.",
    ),
    ProviderHint(
        "auth0",
        Reason.INSUFFICIENT_SCOPE,
        None,
        "With RBAC, enable `Add Permissions in the Access Token`, and add `permissions` to `scope_claims`.",
    ),
    ProviderHint(
        "okta",
        Reason.INSUFFICIENT_SCOPE,
        None,
        "Define the scopes at the custom authorization server, and allow them in an access policy for the client.",
    ),
)

SETTINGS: Final[Mapping[Reason, frozenset[str]]] = {
    Reason.TYP_NOT_ACCEPTED: frozenset({"profile"}),
    Reason.WRONG_TOKEN_KIND: frozenset({"accept_nonce"}),
    Reason.MISSING_CLAIM: frozenset({"subject_claims"}),
    Reason.CLIENT_NOT_ALLOWED: frozenset({"allowed_clients"}),
    Reason.INSUFFICIENT_SCOPE: frozenset({"scope_claims", "request_scope_names", "default"}),
    Reason.WRONG_AUDIENCE: frozenset({"extra_audiences", "profile", "allowed_clients", "default"}),
    Reason.UNKNOWN_ISSUER: frozenset(
        {
            *(
                "metadata_url",
                "extra_audiences",
                "profile",
                "allowed_clients",
                "scope_claims",
                "token_issuers",
                "jwks_uri",
            ),
            *("request_scope_names", "default"),
        }
    ),
}
"""By reason, the settings in a provider's row that change the decision."""

TOKEN_ISSUERS: Final = (
    "The token's `iss` is not an issuer URL. If you trust the authorization server, configure its https issuer URL and "
    "list the value of `iss` in token_issuers."
)

AUDIENCE_REASONS: Final = frozenset({Reason.WRONG_AUDIENCE, Reason.UNKNOWN_ISSUER})
"""The reasons that the advice in a provider's row is about: the issuer, and how tokens get their audience."""

_DESCOPE_PROJECT: Final = re.compile(r"(?:https://api\.descope\.com/(?:v1/apps/)?)?([A-Za-z0-9]{20,})")
_DESCOPE_AGENTIC: Final = re.compile(r"https://api\.descope\.com/v1/apps/agentic/([^/]+)/[^/]+")
_WORKOS_SESSION: Final = "https://api.workos.com/user_management/"


def hint(refusal: Refusal, token: Token | None) -> str:
    """Return how to fix the refusal of a token; the token is None if it is not a signed JWT."""
    reason, claim = refusal.reason, claim_of(refusal)
    general = HINTS.get(reason, "").format(claim=printable(claim))
    if token is None:
        return general
    texts = [_by_reason(refusal, token) or general]
    issuer = token.claims.get("iss")
    if isinstance(issuer, str):
        texts.append(_by_provider(reason, claim, issuer, token.header))
    return " ".join(filter(None, texts))


def _by_reason(refusal: Refusal, token: Token) -> str | None:
    """Return the hint for a reason whose fix depends on the token, or None."""
    match refusal.reason:
        case Reason.UNKNOWN_ISSUER:
            return _unknown_issuer(token)
        case Reason.ALGORITHM_NOT_ALLOWED:
            if token.header.get("alg") in VERIFIABLE:
                return "Add the algorithm to `algorithms` of the issuer."
            return f"Have the provider sign with one of {', '.join(VERIFIABLE)}; no setting accepts other algorithms."
        case Reason.TYP_NOT_ACCEPTED:
            typ = token.header.get("typ")
            if typ in ANY_JWT or (isinstance(typ, str) and typ.lower() in ANY_JWT):
                return 'If the provider sends this typ in access tokens, set profile="jwt".'
            return "The token is probably not an access token; no profile accepts this typ."
        case Reason.AMBIGUOUS_KEY:
            if token.header.get("kid") is None:
                option = f"set max_keys_without_kid (at most {MAX_KEYS_WITHOUT_KID})"
                return f"Have the provider name the key in tokens (kid), or {option}."
            return "Several keys of the issuer have this kid: have the provider publish each key with its own kid."
        case Reason.NOT_YET_VALID:
            times = [unverified_time(dict(token.claims), name) for name in ("nbf", "iat")]
            ahead = max((time - token.now for time in times if time is not None), default=0.0)
            option = ", or set `leeway`" if ahead < MAX_LEEWAY else ""
            return f"Compare the clocks of the two machines{option}."
        case Reason.WRONG_AUDIENCE:
            return _wrong_audience(refusal, token)
        case Reason.CLIENT_NOT_ALLOWED:
            if any(token.claims.get(name) for name in CLIENT_ID_CLAIMS):
                return "If you trust the client, add its id to `allowed_clients`."
            option = "" if token.rules is None or token.rules.profile == "no-aud" else ", or remove `allowed_clients`"
            return f"The token names no client: have the provider add client_id{option}."
        case _:
            return None


def _unknown_issuer(token: Token) -> str:
    if token.rules is not None:
        return "The token's tenant claim does not name the tenant of its issuer."
    issuer = token.claims.get("iss")
    if isinstance(issuer, str) and (related := _related(issuer, token.issuers)):
        return related
    why = insecure_url(issuer, allow_http=False)
    if why == "is not https":
        return TOKEN_ISSUERS
    url = parse_url(issuer) if isinstance(issuer, str) else None
    if why is not None or url is None or url.query is not None:
        return TOKEN_ISSUERS
    if not all(row.usable for row in recognise(str(issuer))):
        return "Use another authorization server."
    if any(other.rstrip("/") == str(issuer).rstrip("/") for other in token.issuers):
        return "The configured issuer differs only by the trailing slash: write the issuer exactly as in `iss`."
    return "If you trust the issuer, add it to the authorization servers exactly as in `iss`."


def _wrong_audience(refusal: Refusal, token: Token) -> str:
    if refusal.expected == "a single audience":
        return "The token has several audiences, and `require_single_audience` is set."
    if token.rules is not None and token.rules.profile == "no-aud" and token.claims.get("aud") is None:
        return "List the client in `allowed_clients`, and have the provider grant a scope that names this resource."
    return (
        "The token is for another audience. Have the client send `resource`, and the provider put the resource into "
        "`aud`. If the provider cannot, set `extra_audiences`."
    )


def _related(issuer: str, trusted: tuple[str, ...]) -> str:
    """Return the hint for a token from another issuer of a provider that the configuration trusts, or ""."""
    project = _DESCOPE_PROJECT.fullmatch(issuer)
    agentic = [match for match in map(_DESCOPE_AGENTIC.fullmatch, trusted) if match is not None]
    if project is not None and any(match.group(1) == project.group(1) for match in agentic):
        text = "The token is from the Descope project, the configured issuer is the project's agentic MCP server. Have "
        text += "clients sign in at the configured issuer"
        if not issuer.startswith("https://api.descope.com/v1/apps/"):
            return f"{text}."
        settings = f'AuthServerConfig(issuer="{issuer}", extra_audiences=["{project.group(1)}"])'
        return f"{text}, or trust the project too: add {settings}."
    if issuer.startswith(_WORKOS_SESSION) and any(row.slug == "workos" for name in trusted for row in recognise(name)):
        return "The token is a WorkOS session token: have clients sign in at the configured AuthKit issuer."
    return ""


def _by_provider(reason: Reason, claim: str | None, issuer: str, header: Mapping[str, Any]) -> str:
    """Return the provider's hint for this reason, or "": its own hint, or the row's settings and advice."""
    row = _row(issuer, header)
    if row is None:
        return ""
    if reason is Reason.MISSING_CLAIM and claim == "aud":
        reason, claim = Reason.WRONG_AUDIENCE, None  # the fix is the same
    texts = [
        entry.text
        for entry in PROVIDER_HINTS
        if (entry.slug, entry.reason, entry.claim or claim) == (row.slug, reason, claim)
    ]
    relevant = SETTINGS.get(reason, frozenset())
    settings = {name: value for name, value in (*row.config.items(), *row.policy.items()) if name in relevant}
    if settings and row.usable:
        texts.append(f"Set {', '.join(f'{name}={json.dumps(value)}' for name, value in settings.items())}.")
    if reason in AUDIENCE_REASONS:
        texts.append(row.advice)
    return f"{row.name}: {' '.join(texts)}" if texts else ""


def _row(issuer: str, header: Mapping[str, Any]) -> Provider | None:
    """Return the provider's row whose tokens have this typ, or else its first row; None for an unknown provider."""
    rows = recognise(issuer)
    same_typ = [row for row in rows if header.get("typ") in row.typ]
    return next(iter(same_typ or rows), None)
