"""The issuers that one resource trusts: those the configuration names, and those that a pattern or a resolver admits.

Named ones cost a look-up. Others live in a bounded pool, the least recently used leaving first; what admits them
is asked once at a time for each, and their names came with an unverified token, so everything here is bounded.
"""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.access_token import TokenRules
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth._policy.issuers import IssuerSet, TokenBucket, TrustedIssuer, may_be_issuer
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import ConfigurationError, InvalidToken, Reason, Unavailable, printable

if TYPE_CHECKING:
    from asgi_mcp_auth.status import IssuerStatus, PoolStatus

__all__ = (
    "Issuers",
    "KeySets",
    "Trusted",
)

MAX_AT_ONCE = 32


class KeySets:
    """Makes and shares living key sets; it holds those of issuers that the configuration names.

    Args:
        fetcher: Fetches documents.
        clock: Seconds since the epoch.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        allow_private: Whether addresses that are not public were dangerously allowed everywhere.
    """

    def __init__(self, fetcher: Fetcher, *, clock: Callable[[], float], allow_http: bool, allow_private: bool) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._named: dict[int, RemoteJWKS] = {}
        # Those of a pool live as long as a pool, or a token verified with them, holds them.
        self._all: WeakValueDictionary[object, RemoteJWKS] = WeakValueDictionary()

    def named(self, trusted: TrustedIssuer) -> RemoteJWKS:
        """The key set of an issuer that the configuration names."""
        keys = self._of(trusted, named=True)
        self._named[id(keys)] = keys
        return keys

    def admitted(self, trusted: TrustedIssuer) -> RemoteJWKS:
        """The key set of an issuer that a pattern or a resolver admitted: its places are not the operator's word."""
        return self._of(trusted, named=False)

    def _of(self, trusted: TrustedIssuer, *, named: bool) -> RemoteJWKS:
        config, issuer = trusted.config, trusted.template or trusted.identifier
        source = (config.type, config.metadata, config.metadata_url, config.transpile_data, config.jwks_uri)
        key = (issuer, source, id(config.jwks), config.jwks_cache, named)
        keys = self._all.get(key)
        if keys is None:
            keys = self._all[key] = RemoteJWKS(
                issuer,
                config,
                trusted.static_keys,
                fetcher=self._fetcher,
                clock=self._clock,
                allow_http=self._allow_http,
                operator_named=named,
                allow_private=self._allow_private,
            )
        keys.resources.add(trusted.rules.resource)
        return keys

    async def warm_up(self) -> tuple[str, ...]:
        """Fetch what is not fresh of the issuers that the configuration names; those whose keys cannot be had."""
        import anyio  # noqa: PLC0415

        failed: list[str] = []
        limit = anyio.CapacityLimiter(MAX_AT_ONCE)

        async def one(keys: RemoteJWKS) -> None:
            async with limit:
                if not await keys.warm_up():
                    failed.append(keys.issuer)

        async with anyio.create_task_group() as group:
            for keys in tuple(self._named.values()):
                group.start_soon(one, keys)
        return tuple(failed)

    @contextmanager
    def fetching_with(self, new_client: ClientFactory) -> Generator[None]:
        """For tests: within the block other clients fetch, and nothing that was fetched crosses its ends."""
        before = self._fetcher
        self._begin(Fetcher(new_client))
        try:
            yield
        finally:
            self._begin(before)

    def _begin(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        for keys in tuple(self._all.values()):
            keys.reset(fetcher)

    def unusable(self) -> tuple[str, ...]:
        """The named issuers whose keys cannot be used now."""
        return tuple(keys.issuer for keys in self._named.values() if not keys.usable_now)

    def missing(self) -> tuple[str, ...]:
        """The same; what is not fresh is fetched in the background, if no pause forbids it."""
        for keys in self._named.values():
            keys.refresh_in_background()
        return self.unusable()

    def status(self) -> tuple[IssuerStatus, ...]:
        """The picture of every key set, pools included, by issuer."""
        return tuple(keys.status() for keys in sorted(self._all.values(), key=lambda keys: keys.issuer))


logger = logging.getLogger("asgi_mcp_auth.issuers")

MAX_DENIED = 1000
MAX_ASKING = 64
DENIED_SECONDS = 30.0
TRUSTED_SECONDS = 300.0
RESOLVER_SECONDS = 10.0


class Trusted:
    """An issuer, what its tokens have to be like, its keys, and how long it may be trusted without asking again."""

    __slots__ = ("issuer", "keys", "rules", "until")

    def __init__(self, issuer: TrustedIssuer, rules: TokenRules, keys: RemoteJWKS, until: float = float("inf")) -> None:
        self.issuer = issuer
        self.rules = rules
        self.keys = keys
        self.until = until

    def check_key_issuers(self, keys: tuple[VerificationKey, ...]) -> None:
        """With a key set for many tenants, a key that names an issuer is for that one's tokens only.

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
    """Finds what verifies an issuer's tokens, or refuses the issuer.

    Args:
        trust: The issuers that the resource names, tenants included, and what admits others.
        key_sets: Makes and shares their key sets.
        clock: Seconds since the epoch.
        pool_size: How many others to hold.
    """

    def __init__(
        self,
        trust: IssuerSet,
        key_sets: KeySets,
        *,
        clock: Callable[[], float],
        pool_size: int,
    ) -> None:
        self._named = {
            issuer.rules.issuer: Trusted(issuer, issuer.rules, key_sets.named(issuer)) for issuer in trust.named
        }
        named = list(self._named)
        self._expected = " ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")  # noqa: PLR2004
        self._others = trust.others
        self._key_sets = key_sets
        self._clock = clock
        self._size = pool_size
        self._evictions = 0
        self._pool: OrderedDict[str, Trusted] = OrderedDict()
        self._denied: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, SingleFlight[Trusted | Reason]] = {}
        self._allowance = TokenBucket(1 if trust.others is None else trust.others.new_per_minute)

    def get_cached(self, claimed: object) -> Trusted | None:
        """The issuer that a token claims to be of, if it is named or in the pool; else `find` has to ask."""
        if type(claimed) is not str:
            return None
        named = self._named.get(claimed)
        if named is not None or self._others is None:
            return named
        resident = self._pool.get(claimed)
        if resident is None or self._clock() >= resident.until:
            return None
        try:  # noqa: SIM105 - as in the token cache
            self._pool.move_to_end(claimed)
        except KeyError:  # evicted meanwhile by another thread's event loop
            pass
        return resident

    async def find(self, claimed: object) -> Trusted:
        """The issuer that a token claims to be of.

        Raises:
            InvalidToken: It is not trusted.
            Unavailable: That cannot be told now.
        """
        trusted = self.get_cached(claimed)
        if trusted is not None:
            return trusted
        if self._others is None or not may_be_issuer(claimed):
            raise self._unknown(claimed)
        issuer, now = cast("str", claimed), self._clock()
        matching = self._others.match(issuer)
        if matching is not None:
            wait = self._allowance.take(now)
            if wait:
                found = f"more than {self._others.new_per_minute} new issuers in a minute"
                raise Unavailable(Reason.KEYS_UNAVAILABLE, issuer=issuer, found=found, retry_after=wait)
            return self._admit(issuer, matching, float("inf"))
        if self._others.resolver is None or now < self._denied.get(issuer, now):
            raise self._unknown(issuer)
        return await self._ask(issuer)

    def pool_status(self) -> PoolStatus | None:
        """The picture of the pool; None where nothing can get into it."""
        if self._others is None:
            return None
        from asgi_mcp_auth.status import PoolStatus  # noqa: PLC0415

        return PoolStatus(entries=len(self._pool), size=self._size, evictions=self._evictions)

    def _unknown(self, claimed: object) -> InvalidToken:
        return InvalidToken(Reason.UNKNOWN_ISSUER, expected=self._expected, found=claimed)

    def _admit(self, issuer: str, trusted: TrustedIssuer, until: float) -> Trusted:
        admitted = Trusted(trusted, trusted.rules, self._key_sets.admitted(trusted), until)
        resident = self._pool.pop(issuer, None)
        self._pool[issuer] = admitted
        if resident is None:
            self._log(Event.ISSUER_ADMITTED, "Trusting the issuer %s", issuer)
        if len(self._pool) > self._size:
            evicted, _ = self._pool.popitem(last=False)
            self._evictions += 1
            self._log(Event.ISSUER_EVICTED, "Forgetting the issuer %s, the least recently used", evicted)
        return admitted

    async def _ask(self, issuer: str) -> Trusted:
        """Ask the resolver, once at a time for each issuer."""
        flight = self._asking.get(issuer)
        if flight is None:
            if len(self._asking) >= MAX_ASKING:
                raise Unavailable(Reason.KEYS_UNAVAILABLE, issuer=issuer, found=f"{MAX_ASKING} others being resolved")
            flight = self._asking[issuer] = SingleFlight(partial(self._resolve, issuer))
        answer = await flight.join()
        if isinstance(answer, Trusted):
            return answer
        if answer is Reason.UNKNOWN_ISSUER:
            raise self._unknown(issuer)
        raise Unavailable(Reason.HOOK_FAILED, issuer=issuer, found="the issuer resolver", retry_after=1.0)

    async def _resolve(self, issuer: str) -> Trusted | Reason:
        import anyio  # noqa: PLC0415

        others = self._others
        assert others is not None  # noqa: S101 - asked only then
        assert others.resolver is not None  # noqa: S101
        config: object = Ellipsis
        try:
            with anyio.move_on_after(RESOLVER_SECONDS):
                answer = others.resolver(issuer)
                config = await answer if inspect.isawaitable(answer) else answer
            if config is None:
                self._deny(issuer)
                return Reason.UNKNOWN_ISSUER
            if not isinstance(config, AuthServerConfig):
                told = "no answer in time" if config is Ellipsis else type(config).__name__
                logger.error("The issuer resolver gave %s for %s, not an AuthServerConfig", told, printable(issuer))
                return Reason.HOOK_FAILED
            return self._admit(issuer, others.compile(issuer, config), self._clock() + TRUSTED_SECONDS)
        except ConfigurationError as error:
            logger.error("The issuer resolver's configuration of %s: %s", printable(issuer), error)  # noqa: TRY400 - it says it all
            return Reason.HOOK_FAILED
        except Exception:  # the user's code: whatever it is, it names no issuer
            logger.exception("The issuer resolver failed for %s", printable(issuer))
            return Reason.HOOK_FAILED
        finally:
            self._asking.pop(issuer, None)

    def _deny(self, issuer: str) -> None:
        if self._pool.pop(issuer, None) is not None:
            self._log(Event.ISSUER_WITHDRAWN, "The issuer %s is no longer trusted", issuer)
        if len(self._denied) >= MAX_DENIED:
            self._denied.popitem(last=False)
        self._denied[issuer] = self._clock() + DENIED_SECONDS
        self._denied.move_to_end(issuer)

    def _log(self, event: Event, message: str, issuer: str) -> None:
        logger.info(message, printable(issuer), extra={"event": event.value, "issuer": issuer})
