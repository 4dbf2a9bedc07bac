"""The issuers that a resource trusts, and the key sets of all issuers.

Named and preloaded issuers are found in a dict. Other issuers, which a pattern or a resolver admits, live in a bounded
pool; the least recently used issuer leaves first. Their names come from unverified tokens, so everything about them is
bounded.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._keys.key_cache import KeyCache
from asgi_mcp_auth._keys.probation import Probation
from asgi_mcp_auth._keys.remote_jwks import MAX_FETCHES_AT_ONCE, RemoteJWKS
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth._policy.issuers import IssuerSet, OtherIssuers, may_be_issuer
from asgi_mcp_auth._policy.trusted_issuer import TrustedIssuer
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import ConfigurationError, InvalidToken, Reason, Unavailable, printable
from asgi_mcp_auth.status import PoolStatus

if TYPE_CHECKING:
    from asgi_mcp_auth.status import IssuerStatus

__all__ = ("Issuers", "KeySets", "Trusted")

logger = logging.getLogger("asgi_mcp_auth.issuers")

MAX_DENIED = 1000
MAX_ASKING = 64
DENIED_SECONDS = 30.0
TRUSTED_SECONDS = 300.0
RESOLVER_SECONDS = 10.0
MIN_WARM_UP_PAUSE = 0.1
MAX_EXPECTED = 8  # issuers that a log record names


def _key(trusted: TrustedIssuer) -> Hashable:
    """Return what a key set is made of. Resources that trust an issuer in the same way share one key set."""
    config, issuer = trusted.config, trusted.template or trusted.identifier
    # Static keys by value: a resolver may change its JWK Set in place.
    static = None if trusted.static_keys is None else trusted.static_keys.identity
    source = (config.type, config.metadata, config.metadata_url, config.transpile_data, config.jwks_uri)
    return (issuer, source, static, config.jwks_cache)


class KeySets:
    """The key sets of all issuers, shared by all resources. Those of the configuration live as long as this object.

    Args:
        fetcher: Fetches documents.
        clock: Seconds since the epoch.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        allow_private: Whether addresses that are not public were dangerously allowed everywhere.
        unproven_fetches_per_minute: The budget for issuers that match a pattern and were never fetched, in total.
        cache: Keeps the keys of issuers that the configuration names beyond this process; None for no such cache.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        clock: Callable[[], float],
        allow_http: bool,
        allow_private: bool,
        unproven_fetches_per_minute: int,
        cache: KeyCache | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._clock = clock
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._named: set[RemoteJWKS] = set()
        self._preloaded: set[RemoteJWKS] = set()
        # A pool, or a token that was verified with it, keeps the key set of another issuer alive.
        self._all: WeakValueDictionary[tuple[Hashable, bool], RemoteJWKS] = WeakValueDictionary()
        self._probation = Probation(self.admitted, clock=clock, fetches_per_minute=unproven_fetches_per_minute)

    def named(self, trusted: TrustedIssuer) -> RemoteJWKS:
        """Return the key set of an issuer that the configuration names."""
        keys = self._get(trusted, named=True, proven=True)
        self._named.add(keys)
        return keys

    def asked(self, trusted: TrustedIssuer, *, needs_keys: bool) -> RemoteJWKS:
        """Return the object that knows the endpoints of an issuer; readiness includes its keys if they are needed."""
        return self.named(trusted) if needs_keys else self._get(trusted, named=True, proven=True)

    def preloaded(self, trusted: TrustedIssuer) -> RemoteJWKS:
        """Return the key set of an issuer that a pattern preloads. Readiness does not depend on it."""
        keys = self._get(trusted, named=True, proven=True)
        self._preloaded.add(keys)
        return keys

    def admitted(self, trusted: TrustedIssuer, proven: bool) -> RemoteJWKS:
        """Return the key set of an issuer that a resolver or a pattern admits.

        A resolver vouches for the issuer, which is proven then, but not for its URLs.
        """
        return self._get(trusted, named=False, proven=proven)

    async def matched(self, trusted: TrustedIssuer) -> RemoteJWKS:
        """Return the key set of an issuer that matches a pattern, once it has usable keys.

        Raises:
            Unavailable: It has none now.
        """
        key = (_key(trusted), False)
        keys = self._all.get(key)
        if keys is not None and keys.usable_now:
            keys.resources.add(trusted.rules.resource)
            return keys
        return await self._probation.prove(key, trusted)

    def _get(self, trusted: TrustedIssuer, *, named: bool, proven: bool) -> RemoteJWKS:
        key = (_key(trusted), named)
        keys = self._all.get(key)
        if keys is None:
            keys = self._all[key] = RemoteJWKS(
                trusted.template or trusted.identifier,
                trusted.config,
                trusted.static_keys,
                fetcher=self._fetcher,
                clock=self._clock,
                allow_http=self._allow_http,
                operator_named=named,
                allow_private=self._allow_private,
                proven=proven,
                cache=self._cache if named else None,
            )
        keys.resources.add(trusted.rules.resource)
        return keys

    async def warm_up(self) -> tuple[str, ...]:
        """Fetch keys of named and preloaded issuers that are not fresh; return named issuers without usable keys."""
        limit = anyio.CapacityLimiter(MAX_FETCHES_AT_ONCE)  # so that no time limit passes while a fetch waits

        async def one(keys: RemoteJWKS) -> None:
            async with limit:
                await keys.warm_up()

        async with anyio.create_task_group() as group:
            for keys in (*self._named, *self._preloaded):
                group.start_soon(one, keys)
        return self.unusable()

    async def warm_up_within(self, seconds: float) -> tuple[str, ...]:
        """Warm up again and again, as back-offs allow, until every named issuer has usable keys or `seconds` are over.

        Return the named issuers without usable keys.
        """
        with anyio.move_on_after(seconds):
            while await self.warm_up():
                pauses = [keys.seconds_until_fetch_allowed for keys in self._named if not keys.usable_now]
                await anyio.sleep(max(MIN_WARM_UP_PAUSE, min(pauses, default=0.0)))
        missing = self.unusable()
        if missing:
            logger.error("No usable keys of %s after %.0f s of warm-up", ", ".join(missing), seconds)
        return missing

    @contextmanager
    def fetching_with(self, new_client: ClientFactory) -> Generator[None]:
        """For tests: fetch with other clients within the block. What was fetched before is dropped at both ends."""
        before, cache = self._fetcher, self._cache
        self._reset(Fetcher(new_client), None)
        try:
            yield
        finally:
            self._reset(before, cache)

    def _reset(self, fetcher: Fetcher, cache: KeyCache | None) -> None:
        self._fetcher, self._cache = fetcher, cache
        self._probation.reset()
        for (_, named), keys in tuple(self._all.items()):
            keys.reset(fetcher, cache if named else None)

    def unusable(self) -> tuple[str, ...]:
        """Return the named issuers whose keys cannot be used now."""
        return tuple(sorted(keys.issuer for keys in self._named if not keys.usable_now))

    def missing(self) -> tuple[str, ...]:
        """Return what `unusable` returns, and refresh keys that are not fresh in the background."""
        for keys in self._named:
            keys.refresh_in_background()
        return self.unusable()

    def status(self) -> tuple[IssuerStatus, ...]:
        """Return a snapshot of every key set, sorted by issuer, without those of issuers that were never fetched."""
        known = [keys for keys in self._all.values() if keys.proven]
        return tuple(keys.status() for keys in sorted(known, key=lambda keys: keys.issuer))


