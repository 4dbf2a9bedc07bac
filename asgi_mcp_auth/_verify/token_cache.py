"""The token cache of one resource: verified tokens, bounded in number and memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.status import TokenCacheStatus

if TYPE_CHECKING:
    from asgi_mcp_auth._verify.verifier import Verified

__all__ = ("Entry", "KeyState", "TokenCache", "estimate_size")

ENTRY_BYTES = 1472  # an entry, its identity with two hashes, its key id, and its slot in the cache
CONFIRMATION_BYTES = 128  # what the token is bound to, apart from the texts, which are those of the claims
VALUE_BYTES = 160  # a claim, member or item: its objects, and its slot in the container
OBJECT_BYTES = 192  # a dict
WIDEST = 4  # bytes per character of a text that contains a character outside the basic multilingual plane


def estimate_size(payload: bytes, claims: Sized, info: AuthInfo) -> int:
    """Return an upper bound of the memory of a cached token in bytes, from the JSON text of its claims.

    The bound counts separators: each value after the first of an object or array follows a comma, and each scope after
    the first follows a space. Text counts once; scopes and an exposed token count in addition.
    """
    if payload.find(b"{", 1) < 0 and payload.find(b"[") < 0:  # one flat object: the number of its values is known
        objects, values = 1, len(claims) + len(info.scopes)
    else:
        objects = payload.count(b"{")
        values = payload.count(b",") + payload.count(b" ") + payload.count(b"[") + objects
    width = 1 if payload.isascii() and payload.find(b"\\u") < 0 else WIDEST  # faster than `in` for bytes
    texts = len(payload)
    for scope in info.scopes:
        texts += len(scope)
    if info.token is not None:
        texts += len(info.token)
    return ENTRY_BYTES + VALUE_BYTES * values + OBJECT_BYTES * objects + width * texts


class KeyState(Protocol):
    """What decides whether a cached token is still accepted, apart from its times: the key set of its issuer."""

    def usable(self, generation: object, now: float) -> bool:
        """Return whether a token that was verified with the keys of `generation` is still accepted."""
        ...


class Entry:
    """A cached token.

    Args:
        verified: The result of the verification.
        not_before: The time from which the token is valid, in seconds since the epoch.
        valid_until: The time at which the token expires, in seconds since the epoch.
        keys: The key set of the issuer.
        generation: The generation of the key set that verified the token; another generation may not contain the key.
        weight: The estimated memory of the token in bytes.
    """

    __slots__ = ("generation", "keys", "not_before", "valid_until", "verified", "weight")

    def __init__(  # noqa: PLR0917 - a value with six fields
        self,
        verified: Verified,
        not_before: float,
        valid_until: float,
        keys: KeyState,
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
    """Verified tokens by SHA-256, bounded in number and memory; the least recently used token is removed first.

    A cache belongs to one resource of one configuration. An entry is used until the token expires or the keys of its
    issuer change. Required scopes are checked for every request and are not cached.

    Args:
        size: The largest number of entries; 0 disables the cache.
        max_bytes: The largest sum of the entries' weights, in bytes.
        clock: Seconds since the epoch.

    Attributes:
        misses: The number of tokens that were verified; the verifier counts them.
    """

    def __init__(self, size: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._size = size
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._bytes = self._hits = self._evictions = 0
        self.misses = 0

    def get(self, digest: bytes) -> Verified | None:
        """Return the verified token with this SHA-256; None if it is not cached, not valid now, or its keys changed."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        now = self._clock()
        if entry.not_before <= now < entry.valid_until and entry.keys.usable(entry.generation, now):
            try:  # noqa: SIM105 - contextlib.suppress() is slower (benchmarks: in_process)
                self._entries.move_to_end(digest)
            except KeyError:  # the event loop of another thread evicted the entry meanwhile
                pass
            self._hits += 1
            return entry.verified
        self._forget(self._entries.pop(digest, None))
        return None

    def put(self, digest: bytes, entry: Entry) -> None:
        """Cache a verified token."""
        if not self._size:
            return
        if digest in self._entries:
            self._forget(self._entries.pop(digest, None))
        if self._entries.setdefault(digest, entry) is entry:  # else the event loop of another thread was faster
            self._bytes += entry.weight
        if len(self._entries) > self._size or self._bytes > self._max_bytes:
            self._make_room()

    def remove_subject(self, key: bytes) -> None:
        """Remove the tokens of a subject; see `RevocationKeys.subject`."""
        for digest, entry in tuple(self._entries.items()):
            if entry.verified.auth_info.revocation_keys.subject == key:
                self._forget(self._entries.pop(digest, None))

    def _make_room(self) -> None:
        with suppress(KeyError):  # empty: the event loop of another thread removed the rest and is about to count it
            while len(self._entries) > self._size or self._bytes > self._max_bytes:
                self._forget(self._entries.popitem(last=False)[1])
                self._evictions += 1

    def _forget(self, entry: Entry | None) -> None:
        if entry is not None:
            self._bytes -= entry.weight

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def hits(self) -> int:
        """The number of requests that the cache decided."""
        return self._hits

    def status(self) -> TokenCacheStatus | None:
        """Return the status; None if the cache is disabled. With several threads the counts are approximate."""
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
