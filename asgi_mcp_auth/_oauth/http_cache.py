"""When to fetch a remote document again: freshness, back-off and rate limits as arithmetic over the clock.

RFC 9111 section 4.2, RFC 5861 section 4, OpenID Connect Core section 10.1.1.

A document is fresh, then due (fresh, and refreshed in the background), then stale (used while it is refreshed), then
unusable. Two limits apply to fetches: a back-off after failures, and a token bucket for unknown key ids. An ordinary
refresh takes nothing from the bucket, so that a key rotation right after a refresh is served on its first request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import Enum

from asgi_mcp_auth.config import JWKSCacheSettings

__all__ = (
    "CircuitBreaker",
    "Freshness",
    "State",
    "TokenBucket",
    "seconds_until_fetch_allowed",
    "stage",
    "stated_lifetime",
    "suspects_rotation",
)

MINUTE = 60.0
ROUNDING = 1e-6  # of floating-point arithmetic
REFRESH_AHEAD = 0.1  # share of the lifetime; the jitter adds up to as much again


class Freshness(Enum):
    """What may be done with a cached document."""

    FRESH = "fresh"
    DUE = "due"
    STALE = "stale"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The times of one document, in seconds since the epoch. The initial state means that no document is held."""

    fetched_at: float = float("-inf")
    refresh_from: float = float("-inf")
    fresh_until: float = float("-inf")
    usable_until: float = float("-inf")
    failed_at: float = float("-inf")
    pause: float = 0.0
    failures: int = 0

    def succeeded(self, now: float, lifetime: float | None, jitter: float, settings: JWKSCacheSettings) -> State:
        """Return the state after a successful fetch; `lifetime` is None if the response states no lifetime."""
        life = settings.lifetime if lifetime is None else lifetime
        end = now + min(max(life, settings.min_lifetime), settings.max_lifetime)
        return State(fetched_at=now, fresh_until=end, usable_until=end + settings.stale_if_error).spread(jitter)

    def spread(self, jitter: float) -> State:
        """Return the state with a new refresh time, one to two tenths of the lifetime before expiry.

        `jitter` in [0, 1) keeps workers from refreshing at the same moment.
        """
        life = self.fresh_until - self.fetched_at
        if not math.isfinite(life):  # no document, or one of the configuration
            return self
        return replace(self, refresh_from=self.fresh_until - life * REFRESH_AHEAD * (1 + jitter))

    def failed(self, now: float, jitter: float, settings: JWKSCacheSettings) -> State:
        """Return the state after a failed fetch: back off 1, 2, 4 … seconds; `jitter` in [0, 1) adds up to a tenth."""
        pause = min(2.0 ** min(self.failures, 16), settings.max_backoff) * (1 + jitter / 10)
        return replace(self, failed_at=now, pause=pause, failures=self.failures + 1)


class TokenBucket:
    """A rate limit: `per_minute` tokens a minute, of which at most a minute's worth is saved."""

    __slots__ = ("_level", "_per_minute", "_since")

    def __init__(self, per_minute: int) -> None:
        self._per_minute = float(per_minute)
        self._level = self._per_minute
        self._since = float("-inf")

    def take(self, now: float, amount: float = 1.0) -> float:
        """Take `amount` tokens and return 0; if there are fewer, take none and return the seconds until there are.

        A clock that was set back adds no tokens.
        """
        level, elapsed = self._level, now - self._since
        if elapsed > 0:
            level = min(self._per_minute, level + elapsed / MINUTE * self._per_minute)
        self._since = now
        if level < amount - ROUNDING:
            self._level = level
            return round((amount - level) * MINUTE / self._per_minute, 6)
        self._level = level - amount
        return 0.0

    def give_back(self) -> None:
        """Return a token that was taken and not used."""
        self._level = min(self._per_minute, self._level + 1.0)


MAX_FAILURES = 3
MAX_PAUSE = 30.0


