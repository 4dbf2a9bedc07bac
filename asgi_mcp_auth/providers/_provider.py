"""What a row of the provider table says: how one kind of access token of one provider looks, and what to set for it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ("Discovery", "Provider", "ResourceSupport", "frozen")

Discovery = Literal["oauth-inserted", "oidc-inserted", "oidc-appended"]
"""A well-known place, in MCP's order: RFC 8414 inserted, OpenID Connect inserted, OpenID Connect appended."""

ResourceSupport = Literal["yes", "setting", "no"]
"""Whether a client's `resource` (RFC 8707) decides the token's audience: always, once it is switched on, never."""

_HOLE = re.compile(r"\{[a-z]+\}")


def frozen(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping that nobody can change any more."""
    return MappingProxyType(dict(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One kind of access token of one provider.

    Args:
        slug: Its stable short name; the development server's dialect has the same one.
        name: As people call it.
        issuers: The shapes of its issuer, to the letter but for `{holes}`, which stand for anything without a slash.
        discovery: The well-known places that work, in MCP's order.
        typ: What the token's header may say; None for nothing.
        audience: What is in `aud`, for people.
        scope_claim: The claim with the scopes; None where there is none.
        scope_list: Whether that claim is a list, not a string.
        client_id_claim: The claim with the client's id; None where there is none.
        algorithm: The usual signature algorithm.
        key_alg: Whether the keys of its key set say their `alg`.
        resource: Whether it supports RFC 8707.
        usable: Whether its access tokens can protect an MCP server at all.
        config: The fields of `AuthServerConfig` to set, beside `issuer`; `<…>` is for you to fill in.
        policy: The fields of `ScopePolicy` to set.
        advice: What to do at the provider, and what to beware of.
        confidence: `"seen"` in a document or a dated report of the provider, or `"told"` by people who use it.
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
    resource: ResourceSupport
    usable: bool = True
    config: Mapping[str, Any] = field(default_factory=lambda: frozen({}))
    policy: Mapping[str, Any] = field(default_factory=lambda: frozen({}))
    advice: str
    confidence: Literal["seen", "told"] = "seen"

    def issues(self, issuer: str) -> bool:
        """Whether `issuer` has one of its shapes."""
        return any(_expression(shape).fullmatch(issuer) for shape in self.issuers)


@functools.cache
def _expression(shape: str) -> re.Pattern[str]:
    literal = map(re.escape, _HOLE.split(shape))
    return re.compile("[^/?#]+".join(literal))
