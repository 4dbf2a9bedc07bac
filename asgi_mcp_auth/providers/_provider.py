"""The type of a row: the shape of one kind of access token of one provider, and the settings for it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ("Discovery", "Provider", "ResourceSupport", "frozen")

Discovery = Literal["oauth-inserted", "oidc-inserted", "oidc-appended"]
"""The form of a metadata URL, in MCP's order: RFC 8414 inserted, OpenID Connect inserted, OpenID Connect appended."""

ResourceSupport = Literal["yes", "setting", "no"]
"""Whether a client's `resource` (RFC 8707) sets the audience: always, after a setting at the provider, never."""

_PLACEHOLDER = re.compile(r"\{[a-z]+\}")


def frozen(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a read-only copy of a mapping."""
    return MappingProxyType(dict(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One kind of access token of one provider.

    Args:
        slug: Its stable short name, which is also the name of its dialect in the development server.
        name: Its name for people.
        issuers: The patterns of its issuer. `{name}` matches one or more characters except `/`, `?` and `#`; the rest
            is compared exactly.
        discovery: The metadata URLs that work, in MCP's order.
        typ: The values of the `typ` header member; None for a header without it.
        audience: A description of `aud` for people.
        scope_claim: The claim with the scopes; None if there is none.
        scope_list: Whether the scope claim is a list.
        client_id_claim: The claim with the client id; None if there is none.
        algorithm: The default signature algorithm.
        key_alg: Whether the keys of its key set have `alg`.
        resource: Whether it supports RFC 8707.
        usable: Whether its access tokens can protect an MCP server.
        dialect: Whether the development server can issue tokens of this shape.
        config: The fields of `AuthServerConfig` to set in addition to `issuer`; replace `<…>` with your value.
        policy: The fields of `ScopePolicy` to set.
        exchange: The fields of `TokenExchange` to set, for calls of upstream APIs.
        advice: The settings at the provider, and known problems.
        confidence: `"documented"` by the provider (documents, source code, dated reports), or `"reported"` by users.
    """

    slug: str
    name: str
    issuers: tuple[str, ...]
    discovery: tuple[Discovery, ...]
    typ: tuple[str | None, ...]
    audience: str
    scope_claim: str | None = "scope"
    scope_list: bool = False
    client_id_claim: str | None = "client_id"
    algorithm: str = "RS256"
    key_alg: bool = True
    resource: ResourceSupport = "no"
    usable: bool = True
    dialect: bool = True
    config: Mapping[str, Any] = field(default_factory=lambda: frozen({}))
    policy: Mapping[str, Any] = field(default_factory=lambda: frozen({}))
    exchange: Mapping[str, Any] = field(default_factory=lambda: frozen({}))
    advice: str
    confidence: Literal["documented", "reported"] = "documented"

    def matches(self, issuer: str) -> bool:
        """Return whether `issuer` matches one of the patterns."""
        return any(_expression(pattern).fullmatch(issuer) for pattern in self.issuers)


@functools.cache
def _expression(pattern: str) -> re.Pattern[str]:
    literal = map(re.escape, _PLACEHOLDER.split(pattern))
    return re.compile("[^/?#]+".join(literal))