class Trusted:
    """An issuer, the rules for its tokens, its keys, and the time until which it is trusted without asking again."""

    __slots__ = ("issuer", "keys", "rules", "until")

    def __init__(self, issuer: TrustedIssuer, keys: RemoteJWKS, until: float = float("inf")) -> None:
        self.issuer = issuer
        self.rules = issuer.rules
        self.keys = keys
        self.until = until

    def check_key_issuers(self, keys: tuple[VerificationKey, ...]) -> None:
        """Check that a key of a shared key set, if it names an issuer, names this token's issuer.

        Raises:
            InvalidToken: The key is another tenant's.
        """
        template = self.issuer.template
        if template is None:
            return
        for key in keys:
            if key.issuer not in (None, template, self.rules.issuer):
                raise InvalidToken(Reason.KEY_MISMATCH, expected=self.rules.issuer, found=f"a key of {key.issuer}")


class Issuers:
    """The issuers that one resource trusts.

    Args:
        trust: The issuers that the configuration names, tenants included, and what admits others.
        key_sets: The key sets of all issuers.
        clock: Seconds since the epoch.
        pool_size: The greatest number of other issuers to hold.
    """

    def __init__(
        self,
        trust: IssuerSet,
        key_sets: KeySets,
        *,
        clock: Callable[[], float],
        pool_size: int,
    ) -> None:
        named = {issuer.rules.issuer: Trusted(issuer, key_sets.named(issuer)) for issuer in trust.named}
        preloaded = {issuer.rules.issuer: Trusted(issuer, key_sets.preloaded(issuer)) for issuer in trust.preloaded}
        more = f" and {len(named) - MAX_EXPECTED} more" if len(named) > MAX_EXPECTED else ""
        self._expected = " ".join([*named][:MAX_EXPECTED]) + more
        self._configured = named | preloaded
        self._others = trust.others
        self._key_sets = key_sets
        self._clock = clock
        self._pool: BoundedMap[str, Trusted] = BoundedMap(pool_size)
        self._evictions = 0
        self._denied: BoundedMap[str, float] = BoundedMap(MAX_DENIED)
        self._asking: dict[str, SingleFlight[Trusted | Reason]] = {}

    def get_cached(self, claimed: object) -> Trusted | None:
        """Return the issuer that a token names if it is configured or in the pool; None if `find` must look further."""
        if type(claimed) is not str:
            return None
        configured = self._configured.get(claimed)
        if configured is not None or self._others is None:
            return configured
        resident = self._pool.get(claimed)
        return None if resident is None or self._clock() >= resident.until else resident

    async def find(self, claimed: object) -> Trusted:
        """Return the issuer that a token names.

        Raises:
            InvalidToken: The issuer is not trusted.
            Unavailable: Whether it is trusted cannot be decided now, or its keys cannot be fetched.
        """
        trusted = self.get_cached(claimed)
        if trusted is not None:
            return trusted
        if self._others is None or not may_be_issuer(claimed):
            raise self._unknown(claimed)
        issuer = claimed
        matching = self._others.match(issuer)
        if matching is not None:
            return self._admit(issuer, Trusted(matching, await self._key_sets.matched(matching)))
        if self._others.resolver is None or self._clock() < (self._denied.get(issuer) or 0.0):
            raise self._unknown(issuer)
        return await self._ask(issuer, self._others)

    def pool_status(self) -> PoolStatus | None:
        """Return a snapshot of the pool; None if neither a pattern nor a resolver can admit issuers."""
        if self._others is None:
            return None
        return PoolStatus(entries=len(self._pool), size=self._pool.size, evictions=self._evictions)

    def _unknown(self, claimed: object) -> InvalidToken:
        return InvalidToken(Reason.UNKNOWN_ISSUER, expected=self._expected, found=claimed)

    def _admit(self, issuer: str, trusted: Trusted) -> Trusted:
        if self._pool.get(issuer) is None:
            self._log(Event.ISSUER_ADMITTED, "Trusting the issuer %s", issuer)
        for evicted in self._pool.put(issuer, trusted):
            self._evictions += 1
            self._log(Event.ISSUER_EVICTED, "Forgetting the issuer %s, the least recently used", evicted)
        return trusted

    async def _ask(self, issuer: str, others: OtherIssuers) -> Trusted:
        """Call the resolver, once at a time for each issuer."""
        flight = self._asking.get(issuer)
        if flight is None:
            if len(self._asking) >= MAX_ASKING:
                raise Unavailable(Reason.KEYS_UNAVAILABLE, issuer=issuer, found=f"{MAX_ASKING} others being resolved")
            flight = self._asking[issuer] = SingleFlight(partial(self._resolve, issuer, others))
        answer = await flight.join()
        if isinstance(answer, Trusted):
            return answer
        if answer is Reason.UNKNOWN_ISSUER:
            raise self._unknown(issuer)
        raise Unavailable(Reason.HOOK_FAILED, issuer=issuer, found="the issuer resolver", retry_after=1.0)

    async def _resolve(self, issuer: str, others: OtherIssuers) -> Trusted | Reason:
        config: object = Ellipsis
        try:
            assert others.resolver is not None  # noqa: S101 - `find` has checked it
            with anyio.move_on_after(RESOLVER_SECONDS):
                answer = others.resolver(issuer)
                config = await answer if inspect.isawaitable(answer) else answer
            if config is None:
                self._deny(issuer)
                return Reason.UNKNOWN_ISSUER
            if not isinstance(config, AuthServerConfig):
                returned = "did not return in time" if config is Ellipsis else f"returned a {type(config).__name__}"
                message = "The issuer resolver %s for %s. It must return an AuthServerConfig or None."
                logger.error(message, returned, printable(issuer))
                return Reason.HOOK_FAILED
            compiled = others.compile(issuer, config)
            keys = self._key_sets.admitted(compiled, True)
            return self._admit(issuer, Trusted(compiled, keys, self._clock() + TRUSTED_SECONDS))
        except ConfigurationError as error:
            logger.error("The issuer resolver's configuration of %s: %s", printable(issuer), error)  # noqa: TRY400 - the text is complete
            return Reason.HOOK_FAILED
        except Exception:  # the user's code: an exception of any type admits no issuer
            logger.exception("The issuer resolver failed for %s", printable(issuer))
            return Reason.HOOK_FAILED
        finally:
            self._asking.pop(issuer, None)

    def _deny(self, issuer: str) -> None:
        if self._pool.pop(issuer) is not None:
            self._log(Event.ISSUER_WITHDRAWN, "The issuer %s is no longer trusted", issuer)
        self._denied.put(issuer, self._clock() + DENIED_SECONDS)

    def _log(self, event: Event, message: str, issuer: str) -> None:
        logger.info(message, printable(issuer), extra={"event": event.value, "issuer": issuer})
