"""A mapping that drops its oldest entry when it is full."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ("Bounded",)

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Values by key. At most `size` values are kept; the oldest value is dropped first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        return self._values.get(key)

    def items(self) -> list[tuple[K, V]]:
        """Return all keys with their values, the oldest first."""
        return list(self._values.items())

    def put(self, key: K, value: V) -> None:
        """Store a value, and drop the oldest values beyond the size."""
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Remove and return the value of a key, or None."""
        return self._values.pop(key, None)

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
