"""Functions behind the `MCPAuth` methods that the library `mcpauth` has: a middleware class and a metadata router."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from asgi_mcp_auth._asgi.small_apps import MetadataApp
from asgi_mcp_auth._compat.mcpauth_exceptions import BearerAuthExceptionCode
from asgi_mcp_auth._oauth.access_token import check_audience
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._protection import MakeVerifier, Protection, ProtectionBuilder
from asgi_mcp_auth._verify.verifier import CallableVerifier, VerifyFunction
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver, ResourceServerConfig
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import (
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    Problem,
    Refusal,
)
from asgi_mcp_auth.middleware import ProtectedApp

if TYPE_CHECKING:
    from starlette.routing import Router

__all__ = ("bearer_auth_middleware", "resource_metadata_router")


def resource_metadata_router(protection: Protection) -> Router:
    """Return a Starlette router with one route per metadata path; see `MCPAuth.resource_metadata_router`."""
    from starlette.routing import Route, Router  # noqa: PLC0415 - an optional package

    protection.warnings.documents_served_separately = True
    app = MetadataApp(protection.config)
    return Router(routes=[Route(unquote(path.decode("ascii")), endpoint=app) for path in protection.config.documents])


def bearer_auth_middleware(
    builder: ProtectionBuilder,
    config: ResourceServerConfig,
    mode_or_verify: Literal["jwt"] | VerifyFunction,
    *,
    audience: str | None,
    required_scopes: Sequence[str],
    show_error_details: bool,
    leeway: float,
) -> type[ProtectedApp]:
    """Return a middleware class for one resource; see `MCPAuth.bearer_auth_middleware`."""
    mode = unchecked(mode_or_verify)
    if mode != "jwt" and not callable(mode):
        fix = "Pass 'jwt', or a function that takes a token and returns an AuthInfo."
        what = f"{show(mode)} is neither 'jwt' nor a function."
        raise ConfigurationError([Problem("mode_or_verify", what, fix)])
    narrowed = builder.narrowed()
    compiled = narrowed.compile(_narrow_config(config, audience, required_scopes, leeway), Problems())
    make_verifier: MakeVerifier | None = None
    if callable(mode_or_verify):
        make_verifier = partial(_custom_verifier, verify=mode_or_verify, clock=narrowed.clock)
    protection = narrowed.build(replace(compiled, documents={}), make_verifier, show_error_details=show_error_details)

    class BearerAuthMiddleware(ProtectedApp):
        """A middleware that protects one mounted app for one resource."""

        def __init__(self, app: Any) -> None:
            super().__init__(app, protection)

    return BearerAuthMiddleware


def _narrow_config(
    config: ResourceServerConfig, audience: str | None, required_scopes: Sequence[str], leeway: float
) -> ResourceServerConfig:
    """Return the configuration of the resource with the audience, leeway and scopes of one middleware."""
    servers: list[str | AuthServerConfig | IssuerResolver] = []
    for server in config.metadata.authorization_servers:
        if callable(server):  # the configuration that a resolver returns has its own audience and leeway
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


def _custom_verifier(
    resource: CompiledResource, verify: VerifyFunction, clock: Callable[[], float]
) -> CallableVerifier:
    def translated(refusal: Refusal) -> Refusal:
        if refusal.code != BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES:
            return refusal
        named = getattr(refusal.cause, "missing_scopes", None) or ()
        return InsufficientScope(required=tuple(dict.fromkeys((*resource.policy.baseline.named, *named))))

    def accepts_audience(info: AuthInfo) -> bool:
        audience = list(info.audience) if isinstance(info.audience, tuple) else info.audience
        try:
            check_audience(audience, by_issuer[info.issuer], info.scopes, info.client_id)
        except InvalidToken:
            return False
        return True

    by_issuer = {trusted.rules.issuer: trusted.rules for trusted in resource.trust.named}
    return CallableVerifier(
        verify,
        allowed_clients={issuer: rules.allowed_clients for issuer, rules in by_issuer.items()},
        translate=translated,
        issuers=frozenset(by_issuer),
        resource=resource.identifier,
        accepts_audience=accepts_audience,
        clock=clock,
        expose_token=True,
    )
