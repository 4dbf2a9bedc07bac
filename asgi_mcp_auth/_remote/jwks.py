"""The living key set of one issuer: fetched on first use, refreshed as `_protocol.freshness` decides.

One fetch at a time per event loop, in the background: whoever needs its result waits for it, and a waiter's
cancellation does not touch it. No lock, client or task exists before the first request.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio

from asgi_mcp_auth._protocol.freshness import (
    Freshness,
    Lifetimes,
    State,
    max_age,
    may_fetch,
    stage,
    suspects_rotation,
)
from asgi_mcp_auth._protocol.jwks import KeySet, UnknownKid, VerificationKey, parse_key_set
from asgi_mcp_auth._remote.discovery import discover
from asgi_mcp_auth._remote.http import TOTAL_SECONDS, Fetcher
from asgi_mcp_auth._remote.tasks import SingleFlight
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.errors import DiscoveryError, InvalidServerMetadata, Reason, Unavailable

__all__ = ("LivingKeySet", "Snapshot")

logger = logging.getLogger("asgi_mcp_auth.keys")

METADATA_LIFETIME = 3600.0
OVERDUE = DiscoveryError(f"Metadata and key set took more than {TOTAL_SECONDS:.0f} s.", transient=True)


class Snapshot(NamedTuple):
    """Keys as they are held; `generation` is another object whenever a key came or went."""

    keys: KeySet
    generation: object


class LivingKeySet:
    """The keys of one issuer.

    Args:
        issuer: The issuer identifier.
        config: Where its keys come from.
        static_keys: Keys given in the configuration; then nothing is ever fetched.
        fetcher: Fetches documents.
        clock: Seconds since the epoch.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        lifetimes: The clocks.
    """

    def __init__(
        self,
        issuer: str,
        config: AuthServerConfig,
        static_keys: KeySet | None,
        *,
        fetcher: Fetcher,
        clock: Callable[[], float],
        allow_http: bool,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self.issuer = issuer
        self.snapshot: Snapshot | None = None
        self.state = State()
        self._config = config
        self._fetcher = fetcher
        self._clock = clock
        self._allow_http = allow_http
        self._lifetimes = lifetimes or Lifetimes()
        self._discovered: tuple[float, AuthorizationServerMetadata] | None = None
        self._asked = self._answered = 0  # key-set fetches begun, and the newest that succeeded
        self._metadata_state = State()
        self._keys_flight = SingleFlight(self._attempt_keys)
        self._metadata_flight = SingleFlight(self._attempt_metadata)
        if static_keys is not None:
            self.snapshot = Snapshot(static_keys, object())
            self.state = State(fetched_at=float("-inf"), fresh_until=float("inf"), usable_until=float("inf"))
        self._static = static_keys is not None

    async def warm_up(self) -> None:
        """Fetch if nothing usable is held; a failure is logged and tried again at the first request."""
        now = self._clock()
        if stage(self.state, now) is not Freshness.FRESH and not may_fetch(self.state, now):
            await self._keys_flight.join()

    def usable(self, generation: object, now: float) -> bool:
        """Whether something verified with `generation` may still be believed; a stale set is refreshed beside."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.generation is not generation:
            return False
        if self.state.fetched_at <= now < self.state.fresh_until:
            return True
        if stage(self.state, now) is Freshness.UNUSABLE:
            return False
        self._refresh_beside(now)
        return True

    async def select(
        self, kid: str | None, alg: str, *, issued_at: float | None, leeway: float, most_without_kid: int
    ) -> tuple[tuple[VerificationKey, ...], object]:
        """The candidate keys for a token, and the generation they are of.

        Args:
            kid: From the token's header.
            alg: From the token's header.
            issued_at: The token's unverified `iat`: it tells a rotation from a guess inside the cool-down.
            leeway: Seconds of clock difference to allow for it.
            most_without_kid: How many candidates a token without kid may have.

        Raises:
            InvalidToken: No such key, or not exactly one.
            Unavailable: We hold no usable keys, or cannot tell yet.
        """
        asked_before = self._asked
        snapshot = await self._current()
        try:
            return snapshot.keys.select(kid, alg, most_without_kid=most_without_kid), snapshot.generation
        except UnknownKid:
            if self._static or self._answered > asked_before:  # asked since the token arrived: nobody has this key
                raise
            wait = may_fetch(self.state, self._clock(), cool_down=self._lifetimes.cool_down)
            if wait and suspects_rotation(self.state, issued_at, leeway):
                raise self._not_yet_known(kid, alg, wait) from None
            if wait:
                raise
            logger.info("Unknown key id at %s: fetching its key set", self.issuer)
            snapshot = await self._fetched(self._clock())
        try:
            return snapshot.keys.select(kid, alg, most_without_kid=most_without_kid), snapshot.generation
        except UnknownKid:
            # A fetch that was under way may have begun before the key was published.
            if self._answered <= asked_before and suspects_rotation(self.state, issued_at, leeway):
                raise self._not_yet_known(kid, alg, self._lifetimes.cool_down) from None
            raise

    def _not_yet_known(self, kid: str | None, alg: str, wait: float) -> Unavailable:
        age = self._clock() - self.state.fetched_at
        found = f"a key set fetched {age:.0f} s ago, and no other fetch for {wait:.0f} s"
        reason = Reason.KEY_NOT_YET_KNOWN
        return Unavailable(reason, issuer=self.issuer, kid=kid, alg=alg, found=found, retry_after=wait)

    async def metadata(self) -> AuthorizationServerMetadata:
        """The issuer's metadata to republish, fetched under brakes of its own. Raises `DiscoveryError`."""
        if self._config.metadata is not None:
            return self._config.metadata
        held, now = self._discovered, self._clock()
        overdue = held is None or not 0 <= now - held[0] < METADATA_LIFETIME
        if overdue and (self._metadata_flight.under_way or not may_fetch(self._metadata_state, now)):
            await self._metadata_flight.join()
        if self._discovered is None:
            msg = f"There is no metadata of {self.issuer} yet."
            raise DiscoveryError(msg, transient=True)
        return self._discovered[1]

    async def _discover(self) -> AuthorizationServerMetadata:
        now = self._clock()
        if self._discovered is not None and 0 <= now - self._discovered[0] < METADATA_LIFETIME:
            return self._discovered[1]
        try:
            metadata = await discover(self._fetcher, self._config, allow_http=self._allow_http)
        except DiscoveryError as error:
            if self._discovered is None:
                raise
            logger.warning("Keeping the metadata of %s from before: %s", self.issuer, error.message)
            self._discovered = (now, self._discovered[1])
            return self._discovered[1]
        self._discovered = (now, metadata)
        return metadata

    async def _current(self) -> Snapshot:
        now = self._clock()
        held = stage(self.state, now)
        if self.snapshot is None or held is Freshness.UNUSABLE:
            return await self._fetched(now)
        if held is Freshness.STALE:
            self._refresh_beside(now)
        return self.snapshot

    async def _fetched(self, now: float) -> Snapshot:
        """Keys fetched now, by us or by a flight under way."""
        wait = may_fetch(self.state, now)
        if wait and not self._keys_flight.under_way:
            raise Unavailable(Reason.KEYS_UNAVAILABLE, issuer=self.issuer, retry_after=wait)
        error = await self._keys_flight.join()
        if error is not None or self.snapshot is None:
            wait = may_fetch(self.state, self._clock())
            reason = Reason.KEYS_UNAVAILABLE
            raise Unavailable(reason, issuer=self.issuer, found=error and error.message, retry_after=wait) from None
        return self.snapshot

    def _refresh_beside(self, now: float) -> None:
        if not may_fetch(self.state, now):
            self._keys_flight.start()

    async def _attempt_keys(self) -> DiscoveryError | None:
        error = await self._bounded(self._refresh)
        if error is not None:
            self.state = self._failed(self.state, f"No key set for {self.issuer}", error)
        return error

    async def _attempt_metadata(self) -> DiscoveryError | None:
        error = await self._bounded(self._discover)
        if error is not None:
            self._metadata_state = self._failed(self._metadata_state, f"No metadata of {self.issuer}", error)
        return error

    async def _bounded(self, work: Callable[[], Awaitable[object]]) -> DiscoveryError | None:
        """Run `work`, discovery and keys together bounded in time; whatever goes wrong is an error to back off from."""
        error: DiscoveryError | None = OVERDUE
        try:
            with anyio.move_on_after(TOTAL_SECONDS):
                await work()
                error = None
        except DiscoveryError as failed:
            error = failed
        except Exception as failed:
            logger.exception("Refreshing what is known of %s failed in an unforeseen way", self.issuer)
            error = DiscoveryError(f"Refreshing failed with {type(failed).__name__}.", transient=True, cause=failed)
        return error

    async def _refresh(self) -> None:
        self._asked += 1
        number, started = self._asked, self._clock()  # the keys are at least as new as this
        fetched = await self._fetcher.fetch_json(await self._jwks_uri())
        self._keep(parse_key_set(fetched.document))
        self._answered = max(self._answered, number)
        age_limit = max_age(fetched.cache_control, fetched.age)
        self.state = self.state.succeeded(started, age_limit, random.random(), self._lifetimes)  # noqa: S311

    def _failed(self, state: State, what: str, error: DiscoveryError) -> State:
        logger.error("%s: %s", what, error.message)
        return state.failed(self._clock(), random.random(), self._lifetimes)  # noqa: S311 - spreads load

    async def _jwks_uri(self) -> str:
        config = self._config
        given = config.jwks_uri or (config.metadata.jwks_uri if config.metadata is not None else None)
        if given is not None:
            return given
        metadata = await self._discover()
        if metadata.jwks_uri is None:
            msg = f"The metadata of {self.issuer} has no jwks_uri."
            raise InvalidServerMetadata(msg)
        return metadata.jwks_uri

    def _keep(self, keys: KeySet) -> None:
        for skipped in keys.skipped:
            logger.debug("Key %s of %s is not used: %s", skipped.kid, self.issuer, skipped.reason)
        if self.snapshot is None or self.snapshot.keys.identity != keys.identity:
            self.snapshot = Snapshot(keys, object())
            logger.info("Holding %d keys of %s (%d skipped)", len(keys.keys), self.issuer, len(keys.skipped))
