"""The values that `MCPAuth.status()` returns: a snapshot of issuers, keys and caches; and the log events.

All times are in seconds. A snapshot contains no secret: issuers and key ids are public, and there are no tokens and no
key material.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, cast

from asgi_mcp_auth._oauth.json_types import is_mapping
from asgi_mcp_auth.decisions import Event

__all__ = (
    "DocumentStatus",
    "Event",
    "ExchangeStatus",
    "IntrospectionStatus",
    "IssuerStatus",
    "KeyStatus",
    "PoolStatus",
    "ResourceStatus",
    "RevocationStatus",
    "SkippedKey",
    "Status",
    "StoreStatus",
    "TokenCacheStatus",
)


State = Literal["given", "empty", "fresh", "due", "stale", "unusable"]
"""The cache state of a remote document.

`given`: static, from the configuration. `empty`: not fetched yet. `fresh`: used. `due`: used, and the next request
refreshes it in the background. `stale`: expired and still used (`stale_if_error`). `unusable`: too old to be used.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentStatus:
    """The cache status of a metadata document or key set.

    Attributes:
        state: The cache state.
        age: Seconds since the fetch; None before the first fetch.
        next_refresh: Seconds until a request causes a refresh; 0 if the next request does; None without a refresh.
        usable_for: Seconds until the document is too old to be used; None without a limit.
        fetches: The number of fetches, failed ones included.
        failures: The number of fetches that have failed since the last success.
        last_error: The error of the last fetch; None if it succeeded.
    """

    state: State
    age: float | None = None
    next_refresh: float | None = None
    usable_for: float | None = None
    fetches: int = 0
    failures: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """A key that is used.

    Attributes:
        kid: The key id; None if there is none.
        algorithms: The algorithms that the key may verify.
    """

    kid: str | None
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedKey:
    """A JWK that is not used.

    Attributes:
        position: The index in the key set, from 0.
        kid: The key id, escaped; None if there is none.
        reason: Why the key is not used.
    """

    position: int
    kid: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerStatus:
    """The status of one issuer in this process.

    Attributes:
        issuer: The issuer identifier.
        key_set: The cache status of its key set.
        metadata: The cache status of its metadata document; None if no metadata is needed.
        keys: The keys that are used.
        skipped: The keys that are not used.
        hits: The number of new tokens whose key was in the cached key set.
        unknown_kids: The number of key ids that are cached as absent from the key set.
        refusals: The number of rejected tokens, by reason code.
    """

    issuer: str
    key_set: DocumentStatus
    metadata: DocumentStatus | None
    keys: tuple[KeyStatus, ...]
    skipped: tuple[SkippedKey, ...]
    hits: int
    unknown_kids: int
    refusals: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCacheStatus:
    """The status of the token cache of one resource.

    Attributes:
        entries: The number of cached tokens.
        size: The largest number of cached tokens (`token_cache_size`).
        bytes: The estimated memory of the cached tokens in bytes; the estimate is never too low.
        max_bytes: The limit of `bytes` (`token_cache_bytes`).
        hits: The number of requests with a cached token.
        misses: The number of requests with another token for which a key was found.
        evictions: The number of tokens that were removed because the cache was full.
    """

    entries: int
    size: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The status of the pool of issuers that a pattern or a resolver admitted.

    Attributes:
        entries: The number of issuers in the pool.
        size: The largest number of issuers (`issuer_pool_size`).
        evictions: The number of issuers that were removed because the pool was full.
    """

    entries: int
    size: int
    evictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionStatus:
    """The status of the introspection of opaque tokens for one resource.

    Attributes:
        issuer: The issuer identifier.
        active: The number of cached active answers.
        inactive: The number of cached inactive answers.
        hits: The number of requests that a cached answer decided.
        calls: The number of calls to the introspection endpoint.
        under_way: The number of tokens that are waiting for an answer.
        failures: The number of calls that have failed since the last answer.
        retry_in: Seconds until the next call is allowed; 0 if calls are allowed now.
        last_error: Why the last call failed; None if it succeeded.
        refusals: The number of rejected tokens, by reason code.
    """

    issuer: str
    active: int
    inactive: int
    hits: int
    calls: int
    under_way: int
    failures: int
    retry_in: float
    last_error: str | None
    refusals: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeStatus:
    """The status of token exchange at one issuer.

    Attributes:
        issuer: The issuer identifier.
        entries: The number of cached tokens.
        exchanged: The number of tokens that the issuer has issued.
        cached: The number of exchanges that a cached token answered.
        refused: The number of exchanges that the issuer has refused, by the reason of the `ExchangeError`.
        failed: The number of exchanges without an answer that can be used.
        under_way: The number of exchanges that are waiting for an answer.
        failures: The number of calls that have failed since the last answer.
        retry_in: Seconds until the next call is allowed; 0 if calls are allowed now.
        last_error: Why the last call failed; None if it succeeded.
    """

    issuer: str
    entries: int
    exchanged: int
    cached: int
    refused: Mapping[str, int]
    failed: int
    under_way: int
    failures: int
    retry_in: float
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatus:
    """The status of one protected resource.

    Attributes:
        resource: The resource identifier.
        token_cache: The status of its token cache; None if the cache is disabled.
        pool: The status of its issuer pool; None if it has neither patterns nor a resolver.
        refusals: The number of tokens that were rejected before their issuer was known, by reason code.
        introspection: The status of the introspection of opaque tokens; None if there is none.
    """

    resource: str
    token_cache: TokenCacheStatus | None
    pool: PoolStatus | None
    refusals: Mapping[str, int]
    introspection: IntrospectionStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """The status of the shared store as this process sees it.

    Attributes:
        store: The class of the store.
        state: `unused` before the first call, `working`, or `failing` since the last call failed.
        calls: The number of calls, failed ones included.
        failures: The number of calls that have failed since the last success.
        failing_for: Seconds since the first of these failures; None if the store works.
        last_error: The type and text of the last error; None if the store works.
        warning: Why the store may drop entries before their time; None if it says that it does not.
    """

    store: str
    state: Literal["unused", "working", "failing"]
    calls: int
    failures: int
    failing_for: float | None = None
    last_error: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationStatus:
    """The status of this process's copy of the revocations.

    Attributes:
        watermarks: The number of watermarks of each kind: token, session, subject, client and claim.
        age: Seconds since the copy was current; None if it never was.
        usable: Whether requests are served with the copy (`revocation_stale_if_error`).
    """

    watermarks: Mapping[str, int]
    age: float | None
    usable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A snapshot of all issuers and resources.

    Attributes:
        at: The time of the snapshot in seconds since the epoch, from the configured clock.
        issuers: The issuers that the configuration names, and the issuers in the pools.
        resources: The protected resources.
        ready: Whether the tokens of every issuer that the configuration names can be verified, and the store works.
        store: The status of the shared store; None if there is none.
        revocation: The status of the copy of the revocations; None if revocation is off.
        exchanges: The status of token exchange at each issuer; empty without `token_exchange`.
    """

    at: float
    issuers: tuple[IssuerStatus, ...]
    resources: tuple[ResourceStatus, ...]
    ready: bool
    store: StoreStatus | None = None
    revocation: RevocationStatus | None = None
    exchanges: tuple[ExchangeStatus, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as plain JSON values."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return dict(value) if is_mapping(value) else value
