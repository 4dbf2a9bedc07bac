"""Small shared state: the `Store` protocol, a store in memory, and a revocation list over any store."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple, Protocol, cast

from asgi_mcp_auth.config import MAX_LEEWAY
from asgi_mcp_auth.context import AuthInfo, Principal

__all__ = ("MemoryStore", "RevocationList", "Store", "StoreFullError")

MAX_STEPS = 8  # old entries that one write looks at, so that no write blocks the event loop
SESSIONS, REVOCATIONS = "session", "revoked"


class StoreFullError(Exception):
    """A store has no room for a new entry and must not drop another one."""


class Store(Protocol):
    """Keys to bytes, each with a time to live in seconds. Processes may share a store.

    The keys of this library begin with their use and a colon, `session:` or `revoked:`. A store that is full may drop
    sessions. It must not drop a revocation whose time is not over: it has to raise instead.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None if there is none or its time is over."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Set a value for `ttl` seconds."""
        ...

    async def add_if_absent(self, key: str, ttl: float) -> bool:
        """Add `key` for `ttl` seconds. Return False if it is there already. Atomic."""
        ...


class _Entry(NamedTuple):
    until: float
    number: int
    value: bytes


class _Entries:
    """The entries of one use, and a heap with one item for each: a time at which the entry may be over.

    Writing an entry again does not touch its item, which is corrected when it comes up. So an entry whose time is
    shortened takes its room for the longer time.
    """

    def __init__(self, max_entries: int, *, droppable: bool) -> None:
        self._max_entries = max_entries
        self._droppable = droppable
        self._entries: dict[str, _Entry] = {}
        self._order: list[tuple[float, int, str]] = []
        self._number = 0

    def get(self, key: str, now: float) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None or now < entry.until:
            return None if entry is None else entry.value
        self._entries[key] = _Entry(-math.inf, entry.number, b"")  # over for good, also if the clock is set back
        return None

    def put(self, key: str, value: bytes, until: float, now: float) -> None:
        self._number += 1
        if key not in self._entries:
            self._make_room(now)
            heappush(self._order, (until, self._number, key))
        self._entries[key] = _Entry(until, self._number, value)

    def _make_room(self, now: float) -> None:
        """Delete entries whose time is over, and one that was not used for longest if there is no other room."""
        steps = 0
        while self._order:
            full = len(self._entries) >= self._max_entries
            until, number, key = self._order[0]
            over = until <= now
            if full and not over and not self._droppable:
                msg = f"{self._max_entries} entries, and none is over; set MemoryStore(max_entries=...) higher"
                raise StoreFullError(msg)
            if not full and (not over or steps >= MAX_STEPS):
                return
            steps += 1
            entry = self._entries[key]
            used_since = entry.number != number and entry.until > now
            if used_since and (steps <= MAX_STEPS or not self._droppable):
                heapreplace(self._order, (entry.until, entry.number, key))
            else:
                heappop(self._order)
                del self._entries[key]


class MemoryStore:
    """A bounded `Store` in this process.

    Sessions, revocations and all other keys have room of their own, so clients that begin sessions cannot displace
    revocations. A full store drops the session that was not used for longest. It drops nothing else before its time:
    a new entry raises `StoreFullError`.

    Args:
        max_entries: Entries of each of the three uses, at most.
        clock: Seconds, for tests.

    Raises:
        ValueError: `max_entries` is not a positive integer.
    """

    def __init__(self, max_entries: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(cast("object", max_entries), int) or max_entries < 1:
            msg = f"MemoryStore: max_entries is {max_entries!r}; set a positive integer"
            raise ValueError(msg)
        self._clock = clock
        self._others = _Entries(max_entries, droppable=False)
        self._uses = {
            SESSIONS: _Entries(max_entries, droppable=True),
            REVOCATIONS: _Entries(max_entries, droppable=False),
        }

    def _entries(self, key: str) -> _Entries:
        return self._uses.get(key.partition(":")[0], self._others)

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        return self._entries(key).get(key, self._clock())

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See `Store.put`.

        Raises:
            StoreFullError: There is no room.
            ValueError: `ttl` is not a positive, finite number.
        """
        if not 0 < ttl < math.inf:
            msg = f"MemoryStore: ttl is {ttl!r}; pass a positive, finite number of seconds"
            raise ValueError(msg)
        now = self._clock()
        self._entries(key).put(key, value, now + ttl, now)

    async def add_if_absent(self, key: str, ttl: float) -> bool:
        """See `Store.add_if_absent`. Raises what `put` raises."""
        if await self.get(key) is not None:
            return False
        await self.put(key, b"", ttl)
        return True


def _key(kind: str, issuer: str, value: str) -> str:
    """Return a key that is unambiguous, whatever characters the parts have."""
    return f"{REVOCATIONS}:" + json.dumps([kind, issuer, value])


def _principal_key(principal: Principal) -> str:
    return f"{REVOCATIONS}:principal:{principal.key}"


class RevocationList:
    """Tokens and principals that are not accepted any more; pass it as `MCPAuth(is_revoked=...)`.

    Feed it from the security events of your provider or from an admin page. With a `Store` that processes share, a
    revocation is effective in all of them. A store that fails means 503, never a pass.

    A token is accepted for the issuer's leeway after its `exp`. So the list keeps a revocation for the largest leeway,
    300 s, beyond its `ttl`: pass the seconds until `exp`.

    Args:
        store: Where revocations are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revoke_token(self, issuer: str, token_id: str, *, ttl: float) -> None:
        """Refuse the token with this `jti`. Its remaining life is enough as `ttl`; 0 if `exp` has passed.

        Raises:
            ValueError: `ttl` is not a finite number.
        """
        await self._revoke(_key("jti", issuer, token_id), ttl)

    async def revoke_session(self, issuer: str, session_id: str, *, ttl: float) -> None:
        """Refuse every token with this `sid`. See `revoke_token`."""
        await self._revoke(_key("sid", issuer, session_id), ttl)

    async def revoke_principal(self, principal: Principal, *, ttl: float) -> None:
        """Refuse every token of this issuer, subject and client. See `revoke_token`."""
        await self._revoke(_principal_key(principal), ttl)

    async def _revoke(self, key: str, ttl: float) -> None:
        if not math.isfinite(ttl):
            msg = f"RevocationList: ttl is {ttl!r}; pass a finite number of seconds"
            raise ValueError(msg)
        await self._store.put(key, b"", max(ttl, 0.0) + MAX_LEEWAY)

    async def __call__(self, auth_info: AuthInfo) -> bool:
        """Return whether the token was revoked in any of these ways."""
        claims = auth_info.claims
        keys = [_key(name, auth_info.issuer, str(claims[name])) for name in ("jti", "sid") if name in claims]
        keys.append(_principal_key(auth_info.principal))
        for key in keys:
            if await self._store.get(key) is not None:
                return True
        return False
