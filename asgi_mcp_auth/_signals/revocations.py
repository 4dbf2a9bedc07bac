"""Revocation in one process: the copy of the fleet's watermarks, how old it is, and what it means for a token.

The watermarks are in a log of the shared store. Each process follows the log and answers from memory: no request waits
for the store, except before the first read.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from asgi_mcp_auth._keys.background import PerLoop, SingleFlight, spawn
from asgi_mcp_auth._policy.api_key_file import API_KEY_ISSUER
from asgi_mcp_auth._signals.watermarks import MAX_CLAIMS, Kind, Watermark, Watermarks, decode, encode
from asgi_mcp_auth.config import MAX_LEEWAY
from asgi_mcp_auth.context import AuthInfo, RevocationKeys
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal, Unavailable
from asgi_mcp_auth.status import RevocationStatus
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("OpenStream", "Revocations")

logger = logging.getLogger("asgi_mcp_auth.revocations")

MAX_WATERMARKS = 1_000_000
WAIT = 2.0  # seconds that the store may take to answer that nothing is new
CURRENT_FOR = 5.0  # seconds after an answer for which a process that follows the log need not look again
RETRY = 0.5  # seconds between two attempts while the store fails
PAGE = 1000
SWEEP_SECONDS = 60.0
STREAM_SECONDS = 0.25  # how often open streams are compared with new watermarks
RESTORE_SECONDS = 5.0  # for which one process may restore the log
RESTORE_BATCH = 500


class OpenStream:
    """An event stream or websocket that ends if its token is revoked.

    Attributes:
        revoked: Set when the token is revoked.
    """

    __slots__ = ("_streams", "keys", "revoked")

    def __init__(self, keys: RevocationKeys, streams: _Streams) -> None:
        self.keys = keys
        self.revoked = anyio.Event()
        self._streams = streams
        streams.open.add(self)
        streams.new.append(self)

    def close(self) -> None:
        """Stop watching: the stream has ended."""
        self._streams.open.discard(self)


class _Streams:
    """The open streams of one event loop."""

    def __init__(self) -> None:
        self.open: set[OpenStream] = set()
        self.new: list[OpenStream] = []
        self.is_watched = False


class Revocations:
    """The revocations that this process knows.

    Args:
        use: The entries of the store.
        clock: Seconds since the epoch.
        max_token_lifetime: The longest `exp` minus `iat` of an accepted token. A watermark is kept that long, so that
            it cannot end before a token that it refuses.
        stale_if_error: Seconds for which the last known state is used while the store fails.
        monotonic: Seconds, for the age of the copy.

    Attributes:
        watermarks: The watermarks.
        on_changed: Called with the key of each subject whose cached tokens are out of date.
    """

    def __init__(
        self,
        use: StoreUse,
        *,
        clock: Callable[[], float],
        max_token_lifetime: float,
        stale_if_error: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watermarks = Watermarks()
        self.on_changed: list[Callable[[bytes], None]] = []
        self._use = use
        self._clock = clock
        self._max_lifetime = max_token_lifetime
        self._stale_if_error = stale_if_error
        self._monotonic = monotonic
        self._log = use.key("log")
        self._position = ""
        self._read_at: float | None = None
        self._current_until = self._followed_until = float("-inf")
        self._swept_at = monotonic()
        self._follower = 0
        self._lost: dict[tuple[Kind, bytes, str], float] = {}
        self._reads = SingleFlight(partial(self._read, 0.0))
        self._streams = PerLoop("asgi_mcp_auth open streams", _Streams)

    # --- requests ---

    def is_current(self) -> bool:
        """Return whether the copy is current, so that `refuse` may be asked without `catch_up`."""
        return self._monotonic() < self._current_until

    def refuse(self, info: AuthInfo) -> Refusal | None:
        """Return the refusal of a token that is revoked or may live too long; None if it is accepted."""
        keys = info.revocation_keys
        if keys.lifetime > self._max_lifetime and info.issuer != API_KEY_ISSUER:  # an API key is revoked in its file
            expected, found = f"exp and iat, at most {self._max_lifetime:.0f} s apart", f"{keys.lifetime:.0f} s"
            return self._refused(Reason.TOKEN_LIFETIME_TOO_LONG, info, expected, found)
        if self.watermarks.is_empty:
            return None
        kind = self.watermarks.refuses(keys)
        return None if kind is None else self._refused(Reason.REVOKED, info, "a token that is not revoked", kind)

    @staticmethod
    def _refused(reason: Reason, info: AuthInfo, expected: str, found: str) -> Refusal:
        return InvalidToken(reason, issuer=info.issuer, client_id=info.client_id, expected=expected, found=found)

    async def catch_up(self) -> Unavailable | None:
        """Make the copy current. Return the refusal if it is too old, and the store fails.

        Waits for the store if no copy can be used, or the store is not known to fail.
        """
        self.start()
        if self._use.is_available or not self.is_usable:
            await self._reads.join()
        else:
            self._reads.start()
        if self.is_usable:
            return None
        return Unavailable(Reason.STORE_UNAVAILABLE, found="revocations that are too old", retry_after=1.0)

    @property
    def age(self) -> float | None:
        """Seconds since the copy was current; None if it never was."""
        return None if self._read_at is None else max(0.0, self._monotonic() - self._read_at)

    @property
    def is_usable(self) -> bool:
        """Whether requests can be served with the copy."""
        age = self.age
        return age is not None and age <= max(self._stale_if_error, CURRENT_FOR)

    @property
    def lifetime(self) -> float:
        """Seconds for which a revocation is kept in the store."""
        return self._max_lifetime + 3 * MAX_LEEWAY

    def status(self) -> RevocationStatus:
        """Return the status of the copy."""
        return RevocationStatus(watermarks=self.watermarks.counts(), age=self.age, usable=self.is_usable)

    # --- revoking ---

    async def revoke(self, watermarks: Sequence[Watermark]) -> None:
        """Store watermarks for all processes, and apply them here.

        Raises:
            Unavailable: The store fails, or there is no room.
            ValueError: Too many names of claims have watermarks.
        """
        names = {one.claim for one in watermarks if one.kind is Kind.CLAIM} | self.watermarks.claims()
        if len(names) > MAX_CLAIMS:
            raise ValueError(f"revoke: revocations by more than {MAX_CLAIMS} claims")
        if len(self.watermarks) + len(watermarks) > MAX_WATERMARKS:
            raise Unavailable(Reason.STORE_UNAVAILABLE, found=f"more than {MAX_WATERMARKS} revocations")
        await self._append(watermarks)
        for watermark in watermarks:
            self._apply(watermark)

    async def _append(self, watermarks: Sequence[Watermark]) -> None:
        await self._use.append(self._log, encode(watermarks), self.lifetime)

    def _apply(self, watermark: Watermark) -> None:
        if watermark.kind is Kind.CHANGED:
            for listener in self.on_changed:
                listener(watermark.key)
            return
        self.watermarks.add(watermark)
        key = (watermark.kind, watermark.key, watermark.claim)
        if self._lost and watermark.before >= self._lost.get(key, float("inf")):
            self._lost.pop(key, None)

    # --- following the log ---

    def start(self) -> None:
        """Follow the log in the background of this event loop, unless another loop of the process does so."""
        now = self._monotonic()
        if now < self._followed_until:
            return
        self._followed_until = now + CURRENT_FOR
        self._follower += 1
        number, ref = self._follower, weakref.ref(self)

        async def follow() -> None:
            while (revocations := ref()) is not None and revocations._follower == number:  # noqa: SLF001 - this object
                pause = await revocations._follow_once()  # noqa: SLF001
                del revocations
                await anyio.sleep(pause)

        spawn(follow)

    async def _follow_once(self) -> float:
        """Read what is new, and return how many seconds to wait before the next attempt."""
        self._followed_until = self._monotonic() + WAIT + CURRENT_FOR
        if not await self._read(0.0 if self._read_at is None else WAIT):
            return RETRY
        if self._lost:
            await self._restore()
        if self._monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = self._monotonic()
            self.watermarks.sweep(self._clock() - self._max_lifetime - 2 * MAX_LEEWAY)
        return 0.0

    async def _read(self, wait: float) -> bool:
        """Read the log to its end; return whether the copy is current then."""
        while True:
            position = self._position
            try:
                page = await self._use.read_from(self._log, position, limit=PAGE, wait=wait)
            except Unavailable:
                return False
            if page.restarted:
                logger.warning("The log of revocations began anew: entries ended, or the store lost them")
                self._lost = {(one.kind, one.key, one.claim): one.before for one in self.watermarks.all()}
            for entry in page.entries:
                self._apply_entry(entry)
            if self._position == position:  # else another reader was faster; applying an entry twice is harmless
                self._position = page.position
            if len(page.entries) < PAGE:
                self._read_at = self._monotonic()
                self._current_until = self._read_at + CURRENT_FOR
                return True
            wait = 0.0

    def _apply_entry(self, entry: bytes) -> None:
        try:
            found = decode(entry)
        except ValueError as error:
            logger.error("An entry in the log of revocations cannot be read: %s", error)  # noqa: TRY400 - foreign data
            return
        for watermark in found:
            self._apply(watermark)

    async def _restore(self) -> None:
        """Append what the store has lost and this process has. One process at a time does so."""
        try:
            if await self._use.add(self._use.key("restore"), b"1", RESTORE_SECONDS) is not None:
                return
            lost = [Watermark(kind, key, before, claim) for (kind, key, claim), before in self._lost.items()]
            for start in range(0, len(lost), RESTORE_BATCH):
                await self._append(lost[start : start + RESTORE_BATCH])
        except Unavailable:
            return
        self._lost.clear()
        logger.warning("Restored %d revocations in the store", len(lost))

    # --- open streams ---

    def watch(self, info: AuthInfo) -> OpenStream:
        """Return a stream that learns within a second that its token was revoked. Close it when it has ended."""
        streams = self._streams.get()
        opened = OpenStream(info.revocation_keys, streams)
        if not streams.is_watched:
            streams.is_watched = True
            spawn(partial(self._watch, streams))
        return opened

    async def _watch(self, streams: _Streams) -> None:
        seen = -1
        try:
            while streams.open:
                version, new = self.watermarks.version, streams.new
                streams.new = []
                for stream in new if version == seen else tuple(streams.open):
                    if self.watermarks.refuses(stream.keys) is not None:
                        stream.revoked.set()
                        streams.open.discard(stream)
                seen = version
                await anyio.sleep(STREAM_SECONDS)
        finally:
            streams.is_watched = False
