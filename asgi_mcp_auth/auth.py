"""`MCPAuth`, a configuration that is checked and compiled once and protects any number of apps; `MCPAuthMiddleware`.

An `MCPAuth` holds no event-loop object: one instance survives a fork after preload, several event loops, and trio.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from asgi_mcp_auth._asgi.app_check import check_app
from asgi_mcp_auth._asgi.events_app import EventsApp
from asgi_mcp_auth._asgi.small_apps import MetadataApp, ReadinessApp
from asgi_mcp_auth._asgi.status_app import StatusApp
from asgi_mcp_auth._asgi.token_verifier import TokenVerifier
from asgi_mcp_auth._compat.mcpauth import bearer_auth_middleware, resource_metadata_router
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.token_exchange import ACCESS_TOKEN, ExchangedToken, make_request
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth._options import MCPAuthOptions, MiddlewareOptions, Settings, check_options, documentation
from asgi_mcp_auth._policy.exchange_settings import compile_destinations
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._protection import Protection, ProtectionBuilder
from asgi_mcp_auth._settings.loader import from_env, from_mapping, from_toml
from asgi_mcp_auth._settings.shorthand import from_shorthand
from asgi_mcp_auth._signals.watermarks import watermark_of
from asgi_mcp_auth._upstream.exchange import Caller, Exchanger
from asgi_mcp_auth._verify.jwt import JWTVerifier
from asgi_mcp_auth._verify.verifier import VerifyFunction
from asgi_mcp_auth.config import MAX_LEEWAY, ResourceServerConfig
from asgi_mcp_auth.context import AuthInfo, current_auth
from asgi_mcp_auth.errors import ConfigurationError, Problem
from asgi_mcp_auth.middleware import ProtectedApp
from asgi_mcp_auth.status import Status

if TYPE_CHECKING:
    from starlette.routing import Router

    from asgi_mcp_auth._upstream.httpx_auth import ExchangeAuth


__all__ = ("MCPAuth", "MCPAuthMiddleware", "MCPAuthOptions", "options_of", "protection_of")

logger = logging.getLogger("asgi_mcp_auth.config")


class MCPAuth:
    """One or several protected resources, with everything that a request needs compiled.

    Args:
        protected_resources: One `ResourceServerConfig` or several. A single resource owns every path. Of several, the
            resource with the longest path prefix owns a path, and a path that no resource owns is answered 404.
        {options}

    Attributes:
        configs: The configurations of the resources, as they were passed.
        warnings: What works and may surprise; each warning was logged.

    Raises:
        ConfigurationError: With every problem of the configuration at once.
    """

    def __init__(
        self,
        protected_resources: ResourceServerConfig | Iterable[ResourceServerConfig],
        **options: Unpack[MCPAuthOptions],
    ) -> None:
        problems = Problems()
        self._builder = ProtectionBuilder.of(check_options(options, protected_resources, problems))
        config = self._builder.compile(protected_resources, problems)
        self._protection = self._builder.build(config)
        self.configs = config.configs
        self.warnings = tuple(map(str, problems.warnings))
        for warning in self.warnings:
            logger.warning("%s", warning)
        public = [
            f"{resource.identifier}: {', '.join(names)}"
            for resource in config.resources
            if (names := resource.policy.operations.public_names)
        ]
        if public:
            logger.info("Without a token: %s", "; ".join(public))

    def __repr__(self) -> str:
        return f"<MCPAuth {' '.join(resource.identifier for resource in self._protection.config.resources)}>"

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from plain values, as JSON or TOML contain them.

        Args:
            settings: The parameters of the constructor by name, nested dataclasses as mappings; or the shorthand
                (`resource`, `authorization_servers`, `required_scopes`, `policy`, `tools`, `public_tools`) instead of
                `protected_resources`. A hook is an import string, `"module:attribute"` or `"module:factory()"`. In
                place of any value, `{"from_env": "NAME"}` or `{"from_file": "path"}` is the text of a variable or a
                file, which no message shows.
            options: Options that are not in `settings`, usually hooks as objects.

        Raises:
            ConfigurationError: Unknown keys, wrong types and wrong values, all at once, each with its key.
        """
        return from_mapping(cls, Settings, settings, options)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from a TOML file; see `from_mapping`. A `from_file` path is relative to the file's folder.

        Raises:
            ConfigurationError: The file cannot be read; or as `from_mapping`, each problem with its line.
        """
        return from_toml(cls, Settings, path, options)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from environment variables: `MCP_AUTH_CONFIG` names a TOML file, or the variables are the settings.

        `MCP_AUTH_RESOURCE`, `MCP_AUTH_AUTHORIZATION_SERVERS`, `MCP_AUTH_REQUIRED_SCOPES`, and every option in capitals
        after `MCP_AUTH_`. Lists of texts are separated by spaces; other values are JSON.

        Args:
            environ: The variables; default: the variables of the process.
            options: As `from_mapping`.

        Raises:
            ConfigurationError: As `from_mapping`; an unknown or empty `MCP_AUTH_` variable is a problem too.
        """
        return from_env(cls, Settings, environ, options)

    def wrap(self, app: Any) -> MCPAuthMiddleware:
        """Protect an ASGI app."""
        return MCPAuthMiddleware(app, auth=self)

    def metadata_app(self) -> MetadataApp:
        """Return the metadata documents as an ASGI app, to serve at the host root above a mounted, protected app."""
        self._protection.warnings.documents_served_separately = True
        return MetadataApp(self._protection.config)

    def readiness_app(self) -> ReadinessApp:
        """Return an ASGI app for a health path: 200 if tokens of every named issuer can be verified, else 503.

        A shared store that requests need has to answer too.

        Serve the app with a `Route`, and list its path in `public_paths`: health checks then need no token, and may
        call by address, because the `Host` of public paths is not checked.

            Route("/readyz", endpoint=auth.readiness_app())  # in Starlette(routes=[...]) or FastAPI(routes=[...])

        A `Mount` redirects `/readyz` to `/readyz/`, which is another path and not public.
        """
        return ReadinessApp(self._protection.missing)

    def events_app(self) -> EventsApp:
        """Return an ASGI app that receives security events (RFC 8935) and OIDC back-channel logout tokens by POST.

        Serve the app with a `Route`, and list its path in `public_paths`: the signature of an event is its credential.

        Raises:
            ConfigurationError: `event_transmitters` is empty.
        """
        receiver = self._protection.receiver
        if receiver is None:
            fix = "Set event_transmitters=[EventTransmitter(...)] and revocation=True."
            raise ConfigurationError([Problem("event_transmitters", "There is no transmitter.", fix)])
        return EventsApp(receiver)

    def status_app(self) -> StatusApp:
        """Return an ASGI app with the status of this process: an HTML page, or JSON if the client accepts that.

        The app checks no credential. Serve it on an internal address, or below the protected app, where it needs a
        token like every other path. Never list its path in `public_paths` of an app that the internet reaches.
        """
        return StatusApp(self.status)

    def token_verifier(self, resource: str | None = None) -> TokenVerifier:
        """Return the verification alone, as the `token_verifier=` of an MCP server that has an `auth=` of its own.

        Args:
            resource: The identifier of the resource; None means the only resource.

        Raises:
            ConfigurationError: The resource is not configured.
        """
        index, protection = self._index_of(resource), self._protection
        return TokenVerifier(protection.config.resources[index], protection.authenticators[index], protection.reporter)

    def jwt_verifier(self, resource: str | None = None) -> JWTVerifier:
        """Return the verification of JWTs as a verifier, for a verifier of your own to call.

        Pass your own verifier to another `MCPAuth`. The keys are fetched at the first token; see `warm_up`.

        Args:
            resource: The identifier of the resource; None means the only resource.

        Raises:
            ConfigurationError: The resource is not configured.
        """
        index = self._index_of(resource)
        known = self._protection.authenticators[index].jwt
        return known or self._builder.make_jwt_verifier(self._protection.config.resources[index])

    async def exchange(
        self,
        *,
        audience: str | Sequence[str] = (),
        resource: str | Sequence[str] = (),
        scopes: Sequence[str] = (),
        requested_token_type: str = ACCESS_TOKEN,
        actor_token: str | None = None,
        caller: Caller | None = None,
        refused: ExchangedToken | None = None,
    ) -> ExchangedToken:
        """Return a token with which the app may call an upstream API for the caller (RFC 8693 section 2).

        The caller's own token must not be sent to other servers (MCP: no token passthrough). It goes to the token
        endpoint of its own issuer, and the answer is cached as long as both tokens are valid.

        Args:
            audience: The logical names of the API.
            resource: The URLs of the API.
            scopes: The scopes at the API.
            requested_token_type: The type of the token.
            actor_token: An access token of this server, for an issuer that requires one.
            caller: The caller, from `caller()`; None for the caller of the request that is being handled.
            refused: The token that the API has answered with 401. A cached token is exchanged anew then, unless the
                exchange was less than 10 seconds ago.

        Raises:
            ExchangeError: There is no token; `reason` says why.
            ValueError: An argument cannot be sent.
        """
        request = make_request(
            audience=audience,
            resource=resource,
            scopes=scopes,
            requested_token_type=requested_token_type,
            actor_token=actor_token,
        )
        exchanger = self._exchanger()
        if refused is not None:
            exchanger.refuse(request, refused, caller)
        return await exchanger.exchange(request, caller)

    def exchange_auth(
        self,
        *,
        allow: str | Sequence[str],
        audience: str | Sequence[str] = (),
        resource: str | Sequence[str] = (),
        scopes: Sequence[str] = (),
        actor_token: str | None = None,
        caller: Caller | None = None,
    ) -> ExchangeAuth:
        """Return an `httpx.Auth` that sends what `exchange` returns; one object may serve all requests.

        If the API answers a cached token with 401, the request is sent once more with a new token.

        Args:
            allow: The origins that may receive the token: `"https://api.example.com"`, or a domain suffix such as
                `".example.com"`. A request to another origin, redirected ones included, raises `ExchangeError`.
            audience: As for `exchange`, like the arguments that follow.
            resource: The URLs of the API.
            scopes: The scopes at the API.
            actor_token: An access token of this server.
            caller: The caller, from `caller()`.

        Raises:
            ConfigurationError: An entry of `allow` is wrong, or `token_exchange` is not set.
            ValueError: An argument cannot be sent.
        """
        from asgi_mcp_auth._upstream.httpx_auth import ExchangeAuth  # noqa: PLC0415 - imports httpx

        request = make_request(
            audience=audience,
            resource=resource,
            scopes=scopes,
            requested_token_type=ACCESS_TOKEN,
            actor_token=actor_token,
        )
        allow_http = self._builder.options.get("dangerously_allow_http", False)
        destinations = compile_destinations(allow, allow_http=allow_http)
        return ExchangeAuth(self._exchanger(), request, destinations, caller)

    def caller(self) -> Caller:
        """Return the caller of the request that is being handled, to pass to a task that does not inherit its context.

        Raises:
            ExchangeError: There is no authenticated caller.
            ConfigurationError: `token_exchange` is not set.
        """
        return self._exchanger().current()

    def _exchanger(self) -> Exchanger:
        exchanger = self._protection.exchanger
        if exchanger is None:
            fix = "Set token_exchange=[TokenExchange(client_id=..., client_secret=...)]."
            raise ConfigurationError([Problem("token_exchange", "No token can be exchanged.", fix)])
        return exchanger

    async def warm_up(self) -> tuple[str, ...]:
        """Fetch the key sets of all named and preloaded issuers now instead of at the first token.

        Return the named issuers whose keys cannot be used. Failures are logged, and are tried again at the first token.
        """
        return await self._protection.key_sets.warm_up()

    def status(self) -> Status:
        """Return a snapshot of this process: issuers, keys, caches and counts."""
        protection, exchanger = self._protection, self._protection.exchanger
        store, revocations = protection.store, protection.revocations
        resources = zip(protection.config.resources, protection.authenticators, strict=True)
        return Status(
            at=protection.clock(),
            issuers=protection.key_sets.status(),
            resources=tuple(
                status
                for resource, authenticator in resources
                if (status := authenticator.status(resource.identifier)) is not None
            ),
            ready=not (protection.key_sets.unusable() or protection.unreachable()) and protection.is_store_ready,
            store=None if store is None else store.status(),
            revocation=None if revocations is None else revocations.status(),
            exchanges=() if exchanger is None else exchanger.status(),
        )

    async def revoke(
        self,
        *,
        issuer: str,
        subject: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        token_id: str | None = None,
        claim: tuple[str, str] | None = None,
        before: float | None = None,
    ) -> None:
        """Refuse the tokens of one subject, session, token or claim that were issued before now, in every process.

        Cached tokens are refused from now on, and open streams and websockets of their callers end. A caller who signs
        in again has access. Other processes know within a moment; see `RevocationStatus.age`.

        Args:
            issuer: The issuer of the tokens, as `AuthInfo.issuer` has it.
            subject: The subject of the tokens.
            client_id: With `subject`: only the tokens of this client.
            session: Or the `sid` of the tokens.
            token_id: Or the `jti` of one token.
            claim: Or the name and the value of a claim of the tokens, such as `("email", "alice@example.com")`; the
                value is compared without regard to case.
            before: Tokens with an earlier `iat` are refused, in seconds since the epoch, by the clock of the issuer.
                Default: now; for `token_id` the token is refused whatever its `iat`.

        Raises:
            ValueError: Not exactly one scope; a value that is not a non-empty string; an issuer that no resource
                trusts; or a time that is not finite, or more than 300 s ahead.
            RuntimeError: `revocation` is off.
            Unavailable: The store fails. Nothing was revoked in other processes; try again.
        """
        revocations = self._protection.revocations
        if revocations is None:
            raise RuntimeError("revoke: revocation is off; set revocation=True")
        now = self._protection.clock()
        if before is None:
            before = now if token_id is None else now + MAX_LEEWAY  # the clock of the issuer may be ahead
        if not math.isfinite(before) or before > now + MAX_LEEWAY:
            msg = f"revoke: before is {before!r}; pass seconds since the epoch, at most {MAX_LEEWAY:.0f} s ahead"
            raise ValueError(msg)
        if not self._protection.may_issue(issuer):
            raise ValueError(f"revoke: no resource trusts the issuer {show(issuer)}")
        await revocations.revoke([watermark_of(issuer, subject, client_id, session, token_id, claim, before)])

    def check_bind(self, host: str) -> str | None:
        """Warn if a loopback resource is about to be served on another address, and return the warning.

        Call this method where the server is started: an ASGI app does not know the address that its server listens on.
        """
        resources = self._protection.config.resources
        loopback = [resource.identifier for resource in resources if is_loopback(resource.url.host)]
        if not loopback or is_loopback(f"[{host}]" if ":" in host else host):
            return None
        warning = f"{', '.join(loopback)} is a loopback resource, but other machines can connect to {host}."
        logger.warning("%s", warning)
        return warning

    def _index_of(self, resource: str | None) -> int:
        known = [config.metadata.resource for config in self.configs]
        if resource is None and len(known) == 1:
            return 0
        if resource not in known:
            fix = f"Pass one of {', '.join(map(show, known))}, exactly as configured."
            raise ConfigurationError([Problem("resource", f"{show(resource)} is not a configured resource.", fix)])
        return known.index(resource)

    # The API of the library mcpauth.

    @property
    def auth_info(self) -> AuthInfo | None:
        """The caller of the request being handled; the same as `current_auth()`."""
        return current_auth()

    def resource_metadata_router(self) -> Router:
        """Return the metadata documents as a Starlette router; add its `.routes` to an app (needs `starlette`)."""
        return resource_metadata_router(self._protection)

    def bearer_auth_middleware(  # noqa: PLR0917 - mcpauth's signature
        self,
        mode_or_verify: Literal["jwt"] | VerifyFunction,
        audience: str | None = None,
        required_scopes: Sequence[str] | None = None,
        show_error_details: bool = False,
        leeway: float = 60,
        resource: str | None = None,
    ) -> Callable[..., ProtectedApp]:
        """Return a middleware class for one resource, like mcpauth's. The app keeps the raw token.

        Args:
            mode_or_verify: `"jwt"`, or a function from the token to an `AuthInfo`, sync or async.
            audience: An additional accepted audience; the resource itself is always accepted.
            required_scopes: Scopes to require in addition to the policy's.
            show_error_details: Show callers what only the operator should see. For debugging.
            leeway: Seconds of clock difference, at most 300; not used with a function.
            resource: The identifier of the resource; None means the only resource.

        Raises:
            ConfigurationError: The resource is not configured, or the mode is wrong.
        """
        return bearer_auth_middleware(
            self._builder,
            self.configs[self._index_of(resource)],
            mode_or_verify,
            audience=audience,
            required_scopes=required_scopes or (),
            show_error_details=show_error_details,
            leeway=leeway,
        )


