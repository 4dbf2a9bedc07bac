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
from typing import TYPE_CHECKING, Any

from asgi_mcp_auth._from_settings import FromSettings
from asgi_mcp_auth._interface import MCPAuthInterface
from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._keys.registry import Issuers, KeySets
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth._options import MCPAuthOptions
from asgi_mcp_auth._policy.compile import CompiledConfig, MetadataSigner, compile_config
from asgi_mcp_auth._policy.options import check_options
from asgi_mcp_auth._policy.problems import Problems
from asgi_mcp_auth._verify.hooks import Authorize
from asgi_mcp_auth._verify.jwt import JWTVerifier
from asgi_mcp_auth._verify.verifier import IsRevoked, RevocationCheck, Verifier
from asgi_mcp_auth.config import ResourceServerConfig
from asgi_mcp_auth.decisions import Observer, RefusalLog
from asgi_mcp_auth.stores import Store

if TYPE_CHECKING:
    from asgi_mcp_auth._asgi.small_apps import MetadataApp, ReadinessApp
    from asgi_mcp_auth._asgi.token_verifier import TokenVerifier
    from asgi_mcp_auth.middleware import MCPAuthMiddleware
    from asgi_mcp_auth.status import Status

__all__ = ("MCPAuth", "MCPAuthOptions")

logger = logging.getLogger("asgi_mcp_auth.config")


