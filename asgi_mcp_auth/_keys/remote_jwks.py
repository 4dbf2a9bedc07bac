"""The living key set of one issuer: its metadata and its keys as living documents, and choosing a key among them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from asgi_mcp_auth._keys.cached_document import CachedDocument
from asgi_mcp_auth._keys.discovery import discover
from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth._oauth.http_cache import Freshness, seconds_until_fetch_allowed, stage, suspects_rotation
from asgi_mcp_auth._oauth.jwk_set import KeySet, UnknownKid, VerificationKey, parse_key_set
from asgi_mcp_auth._oauth.server_metadata import unfit_for_clients
from asgi_mcp_auth._oauth.urls import same_place
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig, JWKSCacheSettings
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError, InvalidServerMetadata, Reason, Unavailable, printable

if TYPE_CHECKING:
    from asgi_mcp_auth.status import IssuerStatus

__all__ = ("RemoteJWKS", "Snapshot")

logger = logging.getLogger("asgi_mcp_auth.keys")

METADATA_CACHE = JWKSCacheSettings(lifetime=3600.0, min_lifetime=300.0)
MAX_UNKNOWN_KIDS = 1000


class Snapshot:
    """Keys as they are held; `generation` is another object whenever a key came or went."""

    __slots__ = ("generation", "keys")

    def __init__(self, keys: KeySet, generation: object) -> None:
        self.keys = keys
        self.generation = generation


class RemoteJWKS:
    """The keys of one issuer.

    Args:
        issuer: The issuer identifier.
        config: Where its keys come from, and their clocks.
        static_keys: Keys given in the configuration; then nothing is ever fetched.
        fetcher: Fetches documents.
        clock: Seconds since the epoch.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        operator_named: Whether the configuration names the issuer.
        allow_private: Whether places that the configuration does not name may have addresses that are not public.
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
        operator_named: bool = True,
        allow_private: bool = False,
    ) -> None:
        self.issuer = issuer
        self.resources: set[str] = set()
        """The protected resources that trust it, as far as they are known."""
        self.refusals: Counter[str] = Counter()
        self._config = config
        self._clock = clock
        self._allow_http = allow_http
        self._operator_named = operator_named
        self._allow_private = allow_private
        self._hits = 0
        self._unknown_kids: dict[str, None] = {}
        self._told_unfit: set[str] = set()
        self._static_keys = static_keys
        self.reset(fetcher)

    def reset(self, fetcher: Fetcher) -> None:
        """Hold what the configuration gives and nothing else; what is being fetched by then will not be heard."""
        self._fetcher = fetcher
        config, clock = self._config, self._clock
        self._unknown_kids.clear()
        self._metadata = CachedDocument(
            "metadata", self.issuer, self._fetch_metadata, clock=clock, clocks=METADATA_CACHE
        )
        self.document = CachedDocument("keys", self.issuer, self._fetch_keys, clock=clock, clocks=config.jwks_cache)
        """The key set; another one after `begin`."""
        if config.metadata is not None and config.metadata.jwks_uri is not None:
            self._metadata.set_static(config.metadata)
        if self._static_keys is not None:
            self.document.set_static(Snapshot(self._static_keys, object()))

    @property
    def usable_now(self) -> bool:
        """Whether tokens can be verified now."""
        return stage(self.document.state, self._clock()) is not Freshness.UNUSABLE

    async def warm_up(self) -> bool:
        """Fetch unless fresh keys are held; whether keys can be used then."""
        if stage(self.document.state, self._clock()) is not Freshness.FRESH:
            await self.document.refresh()
        return self.usable_now

    def refresh_in_background(self) -> None:
        """Have the keys fetched in the background if they are not fresh and no pause forbids it."""
        now = self._clock()
        if stage(self.document.state, now) is not Freshness.FRESH:
            self.document.refresh_in_background(now)

    def usable(self, generation: object, now: float) -> bool:
        """Whether something verified with `generation` may still be believed; a set that is due is refreshed beside."""
        snapshot, state = self.document.value, self.document.state
        if snapshot is None or snapshot.generation is not generation:
            return False
        if state.fetched_at <= now < state.refresh_from:
            return True
        if stage(state, now) is Freshness.UNUSABLE:
            return False
        self.document.refresh_in_background(now)
        return True

    def get_cached(self, kid: str | None, alg: str) -> tuple[tuple[VerificationKey, ...], object] | None:
        """What `select` gives for most tokens, without waiting: a fresh set has this kid once, and for this `alg`."""
        snapshot, state = self.document.value, self.document.state
        if snapshot is None or not state.fetched_at <= self._clock() < state.refresh_from:
            return None
        found = snapshot.keys.exact.get((kid, alg))
        if found is None:
            return None
        self._hits += 1
        return found, snapshot.generation

    async def select(
        self, kid: str | None, alg: str, *, issued_at: float | None, leeway: float, max_without_kid: int
    ) -> tuple[tuple[VerificationKey, ...], object]:
        """The candidate keys for a token, and the generation they are of.

        Args:
            kid: From the token's header.
            alg: From the token's header.
            issued_at: The token's unverified `iat`: it tells a rotation from a guess inside the cool-down.
            leeway: Seconds of clock difference to allow for it.
            max_without_kid: How many candidates a token without kid may have.

        Raises:
            InvalidToken: No such key, or not exactly one.
            Unavailable: We hold no usable keys, or cannot tell yet.
        """
        begun_before = self.document.begun
        held = await self.document.current()
        if held is None:
            raise self._unavailable()
        try:
            found = held.keys.select(kid, alg, max_without_kid=max_without_kid)
        except UnknownKid:
            if self.document.given or self.document.answered > begun_before:  # asked since it arrived: nobody has it
                raise
            held = await self._look_for(kid, alg, issued_at, leeway)
        else:
            self._hits += 1
            return found, held.generation
        try:
            return held.keys.select(kid, alg, max_without_kid=max_without_kid), held.generation
        except UnknownKid:
            # A fetch that was under way may have begun before the key was published.
            if self.document.answered <= begun_before and suspects_rotation(self.document.state, issued_at, leeway):
                raise self._not_yet_known(kid, alg, self._config.jwks_cache.cool_down) from None
            self._remember_unknown(kid)
            raise

    async def _look_for(self, kid: str | None, alg: str, issued_at: float | None, leeway: float) -> Snapshot:
        """The key set fetched again for a kid that it did not have, unless that was done only just now.

        Raises:
            InvalidToken: It was, and the token is older than that.
            Unavailable: It was, and the key may have been published since; or it cannot be had.
        """
        state = self.document.state
        wait = seconds_until_fetch_allowed(state, self._clock(), cool_down=self._config.jwks_cache.cool_down)
        if wait:
            # A kid that was looked for is known not to be there; of any other, the clocks may differ by the leeway.
            if suspects_rotation(state, issued_at, 0.0 if kid in self._unknown_kids else leeway):
                raise self._not_yet_known(kid, alg, wait)
            raise UnknownKid(Reason.UNKNOWN_KID, kid=kid, alg=alg)
        told = "Unknown key id %s: fetching the key set of %s"
        logger.info(told, printable(kid), self.issuer, extra={"event": Event.UNKNOWN_KID.value, "issuer": self.issuer})
        if not await self.document.refresh() or self.document.value is None:
            raise self._unavailable()
        return self.document.value

    def _remember_unknown(self, kid: str | None) -> None:
        if kid is not None:
            if len(self._unknown_kids) >= MAX_UNKNOWN_KIDS:
                self._unknown_kids.pop(next(iter(self._unknown_kids)), None)
            self._unknown_kids[kid] = None

    def _unavailable(self) -> Unavailable:
        wait, error = seconds_until_fetch_allowed(self.document.state, self._clock()), self.document.error
        found = None if error is None else error.message
        return Unavailable(Reason.KEYS_UNAVAILABLE, issuer=self.issuer, found=found, retry_after=wait)

    def _not_yet_known(self, kid: str | None, alg: str, wait: float) -> Unavailable:
        age = self._clock() - self.document.state.fetched_at
        found = f"a key set fetched {age:.0f} s ago, and no other fetch for {wait:.0f} s"
        reason = Reason.KEY_NOT_YET_KNOWN
        return Unavailable(reason, issuer=self.issuer, kid=kid, alg=alg, found=found, retry_after=wait)

    async def metadata(self) -> AuthorizationServerMetadata:
        """The issuer's metadata to republish. Raises `DiscoveryError`."""
        held = self._config.metadata or await self._metadata.current()
        if held is None:
            msg = f"There is no metadata of {self.issuer}."
            raise self._metadata.error or DiscoveryError(msg, transient=True)
        return held

    async def _fetch_metadata(self) -> tuple[AuthorizationServerMetadata, float | None]:
        public_only = not (self._operator_named or self._allow_private)
        found = await discover(self._fetcher, self._config, allow_http=self._allow_http, public_only=public_only)
        for problem in unfit_for_clients(found.metadata, self._config, self.resources):
            if problem not in self._told_unfit:
                self._told_unfit.add(problem)
                extra = {"event": Event.METADATA_UNFIT.value, "issuer": self.issuer}
                logger.warning("The metadata of %s: %s", self.issuer, problem, extra=extra)
        return found

    async def _fetch_keys(self) -> tuple[Snapshot, float | None]:
        config = self._config
        url = config.jwks_uri or (config.metadata.jwks_uri if config.metadata is not None else None)
        discovered = url is None
        if url is None:
            url = await self._discovered_jwks_uri()
        vouched = not discovered or any(same_place(url, own) for own in (self.issuer, config.metadata_url or ""))
        named = self._operator_named and vouched
        try:
            fetched = await self._fetcher.fetch_json(url, public_only=not (named or self._allow_private))
            keys = parse_key_set(fetched.document)
        except DiscoveryError as error:
            if discovered and not error.transient:  # the key set may have moved
                self._metadata.invalidate()
            raise
        self._unknown_kids.clear()
        return self._snapshot(keys), fetched.lifetime

    async def _discovered_jwks_uri(self) -> str:
        """From metadata of our own time; it needs no brakes beside those of the keys."""
        if stage(self._metadata.state, self._clock()) is not Freshness.FRESH:
            await self._metadata.refresh_now()
        metadata = self._metadata.value
        if metadata is None or stage(self._metadata.state, self._clock()) is Freshness.UNUSABLE:
            msg = f"There is no metadata of {self.issuer}."
            raise self._metadata.error or DiscoveryError(msg, transient=True)
        if metadata.jwks_uri is None:
            self._metadata.invalidate()  # it may have one when next asked
            msg = f"The metadata of {self.issuer} has no jwks_uri."
            raise InvalidServerMetadata(msg)
        return metadata.jwks_uri

    def _snapshot(self, keys: KeySet) -> Snapshot:
        """The keys as they are held from now on; with the generation from before if they are the same."""
        held = self.document.value
        if held is not None and held.keys.identity == keys.identity:
            return Snapshot(keys, held.generation)
        for skipped in keys.skipped:
            extra = {"event": Event.KEY_SKIPPED.value, "issuer": self.issuer}
            logger.info("Key %s of %s is not used: %s", skipped.kid, self.issuer, skipped.reason, extra=extra)
        if held is not None:
            extra = {"event": Event.KEYS_CHANGED.value, "issuer": self.issuer}
            told = "The key set of %s has changed: %d keys (%d skipped)"
            logger.info(told, self.issuer, len(keys.keys), len(keys.skipped), extra=extra)
        return Snapshot(keys, object())

    def status(self) -> IssuerStatus:
        """Its picture at this moment."""
        from asgi_mcp_auth.status import IssuerStatus, KeyStatus, SkippedKey  # noqa: PLC0415

        now, held = self._clock(), self.document.value
        needs_metadata = not (self.document.given or self._config.jwks_uri)
        keys = () if held is None else held.keys.keys
        skipped = () if held is None else held.keys.skipped
        return IssuerStatus(
            issuer=self.issuer,
            key_set=self.document.status(now),
            metadata=self._metadata.status(now) if needs_metadata else None,
            keys=tuple(KeyStatus(kid=key.kid, algorithms=tuple(sorted(key.algorithms))) for key in keys),
            skipped=tuple(SkippedKey(position=n, kid=kid, reason=reason.value) for n, kid, reason in skipped),
            hits=self._hits,
            unknown_kids=len(self._unknown_kids),
            refusals=dict(self.refusals),
        )