MCPAuth.__doc__ = cleandoc(MCPAuth.__doc__ or "").replace("    {options}", documentation(MCPAuthOptions))


def protection_of(auth: MCPAuth) -> Protection:
    """Return what `auth` has compiled, for the doctor and the testing kit."""
    return auth._protection  # noqa: SLF001 - defined here  # pyright: ignore[reportPrivateUsage]


def options_of(auth: MCPAuth) -> MCPAuthOptions:
    """Return the options of `auth`, complete with defaults, for `check-config`."""
    return auth._builder.options  # noqa: SLF001 - defined here  # pyright: ignore[reportPrivateUsage]


class MCPAuthMiddleware(ProtectedApp):
    """Makes any ASGI app an OAuth 2.1 protected resource for the Model Context Protocol.

    Pass either `auth=MCPAuth(...)`, or the shorthand for one resource:

        app = MCPAuthMiddleware(
            app,
            resource="https://api.example.com/mcp",
            authorization_servers=["https://auth.example.com"],
            required_scopes=["notes:read"],
        )

    Args:
        app: Any ASGI app.
        auth: A compiled configuration; it may serve several middlewares.
        {options}

    Attributes:
        auth: The configuration.

    Raises:
        ConfigurationError: With every problem of the configuration at once.
    """

    def __init__(self, app: Any, auth: MCPAuth | None = None, **options: Unpack[MiddlewareOptions]) -> None:
        if auth is not None and options:
            fix = "Put everything into MCPAuth(...)."
            raise ConfigurationError([Problem("auth", "Pass either auth= or the shorthand arguments, not both.", fix)])
        checked = check_app(app)
        if auth is None:
            auth = from_shorthand(MCPAuth, options)
        elif not isinstance(unchecked(auth), MCPAuth):
            raise ConfigurationError([Problem("auth", f"{show(auth)} is not an MCPAuth.", "Pass auth=MCPAuth(...).")])
        self.auth = auth
        super().__init__(checked, protection_of(auth))


MCPAuthMiddleware.__doc__ = cleandoc(MCPAuthMiddleware.__doc__ or "").replace(
    "    {options}", documentation(MiddlewareOptions)
)
