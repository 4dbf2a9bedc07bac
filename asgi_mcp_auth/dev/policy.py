"""What may be granted: resources (RFC 8707) and scopes, compared and narrowed. Pure.

A resource is compared as the middleware compares audiences: case of scheme and host, a default port and an empty path
are normalised, nothing else; what goes into `aud` is the configured identifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url, same_resource
from asgi_mcp_auth.dev.errors import OAuthError

__all__ = ("OFFLINE", "OPENID", "Policy", "ScopesAsked")

OFFLINE: Final = "offline_access"
OPENID: Final = "openid"
MAX_SCOPES = 64
MAX_RESOURCES = 16


class ScopesAsked(NamedTuple):
    """Scopes that can be granted: those of resources, and the two that are none of a resource's business."""

    scopes: tuple[str, ...]
    offline: bool = False
    openid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The resources and scopes that the server knows.

    Args:
        resources: Resource identifiers; none for any resource on this machine.
        scopes: Scopes that may be granted; none for any scope.
        default_scopes: What a request gets that names none.
    """

    resources: tuple[str, ...]
    scopes: tuple[str, ...]
    default_scopes: tuple[str, ...]

    def _identifier(self, asked: str) -> str:
        """The configured identifier of a resource that a client names in its own spelling."""
        url = parse_url(asked)
        if url is None or url.fragment is not None:
            raise OAuthError("invalid_target", "A resource is an absolute URL without a fragment.")
        for resource in self.resources:
            configured = parse_url(resource)
            if configured is not None and same_resource(asked, configured):
                return resource
        if not self.resources and url.scheme in ("http", "https") and is_loopback(url.host):
            return asked
        raise OAuthError("invalid_target", "This server issues no tokens for the resource.")

    def resources_to_authorize(self, asked: Iterable[str]) -> tuple[str, ...]:
        """The resources of an authorization: those asked for, or the only one there is (clients of 2025-03-26).

        Raises:
            OAuthError: `invalid_target`.
        """
        named = tuple(dict.fromkeys(map(self._identifier, asked)))
        if len(named) > MAX_RESOURCES:
            raise OAuthError("invalid_target", "Too many resources.")
        if named:
            return named
        if len(self.resources) == 1:
            return self.resources
        raise OAuthError("invalid_target", "Say with the parameter resource what the token is to be for.")

    def narrowed_resources(self, asked: Iterable[str], authorized: tuple[str, ...]) -> tuple[str, ...]:
        """The resources of a token: those asked for, each authorized before, or all that were (RFC 8707 section 2.2).

        Raises:
            OAuthError: `invalid_target`.
        """
        named = tuple(dict.fromkeys(self._among(resource, authorized) for resource in asked))
        return named or authorized

    def _among(self, asked: str, authorized: tuple[str, ...]) -> str:
        identifier = self._identifier(asked)
        url = parse_url(identifier)
        for resource in authorized:
            if url is not None and same_resource(resource, url):
                return resource
        raise OAuthError("invalid_target", "The resource was not authorized.")

    def scopes_to_grant(self, asked: str | None) -> ScopesAsked:
        """What of a `scope` parameter can be granted, in the order of the request; the defaults if it names none.

        `offline_access` and `openid` are about the client, and no scopes of a resource, unless they are configured.

        Raises:
            OAuthError: `invalid_scope`: malformed, or nothing is left.
        """
        named = _split(asked)
        special = tuple(scope for scope in named if scope in (OFFLINE, OPENID) and scope not in self.scopes)
        wanted = tuple(scope for scope in named if scope not in special)
        if not wanted:
            wanted = self.default_scopes
        allowed = tuple(scope for scope in wanted if not self.scopes or scope in self.scopes)
        if wanted and not allowed:
            raise OAuthError("invalid_scope", "None of the scopes can be granted.")
        return ScopesAsked(allowed, OFFLINE in named, OPENID in named)

    def narrowed_scopes(self, asked: str | None, granted: ScopesAsked) -> ScopesAsked:
        """The scopes of a refreshed token: the same, or fewer (OAuth 2.1 section 4.3).

        Raises:
            OAuthError: `invalid_scope`: malformed, or wider.
        """
        named = _split(asked)
        if not named:
            return granted
        special = {scope for scope, held in ((OFFLINE, granted.offline), (OPENID, granted.openid)) if held}
        if set(named) - set(granted.scopes) - special:
            raise OAuthError("invalid_scope", "The grant does not cover every scope.")
        kept = tuple(scope for scope in named if scope in granted.scopes)
        return granted._replace(scopes=kept or granted.scopes)


def _split(text: str | None) -> tuple[str, ...]:
    """The tokens of a scope parameter, each once (RFC 6749 section 3.3)."""
    named = tuple(dict.fromkeys((text or "").split(" ")))
    tokens = tuple(token for token in named if token)
    if len(tokens) > MAX_SCOPES or not all(map(is_scope, tokens)):
        raise OAuthError("invalid_scope", "The scope is malformed, or has too many tokens.")
    return tokens