class CircuitBreaker:
    """A circuit breaker. It opens after three failures in a row, for 1, 2, 4 … 30 seconds, until a call succeeds.

    Args:
        max_pause: The longest time in seconds for which it opens.

    Attributes:
        failures: The number of failures since the last success; calls that end while the breaker is open do not count.
    """

    __slots__ = ("_max_pause", "_opened_at", "_pause", "_probing", "failures")

    def __init__(self, max_pause: float = MAX_PAUSE) -> None:
        self.failures = 0
        self._max_pause = max_pause
        self._opened_at = self._pause = 0.0
        self._probing = False

    def seconds_until_allowed(self, now: float) -> float:
        """Return the seconds until a call is allowed; 0 if one is allowed now.

        A clock that was set back to before the last failure closes the breaker.
        """
        elapsed = now - self._opened_at
        return self._pause - elapsed if 0 <= elapsed < self._pause else 0.0

    def start(self, now: float, seconds: float) -> None:
        """Note the start of a call. A call after a pause is a probe: other calls wait for it, at most `seconds`."""
        if self.failures >= MAX_FAILURES:
            self._opened_at, self._pause, self._probing = now, seconds, True

    def succeeded(self) -> None:
        """Close the breaker."""
        self.failures, self._pause, self._probing = 0, 0.0, False

    def failed(self, now: float) -> None:
        """Count a failure, and open the breaker if there were enough of them."""
        if not self._probing and self.seconds_until_allowed(now):
            return  # the call had started before the breaker opened
        self.failures += 1
        self._probing = False
        if self.failures >= MAX_FAILURES:
            self._opened_at, self._pause = now, min(2.0 ** min(self.failures - MAX_FAILURES, 16), self._max_pause)


def stage(state: State, now: float) -> Freshness:
    """Return the freshness of a document. A clock that was set back makes it stale, never fresher."""
    if now >= state.usable_until:
        return Freshness.UNUSABLE
    if not state.fetched_at <= now < state.fresh_until:
        return Freshness.STALE
    return Freshness.FRESH if now < state.refresh_from else Freshness.DUE


def seconds_until_fetch_allowed(state: State, now: float) -> float:
    """Return the seconds that are left of the back-off after a failure; 0 if a fetch is allowed now.

    A clock that was set back to before the failure ends the back-off.
    """
    elapsed = now - state.failed_at
    return state.pause - elapsed if 0 <= elapsed < state.pause else 0.0


def suspects_rotation(state: State, issued_at: float | None, leeway: float) -> bool:
    """Return whether a token with an unknown key id may be newer than the key set, by its unverified `iat`.

    Such a token is answered 503 and not 401 if the key set cannot be fetched again now.
    """
    # At least one second, because issuers round `iat` down.
    return issued_at is not None and issued_at > state.fetched_at - max(leeway, 1.0)


def stated_lifetime(cache_control: str | None, age: str | None, expires: str | None, date: str | None) -> float | None:
    """Return the remaining freshness in seconds that response headers state, else None (RFC 9111 sections 4.2.1, 5.3).

    `max-age` goes before `Expires`. An `Expires` that is no date, or comes without a `Date`, is in the past.
    """
    limit: float | None = None
    for directive in (cache_control or "").lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in ("no-store", "no-cache"):
            return 0.0
        value = value.strip().strip('"')
        if name == "max-age" and value.isascii() and value.isdigit():
            limit = float(value[:12])
    if limit is None:
        if expires is None:
            return None
        end, start = _timestamp(expires), _timestamp(date or "")
        limit = 0.0 if end is None or start is None else end - start
    elapsed = float(age[:12]) if age and age.isascii() and age.isdigit() else 0.0
    return max(0.0, limit - elapsed)


def _timestamp(date: str) -> float | None:
    """Return an HTTP date (RFC 9110 section 5.6.7) in seconds since the epoch, or None if it is no date."""
    try:
        return parsedate_to_datetime(date[:64]).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
