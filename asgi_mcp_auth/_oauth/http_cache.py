"""When to fetch a remote document again: a pure decision over its clocks.

RFC 9111 section 4.2, OpenID Connect Core section 10.1.1.

Fresh: use. Due, in the last fifth of that: use, refresh in the background. Stale: use, refresh in the background.
Past the hard limit: we cannot know. Beside them run two brakes: a cool-down for unknown kids after a success, and
a back-off after a failure; a failure never uses up the allowance of a real rotation.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from email.utils import parsedate_to_datetime
from enum import Enum

from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import JWKSCacheSettings

__all__ = (
    "Freshness",
    "State",
    "check_cache_settings",
    "seconds_until_fetch_allowed",
    "stage",
    "stated_lifetime",
    "suspects_rotation",
)

AHEAD = 0.1  # of its life a document is refreshed before the end of it, and up to as much again for the spread


class Freshness(Enum):
    """What may be done with what we hold."""

    FRESH = "fresh"
    DUE = "due"
    STALE = "stale"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The clocks of one document, in seconds since the epoch. The initial state holds nothing."""

    fetched_at: float = float("-inf")
    refresh_from: float = float("-inf")
    fresh_until: float = float("-inf")
    usable_until: float = float("-inf")
    failed_at: float = float("-inf")
    pause: float = 0.0
    failures: int = 0

    def succeeded(self, now: float, lifetime: float | None, jitter: float, clocks: JWKSCacheSettings) -> State:
        """After a good fetch, of a document that its server gives `lifetime`, or None where it does not say."""
        life = clocks.lifetime if lifetime is None else lifetime
        end = now + min(max(life, clocks.min_lifetime), clocks.max_lifetime)
        return State(fetched_at=now, fresh_until=end, usable_until=end + clocks.stale_if_error).spread(jitter)

    def spread(self, jitter: float) -> State:
        """Refresh ahead of the end by a tenth to a fifth: `jitter` in [0, 1) keeps workers from marching in step."""
        life = self.fresh_until - self.fetched_at
        if not math.isfinite(life):  # nothing is held, or it is held for ever
            return self
        return replace(self, refresh_from=self.fresh_until - life * AHEAD * (1 + jitter))

    def failed(self, now: float, jitter: float, clocks: JWKSCacheSettings) -> State:
        """After a failed fetch: back off 1, 2, 4 … seconds; `jitter` in [0, 1) adds up to a tenth."""
        pause = min(2.0 ** min(self.failures, 16), clocks.max_backoff) * (1 + jitter / 10)
        return replace(self, failed_at=now, pause=pause, failures=self.failures + 1)


LEAST = {"min_lifetime": 10.0, "cool_down": 5.0, "max_backoff": 1.0, "stale_if_error": 0.0}
WEEK = 604_800.0


def check_cache_settings(clocks: object, where: str, problems: Problems) -> None:
    """Seconds within bounds that protect the issuer from us, and us from keys that are never asked about again."""
    if not isinstance(clocks, JWKSCacheSettings):
        problems.add(where, f"{show(clocks)} is no JWKSCacheSettings.", "Write JWKSCacheSettings(stale_if_error=3600).")
        return
    before = len(problems.found)
    for field in fields(clocks):
        seconds, least = getattr(clocks, field.name), LEAST.get(field.name, 10.0)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not least <= seconds <= WEEK:
            problems.add(
                f"{where}.{field.name}", f"{show(seconds)} is not in {least:.0f} … {WEEK:.0f}.", "Give seconds."
            )
    if len(problems.found) == before and not clocks.min_lifetime <= clocks.lifetime <= clocks.max_lifetime:
        problems.add(where, "lifetime is not between min_lifetime and max_lifetime.", "Order them.")


def stage(state: State, now: float) -> Freshness:
    """Where on its clocks a document is. A clock that was set back makes it stale, never younger."""
    if now >= state.usable_until:
        return Freshness.UNUSABLE
    if not state.fetched_at <= now < state.fresh_until:
        return Freshness.STALE
    return Freshness.FRESH if now < state.refresh_from else Freshness.DUE


def seconds_until_fetch_allowed(state: State, now: float, *, cool_down: float = 0.0) -> float:
    """Seconds until a fetch is allowed: the back-off, and the cool-down since the last success; 0 for now."""
    return max(_left(state.failed_at, state.pause, now), _left(state.fetched_at, cool_down, now))


def _left(since: float, pause: float, now: float) -> float:
    """What is left of a pause; nothing when the clock was set back to before it."""
    return pause - (now - since) if 0 <= now - since < pause else 0.0


def suspects_rotation(state: State, issued_at: float | None, leeway: float) -> bool:
    """Whether a token of an unknown kid may be newer than what we hold, by its unverified `iat`: 503 then, not 401."""
    # At least one second, because issuers round `iat` down.
    return issued_at is not None and issued_at > state.fetched_at - max(leeway, 1.0)


def stated_lifetime(cache_control: str | None, age: str | None, expires: str | None, date: str | None) -> float | None:
    """The remaining freshness in seconds that response headers state, or None (RFC 9111 sections 4.2.1 to 5.3).

    `max-age` goes before `Expires`; an `Expires` that cannot be read, or without a `Date` to count from, is past.
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
        end, start = _seconds(expires), _seconds(date or "")
        limit = 0.0 if end is None or start is None else end - start
    elapsed = float(age[:12]) if age and age.isascii() and age.isdigit() else 0.0
    return max(0.0, limit - elapsed)


def _seconds(date: str) -> float | None:
    """An HTTP date (RFC 9110 section 5.6.7) in seconds since the epoch."""
    try:
        return parsedate_to_datetime(date[:64]).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
