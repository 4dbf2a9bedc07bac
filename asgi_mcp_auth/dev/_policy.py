"""The resources (RFC 8707) and scopes that the server can grant. This module does no I/O.

Resources are compared as the middleware compares audiences: the case of scheme and host, a default port and an empty
path are normalised, nothing else. The `aud` of a token is the configured identifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url, same_resource
from asgi_mcp_auth.dev._errors import OAuthError

__all__ = ("OFFLINE", "OPENID", "Policy", "ScopeSet")

OFFLINE: Final = "offline_access"
OPENID: Final = "openid"
MAX_SCOPES = 64
MAX_RESOURCES = 16


class ScopeSet(NamedTuple):
    """Scopes of resources, and whether the request has `offline_access` and `openid`, which concern the client."""

    scopes: tuple[str, ...]
    offline: bool = False
    openid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The resources and scopes that the server knows.

    Attributes:
        resources: Resource identifiers. Empty: any resource on loopback.
        scopes: Scopes that can be granted. Empty: any scope.
        default_scopes: The scopes of a request without a scope.
    """

    resources: tuple[str, ...]
    scopes: tuple[str, ...]
    default_scopes: tuple[str, ...]

    def _identifier(self, requested: str) -> str:
        """Return the configured identifier of a resource, which a client may spell differently."""
        url = parse_url(requested)
        if url is None or url.fragment is not None:
            raise OAuthError("invalid_target", "A resource has to be an absolute URL without a fragment.")
        for resource in self.resources:
            configured = parse_url(resource)
            if configured is not None and same_resource(requested, configured):
                return resource
        if not self.resources and url.scheme in ("http", "https") and is_loopback(url.host):
            return requested
        raise OAuthError("invalid_target", "This server issues no tokens for the resource.")

    def resources_to_authorize(self, requested: Iterable[str]) -> tuple[str, ...]:
        """Return the resources of an authorization: the requested ones, or else the only configured one.

        Clients of MCP 2025-03-26 send no resource.

        Raises:
            OAuthError: `invalid_target`.
        """
        named = tuple(dict.fromkeys(map(self._identifier, requested)))
        if len(named) > MAX_RESOURCES:
            raise OAuthError("invalid_target", f"The request has more than {MAX_RESOURCES} resources.")
        if named:
            return named
        if len(self.resources) == 1:
            return self.resources
        raise OAuthError("invalid_target", "The parameter resource is missing: it names the audience of the token.")

    def narrowed_resources(self, requested: Iterable[str], authorized: tuple[str, ...]) -> tuple[str, ...]:
        """Return the resources of a token: the requested authorized ones, or else all (RFC 8707 section 2.2).

        Raises:
            OAuthError: `invalid_target`: a requested resource was not authorized.
        """
        named = tuple(dict.fromkeys(self._authorized(resource, authorized) for resource in requested))
        return named or authorized

    def _authorized(self, requested: str, authorized: tuple[str, ...]) -> str:
        identifier = self._identifier(requested)
        url = parse_url(identifier)
        for resource in authorized:
            if url is not None and same_resource(resource, url):
                return resource
        raise OAuthError("invalid_target", "The resource was not authorized.")

    def scopes_to_grant(self, requested: str | None) -> ScopeSet:
        """Return the part of a `scope` parameter that can be granted, in its order; without scopes the defaults.

        `offline_access` and `openid` are scopes of a resource only if they are configured.

        Raises:
            OAuthError: `invalid_scope`: malformed, or no scope can be granted.
        """
        named = _split(requested)
        special = tuple(scope for scope in named if scope in (OFFLINE, OPENID) and scope not in self.scopes)
        wanted = tuple(scope for scope in named if scope not in special) or self.default_scopes
        allowed = tuple(scope for scope in wanted if not self.scopes or scope in self.scopes)
        if wanted and not allowed:
            raise OAuthError("invalid_scope", "None of the scopes can be granted.")
        return ScopeSet(allowed, OFFLINE in named, OPENID in named)

    def narrowed_scopes(self, requested: str | None, granted: ScopeSet) -> ScopeSet:
        """Return the scopes of a refreshed token: the granted ones or fewer (OAuth 2.1 section 4.3).

        Raises:
            OAuthError: `invalid_scope`: malformed, or more than was granted.
        """
        named = _split(requested)
        if not named:
            return granted
        special = {scope for scope, held in ((OFFLINE, granted.offline), (OPENID, granted.openid)) if held}
        if set(named) - set(granted.scopes) - special:
            raise OAuthError("invalid_scope", "The grant does not cover every scope.")
        kept = tuple(scope for scope in named if scope in granted.scopes)
        return granted._replace(scopes=kept or granted.scopes)

    def covers(self, resources: tuple[str, ...], scopes: tuple[str, ...]) -> bool:
        """Return whether resources and scopes that were granted before a restart can still be granted."""
        try:
            same = tuple(map(self._identifier, resources)) == resources
        except OAuthError:
            return False
        return same and (not self.scopes or set(scopes) <= set(self.scopes))


def _split(text: str | None) -> tuple[str, ...]:
    """Return the tokens of a scope parameter, each once (RFC 6749 section 3.3)."""
    tokens = tuple(token for token in dict.fromkeys((text or "").split(" ")) if token)
    if len(tokens) > MAX_SCOPES or not all(map(is_scope, tokens)):
        raise OAuthError("invalid_scope", f"The scope is malformed, or has more than {MAX_SCOPES} tokens.")
    return tokens
