"""A mapping of bounded size, for what clients can add to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ("BoundedMap",)

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """A mapping of at most `size` entries; the least recently used entry leaves first.

    Several event loops in several threads may use one map at the same time.
    """

    __slots__ = ("_entries", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value and mark the entry as used, or return None."""
        value = self._entries.get(key)
        if value is not None:
            try:  # noqa: SIM105 - each DPoP proof asks twice, and `suppress` costs more than the rest
                self._entries.move_to_end(key)
            except KeyError:
                pass  # evicted meanwhile by another thread
        return value

    def put(self, key: K, value: V) -> tuple[K, ...]:
        """Add or replace an entry; return the keys that left to make room."""
        self._entries.pop(key, None)
        self._entries[key] = value
        evicted: list[K] = []
        with suppress(KeyError):  # emptied meanwhile by another thread
            while len(self._entries) > self.size:
                evicted.append(self._entries.popitem(last=False)[0])
        return tuple(evicted)

    def pop(self, key: K) -> V | None:
        """Remove an entry; return its value, or None if there is none."""
        return self._entries.pop(key, None)

    def items(self) -> tuple[tuple[K, V], ...]:
        """Return the entries at this moment, the least recently used first."""
        return tuple(self._entries.items())

    def remove_if(self, is_unwanted: Callable[[V], bool]) -> None:
        """Remove the entries whose value is unwanted; takes a look at each."""
        for key in [key for key, value in self.items() if is_unwanted(value)]:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Remove every entry."""
        self._entries.clear()
