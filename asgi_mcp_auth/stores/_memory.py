"""`MemoryStore`: a bounded store in this process."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import islice
from threading import Lock
from typing import NamedTuple

import anyio

from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth.stores._contract import DROPPABLE, LogPage, StoreFullError, Use

__all__ = ("MemoryStore",)

MAX_STEPS = 8  # old entries that one write looks at, so that no write blocks the event loop
POLL_SECONDS = 0.05  # how soon a waiting reader of a log sees a new entry: an event would belong to one event loop


class _Entry(NamedTuple):
    until: float
    number: int
    value: bytes


class _Entries:
    """The entries of one use, and a heap with one item for each: a time at which the entry may be over.

    Writing an entry again does not touch its item, which is corrected when it comes up. So an entry whose time is
    shortened, or that is deleted, takes its room for the longer time.
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
        self.delete(key)  # over for good, also if the clock is set back
        return None

    def put(self, key: str, value: bytes, until: float, now: float) -> None:
        self._number += 1
        if key not in self._entries:
            self._make_room(now)
            heappush(self._order, (until, self._number, key))
        self._entries[key] = _Entry(until, self._number, value)

    def delete(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = _Entry(-math.inf, entry.number, b"")

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


class _Log:
    """The entries of one log, numbered without gaps. An entry's position is its number."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: deque[_Entry] = deque()
        self._number = 0

    def append(self, value: bytes, until: float, now: float) -> str:
        self._drop_old(now)
        if len(self._entries) >= self._max_entries:
            msg = f"{self._max_entries} entries of a log, and none is over; set MemoryStore(max_entries=...) higher"
            raise StoreFullError(msg)
        self._number += 1
        self._entries.append(_Entry(until, self._number, value))
        return str(self._number)

    def read(self, position: str, limit: int, now: float) -> LogPage:
        self._drop_old(now)
        first = self._number - len(self._entries) + 1
        restarted = position != "" and not (position.isdecimal() and first <= int(position) <= self._number)
        start = 0 if restarted or not position else int(position) - first + 1
        found = tuple(islice(self._entries, start, start + limit))
        after = str(found[-1].number) if found else "" if restarted else position
        return LogPage(tuple(entry.value for entry in found), after, restarted)

    def _drop_old(self, now: float) -> None:
        while self._entries and self._entries[0].until <= now:
            self._entries.popleft()


class MemoryStore:
    """A bounded `LogStore` in this process.

    Each use has room of its own, so clients that begin sessions cannot displace revocations. If the room of a use is
    full, the session or cached value that was not used for longest is dropped. Nothing else is dropped before its
    time: a new entry raises `StoreFullError`.

    Args:
        max_entries: Entries of each use and of each log, at most; also an attribute. A deleted entry counts until its
            time is over.
        clock: Seconds, for tests.

    Raises:
        ValueError: `max_entries` is not a positive integer.
    """

    def __init__(self, max_entries: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(unchecked(max_entries), int) or max_entries < 1:
            raise ValueError(f"MemoryStore: max_entries is {max_entries!r}; set a positive integer")
        self._clock = clock
        self.max_entries = max_entries
        self._others = _Entries(max_entries, droppable=False)
        self._uses = {str(use): _Entries(max_entries, droppable=use in DROPPABLE) for use in Use}
        self._logs: dict[str, _Log] = {}
        self._lock = Lock()  # event loops in several threads may share the store

    def _of_use(self, key: str) -> _Entries:
        return self._uses.get(key.partition(":")[0], self._others)

    def _now_and_until(self, ttl: float) -> tuple[float, float]:
        if not 0 < ttl < math.inf:
            raise ValueError(f"MemoryStore: ttl is {ttl!r}; pass a positive, finite number of seconds")
        now = self._clock()
        return now, now + ttl

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store.get_many`."""
        now = self._clock()
        with self._lock:
            return [self._of_use(key).get(key, now) for key in keys]

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See `Store.put`.

        Raises:
            StoreFullError: There is no room.
            ValueError: `ttl` is not a positive, finite number.
        """
        now, until = self._now_and_until(ttl)
        with self._lock:
            self._of_use(key).put(key, value, until, now)

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        """See `Store.add`. Raises what `put` raises."""
        (now, until), entries = self._now_and_until(ttl), self._of_use(key)
        with self._lock:
            existing = entries.get(key, now)
            if existing is None:
                entries.put(key, value, until, now)
        return existing

    async def touch(self, key: str, ttl: float) -> bool:
        """See `Store.touch`. Raises what `put` raises."""
        (now, until), entries = self._now_and_until(ttl), self._of_use(key)
        with self._lock:
            value = entries.get(key, now)
            if value is not None:
                entries.put(key, value, until, now)
        return value is not None

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._lock:
            self._of_use(key).delete(key)

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        """See `LogStore.append`. Raises what `put` raises."""
        now, until = self._now_and_until(ttl)
        with self._lock:
            return self._logs.setdefault(log, _Log(self.max_entries)).append(value, until, now)

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        """See `LogStore.read_from`."""
        deadline = anyio.current_time() + wait
        while True:
            entries = self._logs.get(log) or _Log(0)
            with self._lock:
                page = entries.read(position, limit, self._clock())
            left = deadline - anyio.current_time()
            if page.entries or page.restarted or left <= 0:
                return page
            await anyio.sleep(min(left, POLL_SECONDS))
