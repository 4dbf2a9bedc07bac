"""The contract of a store: what this library asks of the state that processes share.

`asgi_mcp_auth.testing.check_store` is the contract as a test, for stores of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ("DROPPABLE", "CheckedStore", "ClosableStore", "LogPage", "LogStore", "Store", "StoreFullError", "Use")


class Use(StrEnum):
    """What an entry is for: the first part of its key."""

    SESSION = "session"
    REPLAY = "replay"
    REVOCATION = "revoked"
    INTROSPECTION = "introspection"
    KEYS = "keys"
    RATE = "rate"


DROPPABLE = frozenset((Use.SESSION, Use.INTROSPECTION, Use.KEYS, Use.RATE))
"""The uses whose entries a full store may drop."""


class StoreFullError(Exception):
    """A store has no room for a new entry and must not drop another one. Its other entries can still be read."""


@runtime_checkable
class Store(Protocol):
    """Keys to bytes, each with a time to live in seconds (positive and finite). Processes may share a store.

    Each method is one operation on single keys, atomic for each key. A method raises if it cannot do its work; this
    library limits the time of each call and decides what a failure means. The keys of this library begin with their
    use and a colon (`session:`, `revoked:`), and contain a digest instead of tokens, subjects and names.

    A full store may drop sessions and cached values. It must not drop revocations and replay records before their
    time is over: it has to raise `StoreFullError` instead.
    """

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the value of each key in order; None where there is none or its time is over."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Set a value for `ttl` seconds, whether there is one or not."""
        ...

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        """Set a value for `ttl` seconds if there is none, and return None. Else return the stored value, unchanged.

        The first writer wins: of any number of concurrent calls in any number of processes, exactly one returns None.
        """
        ...

    async def touch(self, key: str, ttl: float) -> bool:
        """Let a value live for `ttl` seconds from now. Return whether there is a value."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a value, if there is one."""
        ...


class LogPage(NamedTuple):
    """Entries that were read from a log.

    Attributes:
        entries: The entries in the order in which they were appended.
        position: What to pass to the next `read_from`.
        restarted: Whether the entry at the passed position is gone, so that the page starts at the beginning of the
            log. Either its time is over, or the store has lost entries (a restart without persistence, a failover).
            A reader that still holds entries which the log does not return has to append them again.
    """

    entries: tuple[bytes, ...]
    position: str
    restarted: bool = False


@runtime_checkable
class LogStore(Store, Protocol):
    """A store that has append-only logs too: events that every process must see exactly in order, and none may miss.

    A process follows a log with one loop. There is no subscription that could lose an event between two reads:

        position = ""  # the beginning
        while True:
            page = await store.read_from("revoked:log", position, wait=5.0)
            if page.restarted:
                ...  # append the entries that only this process still has
            for entry in page.entries:
                apply(entry)
            position = page.position

    Applying an entry twice must be harmless. All entries of one log have the same `ttl`.
    """

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        """Append an entry, which can be read for at least `ttl` seconds, and return its position."""
        ...

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        """Return at most `limit` entries after `position`, oldest first; "" is the position before the first entry.

        If there is no such entry, wait at most `wait` seconds for the first one. An empty page has the position that
        was passed, or "" if the log restarted. Entries whose time is over may be returned.
        """
        ...


@runtime_checkable
class CheckedStore(Store, Protocol):
    """A store that knows whether its database may drop entries before their time."""

    async def check(self) -> str | None:
        """Return why the database may drop entries, if it may. Raise if the database cannot be used."""
        ...


@runtime_checkable
class ClosableStore(Store, Protocol):
    """A store that holds connections."""

    async def aclose(self) -> None:
        """Close the connections of this event loop, at the end of the app's lifespan. Later calls open them again."""
        ...
