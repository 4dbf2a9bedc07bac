"""Admission of issuers that match a pattern: an issuer is trusted once its metadata and keys were fetched.

The names of these issuers come from unverified tokens. So fetches for issuers that were never fetched share one budget
for the whole process, and an issuer that has passed never needs it again.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.http_cache import State, TokenBucket, seconds_until_fetch_allowed
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth._policy.trusted_issuer import TrustedIssuer
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.errors import Reason, Unavailable

__all__ = ("Probation",)

MAX_WAITING = 64
MAX_WAITING_SECONDS = 60.0
MAX_FETCHING = 64
MAX_FAILED = 1000
MAX_PROVEN = 20_000
RETURNS_PER_UNPROVEN = 10  # fetches for issuers that have passed before and left the pool, per one for new issuers

Key = Hashable


class _Candidate(NamedTuple):
    """An issuer that waits for its turn."""

    trusted: TrustedIssuer
    since: float


class Probation:
    """The issuers that match a pattern and whose keys were never fetched: those that wait, and those that failed.

    Args:
        new_keys: Makes the key set of an issuer; the flag says whether the issuer is proven.
        clock: Seconds since the epoch.
        fetches_per_minute: The budget for issuers that were never fetched, in total.
    """

    def __init__(
        self,
        new_keys: Callable[[TrustedIssuer, bool], RemoteJWKS],
        *,
        clock: Callable[[], float],
        fetches_per_minute: int,
    ) -> None:
        self._new_keys = new_keys
        self._clock = clock
        self._fetches_per_minute = fetches_per_minute
        self.reset()

    def reset(self) -> None:
        """Forget every issuer, and fill the budgets."""
        self._budget = TokenBucket(self._fetches_per_minute)
        self._budget_of_returns = TokenBucket(self._fetches_per_minute * RETURNS_PER_UNPROVEN)
        self._waiting: dict[Key, _Candidate] = {}
        self._fetching: BoundedMap[Key, SingleFlight[RemoteJWKS]] = BoundedMap(MAX_FETCHING)
        self._failed: BoundedMap[Key, State] = BoundedMap(MAX_FAILED)
        self._proven: BoundedMap[Key, bool] = BoundedMap(MAX_PROVEN)

    async def prove(self, key: Key, trusted: TrustedIssuer) -> RemoteJWKS:
        """Return the key set of an issuer once it has usable keys.

        Raises:
            Unavailable: The issuer waits for its turn, or its metadata or keys cannot be fetched.
        """
        now = self._clock()
        if self._proven.get(key):
            if wait := self._budget_of_returns.take(now, _cost(trusted)):
                raise _unavailable(trusted, "the budget of fetches for issuers that left the pool is used up", wait)
            return self._new_keys(trusted, True)
        failed = self._failed.get(key)
        if failed is not None and (wait := seconds_until_fetch_allowed(failed, now)):
            raise _unavailable(trusted, "metadata and keys could not be fetched", wait)
        wait = 0.0
        if self._fetching.get(key) is None:
            self._enqueue(key, trusted, now)
            wait = self._start_fetches(now)
        flight = self._fetching.get(key)
        if flight is None:
            raise _unavailable(trusted, "the budget of fetches for new issuers is used up", wait)
        keys = await flight.join()
        if keys is None or not keys.usable_now:
            error = None if keys is None else keys.document.error
            found = "the fetch was cancelled" if error is None else error.message
            wait = seconds_until_fetch_allowed(self._failed.get(key) or State(), self._clock())
            raise _unavailable(trusted, found, wait)
        return keys

    def _enqueue(self, key: Key, trusted: TrustedIssuer, now: float) -> None:
        """Add an issuer. In a full queue it takes a random place, so that junk that came first keeps no issuer out."""
        for other, candidate in tuple(self._waiting.items()):
            if not 0 <= now - candidate.since < MAX_WAITING_SECONDS:
                self._waiting.pop(other, None)
        if key not in self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.pop(secrets.choice(tuple(self._waiting)), None)
            self._waiting[key] = _Candidate(trusted, now)

    def _start_fetches(self, now: float) -> float:
        """Start fetches for random issuers of the queue; return the seconds until the budget allows another one."""
        while self._waiting:
            key = secrets.choice(tuple(self._waiting))
            trusted = self._waiting[key].trusted
            if wait := self._budget.take(now, _cost(trusted)):
                return wait
            del self._waiting[key]
            flight = SingleFlight(partial(self._fetch, key, trusted))
            self._fetching.put(key, flight)
            flight.start()
        return 0.0

    async def _fetch(self, key: Key, trusted: TrustedIssuer) -> RemoteJWKS:
        keys = self._new_keys(trusted, False)
        try:
            await keys.warm_up()
        finally:
            self._fetching.pop(key)
            if keys.usable_now:
                self._failed.pop(key)
                self._proven.put(key, value=True)
            else:
                state = self._failed.get(key) or State()
                jitter = random.random()  # noqa: S311 - spreads load
                self._failed.put(key, state.failed(self._clock(), jitter, JWKSCacheSettings()))
        return keys


def _cost(trusted: TrustedIssuer) -> int:
    """Return the greatest number of requests that fetching the metadata and the keys of an issuer takes."""
    url = parse_url(trusted.rules.issuer)
    assert url is not None  # noqa: S101 - it matches a pattern
    return len(discovery_urls(url, trusted.config.type)) + 1


def _unavailable(trusted: TrustedIssuer, found: str, wait: float) -> Unavailable:
    issuer = trusted.rules.issuer
    return Unavailable(Reason.KEYS_UNAVAILABLE, issuer=issuer, found=found, retry_after=max(wait, 1.0))
