"""Grants with their codes, refresh tokens and access tokens.

A grant is the consent of a user, or the authorization of a client for itself. Every code, refresh token and access
token belongs to a grant and is dead once the grant is revoked. Codes and tokens are stored under their SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth.dev._policy import ScopeSet

__all__ = ("AccessToken", "Code", "Grant", "GrantStore", "RefreshToken")


@dataclass(slots=True, kw_only=True)
class Grant:
    """An authorization. Only `revoked` changes."""

    client_id: str
    subject: str
    resources: tuple[str, ...]
    granted: ScopeSet
    auth_time: int | None = None
    acr: str | None = None
    nonce: str | None = field(default=None, repr=False)
    refreshable: bool = False
    revoked: bool = False


@dataclass(slots=True, kw_only=True)
class Code:
    """An authorization code, bound to a client, a redirect URI and a code challenge. It is used once."""

    grant: Grant
    redirect_uri: str
    challenge: str = field(repr=False)
    expires_at: float
    used: bool = False


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """A refresh token. A used token is kept, so that reuse is detected. `jkt` is the client's key or certificate."""

    grant: Grant
    expires_at: float
    used: bool = False
    jkt: str | None = None


class AccessToken(NamedTuple):
    """An access token: its grant, and its claims before the dialect changes them."""

    grant: Grant
    claims: Mapping[str, Any]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class GrantStore:
    """The codes, refresh tokens and access tokens of the server.

    Args:
        size: The largest number of each.

    Attributes:
        revision: A number that changes with the tokens and their grants.
    """

    def __init__(self, size: int) -> None:
        self.revision = 0
        self._codes: BoundedMap[bytes, Code] = BoundedMap(size)
        self._refresh: BoundedMap[bytes, RefreshToken] = BoundedMap(size)
        self._access: BoundedMap[bytes, AccessToken] = BoundedMap(size)

    def new_code(self, code: Code) -> str:
        """Store a code and return its secret."""
        secret = f"ac_{secrets.token_urlsafe(32)}"
        self._codes.put(_digest(secret), code)
        return secret

    def new_refresh_token(self, token: RefreshToken) -> str:
        """Store a refresh token and return its secret."""
        secret = f"rt_{secrets.token_urlsafe(32)}"
        self.revision += 1
        self._refresh.put(_digest(secret), token)
        return secret

    def put_access_token(self, secret: str, token: AccessToken) -> None:
        """Store an access token that was issued as `secret`."""
        self.revision += 1
        self._access.put(_digest(secret), token)

    def restore(
        self, refresh: Iterable[tuple[bytes, RefreshToken]], access: Iterable[tuple[bytes, AccessToken]]
    ) -> None:
        """Add tokens that were issued before a restart, under the SHA-256 of their secrets."""
        for digest, refresh_token in refresh:
            self._refresh.put(digest, refresh_token)
        for digest, access_token in access:
            self._access.put(digest, access_token)

    def code(self, secret: str) -> Code | None:
        """Return the code that was issued as `secret`, used or not."""
        return self._codes.get(_digest(secret))

    def refresh_token(self, secret: str) -> RefreshToken | None:
        """Return the refresh token that was issued as `secret`, used or not."""
        return self._refresh.get(_digest(secret))

    def access_token(self, secret: str) -> AccessToken | None:
        """Return the access token that was issued as `secret`, expired or not."""
        return self._access.get(_digest(secret))

    def live_refresh_tokens(self, now: float) -> list[tuple[bytes, RefreshToken]]:
        """Return the unexpired refresh tokens of live grants, used or not, with their SHA-256."""
        found = self._refresh.items()
        return [(key, token) for key, token in found if now < token.expires_at and not token.grant.revoked]

    def live_access_tokens(self, now: float) -> list[tuple[bytes, AccessToken]]:
        """Return the unexpired access tokens of live grants with their SHA-256."""
        found = self._access.items()
        return [(key, token) for key, token in found if now < token.claims["exp"] and not token.grant.revoked]

    def revoke(self, grant: Grant) -> None:
        """Revoke a grant with all of its codes and tokens."""
        self.revision += 1
        grant.revoked = True

    def revoke_access_token(self, secret: str) -> None:
        """Make an access token inactive. Other tokens of its grant stay active."""
        self.revision += 1
        self._access.pop(_digest(secret))

    def clear(self) -> None:
        """Remove all codes and tokens."""
        self.revision += 1
        for table in (self._codes, self._refresh, self._access):
            table.clear()
