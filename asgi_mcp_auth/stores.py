"""Small shared state: the `Store` protocol, an in-memory one, and a revocation list over any of them."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from asgi_mcp_auth.context import AuthInfo, Principal

__all__ = ("MemoryStore", "RevocationList", "Store")


class Store(Protocol):
    """Keys to bytes, each with a time to live in seconds. Implementations may be shared between processes."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or its time is over."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Set a value for `ttl` seconds."""
        ...

    async def add_if_absent(self, key: str, ttl: float) -> bool:
        """Remember `key` for `ttl` seconds; False when it was there already. Atomic."""
        ...


class MemoryStore:
    """A `Store` in this process, bounded.

    Args:
        max_entries: When full, what is over is dropped, and then what was written longest ago: a revocation may be
            forgotten then, so choose it larger than what a token's life brings.
        clock: Seconds, for tests.
    """

    def __init__(self, max_entries: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        value, until = self._entries.get(key, (b"", float("-inf")))
        if self._clock() < until:
            return value
        self._entries.pop(key, None)
        return None

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See `Store.put`."""
        self._entries[key] = (value, self._clock() + ttl)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._make_room()

    def _make_room(self) -> None:
        now = self._clock()
        for key in [key for key, (_, until) in self._entries.items() if until <= now]:
            del self._entries[key]
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def add_if_absent(self, key: str, ttl: float) -> bool:
        """See `Store.add_if_absent`."""
        if await self.get(key) is not None:
            return False
        await self.put(key, b"", ttl)
        return True


def _key(kind: str, issuer: str, value: str) -> str:
    """Unambiguous whatever characters the parts have."""
    return "revoked:" + json.dumps([kind, issuer, value])


class RevocationList:
    """Tokens and principals that are no longer accepted; give it to `MCPAuth(is_revoked=...)`.

    Feed it from your provider's security events or an admin page. A `Store` shared between processes makes a
    revocation hold in all of them; a store that fails means 503, never a pass.

    Args:
        store: Where to remember.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revoke_token(self, issuer: str, token_id: str, *, ttl: float) -> None:
        """Refuse the token with this `jti` for `ttl` seconds; its remaining life is enough."""
        await self._store.put(_key("jti", issuer, token_id), b"", ttl)

    async def revoke_session(self, issuer: str, session_id: str, *, ttl: float) -> None:
        """Refuse every token with this `sid`."""
        await self._store.put(_key("sid", issuer, session_id), b"", ttl)

    async def revoke_principal(self, principal: Principal, *, ttl: float) -> None:
        """Refuse every token of this issuer, subject and client."""
        await self._store.put(f"revoked:principal:{principal.key}", b"", ttl)

    async def __call__(self, auth_info: AuthInfo) -> bool:
        """Whether the token was revoked in any of these ways."""
        claims = auth_info.claims
        keys = [_key(name, auth_info.issuer, str(claims[name])) for name in ("jti", "sid") if name in claims]
        keys.append(f"revoked:principal:{auth_info.principal.key}")
        for key in keys:
            if await self._store.get(key) is not None:
                return True
        return False
