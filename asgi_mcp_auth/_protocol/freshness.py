"""When to fetch a key set again: a pure decision over three clocks.

RFC 9111 section 4.2, OpenID Connect Core section 10.1.1.

Fresh: use. Stale: use, refresh in the background. Past the hard limit: we cannot know. Beside them run two
brakes: a cool-down for unknown kids after a success, and a back-off after a failure; a failure never uses
up the allowance of a real rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ("Freshness", "Lifetimes", "State", "max_age", "may_fetch", "stage", "suspects_rotation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """All in seconds."""

    default: float = 600.0
    shortest: float = 60.0
    longest: float = 86_400.0
    stale_for: float = 86_400.0
    cool_down: float = 30.0
    longest_back_off: float = 30.0


class Freshness(Enum):
    """What may be done with what we hold."""

    FRESH = "fresh"
    STALE = "stale"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The clocks of one document, in seconds since the epoch. The initial state holds nothing."""

    fetched_at: float = float("-inf")
    fresh_until: float = float("-inf")
    usable_until: float = float("-inf")
    failed_at: float = float("-inf")
    pause: float = 0.0
    failures: int = 0

    def succeeded(self, now: float, age_limit: float | None, jitter: float, lifetimes: Lifetimes) -> State:
        """After a good fetch. `jitter` in [0, 1) shortens the life by up to a tenth: workers do not march in step."""
        life = lifetimes.default if age_limit is None else age_limit
        life = min(max(life, lifetimes.shortest), lifetimes.longest) * (1 - jitter / 10)
        return State(fetched_at=now, fresh_until=now + life, usable_until=now + life + lifetimes.stale_for)

    def failed(self, now: float, jitter: float, lifetimes: Lifetimes) -> State:
        """After a failed fetch: back off 1, 2, 4 … seconds; `jitter` in [0, 1) adds up to a tenth."""
        pause = min(2.0 ** min(self.failures, 16), lifetimes.longest_back_off) * (1 + jitter / 10)
        return replace(self, failed_at=now, pause=pause, failures=self.failures + 1)


def stage(state: State, now: float) -> Freshness:
    """Where on its three clocks a document is. A clock that was set back makes it stale, never younger."""
    if now >= state.usable_until:
        return Freshness.UNUSABLE
    return Freshness.FRESH if state.fetched_at <= now < state.fresh_until else Freshness.STALE


def may_fetch(state: State, now: float, *, cool_down: float = 0.0) -> float:
    """Seconds until a fetch is allowed: the back-off, and the cool-down since the last success; 0 for now."""
    return max(_left(state.failed_at, state.pause, now), _left(state.fetched_at, cool_down, now))


def _left(since: float, pause: float, now: float) -> float:
    """What is left of a pause; nothing when the clock was set back to before it."""
    return pause - (now - since) if 0 <= now - since < pause else 0.0


def suspects_rotation(state: State, issued_at: float | None, leeway: float) -> bool:
    """Whether a token of an unknown kid may be newer than what we hold, by its unverified `iat`: 503 then, not 401."""
    # At least one second, because issuers round `iat` down.
    return issued_at is not None and issued_at > state.fetched_at - max(leeway, 1.0)


def max_age(cache_control: str | None, age: str | None) -> float | None:
    """The remaining freshness in seconds that response headers state, or None (RFC 9111 sections 4.2.3 and 5.2.2)."""
    limit: float | None = None
    for directive in (cache_control or "").lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in ("no-store", "no-cache"):
            return 0.0
        value = value.strip().strip('"')
        if name == "max-age" and value.isascii() and value.isdigit():
            limit = float(value[:12])
    if limit is None:
        return None
    elapsed = float(age[:12]) if age and age.isascii() and age.isdigit() else 0.0
    return max(0.0, limit - elapsed)
