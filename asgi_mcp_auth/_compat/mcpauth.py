"""`MCPAuth.bearer_auth_middleware`: protecting one mounted app for one resource, the way `mcpauth` does it.

The same middleware over a configuration narrowed to that resource. As there, the app keeps the raw token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from asgi_mcp_auth._oauth.access_token import check_audience
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth._verify.verifier import CallableVerifier, VerifyFunction
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver, ResourceServerConfig
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import ConfigurationError, InsufficientScope, InvalidToken, Problem, Refusal
from asgi_mcp_auth.exceptions import BearerAuthExceptionCode
from asgi_mcp_auth.middleware import MCPAuthMiddleware

if TYPE_CHECKING:
    from asgi_mcp_auth.auth import MCPAuth

__all__ = ("bearer_auth_middleware",)


def bearer_auth_middleware(
    auth: MCPAuth,
    mode_or_verify: Literal["jwt"] | VerifyFunction,
    *,
    audience: str | None,
    required_scopes: Sequence[str],
    show_error_details: bool,
    leeway: float,
    resource: str | None,
) -> type[MCPAuthMiddleware]:
    """See `MCPAuth.bearer_auth_middleware`."""
    mode: object = mode_or_verify
    if mode != "jwt" and not callable(mode):
        fix = "Give 'jwt', or a function from a token to an AuthInfo."
        raise ConfigurationError([Problem("mode_or_verify", f"{show(mode)} is neither.", fix)])
    config = _narrow_config(_find(auth, resource), audience, required_scopes, leeway)
    narrowed = auth.narrowed(config)
    if callable(mode_or_verify):
        compiled = narrowed.site.resources[0]
        narrowed.verifiers = (narrowed.guard(_custom_verifier(narrowed, compiled, mode_or_verify)),)

    class BearerAuthMiddleware(MCPAuthMiddleware):
        """Protects one mounted app for one resource."""

        def __init__(self, app: Any) -> None:
            super().__init__(app, auth=narrowed)
            self.show_error_details = show_error_details

    return BearerAuthMiddleware


def _find(auth: MCPAuth, resource: str | None) -> ResourceServerConfig:
    known = {config.metadata.resource: config for config in auth.configs}
    if resource is None and len(known) == 1:
        return next(iter(known.values()))
    if resource not in known:
        fix = f"Give one of {', '.join(map(show, known))}, to the letter."
        raise ConfigurationError([Problem("resource", f"{show(resource)} is not a configured resource.", fix)])
    return known[resource]


def _narrow_config(
    config: ResourceServerConfig, audience: str | None, required_scopes: Sequence[str], leeway: float
) -> ResourceServerConfig:
    """The resource with the middleware's own audience, leeway and scopes."""
    servers: list[str | AuthServerConfig | IssuerResolver] = []
    for server in config.metadata.authorization_servers:
        if callable(server):  # a resolver answers for itself
            servers.append(server)
            continue
        own = AuthServerConfig(issuer=server) if isinstance(server, str) else server
        extra = [] if audience in (None, config.metadata.resource) else [str(audience)]
        servers.append(replace(own, leeway=leeway, extra_audiences=(*own.extra_audiences, *extra)))
    default = tuple(dict.fromkeys((*config.policy.default, *required_scopes)))
    scopes_supported = config.metadata.scopes_supported
    listed = config.policy.default if scopes_supported is None else scopes_supported
    metadata = replace(config.metadata, authorization_servers=servers, scopes_supported=listed)
    return replace(config, metadata=metadata, policy=replace(config.policy, default=default))


def _custom_verifier(auth: MCPAuth, resource: CompiledResource, verify: VerifyFunction) -> CallableVerifier:
    def translated(refusal: Refusal) -> Refusal:
        if refusal.code != BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES:
            return refusal
        named = getattr(refusal.cause, "missing_scopes", None) or ()
        return InsufficientScope(required=tuple(dict.fromkeys((*resource.policy.baseline.named, *named))))

    by_issuer = {trusted.rules.issuer: trusted.rules for trusted in resource.trust.named}
    return CallableVerifier(
        verify,
        allowed_clients={issuer: rules.allowed_clients for issuer, rules in by_issuer.items()},
        translate=translated,
        issuers=frozenset(by_issuer),
        resource=resource.identifier,
        accepts_audience=_audience_check(lambda info: by_issuer[info.issuer]),
        clock=auth.clock,
        expose_token=auth.expose_token,
        hooks=auth.hooks,
    )


def _audience_check(rules_of: Callable[[AuthInfo], Any]) -> Callable[[AuthInfo], bool]:
    def accepts(info: AuthInfo) -> bool:
        audience = list(info.audience) if isinstance(info.audience, tuple) else info.audience
        try:
            check_audience(audience, rules_of(info), info.scopes, info.client_id)
        except InvalidToken:
            return False
        return True

    return accepts
