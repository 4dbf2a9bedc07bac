"""Fault switches: named faults that the development authorization server shows on demand.

A switch is named after what a client or a resource server observes. Faults of the transport (another status, a stall,
a cut connection) are methods of `testing.Issuer`: `server.fail("/token")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from asgi_mcp_auth._policy.problems import Problems, show

__all__ = ("Switch", "parse_switches")


class Switch(StrEnum):
    """A fault; `meaning` describes its effect."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Switch:
        """Create a member from its command-line name and its description."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    WRONG_ISS = "wrong-iss", "authorization responses carry the iss of another server (RFC 9207)"
    NO_ISS = "no-iss", "authorization responses carry no iss, though the metadata promises it"
    ISSUER_MISMATCH = "issuer-mismatch", "the metadata names another issuer"
    TRAILING_SLASH = "trailing-slash", "the issuer ends with a slash in metadata, responses and tokens"
    NO_PKCE = "no-pkce", "the metadata has no code_challenge_methods_supported"
    NO_SCOPE = "no-scope", "token responses have no scope"
    STRING_EXPIRES_IN = "string-expires-in", "token responses have expires_in as a string"
    DPOP_NONCE = "dpop-nonce", "token requests with a DPoP proof need a nonce"
    DPOP_NO_CNF = "dpop-no-cnf", "tokens of the type DPoP are bound to no key"
    DPOP_WRONG_KEY = "dpop-wrong-key", "tokens of the type DPoP are bound to another key than that of the proof"
    EXCHANGE_NO_ISSUED_TYPE = "exchange-no-issued-token-type", "token exchange answers without issued_token_type"
    EXCHANGE_N_A = "exchange-n-a", "token exchange answers with the token_type N_A"
    EXCHANGE_SLOW = "exchange-slow", "token exchange answers after 15 seconds"
    EXCHANGE_ERROR = "exchange-error", "token exchange answers 503"
    EXCHANGE_CONSENT = "exchange-consent", "token exchange answers interaction_required with claims, like Entra ID"
    MTLS_NO_CNF = "mtls-no-cnf", "tokens for a client with a certificate are bound to no certificate"
    MTLS_WRONG_CERTIFICATE = "mtls-wrong-certificate", "such tokens are bound to another certificate"
    JWKS_ERROR = "jwks-error", "the key set answers 503"
    JWKS_SLOW = "jwks-slow", "the key set answers after 15 seconds"
    UNKNOWN_KID = "unknown-kid", "tokens are signed with a key that is not published"
    ROTATE = "rotate", "every token is signed with a new key; the old ones stay published for a token's lifetime"
    ONLY_OAUTH = "only-oauth", "metadata only at /.well-known/oauth-authorization-server (RFC 8414)"
    ONLY_OIDC_INSERTED = "only-oidc-inserted", "metadata only at /.well-known/openid-configuration before the path"
    ONLY_OIDC_APPENDED = "only-oidc-appended", "metadata only at /.well-known/openid-configuration after the path"


def parse_switches(names: Sequence[str]) -> set[Switch]:
    """Return the switches with these names.

    Raises:
        ConfigurationError: A name is unknown.
    """
    known = {str(switch): switch for switch in Switch}
    problems = Problems()
    for name in names:
        if name not in known:
            problems.add("faults", f"{show(name)} is not a fault.", f"Choose among {', '.join(known)}.")
    problems.raise_if_any()
    return {known[name] for name in names}
