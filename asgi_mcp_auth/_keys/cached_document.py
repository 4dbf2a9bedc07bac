"""A remote document with a cache: fetched on first use, refreshed at the times that `_oauth.http_cache` computes.

Each event loop runs one fetch at a time. It runs in the background: callers wait for its result, and a cancelled caller
does not cancel it. A response that cannot be used never replaces a document that can. No lock, client or task exists
before the first request.

Where an event loop does not run between requests (AWS Lambda, one loop per request), background work starves. So a
refresh that is overdue, or follows one that was cancelled, happens in the foreground of a request.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakSet

import anyio

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.http import TOTAL_SECONDS
from asgi_mcp_auth._oauth.http_cache import Freshness, State, seconds_until_fetch_allowed, stage
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError
from asgi_mcp_auth.status import DocumentStatus

__all__ = ("CachedDocument",)

logger = logging.getLogger("asgi_mcp_auth.keys")

T = TypeVar("T")

NAMES = {"keys": "key set", "metadata": "metadata"}
MAX_BACKGROUND_SECONDS = 60.0  # past expiry, for background refreshes to end in
MAX_FOREGROUND_SECONDS = 3.0  # of a request that holds a stale document and waits for its refresh

TIMED_OUT = DiscoveryError(f"Metadata and key set took more than {TOTAL_SECONDS:.0f} s.", transient=True)
CUT_OFF = DiscoveryError("The fetch was cancelled, because its event loop ended.", transient=True)
STATIC = State(fetched_at=float("-inf"), refresh_from=float("inf"), fresh_until=float("inf"), usable_until=float("inf"))


class CachedDocument(Generic[T]):
    """One document of one issuer.

    Args:
        what: Which document, for log records and the names of their events.
        issuer: The issuer identifier.
        fetch: Fetches the document, and the lifetime that its server states; raises `DiscoveryError`.
        clock: Seconds since the epoch.
        settings: The cache settings.
        load: Returns the document as another process fetched it: with its lifetime, and when that was. It is called
            before a fetch if no usable document is held; None if there is no such process.

    Attributes:
        value: The document; None before the first successful fetch.
        state: The times of the document.
        started: The number of fetches that were started.
        answered: The number of the newest fetch that succeeded.
        error: Why the last fetch failed; None if it succeeded.
        reports_failures: Whether failures are logged here. False if another record covers them.
    """

    def __init__(
        self,
        what: Literal["keys", "metadata"],
        issuer: str,
        fetch: Callable[[], Awaitable[tuple[T, float | None]]],
        *,
        clock: Callable[[], float],
        settings: JWKSCacheSettings,
        load: Callable[[], Awaitable[tuple[T, float | None, float] | None]] | None = None,
    ) -> None:
        self.value: T | None = None
        self.state = State()
        self.started = self.answered = 0
        self.error: DiscoveryError | None = None
        self.reports_failures = True
        self._what = what
        self._issuer = issuer
        self._fetch = fetch
        self._load = load
        self._clock = clock
        self._settings = settings
        self._reported: str | None = None  # the last event since the last success that was logged
        self._flight = SingleFlight(self._attempt)
        _all_documents.add(self)

    def set_static(self, value: T) -> None:
        """Hold a document of the configuration; nothing is ever fetched."""
        self.value, self.state = value, STATIC

    @property
    def is_static(self) -> bool:
        """Whether the configuration gives the document."""
        return self.state is STATIC

    def overdue(self, now: float) -> bool:
        """Return whether requests must wait for a refresh of an expired document.

        They wait if the last fetch was cancelled, or if `MAX_BACKGROUND_SECONDS` have passed since the document expired
        and since the last failed fetch.
        """
        state = self.state
        return self.error is CUT_OFF or now - max(state.fresh_until, state.failed_at) >= MAX_BACKGROUND_SECONDS

    async def current(self) -> T | None:
        """Return the document if it may be used, refreshing it as necessary; None if there is no usable document."""
        now = self._clock()
        freshness = stage(self.state, now)
        if freshness is Freshness.FRESH:
            return self.value
        if freshness is Freshness.UNUSABLE:
            return self.value if await self.refresh() else None
        if not self.overdue(now):
            self.refresh_in_background(now)
        elif not seconds_until_fetch_allowed(self.state, now) or self._flight.under_way:
            with anyio.move_on_after(MAX_FOREGROUND_SECONDS):
                await self.refresh_now()
        return self.value

    async def refresh(self) -> bool:
        """Wait for the fetch that is under way, or start one if the back-off allows it; return whether it succeeded."""
        if seconds_until_fetch_allowed(self.state, self._clock()) and not self._flight.under_way:
            return False
        return await self.refresh_now()

    async def refresh_now(self) -> bool:
        """Refresh without regard to the back-off, for a caller that has its own; return whether it succeeded."""
        return await self._flight.join() is True

    @property
    def under_way(self) -> bool:
        """Whether a fetch is running on this event loop."""
        return self._flight.under_way

    def refresh_in_background(self, now: float) -> None:
        """Start a fetch in the background if the back-off allows it."""
        if now >= self.state.fresh_until and self.value is not None and self._reported is None:
            self._reported = "stale"
            self._log(logging.INFO, "stale", "Using the %s of %s from %.0f s ago", now - self.state.fetched_at)
        if not seconds_until_fetch_allowed(self.state, now):
            self._flight.start()

    def invalidate(self) -> None:
        """Have the document fetched again before its next use, because its content led to an error."""
        if not self.is_static:
            self.state = replace(self.state, refresh_from=float("-inf"), fresh_until=float("-inf"))

    async def _attempt(self) -> bool:
        """Load or fetch once, within a time limit; every failure counts for the back-off."""
        if self._load is not None and await self._load_from(self._load):
            return True
        self.started += 1
        number, started_at = self.started, self._clock()  # the document is at least as new as this
        received, error = None, TIMED_OUT
        try:
            with anyio.move_on_after(TOTAL_SECONDS):
                received = await self._fetch()
        except DiscoveryError as failed:
            error = failed
        except Exception as failed:
            logger.exception("Fetching the %s of %s failed with an unexpected error", NAMES[self._what], self._issuer)
            error = DiscoveryError(f"Fetching failed with {type(failed).__name__}.", transient=True, cause=failed)
        except BaseException:  # the event loop ends, or has ended if a newer fetch has succeeded
            if number > self.answered:
                self._failed(CUT_OFF)
            raise
        if received is None:
            self._failed(error)
            return False
        value, lifetime = received
        self._succeeded(value, lifetime, started_at)
        self.answered = max(self.answered, number)
        return True

    async def _load_from(self, load: Callable[[], Awaitable[tuple[T, float | None, float] | None]]) -> bool:
        """Take over what another process fetched, if this one holds nothing that may be used. Return whether it did."""
        if stage(self.state, self._clock()) is not Freshness.UNUSABLE:
            return False
        loaded = await load()
        if loaded is None:
            return False
        value, lifetime, fetched_at = loaded
        state = State().succeeded(fetched_at, lifetime, _jitter(), self._settings)
        if stage(state, self._clock()) is Freshness.UNUSABLE:
            return False
        self.value, self.state = value, state
        message = "Using the %s of %s that another process fetched %.0f s ago"
        self._log(logging.INFO, "loaded", message, self._clock() - fetched_at)
        return True

    def _succeeded(self, value: T, lifetime: float | None, started_at: float) -> None:
        failures, first, outage = self.state.failures, self.value is None, self._reported not in (None, "stale")
        self.value, self.error, self._reported = value, None, None
        self.state = self.state.succeeded(started_at, lifetime, _jitter(), self._settings)
        if first:
            self._log(logging.INFO, "fetched", "Fetched the %s of %s")
        elif outage:
            self._log(logging.INFO, "recovered", "Fetched the %s of %s again, after %d failures", failures)

    def _failed(self, error: DiscoveryError) -> None:
        self.error = error
        self.state = self.state.failed(self._clock(), _jitter(), self._settings)
        if self.reports_failures:
            self.report_failure()

    def report_failure(self) -> None:
        """Log the last failure: one record when an outage begins, and one when it makes the document unusable."""
        now, error = self._clock(), "" if self.error is None else self.error.message
        event = "unavailable" if stage(self.state, now) is Freshness.UNUSABLE else "refresh_failed"
        if self._reported == event:
            return
        self._reported = event
        if event == "unavailable":
            level = logging.ERROR if self._what == "keys" else logging.WARNING
            self._log(level, event, "There is no usable %s of %s: %s", error)
        else:
            left = self.state.usable_until - now
            self._log(logging.WARNING, event, "Keeping the cached %s of %s, for at most %.0f s: %s", left, error)

    def _log(self, level: int, event: str, message: str, *args: object) -> None:
        extra = {"event": Event(f"{self._what}_{event}").value, "issuer": self._issuer}
        logger.log(level, message, NAMES[self._what], self._issuer, *args, extra=extra)

    def status(self, now: float) -> DocumentStatus:
        """Return a snapshot of the document's state."""
        if self.is_static:
            return DocumentStatus(state="given")
        state, counts = self.state, {"fetches": self.started, "failures": self.state.failures}
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
        """In a forked worker: keep the document, drop the parent's fetches, and choose another time to refresh."""
        self._flight = SingleFlight(self._attempt)
        self.state = self.state.spread(_jitter())


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads load


_all_documents: WeakSet[CachedDocument[Any]] = WeakSet()


def _after_fork() -> None:
    for document in _all_documents:
        document.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
