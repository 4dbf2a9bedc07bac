"""`MCPAuth`: a configuration, checked and compiled once, that protects any number of apps.

It holds no event-loop object: one instance survives a fork after preload, several event loops, and trio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import anyio

from asgi_mcp_auth._protocol.options import check_options
from asgi_mcp_auth._protocol.problems import Problems
from asgi_mcp_auth._protocol.resource import CompiledResource, MetadataSigner
from asgi_mcp_auth._protocol.site import Site, compile_site
from asgi_mcp_auth._protocol.urls import is_loopback
from asgi_mcp_auth._remote.http import ClientFactory, Fetcher
from asgi_mcp_auth._remote.jwks import LivingKeySet
from asgi_mcp_auth._remote.settings import FromSettings
from asgi_mcp_auth._remote.verifiers import IsRevoked, JWTVerifier, RevocationCheck, Verifier, VerifyFunction
from asgi_mcp_auth.config import ResourceServerConfig
from asgi_mcp_auth.context import AuthInfo, current_auth
from asgi_mcp_auth.decisions import Observer, RefusalLog

if TYPE_CHECKING:
    from starlette.routing import Router

    from asgi_mcp_auth._asgi.token_verifier import TokenVerifier
    from asgi_mcp_auth._asgi.wellknown import MetadataApp
    from asgi_mcp_auth._protocol.issuer import TrustedIssuer
    from asgi_mcp_auth.middleware import MCPAuthMiddleware

__all__ = ("MCPAuth", "MCPAuthOptions")

logger = logging.getLogger("asgi_mcp_auth.config")


class MCPAuthOptions(TypedDict, total=False):
    """The keyword options of `MCPAuth`, which `MCPAuthMiddleware` takes too."""

    public_paths: Sequence[str]
    allowed_origins: Sequence[str]
    allowed_hosts: Sequence[str]
    websockets: bool
    expose_token: bool
    reject_query_token: bool
    republish_server_metadata: bool
    metadata_signer: MetadataSigner | None
    verifier: Verifier | None
    is_revoked: IsRevoked | None
    on_decision: Sequence[Observer]
    http_client: ClientFactory | None
    token_cache_size: int
    clock: Callable[[], float]
    dangerously_allow_http: bool


class MCPAuth(FromSettings):
    """One or several protected resources, with everything a request needs compiled.

    Args:
        protected_resources: One `ResourceServerConfig` or several. One owns every path; of several, the one with
            the longest path prefix owns a path, and a path that none owns is answered 404.
        public_paths: Paths the app serves without a token: exact, or `"/x/*"` for `/x` and all below it.
        allowed_origins: Web origins that may call, beside the resource's own (and loopback, for a loopback
            resource); `["*"]` for any. Browsers only: a request without `Origin` is not affected.
        allowed_hosts: Accepted `Host` values, `host` or `host:port`. The check is on when this is given or a
            resource is a loopback URL.
        websockets: False refuses websockets even with a good token.
        expose_token: True leaves the raw token to the app: the header, `AuthInfo.token`, the SDK's `AccessToken`.
            Never forward it upstream (MCP: no token passthrough).
        reject_query_token: Answer 400 to `?access_token=`, instead of ignoring it.
        republish_server_metadata: Serve the authorization server's metadata at our own well-known place, for
            clients of MCP 2025-03-26. Needs exactly one issuer.
        metadata_signer: Makes `signed_metadata`: a callable from the claims (`iss` included) to a JWS.
        verifier: Verifies credentials instead of the JWT verification, for all resources (opaque tokens, say). What
            it accepts is believed: issuer, audience and expiry are its business.
        is_revoked: Asked about every accepted token, sync or async; anything but False refuses it, an
            exception means 503. See `asgi_mcp_auth.stores.RevocationList`.
        on_decision: Observers, each called with one `Decision` per request; they must not block.
        http_client: A zero-argument factory of an `httpx.AsyncClient`, used for one fetch and closed.
        token_cache_size: How many verified tokens to remember per resource; 0 for none.
        clock: Seconds since the epoch, for tests.
        dangerously_allow_http: Accept http issuers and resources beyond loopback. Tokens and keys then cross
            the network in the clear.

    Raises:
        ConfigurationError: With every problem of the configuration at once.
    """

    def __init__(
        self,
        protected_resources: ResourceServerConfig | Iterable[ResourceServerConfig],
        *,
        public_paths: Sequence[str] = (),
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] = (),
        websockets: bool = True,
        expose_token: bool = False,
        reject_query_token: bool = False,
        republish_server_metadata: bool = False,
        metadata_signer: MetadataSigner | None = None,
        verifier: Verifier | None = None,
        is_revoked: IsRevoked | None = None,
        on_decision: Sequence[Observer] = (),
        http_client: ClientFactory | None = None,
        token_cache_size: int = 10_000,
        clock: Callable[[], float] = time.time,
        dangerously_allow_http: bool = False,
    ) -> None:
        problems = Problems()
        check_options(
            {
                "websockets": websockets,
                "expose_token": expose_token,
                "reject_query_token": reject_query_token,
                "republish_server_metadata": republish_server_metadata,
                "metadata_signer": metadata_signer,
                "verifier": verifier,
                "is_revoked": is_revoked,
                "on_decision": on_decision,
                "http_client": http_client,
                "token_cache_size": token_cache_size,
                "clock": clock,
                "dangerously_allow_http": dangerously_allow_http,
            },
            problems,
        )
        self._compile = partial(
            compile_site,
            public_paths=public_paths,
            allowed_origins=allowed_origins,
            allowed_hosts=allowed_hosts,
            metadata_signer=metadata_signer,
            allow_http=dangerously_allow_http,
            one_issuer=republish_server_metadata,
        )
        self.site: Site = self._compile(protected_resources, problems)
        self.configs = self.site.configs
        self.warnings = tuple(str(problem) for problem in problems.warnings)
        for warning in self.warnings:
            logger.warning("%s", warning)
        self.websockets = websockets
        self.expose_token = expose_token
        self.reject_query_token = reject_query_token
        self.clock = clock
        self.refusal_log = RefusalLog(clock)
        self.observers: tuple[Observer, ...] = tuple(on_decision)
        self.verifier = verifier
        self.is_revoked = is_revoked
        self.token_cache_size = token_cache_size
        self._fetcher = Fetcher(http_client)
        self._allow_http = dangerously_allow_http
        self._key_sets: dict[object, LivingKeySet] = {}
        self.verifiers: tuple[Verifier, ...] = tuple(map(self.verifier_for, self.site.resources))
        issuer = self.site.resources[0].issuers[0]
        self.republished = self.key_set_of(issuer) if republish_server_metadata else None

    def __repr__(self) -> str:
        return f"<MCPAuth {' '.join(resource.identifier for resource in self.site.resources)}>"

    def narrowed(self, config: ResourceServerConfig) -> MCPAuth:
        """The same configuration for one changed resource, over the same key sets, without metadata documents."""
        narrow = copy(self)
        narrow.site = replace(self._compile(config, Problems()), documents={})
        narrow.configs = narrow.site.configs
        narrow.republished = None
        narrow.expose_token = True
        narrow.verifiers = tuple(map(narrow.verifier_for, narrow.site.resources))
        return narrow

    def key_set_of(self, trusted: TrustedIssuer) -> LivingKeySet:
        """The living key set of an issuer; shared by resources that configure its source alike, and never otherwise."""
        config = trusted.config
        source = (config.type, config.metadata, config.metadata_url, config.transpile_data, config.jwks_uri)
        key = (trusted.rules.issuer, source, id(config.jwks))
        if key not in self._key_sets:
            self._key_sets[key] = LivingKeySet(
                trusted.rules.issuer,
                config,
                trusted.static_keys,
                fetcher=self._fetcher,
                clock=self.clock,
                allow_http=self._allow_http,
            )
        return self._key_sets[key]

    def verifier_for(self, resource: CompiledResource) -> Verifier:
        """What verifies tokens for a resource: the configured verifier or JWTs, then the revocation hook."""
        verifier: Verifier = self.verifier or JWTVerifier(
            {trusted.rules.issuer: (trusted, self.key_set_of(trusted)) for trusted in resource.issuers},
            clock=self.clock,
            cache_size=self.token_cache_size,
            expose_token=self.expose_token,
        )
        return self.guard(verifier)

    def guard(self, verifier: Verifier) -> Verifier:
        """The verifier with the revocation hook after it, if there is one."""
        return verifier if self.is_revoked is None else RevocationCheck(verifier, self.is_revoked)

    def wrap(self, app: Any) -> MCPAuthMiddleware:
        """Protect an ASGI app."""
        from asgi_mcp_auth.middleware import MCPAuthMiddleware  # noqa: PLC0415 - it is built on this module

        return MCPAuthMiddleware(app, auth=self)

    def metadata_app(self) -> MetadataApp:
        """The metadata documents as an ASGI app of their own, for the host root above a mounted, protected app."""
        from asgi_mcp_auth._asgi.wellknown import MetadataApp  # noqa: PLC0415 - rarely wanted

        return MetadataApp(self.site)

    def token_verifier(self, resource: str | None = None) -> TokenVerifier:
        """The verification alone, for MCP servers with an `auth=` of their own: their `token_verifier=`.

        Args:
            resource: Which resource; may be left out when there is only one.

        Raises:
            ConfigurationError: An unknown resource.
        """
        from asgi_mcp_auth._asgi.token_verifier import token_verifier  # noqa: PLC0415 - rarely wanted

        return token_verifier(self, resource)

    async def warm_up(self) -> None:
        """Fetch all key sets now, instead of at the first token. Failures are logged and tried again then."""
        async with anyio.create_task_group() as group:
            for key_set in tuple(self._key_sets.values()):
                group.start_soon(key_set.warm_up)

    def check_bind(self, host: str) -> str | None:
        """Warn, and return the warning, when a loopback resource is about to be served beyond loopback.

        Call it where the server is started: an ASGI app is not told the address its server listens on.
        """
        loopback = [resource.identifier for resource in self.site.resources if is_loopback(resource.url.host)]
        if not loopback or is_loopback(f"[{host}]" if ":" in host else host):
            return None
        warning = f"{', '.join(loopback)} is a loopback resource, but {host} can be reached from elsewhere."
        logger.warning("%s", warning)
        return warning

    @property
    def auth_info(self) -> AuthInfo | None:
        """The caller of the request being handled; the same as `current_auth()`."""
        return current_auth()

    def resource_metadata_router(self) -> Router:
        """The metadata documents as a Starlette router; splat its `.routes` into an app (needs `starlette`)."""
        from asgi_mcp_auth._asgi.wellknown import starlette_router  # noqa: PLC0415 - needs an optional package

        return starlette_router(self.site)

    def bearer_auth_middleware(  # noqa: PLR0917 - mcpauth's signature
        self,
        mode_or_verify: Literal["jwt"] | VerifyFunction,
        audience: str | None = None,
        required_scopes: Sequence[str] | None = None,
        show_error_details: bool = False,
        leeway: float = 60,
        resource: str | None = None,
    ) -> Callable[..., MCPAuthMiddleware]:
        """A middleware class for one resource, as `mcpauth` makes it; with the raw token left to the app.

        Args:
            mode_or_verify: `"jwt"`, or a function from the token to an `AuthInfo`, sync or async.
            audience: One more accepted audience; the resource itself is always accepted.
            required_scopes: Scopes to require beside the policy's.
            show_error_details: Tell the caller what only the operator should know. For debugging.
            leeway: Seconds of clock difference, at most 300; not used with a function.
            resource: Which resource; may be left out when there is only one.

        Raises:
            ConfigurationError: An unknown resource, a wrong mode.
        """
        from asgi_mcp_auth._asgi.bearer import bearer_auth_middleware  # noqa: PLC0415 - it is built on the middleware

        return bearer_auth_middleware(
            self,
            mode_or_verify,
            audience=audience,
            required_scopes=required_scopes or (),
            show_error_details=show_error_details,
            leeway=leeway,
            resource=resource,
        )
