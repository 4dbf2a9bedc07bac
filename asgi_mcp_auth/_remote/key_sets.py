"""The key sets of one configuration: shared by resources that configure an issuer alike, and never otherwise."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from asgi_mcp_auth._protocol.issuer import TrustedIssuer
from asgi_mcp_auth._remote.http import ClientFactory, Fetcher
from asgi_mcp_auth._remote.jwks import LivingKeySet

if TYPE_CHECKING:
    from asgi_mcp_auth.status import IssuerStatus

__all__ = ("KeySets",)

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
        self._named: dict[int, LivingKeySet] = {}
        # Those of a pool live as long as a pool, or a token verified with them, holds them.
        self._all: WeakValueDictionary[object, LivingKeySet] = WeakValueDictionary()

    def named(self, trusted: TrustedIssuer) -> LivingKeySet:
        """The key set of an issuer that the configuration names."""
        keys = self._of(trusted, named=True)
        self._named[id(keys)] = keys
        return keys

    def admitted(self, trusted: TrustedIssuer) -> LivingKeySet:
        """The key set of an issuer that a pattern or a resolver admitted: its places are not the operator's word."""
        return self._of(trusted, named=False)

    def _of(self, trusted: TrustedIssuer, *, named: bool) -> LivingKeySet:
        config, issuer = trusted.config, trusted.template or trusted.rules.issuer
        source = (config.type, config.metadata, config.metadata_url, config.transpile_data, config.jwks_uri)
        key = (issuer, source, id(config.jwks), config.key_set_clocks, named)
        keys = self._all.get(key)
        if keys is None:
            keys = self._all[key] = LivingKeySet(
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

        async def one(keys: LivingKeySet) -> None:
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
            keys.begin(fetcher)

    def unusable(self) -> tuple[str, ...]:
        """The named issuers whose keys cannot be used now."""
        return tuple(keys.issuer for keys in self._named.values() if not keys.usable_now)

    def missing(self) -> tuple[str, ...]:
        """The same; what is not fresh is fetched in the background, if no pause forbids it."""
        for keys in self._named.values():
            keys.refresh_beside()
        return self.unusable()

    def status(self) -> tuple[IssuerStatus, ...]:
        """The picture of every key set, pools included, by issuer."""
        return tuple(keys.status() for keys in sorted(self._all.values(), key=lambda keys: keys.issuer))
