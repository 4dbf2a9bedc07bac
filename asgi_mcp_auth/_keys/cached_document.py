"""A remote document that is kept alive: fetched on first use, refreshed as `_protocol.freshness` decides.

One fetch at a time per event loop, in the background: whoever needs its result waits for it, and a waiter's
cancellation does not touch it. A document that cannot be used never replaces one that can. No lock, client or
task exists before the first request.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from weakref import WeakSet

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.http import TOTAL_SECONDS
from asgi_mcp_auth._oauth.http_cache import Freshness, State, seconds_until_fetch_allowed, stage
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError

if TYPE_CHECKING:
    from asgi_mcp_auth.status import DocumentStatus

__all__ = ("CachedDocument",)

logger = logging.getLogger("asgi_mcp_auth.keys")

T = TypeVar("T")

WHAT = {"keys": "key set", "metadata": "metadata"}

OVERDUE = DiscoveryError(f"Metadata and key set took more than {TOTAL_SECONDS:.0f} s.", transient=True)
FOREVER = State(
    fetched_at=float("-inf"), refresh_from=float("inf"), fresh_until=float("inf"), usable_until=float("inf")
)


class CachedDocument(Generic[T]):
    """One document of one issuer.

    Args:
        what: For log records and their event names.
        issuer: The issuer identifier.
        fetch: Gets the document and the lifetime that its server states; raises `DiscoveryError`.
        clock: Seconds since the epoch.
        clocks: How long it is believed, and how often it is asked for.
    """

    def __init__(
        self,
        what: Literal["keys", "metadata"],
        issuer: str,
        fetch: Callable[[], Awaitable[tuple[T, float | None]]],
        *,
        clock: Callable[[], float],
        clocks: JWKSCacheSettings,
    ) -> None:
        self.value: T | None = None
        self.state = State()
        self.begun = self.answered = 0
        """Fetches begun, and the number of the newest that succeeded."""
        self.error: DiscoveryError | None = None
        self._what = what
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._clocks = clocks
        self._told_stale = False
        self._flight = SingleFlight(self._attempt)
        _living.add(self)

    def set_static(self, value: T) -> None:
        """Hold a document of the configuration: nothing is ever fetched."""
        self.value, self.state = value, FOREVER

    @property
    def given(self) -> bool:
        """Whether the document is of the configuration."""
        return self.state is FOREVER

    async def current(self) -> T | None:
        """What may be used, refreshed beside the caller when it is due; None when nothing can be had."""
        now = self._clock()
        held = stage(self.state, now)
        if held is Freshness.FRESH:
            return self.value
        if held is Freshness.UNUSABLE:
            return self.value if await self.refresh() else None
        self.refresh_in_background(now)
        return self.value

    async def refresh(self) -> bool:
        """Wait for a fetch, the one under way or a new one, unless a pause forbids it; whether it succeeded."""
        if seconds_until_fetch_allowed(self.state, self._clock()) and not self._flight.under_way:
            return False
        return await self.refresh_now()

    async def refresh_now(self) -> bool:
        """The same for a caller that has brakes of its own."""
        return await self._flight.join() is True

    def refresh_in_background(self, now: float) -> None:
        """Have it fetched in the background, unless a pause forbids it."""
        if now >= self.state.fresh_until and not self._told_stale:
            self._told_stale = True
            level = logging.WARNING if self.state.failures else logging.INFO
            age = now - self.state.fetched_at
            self._log(level, "stale", "Using the %s of %s from %.0f s ago", age)
        if not seconds_until_fetch_allowed(self.state, now):
            self._flight.start()

    def invalidate(self) -> None:
        """Have it fetched again before it is next waited for: it has led nowhere."""
        if not self.given:
            self.state = replace(self.state, refresh_from=float("-inf"), fresh_until=float("-inf"))

    async def _attempt(self) -> bool:
        """One fetch, bounded in time; whatever goes wrong is an error to back off from."""
        import anyio  # noqa: PLC0415

        self.begun += 1
        number, started = self.begun, self._clock()  # the document is at least as new as this
        received, error = None, OVERDUE
        try:
            with anyio.move_on_after(TOTAL_SECONDS):
                received = await self._fetch()
        except DiscoveryError as failed:
            error = failed
        except Exception as failed:
            logger.exception("Fetching the %s of %s failed in an unforeseen way", self._what, self._issuer)
            error = DiscoveryError(f"Fetching failed with {type(failed).__name__}.", transient=True, cause=failed)
        if received is None:
            self._failed(error)
            return False
        value, lifetime = received
        self._succeeded(value, lifetime, started)
        self.answered = max(self.answered, number)
        return True

    def _succeeded(self, value: T, lifetime: float | None, started: float) -> None:
        failures, first = self.state.failures, self.value is None
        self.value, self.error, self._told_stale = value, None, False
        self.state = self.state.succeeded(started, lifetime, random.random(), self._clocks)  # noqa: S311 - spreads load
        if first:
            self._log(logging.INFO, "fetched", "Holding the %s of %s")
        elif failures:
            self._log(logging.INFO, "recovered", "Fetched the %s of %s again, after %d failures", failures)

    def _failed(self, error: DiscoveryError) -> None:
        now = self._clock()
        self.error = error
        self.state = self.state.failed(now, random.random(), self._clocks)  # noqa: S311 - spreads load
        if stage(self.state, now) is Freshness.UNUSABLE:
            level = (
                logging.ERROR if self._what == "keys" else logging.WARNING
            )  # of metadata the keys tell, if it matters
            self._log(level, "unavailable", "There is no usable %s of %s: %s", error.message)
        else:
            left = self.state.usable_until - now
            told = "Keeping the %s of %s from before, for %.0f s at most: %s"
            self._log(logging.WARNING, "refresh_failed", told, left, error.message)

    def _log(self, level: int, event: str, message: str, *args: object) -> None:
        name = Event(f"{self._what}_{event}")
        what = WHAT[self._what]
        logger.log(level, message, what, self._issuer, *args, extra={"event": name.value, "issuer": self._issuer})

    def status(self, now: float) -> DocumentStatus:
        """Its picture."""
        from asgi_mcp_auth.status import DocumentStatus  # noqa: PLC0415 - loaded when somebody asks

        if self.given:
            return DocumentStatus(state="given")
        state, counts = self.state, {"fetches": self.begun, "failures": self.state.failures}
        error = None if self.error is None else self.error.message
        next_refresh = max(0.0, seconds_until_fetch_allowed(state, now), state.refresh_from - now)
        if self.value is None:
            return DocumentStatus(state="empty", next_refresh=next_refresh, last_error=error, **counts)
        return DocumentStatus(
            state=stage(state, now).value,
            age=now - state.fetched_at,
            next_refresh=next_refresh,
            usable_for=max(0.0, state.usable_until - now),
            last_error=error,
            **counts,
        )

    def after_fork(self) -> None:
        """In a forked worker: keep the document, but neither the parent's fetches nor its place in time."""
        self._flight = SingleFlight(self._attempt)
        self.state = self.state.spread(random.random())  # noqa: S311 - spreads load


_living: WeakSet[CachedDocument[Any]] = WeakSet()


def _after_fork() -> None:
    for document in _living:
        document.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
