"""The development authorization server: an issuer with everything a real one has, for this machine only.

Raw ASGI, served by any ASGI server or asked in process; everything in memory. RFC 6749 as OAuth 2.1 narrows it, 7009,
7591, 7636, 7662, 8414, 8707, 9068, 9207, 9470 and 9701, client id metadata documents, OpenID Connect Discovery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._keys.http import ClientFactory
from asgi_mcp_auth._policy.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.core import Core
from asgi_mcp_auth.dev.directory import Directory
from asgi_mcp_auth.dev.documents import ClientDocuments
from asgi_mcp_auth.dev.memory import Memory
from asgi_mcp_auth.dev.metadata import oauth_metadata
from asgi_mcp_auth.dev.options import compile_options
from asgi_mcp_auth.dev.routes import Routes
from asgi_mcp_auth.dev.switches import Switch, switches_of
from asgi_mcp_auth.errors import printable
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("DevServer", "Exchange")

MAX_CLIENTS = 1000
MAX_TOKENS = 10_000
MAX_KEYS = 32


class Exchange(NamedTuple):
    """One request and its answer, for a log: no query, no code, no token, no secret."""

    method: str
    path: str
    status: int
    seconds: float
    note: str


class DevServer(Issuer):
    """An authorization server for development and tests: an ASGI app, and an `Issuer` in all else.

    Keys, `mint`, `rotate`, `fail`, `stall`, `heal`, `requests`, `http_client` and the rest are those of
    `asgi_mcp_auth.testing.Issuer`. It asks for no password and trusts everybody, and so serves this machine only.

    Args:
        issuer: The issuer identifier: http or https on loopback, with or without a path.
        resources: Resources to issue tokens for; none for any on loopback.
        scopes: Scopes to grant, in a mapping with what they mean for people; none for any.
        default_scopes: What a request gets that names no scope. Default: the first one.
        users: Who can sign in; the consent page has a choice. `login_hint` preselects one.
        auto_approve: Answer authorization requests at once, as the first user or the one that `login_hint` names.
            Any web page that a browser here visits can get tokens then: for tests.
        clients: Registered from the beginning: metadata as for registration (RFC 7591 section 2), with `client_id`
            and, but for public ones, `client_secret`. For `introspect`, give the resource server one.
        registration: Whether clients may register themselves.
        default_auth_method: Of a registration that names none.
        private_schemes: Whether redirect URIs may have an app's own scheme (`cursor://…`).
        strict_application_type: Whether `web` clients are refused loopback redirects.
        client_documents: Whether a client id may be the URL of a client id metadata document.
        insecure_client_documents: Whether such a URL may be http, on loopback. Documents of this machine are fetched
            with this, and wherever no other machine is served.
        document_client: Makes the HTTP client that fetches them; it is not guarded against private addresses.
        oidc: Whether there are OpenID Connect documents too.
        algorithms: One signing key for each; the first signs.
        dialect: The provider whose access tokens are imitated, one of `asgi_mcp_auth.dev.DIALECTS`.
        faults: Fault switches in force from the beginning.
        token_lifetime: Seconds an access token lives.
        refresh_lifetime: Seconds a refresh token lives.
        code_lifetime: Seconds an authorization code lives, at most 60.
        on_exchange: Called with every `Exchange`; it must not block.
        clock: Seconds since the epoch.
        dangerously_allow_remote: Serve other machines, and issuers (https) of other names.

    Raises:
        ConfigurationError: Everything that is wrong with the options.
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
        registration: bool = True,
        default_auth_method: str = "client_secret_basic",
        private_schemes: bool = True,
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
            strict_application_type=strict_application_type,
            token_lifetime=token_lifetime,
            refresh_lifetime=refresh_lifetime,
            code_lifetime=code_lifetime,
            remote=dangerously_allow_remote,
            auto_approve=auto_approve,
            registration=registration,
            documents=client_documents,
            insecure_documents=insecure_client_documents,
            oidc=oidc,
        )
        super().__init__(issuer, algorithms=self.options.algorithms, clock=clock)
        self.metadata = oauth_metadata(issuer, self.options)
        self._on_exchange = on_exchange
        self._retired: dict[str, float] = {}
        rules = self.options.client_rules
        documents = ClientDocuments(
            rules=rules,
            insecure=insecure_client_documents,
            loopback=insecure_client_documents or not dangerously_allow_remote,
            clock=clock,
            new_client=document_client,
        )
        directory = Directory(
            configured=self.options.clients,
            rules=rules,
            registration=registration,
            documents=documents if client_documents else None,
            clock=clock,
            size=MAX_CLIENTS,
        )
        self._core = Core(self, self.options, Memory(MAX_TOKENS), directory)
        self._routes = Routes(self._core, self)
        self.switch_on(*faults)

    # --- changing it --------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> frozenset[Switch]:
        """The fault switches in force."""
        return frozenset(self._core.switches)

    def switch_on(self, *faults: str) -> None:
        """Put fault switches in force, by name.

        Raises:
            ConfigurationError: There is no such switch.
        """
        self._core.switches |= switches_of(faults)

    def switch_off(self, *faults: str) -> None:
        """Take fault switches out of force; all of them if none is named."""
        self._core.switches -= switches_of(faults) if faults else set(Switch)

    def forget(self) -> None:
        """Forget registered clients, documents, codes and tokens, as a restart does. The keys stay."""
        for part in (self._core.memory, self._core.directory, self._routes):
            part.clear()

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Sign with a new key of the same algorithm from now on.

        The old ones stay published, if kept, for as long as tokens that they signed live.
        """
        self._retired[self.keys[0].kid] = self.clock() + self.options.token_lifetime
        key = super().rotate(keep=keep)
        self._drop_retired()
        return key

    def jwks(self) -> dict[str, Any]:
        """The published key set: public members only, without keys whose last token has expired."""
        self._drop_retired()
        return super().jwks()

    def _drop_retired(self) -> None:
        now = self.clock()
        self.keys = [key for key in self.keys if self._retired.get(key.kid, now + 1) > now][:MAX_KEYS]
        published = {key.kid for key in self.keys}
        self._retired = {kid: until for kid, until in self._retired.items() if kid in published}

    # --- answering ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve HTTP; a lifespan has nothing to start, and a websocket nothing to find."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send_response(json_response(404, {"error": "not_found"}), Request(scope), receive, send)
            return
        await super().__call__(scope, receive, send)

    async def _respond(self, request: Request, body: bytes) -> Response:
        started = time.perf_counter()
        reply = await self._routes.answer(request, body)
        if self._on_exchange is not None:
            seconds = time.perf_counter() - started
            status = reply.response.status
            self._on_exchange(Exchange(request.method, printable(request.path), status, seconds, reply.note))
        return reply.response
