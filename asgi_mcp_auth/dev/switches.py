"""Fault switches: what the development authorization server does wrong on demand, by name.

Named after what a client or a resource server will meet. Faults of the transport (another status, a stall, a cut) are
those of `testing.Issuer`: `server.fail("/token")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from asgi_mcp_auth._policy.problems import Problems, show

__all__ = ("Switch", "switches_of")


class Switch(StrEnum):
    """One fault; `meaning` says what it does."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Switch:
        """The name as it is given on a command line, and what it does."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    WRONG_ISS = "wrong-iss", "authorization responses carry the iss of another server (RFC 9207)"
    NO_ISS = "no-iss", "authorization responses carry no iss, though the metadata promises it"
    ISSUER_MISMATCH = "issuer-mismatch", "the metadata is of another issuer"
    TRAILING_SLASH = "trailing-slash", "the issuer ends with a slash in metadata, responses and tokens"
    NO_PKCE = "no-pkce", "the metadata has no code_challenge_methods_supported"
    NO_SCOPE = "no-scope", "token responses have no scope"
    STRING_EXPIRES_IN = "string-expires-in", "token responses have expires_in as a string"
    JWKS_ERROR = "jwks-error", "the key set answers 503"
    JWKS_SLOW = "jwks-slow", "the key set answers after 15 seconds"
    UNKNOWN_KID = "unknown-kid", "tokens are signed with a key that is not published"
    ROTATE = "rotate", "every token is signed with a new key; the old ones stay published for a token's lifetime"
    ONLY_OAUTH = "only-oauth", "metadata only at /.well-known/oauth-authorization-server (RFC 8414)"
    ONLY_OIDC_INSERTED = "only-oidc-inserted", "metadata only at /.well-known/openid-configuration before the path"
    ONLY_OIDC_APPENDED = "only-oidc-appended", "metadata only at /.well-known/openid-configuration after the path"


def switches_of(names: Sequence[str]) -> set[Switch]:
    """The switches of these names.

    Raises:
        ConfigurationError: One is unknown.
    """
    known = {str(switch): switch for switch in Switch}
    problems = Problems()
    for name in names:
        if name not in known:
            problems.add("faults", f"There is no fault {show(name)}.", f"Choose among {', '.join(known)}.")
    problems.raise_if_any()
    return {known[name] for name in names}
