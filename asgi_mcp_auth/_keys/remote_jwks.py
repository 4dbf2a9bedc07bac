"""The key set of one issuer: its metadata and its keys as cached documents, and the selection of a key for a token."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

import anyio
import anyio.to_thread

from asgi_mcp_auth._keys.background import PerLoop, spawn
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.cached_document import CachedDocument
from asgi_mcp_auth._keys.discovery import discover
from asgi_mcp_auth._keys.http import Fetcher, RequestOptions
from asgi_mcp_auth._keys.key_cache import CachedKeys, KeyCache
from asgi_mcp_auth._oauth.http_cache import (
    Freshness,
    State,
    TokenBucket,
    seconds_until_fetch_allowed,
    stage,
    suspects_rotation,
)
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.jwk_set import KeySet, UnknownKid, VerificationKey, parse_key_set
from asgi_mcp_auth._oauth.server_metadata import insecure_url, unfit_for_clients
from asgi_mcp_auth._oauth.urls import same_place
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig, JWKSCacheSettings
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError, InvalidServerMetadata, Reason, Unavailable, printable
from asgi_mcp_auth.status import IssuerStatus, KeyStatus, SkippedKey

if TYPE_CHECKING:
    import httpx

__all__ = ("MAX_FETCHES_AT_ONCE", "RemoteJWKS", "Snapshot")

logger = logging.getLogger("asgi_mcp_auth.keys")

T = TypeVar("T")

METADATA_CACHE = JWKSCacheSettings(lifetime=3600.0, min_lifetime=300.0)
MAX_FETCHES_AT_ONCE = 16
MAX_UNKNOWN_KIDS = 1000
MAX_KEYS_ON_LOOP = 100
MAX_REPORTED = 100
UNKNOWN_KID_FETCHES_PER_MINUTE = 2


# The limits on concurrent fetches, all issuers together.
_slots = PerLoop("asgi_mcp_auth_fetches", lambda: anyio.CapacityLimiter(MAX_FETCHES_AT_ONCE))
_unproven_slots = PerLoop("asgi_mcp_auth_unproven_fetches", lambda: anyio.CapacityLimiter(MAX_FETCHES_AT_ONCE // 2))


@asynccontextmanager
async def _fetch_slot(*, proven: bool) -> AsyncGenerator[None]:
    """Wait until one more fetch may run. Fetches for unproven issuers leave half of the slots to the others."""
    async with AsyncExitStack() as stack:
        if not proven:
            await stack.enter_async_context(_unproven_slots.get())
        await stack.enter_async_context(_slots.get())
        yield


def _digest(kid: str) -> bytes:
    return hashlib.sha256(kid.encode("utf-8", "surrogatepass")).digest()


class Snapshot:
    """The keys of an issuer at one time; `generation` is another object whenever a key came or went."""

    __slots__ = ("generation", "keys")

    def __init__(self, keys: KeySet, generation: object) -> None:
        self.keys = keys
        self.generation = generation


class RemoteJWKS:
    """The keys of one issuer.

    Args:
        issuer: The issuer identifier.
        config: The source of the keys, and their cache settings.
        static_keys: Keys of the configuration; nothing is fetched then.
        fetcher: Fetches documents.
        clock: Seconds since the epoch.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        operator_named: Whether the configuration names the issuer.
        allow_private: Whether URLs that the configuration does not name may have addresses that are not public.
        proven: Whether the issuer is known to exist: the configuration or a resolver names it. True after a fetch.
        cache: Keeps the keys beyond this process; None to keep them here only.
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
        proven: bool = True,
        cache: KeyCache | None = None,
    ) -> None:
        self.issuer = issuer
        self.proven = proven
        self.resources: set[str] = set()
        """The protected resources that are known to trust the issuer."""
        self.refusals: Counter[str] = Counter()
        self._config = config
        self._clock = clock
        self._allow_http = allow_http
        self._operator_named = operator_named
        self._allow_private = allow_private
        self._hits = 0
        # Hashes, because key ids come from unverified tokens and may be long.
        self._unknown_kids: BoundedMap[bytes, bool] = BoundedMap(MAX_UNKNOWN_KIDS)
        self._reported_unfit: set[str] = set()
        self._static_keys = static_keys
        self._source = json.dumps([issuer, config.metadata_url, config.jwks_uri, _jwks_uri(config)])
        self.reset(fetcher, cache)

    def reset(self, fetcher: Fetcher, cache: KeyCache | None) -> None:
        """Drop everything that was fetched, fetches under way included."""
        self._fetcher = fetcher
        self._cache = cache
        config, clock = self._config, self._clock
        self._unknown_kids.clear()
        self._unknown_kid_fetches = TokenBucket(UNKNOWN_KID_FETCHES_PER_MINUTE)
        self._metadata = CachedDocument(
            "metadata", self.issuer, self._fetch_metadata, clock=clock, settings=METADATA_CACHE
        )
        self._metadata.reports_failures = False  # the record of the key set's failure has the same text
        self.document = CachedDocument(
            "keys",
            self.issuer,
            self._fetch_keys,
            clock=clock,
            settings=config.jwks_cache,
            load=None if cache is None else partial(self._load_keys, cache),
        )
        """The key set; another object after `reset`."""
        self.document.reports_failures = self.proven  # else anyone could fill the log
        if config.metadata is not None and config.metadata.jwks_uri is not None:
            self._metadata.set_static(config.metadata)
        if self._static_keys is not None:
            self.document.set_static(Snapshot(self._static_keys, object()))

    @property
    def usable_now(self) -> bool:
        """Whether tokens can be verified now."""
        return stage(self.document.state, self._clock()) is not Freshness.UNUSABLE

    @property
    def seconds_until_fetch_allowed(self) -> float:
        """The seconds that are left of the back-off after a failure."""
        return seconds_until_fetch_allowed(self.document.state, self._clock())

    async def warm_up(self) -> bool:
        """Fetch the keys unless they are fresh; return whether tokens can be verified then."""
        if stage(self.document.state, self._clock()) is not Freshness.FRESH:
            await self.document.refresh()
        return self.usable_now

    def refresh_in_background(self) -> None:
        """Fetch the keys in the background unless they are fresh, if the back-off allows it."""
        now = self._clock()
        if stage(self.document.state, now) is not Freshness.FRESH:
            self.document.refresh_in_background(now)

    def usable(self, generation: object, now: float) -> bool:
        """Return whether a token that was verified with the keys of `generation` is still accepted.

        A key set that is due or stale is refreshed in the background. The answer is False if it must be refreshed
        first: `select` does that.
        """
        snapshot, state, document = self.document.value, self.document.state, self.document
        if snapshot is None or snapshot.generation is not generation:
            return False
        if state.fetched_at <= now < state.refresh_from:
            return True
        if stage(state, now) is Freshness.UNUSABLE:
            return False
        if document.overdue(now):
            return seconds_until_fetch_allowed(state, now) > 0
        document.refresh_in_background(now)
        return True

    def get_cached(self, kid: str | None, alg: str) -> tuple[tuple[VerificationKey, ...], object] | None:
        """Return what `select` returns, without waiting; None unless a fresh key set has exactly one such key."""
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
        """Return the candidate keys for a token, and the generation of their key set.

        Args:
            kid: From the token's header.
            alg: From the token's header.
            issued_at: The token's unverified `iat`, which distinguishes a rotation from a guess if no fetch is allowed.
            leeway: Seconds of clock difference to allow for it.
            max_without_kid: How many candidates a token without kid may have.

        Raises:
            InvalidToken: There is no such key, or not exactly one.
            Unavailable: There are no usable keys, or the key may have been published since the last fetch.
        """
        document = self.document
        started_before, answered_before = document.started, document.answered
        held = await document.current()
        if held is None:
            raise self._unavailable()
        while True:
            try:
                found = held.keys.select(kid, alg, max_without_kid=max_without_kid)
            except UnknownKid:
                # A fetch that was under way before this request may have begun before the key was published.
                asked = document.answered > started_before or (
                    document.answered > answered_before and not suspects_rotation(document.state, issued_at, leeway)
                )
                if document.is_static:
                    raise
                if asked or self._is_known_unknown(kid, issued_at):
                    if kid is not None:
                        self._unknown_kids.put(_digest(kid), value=True)
                    raise
                held = await self._fetch_for_unknown_kid(kid, alg, issued_at, leeway)
            else:
                self._hits += 1
                return found, held.generation

    async def _fetch_for_unknown_kid(
        self, kid: str | None, alg: str, issued_at: float | None, leeway: float
    ) -> Snapshot:
        """Return the key set fetched again: by the fetch that is under way, else by one that the token bucket allows.

        Raises:
            UnknownKid: No fetch is allowed, and the token is older than the key set.
            Unavailable: No fetch is allowed, and the token may be newer than the key set; or the fetch failed.
        """
        document, now = self.document, self._clock()
        starts = not document.under_way
        if starts:
            wait = seconds_until_fetch_allowed(document.state, now) or self._unknown_kid_fetches.take(now)
            if wait:
                if suspects_rotation(document.state, issued_at, leeway):
                    raise self._not_yet_known(kid, alg, wait)
                raise UnknownKid(Reason.UNKNOWN_KID, kid=kid, alg=alg)
            message = "Unknown key id %s: fetching the key set of %s"
            self._log(logging.INFO, Event.UNKNOWN_KID, message, printable(kid), self.issuer)
        succeeded = await document.refresh_now()
        if succeeded and document.value is not None:
            return document.value
        if starts:
            self._unknown_kid_fetches.give_back()  # the back-off limits attempts after a failure
        raise self._unavailable()

    def _is_known_unknown(self, kid: str | None, issued_at: float | None) -> bool:
        """Return whether this kid was looked for in vain since a token of this age was issued."""
        if kid is None or self._unknown_kids.get(_digest(kid)) is None:
            return False
        return not suspects_rotation(self.document.state, issued_at, 0.0)

    def _unavailable(self) -> Unavailable:
        error = self.document.error
        found = None if error is None else error.message
        wait = self.seconds_until_fetch_allowed
        return Unavailable(Reason.KEYS_UNAVAILABLE, issuer=self.issuer, found=found, retry_after=wait)

    def _not_yet_known(self, kid: str | None, alg: str, wait: float) -> Unavailable:
        age = self._clock() - self.document.state.fetched_at
        found = f"a key set fetched {age:.0f} s ago, and no other fetch for {wait:.0f} s"
        reason = Reason.KEY_NOT_YET_KNOWN
        return Unavailable(reason, issuer=self.issuer, kid=kid, alg=alg, found=found, retry_after=wait)

    async def metadata(self) -> AuthorizationServerMetadata:
        """Return the issuer's metadata for republishing. Raises `DiscoveryError`."""
        self._metadata.reports_failures = True
        held = self._config.metadata or await self._metadata.current()
        if held is None:
            raise self._metadata.error or DiscoveryError(f"There is no metadata of {self.issuer}.", transient=True)
        return held

    async def endpoint(self, name: str) -> tuple[str, AuthorizationServerMetadata]:
        """Return the URL of an endpoint that the metadata names, and the metadata. Raises `DiscoveryError`."""
        metadata = await self.metadata()
        url: object = metadata.to_dict().get(name)
        why = insecure_url(url, allow_http=self._allow_http)
        if not isinstance(url, str) or why is not None:
            why = "is missing" if url is None else why
            raise InvalidServerMetadata(f"{name} in the metadata of {self.issuer} {why}.")
        return url, metadata

    def post(
        self,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        *,
        is_configured: bool,
        **request: Unpack[RequestOptions],
    ) -> Awaitable[T]:
        """Send a POST to an endpoint of the issuer; see `Fetcher.exchange`.

        Args:
            url: The URL of the endpoint.
            read: Reads the response.
            is_configured: Whether the configuration names the URL. Hosts that only the metadata names must be public.
            request: The header fields and the content.
        """
        request["method"] = "POST"
        public_only = self._is_public_only(url, is_configured=is_configured)
        return self._fetcher.exchange(url, read, public_only=public_only, **request)

    def _is_public_only(self, url: str, *, is_configured: bool) -> bool:
        """Return whether the host of a URL must be public: neither the configuration nor its own URLs name the host."""
        own_urls = (self.issuer, self._config.metadata_url or "")
        is_vouched = is_configured or any(same_place(url, own) for own in own_urls)
        return not ((self._operator_named and is_vouched) or self._allow_private)

    async def _fetch_metadata(self) -> tuple[AuthorizationServerMetadata, float | None]:
        public_only = not (self._operator_named or self._allow_private)
        async with _fetch_slot(proven=self.proven):
            found = await discover(self._fetcher, self._config, allow_http=self._allow_http, public_only=public_only)
        for problem in unfit_for_clients(found.metadata, self._config, self.resources):
            if problem not in self._reported_unfit and len(self._reported_unfit) < MAX_REPORTED:
                self._reported_unfit.add(problem)
                self._log(logging.WARNING, Event.METADATA_UNFIT, "The metadata of %s: %s", self.issuer, problem)
        return found

    async def _fetch_keys(self) -> tuple[Snapshot, float | None]:
        config, began = self._config, self._clock()
        url = config.jwks_uri or _jwks_uri(config)
        discovered = url is None
        if url is None:
            url = await self._discovered_jwks_uri()
        public_only = self._is_public_only(url, is_configured=not discovered)
        try:
            async with _fetch_slot(proven=self.proven):
                fetched = await self._fetcher.fetch_json(url, public_only=public_only)
            keys = await _parse(fetched.document)
        except DiscoveryError as error:
            if discovered and not error.transient:  # the key set may have moved
                self._metadata.invalidate()
            raise
        if self._metadata.error is not None:
            self._metadata.report_failure()  # else the record of the key set's failure reports it
        self.proven = self.document.reports_failures = True
        self._unknown_kids.clear()
        if self._cache is not None:
            usable = State().succeeded(began, fetched.lifetime, 0.0, config.jwks_cache).usable_until - began
            cached = CachedKeys(fetched.document, fetched.lifetime, began)
            spawn(partial(self._cache.save, self._source, cached, usable))
        return self._snapshot(keys), fetched.lifetime

    async def _load_keys(self, cache: KeyCache) -> tuple[Snapshot, float | None, float] | None:
        """Return the keys that another process fetched. They are parsed again: an unfit key is skipped again."""
        cached = await cache.load(self.issuer, self._source, self._clock())
        if cached is None:
            return None
        try:
            keys = await _parse(cached.document)
        except DiscoveryError:
            return None
        return self._snapshot(keys), cached.lifetime, cached.fetched_at

    async def _discovered_jwks_uri(self) -> str:
        """Return `jwks_uri` of metadata that is fresh, or cannot be refreshed now. The key set's back-off applies."""
        if stage(self._metadata.state, self._clock()) is not Freshness.FRESH:
            await self._metadata.refresh_now()
        metadata = self._metadata.value
        if metadata is None or stage(self._metadata.state, self._clock()) is Freshness.UNUSABLE:
            raise self._metadata.error or DiscoveryError(f"There is no metadata of {self.issuer}.", transient=True)
        if metadata.jwks_uri is None:
            self._metadata.invalidate()  # a newer document may have one
            raise InvalidServerMetadata(f"The metadata of {self.issuer} has no jwks_uri.")
        return metadata.jwks_uri

    def _snapshot(self, keys: KeySet) -> Snapshot:
        """Return the keys as a snapshot, of the present generation if the keys are the same."""
        held = self.document.value
        if held is not None and held.keys.identity == keys.identity:
            return Snapshot(keys, held.generation)
        for skipped in keys.skipped:
            message = "Key %s of %s is not used: %s"
            self._log(logging.INFO, Event.KEY_SKIPPED, message, skipped.kid, self.issuer, skipped.reason)
        if held is not None:
            message = "The key set of %s has changed: %d keys (%d skipped)"
            self._log(logging.INFO, Event.KEYS_CHANGED, message, self.issuer, len(keys.keys), len(keys.skipped))
        return Snapshot(keys, object())

    def _log(self, level: int, event: Event, message: str, *args: object) -> None:
        logger.log(level, message, *args, extra={"event": event.value, "issuer": self.issuer})

    def status(self) -> IssuerStatus:
        """Return a snapshot of what is known of the issuer."""
        now, held = self._clock(), self.document.value
        needs_metadata = not (self.document.is_static or self._config.jwks_uri)
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


def _jwks_uri(config: AuthServerConfig) -> str | None:
    """Return the URL of the keys if the configuration has the metadata."""
    return None if config.metadata is None else config.metadata.jwks_uri


async def _parse(document: JSONObject) -> KeySet:
    """Parse a key set; a large one on a thread, because the import of 1,000 keys takes about 80 ms."""
    entries = document.get("keys")
    if isinstance(entries, list) and len(entries) > MAX_KEYS_ON_LOOP:
        return await anyio.to_thread.run_sync(parse_key_set, document)
    return parse_key_set(document)
