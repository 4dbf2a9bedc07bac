"""The development authorization server: an ASGI app with the endpoints of a real authorization server.

It implements OAuth 2.1, RFC 7009, 7591, 7636, 7662, 8414, 8707, 9068, 9207, 9470 and 9701, client ID metadata documents
and OpenID Connect Discovery. The state is in memory, and in a state file if there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._keys.http import ClientFactory
from asgi_mcp_auth._oauth.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._client_documents import ClientDocuments
from asgi_mcp_auth.dev._client_registry import ClientRegistry
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._grants import Grant, GrantStore
from asgi_mcp_auth.dev._metadata import oauth_metadata
from asgi_mcp_auth.dev._options import compile_options
from asgi_mcp_auth.dev._routes import Routes
from asgi_mcp_auth.dev._state import State, StateFile, StateFileError
from asgi_mcp_auth.dev._switches import Switch, parse_switches
from asgi_mcp_auth.errors import ConfigurationError, Problem, printable
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("DevServer", "Exchange")

MAX_CLIENTS = 1000
MAX_TOKENS = 10_000
MAX_KEYS = 32


class Exchange(NamedTuple):
    """A request with its response, for a log. The values contain no query, code, token or secret.

    Attributes:
        method: The request method.
        path: The path of the request.
        status: The status of the response.
        seconds: The time from the request to the response.
        note: What the request was about, in a few words.
    """

    method: str
    path: str
    status: int
    seconds: float
    note: str


class DevServer(Issuer):
    """An authorization server for development and tests. It is an ASGI app.

    The class extends `asgi_mcp_auth.testing.Issuer` with its `mint`, `fail`, `stall`, `heal`, `requests`,
    `http_client` and more. Any user signs in without a password, so the server answers only requests from this machine.

    Args:
        issuer: The issuer identifier: http or https on loopback, with or without a path.
        resources: Resources to issue tokens for. Default: any resource on loopback.
        scopes: Scopes to grant, or a mapping from scopes to descriptions for people. Default: any scope.
        default_scopes: The scopes of a request without a scope. Default: the first scope.
        users: The names that can sign in. The consent page lets a person choose; `login_hint` preselects a name.
        auto_approve: Approve authorization requests without a consent page, as the first user or as `login_hint`.
            Any web page in a browser on this machine can then get tokens, so use this option in tests only.
        clients: Preregistered clients: metadata as for registration (RFC 7591 section 2) with `client_id` and, unless
            the client is public, `client_secret`. A resource server needs one for introspection.
        delegation: The resources for which a client may exchange tokens (RFC 8693), by client id. The client needs a
            secret and the grant type `urn:ietf:params:oauth:grant-type:token-exchange`. Default: all resources.
        registration: Whether clients may register.
        default_auth_method: The authentication method of a registration without one.
        private_schemes: Whether redirect URIs may have a private-use scheme that contains a dot (`com.example.app:`),
            or that `redirect_schemes` lists.
        redirect_schemes: Private-use schemes without a dot that redirect URIs may have.
        strict_application_type: Whether `web` clients cannot have loopback redirect URIs.
        client_documents: Whether a client ID may be the URL of a client ID metadata document.
        insecure_client_documents: Whether such a URL may be loopback http. With `dangerously_allow_remote`, documents
            are fetched from loopback addresses only if this option is set.
        document_client: Makes the HTTP client for these documents. It is not guarded against private addresses.
        oidc: Whether OpenID Connect documents are served.
        algorithms: The algorithms of the signing keys, one key for each. The first key signs.
        dialect: The provider whose access token format is used, one of `asgi_mcp_auth.dev.DIALECTS`.
        faults: Fault switches that are active from the start.
        token_lifetime: The lifetime of access tokens in seconds.
        refresh_lifetime: The lifetime of refresh tokens in seconds.
        code_lifetime: The lifetime of authorization codes in seconds, at most 60.
        state: A file for keys, registered clients and grants, so that they survive a restart. It contains private
            keys. Only its owner may read it, and only one process may use it at a time. Changes are written before
            the response to the request, changes by methods with the next request or at shutdown. Default: memory only.
        on_exchange: Called with every `Exchange`. It must not block.
        clock: Seconds since the epoch.
        dangerously_allow_remote: Answer requests from other machines, and allow https issuers beyond loopback.

    Raises:
        ConfigurationError: All problems in the options, or a state file that cannot be used.
    """

    keys: list[SigningKey]

    def __init__(
        self,
        issuer: str = "http://127.0.0.1:9000",
        *,
        resources: Sequence[str] = (),
        scopes: Sequence[str] | Mapping[str, str] = (),
        default_scopes: Sequence[str] | None = None,
        users: Sequence[str] = ("alice", "bob"),
        auto_approve: bool = False,
        clients: Sequence[Mapping[str, Any]] = (),
        delegation: Mapping[str, Sequence[str]] | None = None,
        registration: bool = True,
        default_auth_method: str = "client_secret_basic",
        private_schemes: bool = True,
        redirect_schemes: Sequence[str] = ("cursor",),
        strict_application_type: bool = False,
        client_documents: bool = True,
        insecure_client_documents: bool = False,
        document_client: ClientFactory | None = None,
        oidc: bool = True,
        algorithms: Sequence[str] = ("RS256", "ES256"),
        dialect: str | None = None,
        faults: Iterable[str] = (),
        token_lifetime: int = 600,
        refresh_lifetime: int = 86_400,
        code_lifetime: int = 60,
        state: str | os.PathLike[str] | None = None,
        on_exchange: Callable[[Exchange], object] | None = None,
        clock: Callable[[], float] = time.time,
        dangerously_allow_remote: bool = False,
    ) -> None:
        self.options = compile_options(
            issuer=issuer,
            resources=resources,
            scopes=scopes,
            default_scopes=default_scopes,
            users=users,
            algorithms=algorithms,
            dialect=dialect,
            clients=clients,
            default_auth_method=default_auth_method,
            private_schemes=private_schemes,
            redirect_schemes=redirect_schemes,
            strict_application_type=strict_application_type,
            token_lifetime=token_lifetime,
            refresh_lifetime=refresh_lifetime,
            code_lifetime=code_lifetime,
            state=state,
            remote=dangerously_allow_remote,
            auto_approve=auto_approve,
            delegation=delegation,
            registration=registration,
            documents=client_documents,
            insecure_documents=insecure_client_documents,
            oidc=oidc,
        )
        faults = parse_switches(tuple(faults))
        rules = self.options.client_rules
        self._state_file = None if self.options.state is None else StateFile(self.options.state, issuer)
        stored = State() if self._state_file is None else self._state_file.load(rules) or State()
        super().__init__(issuer, algorithms=(), clock=clock)
        until = clock() + self.options.token_lifetime
        self.keys, self._retired = _signing_keys(stored, self.options.algorithms, until)
        self.metadata = oauth_metadata(issuer, self.options)
        self._on_exchange = on_exchange
        documents = ClientDocuments(
            rules=rules,
            insecure=insecure_client_documents,
            loopback=insecure_client_documents or not dangerously_allow_remote,
            clock=clock,
            new_client=document_client,
        )
        registry = ClientRegistry(
            configured=self.options.clients,
            rules=rules,
            registration=registration,
            documents=documents if client_documents else None,
            clock=clock,
            size=MAX_CLIENTS,
        )
        self._core = Core(self, self.options, GrantStore(MAX_TOKENS), registry, faults)
        self._routes = Routes(self._core, self)
        self._restore(stored)
        self._saved = self._revision()
        if self._state_file is not None:
            try:
                self._state_file.write(self._state_file.encode(self._state()))
            except StateFileError as error:
                raise ConfigurationError(
                    [Problem("state", str(error), "Pass a path in a writable directory.")]
                ) from None

    # --- state --------------------------------------------------------------------------------------------------------

    def _restore(self, stored: State) -> None:
        """Add the clients and grants from before a restart. Grants that the options no longer allow are dropped."""
        core = self._core
        core.clients.restore(stored.clients)

        def is_allowed(grant: Grant) -> bool:
            is_user = grant.auth_time is None or grant.subject in core.options.users
            covered = core.options.policy.covers(grant.resources, grant.granted.scopes)
            return is_user and covered and core.clients.may_exist(grant.client_id)

        core.grants.restore(
            [(digest, token) for digest, token in stored.refresh_tokens if is_allowed(token.grant)],
            [(digest, token) for digest, token in stored.access_tokens if is_allowed(token.grant)],
        )

    def _state(self) -> State:
        core, now = self._core, self.clock()
        return State(
            keys=self.keys,
            retired=self._retired,
            clients=core.clients.registered,
            refresh_tokens=core.grants.live_refresh_tokens(now),
            access_tokens=core.grants.live_access_tokens(now),
        )

    def _revision(self) -> tuple[int, int, list[str]]:
        """Return a value that changes with the state."""
        return (self._core.grants.revision, self._core.clients.revision, [key.kid for key in self.keys])

    async def _save(self) -> None:
        """Write the state file if the state has changed.

        Raises:
            StateFileError: The file cannot be written.
        """
        revision = self._revision()
        if self._state_file is not None and revision != self._saved:
            await anyio.to_thread.run_sync(self._state_file.write, self._state_file.encode(self._state()))
            self._saved = revision

    # --- control ------------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> frozenset[Switch]:
        """The active fault switches."""
        return frozenset(self._core.switches)

    def switch_on(self, *faults: str) -> None:
        """Activate fault switches.

        Raises:
            ConfigurationError: A name is unknown.
        """
        self._core.switches |= parse_switches(faults)

    def switch_off(self, *faults: str) -> None:
        """Deactivate fault switches. Without names, deactivate all of them.

        Raises:
            ConfigurationError: A name is unknown.
        """
        self._core.switches -= parse_switches(faults) if faults else set(Switch)

    def forget(self) -> None:
        """Remove registered clients, cached documents, codes and tokens. The keys stay."""
        for part in (self._core.grants, self._core.clients, self._routes):
            part.clear()

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Sign with a new key of the same algorithm.

        Old keys that are kept stay published until the tokens that they signed have expired.
        """
        self._retired[self.keys[0].kid] = self.clock() + self.options.token_lifetime
        key = super().rotate(keep=keep)
        self._drop_retired()
        return key

    def jwks(self) -> dict[str, Any]:
        """Return the published key set, without keys whose last token has expired."""
        self._drop_retired()
        return super().jwks()

    def _drop_retired(self) -> None:
        now = self.clock()
        self.keys = [key for key in self.keys if self._retired.get(key.kid, now + 1) > now][:MAX_KEYS]
        published = {key.kid for key in self.keys}
        self._retired = {kid: until for kid, until in self._retired.items() if kid in published}

    # --- requests -----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer HTTP requests, complete lifespans, and refuse websockets with 404."""
        if scope["type"] == "lifespan":

            async def save_and_send(message: Any) -> None:
                await self._save()
                await send(message)

            await complete_lifespan(receive, save_and_send)
            return
        if scope["type"] == "websocket":
            await send_response(json_response(404, {"error": "not_found"}), RequestInfo(scope), receive, send)
            return
        await super().__call__(scope, receive, send)

    async def _respond(self, request: RequestInfo, body: bytes) -> Response:
        started = time.perf_counter()
        try:
            reply = await self._routes.answer(request, body)
            await self._save()
        except StateFileError as error:
            unavailable = {"error": "temporarily_unavailable", "error_description": "The state cannot be saved."}
            reply = Reply(json_response(503, unavailable), printable(str(error)))
        if self._on_exchange is not None:
            seconds = time.perf_counter() - started
            status = reply.response.status
            self._on_exchange(Exchange(request.method, printable(request.path), status, seconds, reply.note))
        return reply.response


def _signing_keys(stored: State, algorithms: Sequence[str], until: float) -> tuple[list[SigningKey], dict[str, float]]:
    """Return an active key for each algorithm, followed by other stored keys, and when the latter are removed."""
    usable = [key for key in stored.keys if key.kid not in stored.retired]
    active = [next((key for key in usable if key.alg == alg), None) or SigningKey(alg) for alg in algorithms]
    others = [key for key in stored.keys if key not in active]
    return [*active, *others], {key.kid: stored.retired.get(key.kid, until) for key in others}
