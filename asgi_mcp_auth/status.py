"""What the library knows at one moment: `MCPAuth.status()`, as frozen values that serialise; and its log events.

Seconds throughout. Nothing here is secret: key ids and issuers are public, tokens and key material do not appear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, cast

from asgi_mcp_auth.decisions import Event

__all__ = (
    "DocumentStatus",
    "Event",
    "IssuerStatus",
    "KeyStatus",
    "PoolStatus",
    "ResourceStatus",
    "SkippedKey",
    "Status",
    "TokenCacheStatus",
)


State = Literal["given", "empty", "fresh", "due", "stale", "unusable"]
"""Given in the configuration; nothing held yet; fresh; fresh and about to be refreshed; stale but used; too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentStatus:
    """A remote document.

    Attributes:
        state: Where on its clocks it is.
        age: Since it was fetched.
        next_refresh: Until a request would have it fetched again; 0 when the next one does.
        usable_for: Until it is too old to be used.
        fetches: How often it was asked for, failures included.
        failures: How often in a row that has failed.
        last_error: Why the last fetch failed, while it is the last.
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
    """A key that is used, and the algorithms it may verify."""

    kid: str | None
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedKey:
    """An entry of a key set that is not used: its place, its kid (escaped) and why."""

    position: int
    kid: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerStatus:
    """One issuer, as this process knows it.

    Attributes:
        issuer: The issuer identifier.
        key_set: Its key set.
        metadata: Its metadata; None where none is needed.
        keys: The keys that are used.
        skipped: The entries that are not.
        hits: How often a held key was found for a new token.
        unknown_kids: How many key ids are remembered as not in this key set.
        refusals: Tokens refused, by reason code.
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
    """The verified tokens that one resource remembers.

    Attributes:
        entries: How many.
        size: How many at most.
        bytes: The memory they take, estimated: never less than it is.
        max_bytes: How much at most.
        hits: Requests with a token that was remembered.
        misses: Requests with another one, for which a key was found.
        evictions: Tokens forgotten for want of room.
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
    """The issuers that were admitted by a pattern or a resolver."""

    entries: int
    size: int
    evictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatus:
    """One protected resource: its caches, and by reason the tokens it refused before an issuer was known."""

    resource: str
    token_cache: TokenCacheStatus | None
    pool: PoolStatus | None
    refusals: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything, at one moment of the configuration's clock.

    Attributes:
        at: Seconds since the epoch.
        issuers: The issuers named in the configuration, and those in the pools.
        resources: The protected resources.
        ready: Whether the keys of every issuer named in the configuration can be used.
    """

    at: float
    issuers: tuple[IssuerStatus, ...]
    resources: tuple[ResourceStatus, ...]
    ready: bool

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return cast("dict[str, Any]", _plain(self))


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return dict(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else value
