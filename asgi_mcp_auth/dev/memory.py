"""What the server remembers, all of it in memory and bounded: the oldest entry makes room for the newest.

Codes and tokens are kept under their SHA-256. A grant is what a person (or a client for itself) agreed to; codes,
refresh tokens and access tokens belong to one, and die with it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from asgi_mcp_auth.dev.policy import ScopesAsked

__all__ = ("AccessToken", "Bounded", "Code", "Grant", "Memory", "RefreshToken")

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Values by key, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value of a key."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value; the oldest one is forgotten if there are too many."""
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Forget a value and give it back."""
        return self._values.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()


@dataclass(slots=True, kw_only=True)
class Grant:
    """What was agreed to. `revoked` is all that changes about it."""

    client_id: str
    subject: str
    resources: tuple[str, ...]
    asked: ScopesAsked
    auth_time: int | None = None
    acr: str | None = None
    nonce: str | None = field(default=None, repr=False)
    refreshable: bool = False
    revoked: bool = False


@dataclass(slots=True, kw_only=True)
class Code:
    """An authorization code: for one client, redirect URI and challenge, once, and soon."""

    grant: Grant
    redirect_uri: str
    challenge: str = field(repr=False)
    expires_at: float
    used: bool = False


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """A refresh token. A used one is kept, so that its reuse is noticed."""

    grant: Grant
    expires_at: float
    used: bool = False


class AccessToken(NamedTuple):
    """An access token: the claims before any dialect, and the grant it belongs to."""

    grant: Grant
    claims: Mapping[str, Any]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Memory:
    """Codes, refresh tokens, access tokens.

    Args:
        size: How many of each.
    """

    def __init__(self, size: int) -> None:
        self._codes: Bounded[bytes, Code] = Bounded(size)
        self._refresh: Bounded[bytes, RefreshToken] = Bounded(size)
        self._access: Bounded[bytes, AccessToken] = Bounded(size)

    def new_code(self, code: Code) -> str:
        """Remember a code under a new secret."""
        secret = f"ac_{secrets.token_urlsafe(32)}"
        self._codes.put(_digest(secret), code)
        return secret

    def new_refresh_token(self, token: RefreshToken) -> str:
        """Remember a refresh token under a new secret."""
        secret = f"rt_{secrets.token_urlsafe(32)}"
        self._refresh.put(_digest(secret), token)
        return secret

    def keep_access_token(self, secret: str, token: AccessToken) -> None:
        """Remember an access token that was issued."""
        self._access.put(_digest(secret), token)

    def code(self, secret: str) -> Code | None:
        """The code that was issued as `secret`, used or not."""
        return self._codes.get(_digest(secret))

    def refresh_token(self, secret: str) -> RefreshToken | None:
        """The refresh token that was issued as `secret`, used or not."""
        return self._refresh.get(_digest(secret))

    def access_token(self, secret: str) -> AccessToken | None:
        """The access token that was issued as `secret`, alive or not."""
        return self._access.get(_digest(secret))

    def forget_access_token(self, secret: str) -> None:
        """Make an access token inactive, and no other of its grant."""
        self._access.pop(_digest(secret))

    def clear(self) -> None:
        """Forget everything, as a restart does."""
        for table in (self._codes, self._refresh, self._access):
            table.clear()
