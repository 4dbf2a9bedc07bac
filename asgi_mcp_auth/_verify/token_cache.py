"""Tokens that passed every check, remembered by one resource."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import TYPE_CHECKING

from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.status import TokenCacheStatus

if TYPE_CHECKING:
    from asgi_mcp_auth._verify.verifier import Verified

__all__ = ("Entry", "TokenCache", "estimate_size")

ENTRY_BYTES = 1088  # the entry, the identity, the place in the cache
VALUE_BYTES = 160  # a claim, member or item: its objects, and its place in what holds it
OBJECT_BYTES = 192  # a dict
WIDEST = 4  # bytes of a character, where one of a text is beyond the basic plane


def estimate_size(payload: bytes, claims: Sized, info: AuthInfo) -> int:
    """At most so many bytes of memory does a token take: told from the JSON text of its claims, and the identity.

    Every value but the first of an object or array comes after a comma, every scope but the first after a space.
    Text is held once, but for scopes that are cut out of one, and the token itself where the app may see it.
    """
    if payload.find(b"{", 1) < 0 and payload.find(b"[") < 0:  # one object of plain values: counted already
        objects, values = 1, len(claims) + len(info.scopes)
    else:
        objects = payload.count(b"{")
        values = payload.count(b",") + payload.count(b" ") + payload.count(b"[") + objects
    width = 1 if payload.isascii() and payload.find(b"\\u") < 0 else WIDEST  # `in` takes three times as long
    texts = len(payload)
    for scope in info.scopes:
        texts += len(scope)
    if info.token is not None:
        texts += len(info.token)
    return ENTRY_BYTES + VALUE_BYTES * values + OBJECT_BYTES * objects + width * texts


class Entry:
    """A verified token, the times it is good between, the keys it stands on, and the memory it may take."""

    __slots__ = ("generation", "keys", "not_before", "valid_until", "verified", "weight")

    def __init__(  # noqa: PLR0917 - its parts
        self,
        verified: Verified,
        not_before: float,
        valid_until: float,
        keys: RemoteJWKS,
        generation: object,
        weight: int,
    ) -> None:
        self.verified = verified
        self.not_before = not_before
        self.valid_until = valid_until
        self.keys = keys
        self.generation = generation
        self.weight = weight


class TokenCache:
    """Tokens that passed every check, by SHA-256, bounded in number and memory, the least recently used leaving first.

    It belongs to one resource of one configuration, so an entry never speaks for another; an entry ends with the
    token's time, and with any change of its issuer's keys. What a request needs, scopes say, is no part of it.

    Args:
        size: The most entries; 0 for none.
        max_bytes: The most memory, by the entries' weights.
        clock: Seconds since the epoch.
    """

    def __init__(self, size: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._size = size
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._bytes = self._hits = self._evictions = 0
        self.misses = 0
        """Counted by who goes on to verify the token."""

    def get(self, digest: bytes) -> Verified | None:
        """What was verified of the token with this SHA-256, if it has passed every check and that still holds."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        now = self._clock()
        if entry.not_before <= now < entry.valid_until and entry.keys.usable(entry.generation, now):
            try:  # noqa: SIM105 - contextlib.suppress() costs 0.4 µs, a tenth of what is promised for the whole
                self._entries.move_to_end(digest)
            except KeyError:  # evicted meanwhile by another thread's event loop
                pass
            self._hits += 1
            return entry.verified
        self._forget(self._entries.pop(digest, None))
        return None

    def put(self, digest: bytes, entry: Entry) -> None:
        """Keep what was verified of a token."""
        if not self._size:
            return
        if digest in self._entries:
            self._forget(self._entries.pop(digest, None))
        if self._entries.setdefault(digest, entry) is entry:  # else another thread's event loop was faster
            self._bytes += entry.weight
        if len(self._entries) > self._size or self._bytes > self._max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        with suppress(KeyError):  # empty: another thread's event loop has taken the rest, and is about to count that
            while len(self._entries) > self._size or self._bytes > self._max_bytes:
                self._forget(self._entries.popitem(last=False)[1])
                self._evictions += 1

    def _forget(self, entry: Entry | None) -> None:
        if entry is not None:
            self._bytes -= entry.weight

    def status(self) -> TokenCacheStatus | None:
        """Its picture, None where it is off; in several threads the counts are approximate."""
        if not self._size:
            return None
        return TokenCacheStatus(
            entries=len(self._entries),
            size=self._size,
            bytes=self._bytes,
            max_bytes=self._max_bytes,
            hits=self._hits,
            misses=self.misses,
            evictions=self._evictions,
        )