class MCPAuth(MCPAuthInterface, FromSettings):
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
        authorize: Asked about every operation that the scopes allow, sync or async; see
            `asgi_mcp_auth.authorization`. An exception means 503. Its presence alone makes bodies be read.
        max_body_size: Bytes of a body that is read for its operation; a longer one is 413.
        session_store: Bind each `Mcp-Session-Id` (MCP up to 2025-11-25) to the caller it was made for, in this
            store. For servers without a binding of their own; the MCP SDK and fastmcp have one.
        on_decision: Observers, each called with one `Decision` per request; they must not block.
        http_client: A zero-argument factory of an `httpx.AsyncClient`, used for one fetch and closed.
        token_cache_size: How many verified tokens to remember per resource; 0 for none.
        token_cache_bytes: How much memory they may take per resource, estimated: never less than it is.
        issuer_pool_size: How many issuers that a pattern or a resolver admitted to hold per resource.
        unproven_fetches_per_minute: Fetches a minute, in total, for issuers that match a pattern and whose keys were
            never fetched. Their tokens get 503 when it is used up. Each issuer takes 2 to 4 fetches.
        require_warm_up: Delay the app's lifespan start-up until the keys of every named issuer are fetched, for at
            most `warm_up_timeout`. Then the app starts all the same, and the readiness app answers 503.
        warm_up_timeout: Seconds.
        dangerously_exit_when_cold: Fail the start-up instead. Gunicorn and `uvicorn --workers` then stop all
            workers as soon as one of them cannot fetch the keys.
        clock: Seconds since the epoch, for tests.
        dangerously_allow_http: Accept http issuers and resources beyond loopback. Tokens and keys then cross
            the network in the clear.
        dangerously_allow_private_addresses: Fetch from private, loopback and link-local addresses also where
            the configuration does not name the host. Whoever writes an issuer's metadata can then make this
            server ask any host of your network.

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
        authorize: Authorize | None = None,
        max_body_size: int = 1_048_576,
        session_store: Store | None = None,
        on_decision: Sequence[Observer] = (),
        http_client: ClientFactory | None = None,
        token_cache_size: int = 10_000,
        token_cache_bytes: int = 67_108_864,
        issuer_pool_size: int = 10_000,
        unproven_fetches_per_minute: int = 60,
        require_warm_up: bool = False,
        warm_up_timeout: float = 30.0,
        dangerously_exit_when_cold: bool = False,
        clock: Callable[[], float] = time.time,
        dangerously_allow_http: bool = False,
        dangerously_allow_private_addresses: bool = False,
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
                "authorize": authorize,
                "max_body_size": max_body_size,
                "session_store": session_store,
                "on_decision": on_decision,
                "http_client": http_client,
                "token_cache_size": token_cache_size,
                "token_cache_bytes": token_cache_bytes,
                "issuer_pool_size": issuer_pool_size,
                "unproven_fetches_per_minute": unproven_fetches_per_minute,
                "require_warm_up": require_warm_up,
                "warm_up_timeout": warm_up_timeout,
                "dangerously_exit_when_cold": dangerously_exit_when_cold,
                "clock": clock,
                "dangerously_allow_http": dangerously_allow_http,
                "dangerously_allow_private_addresses": dangerously_allow_private_addresses,
            },
            problems,
        )
        self._compile = partial(
            compile_config,
            public_paths=public_paths,
            allowed_origins=allowed_origins,
            allowed_hosts=allowed_hosts,
            metadata_signer=metadata_signer,
            allow_http=dangerously_allow_http,
            one_issuer=republish_server_metadata,
        )
        self.site: CompiledConfig = self._compile(protected_resources, problems)
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
        self.authorize = authorize
        self.max_body_size = max_body_size
        self.session_store = session_store
        self.token_cache_size = token_cache_size
        self.token_cache_bytes = token_cache_bytes
        self.issuer_pool_size = issuer_pool_size
        self.warm_up_timeout = warm_up_timeout if require_warm_up else None
        self.exit_when_cold = dangerously_exit_when_cold
        self._key_sets = KeySets(
            Fetcher(http_client),
            clock=clock,
            allow_http=dangerously_allow_http,
            allow_private=dangerously_allow_private_addresses,
            unproven_fetches_per_minute=unproven_fetches_per_minute,
        )
        self._set_verifiers()
        issuer = self.site.resources[0].trust.named[0]
        self.republished = self._key_sets.named(issuer) if republish_server_metadata else None
        self.serves_documents_apart = False
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<MCPAuth {' '.join(resource.identifier for resource in self.site.resources)}>"

    def narrowed(self, config: ResourceServerConfig) -> MCPAuth:
        """The same configuration for one changed resource, over the same key sets, without metadata documents."""
        narrow = copy(self)
        narrow.site = replace(self._compile(config, Problems()), documents={})
        narrow.configs = narrow.site.configs
        narrow.republished = None
        narrow.expose_token = True
        narrow._set_verifiers()  # noqa: SLF001 - our own
        return narrow

    def _set_verifiers(self) -> None:
        """For each resource the configured verifier, or one for JWTs; then the revocation hook."""
        self._jwt_verifiers: list[JWTVerifier] = []
        verifiers: list[Verifier] = []
        for resource in self.site.resources:
            if self.verifier is not None:
                verifiers.append(self.verifier)
                continue
            issuers = Issuers(resource.trust, self._key_sets, clock=self.clock, pool_size=self.issuer_pool_size)
            jwts = JWTVerifier(
                issuers,
                clock=self.clock,
                cache_size=self.token_cache_size,
                cache_bytes=self.token_cache_bytes,
                expose_token=self.expose_token,
            )
            self._jwt_verifiers.append(jwts)
            verifiers.append(jwts)
        self.verifiers: tuple[Verifier, ...] = tuple(map(self.guard, verifiers))

    def guard(self, verifier: Verifier) -> Verifier:
        """The verifier with the revocation hook after it, if there is one."""
        return verifier if self.is_revoked is None else RevocationCheck(verifier, self.is_revoked)

    def wrap(self, app: Any) -> MCPAuthMiddleware:
        """Protect an ASGI app."""
        from asgi_mcp_auth.middleware import MCPAuthMiddleware  # noqa: PLC0415 - it is built on this module

        return MCPAuthMiddleware(app, auth=self)

    def metadata_app(self) -> MetadataApp:
        """The metadata documents as an ASGI app of their own, for the host root above a mounted, protected app."""
        from asgi_mcp_auth._asgi.small_apps import MetadataApp  # noqa: PLC0415 - rarely wanted

        self.serves_documents_apart = True
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

    async def warm_up(self) -> tuple[str, ...]:
        """Fetch the key sets of all named and preloaded issuers now, instead of at the first token.

        Return the named issuers whose keys cannot be used. Failures are logged, and tried again at the first token.
        """
        return await self._key_sets.warm_up()

    async def require_keys(self, seconds: float) -> tuple[str, ...]:
        """Fetch as `warm_up` does, and try again until every named issuer's keys can be used or `seconds` are over.

        Return the named issuers whose keys cannot be used by then.
        """
        return await self._key_sets.warm_up_within(seconds)

    def warn_once(self, logger: logging.Logger, warning: str, *args: object) -> None:
        """Log a warning the first time it is given, whatever its arguments."""
        if warning not in self._warned:
            self._warned.add(warning)
            logger.warning(warning, *args)

    def status(self) -> Status:
        """What is known at this moment: issuers, keys, clocks, caches and counts, of this process."""
        from asgi_mcp_auth.status import Status  # noqa: PLC0415 - many are never asked

        verifiers = zip(self.site.resources, self._jwt_verifiers, strict=False)  # none, with a verifier of the user's
        return Status(
            at=self.clock(),
            issuers=self._key_sets.status(),
            resources=tuple(verifier.status(resource.identifier) for resource, verifier in verifiers),
            ready=not self._key_sets.unusable(),
        )

    def readiness_app(self) -> ReadinessApp:
        """An ASGI app for a health path: 200 when the keys of every named issuer can be used, else 503."""
        from asgi_mcp_auth._asgi.small_apps import ReadinessApp  # noqa: PLC0415 - rarely wanted

        return ReadinessApp(self._key_sets.missing)

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
