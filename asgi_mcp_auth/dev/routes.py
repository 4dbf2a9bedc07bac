"""Which endpoint answers a request, and what holds for all: this machine, its own names, CORS, errors.

Documents and endpoints for programs may be read by pages of any origin (browser-based clients), and so may a 404 at a
well-known place, or such a client would never look at the next one. The authorization endpoint may not.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

import anyio

from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth._policy.responses import Header, Response, json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.authorization import Interaction
from asgi_mcp_auth.dev.control import Controlled, control
from asgi_mcp_auth.dev.core import Core, Reply
from asgi_mcp_auth.dev.errors import OAuthError, PageRefused
from asgi_mcp_auth.dev.inspection import introspect, revoke
from asgi_mcp_auth.dev.metadata import metadata_places, oidc_metadata, with_faults
from asgi_mcp_auth.dev.pages import error_page, home_page
from asgi_mcp_auth.dev.switches import Switch
from asgi_mcp_auth.dev.tokens import issue
from asgi_mcp_auth.testing import Issuer

__all__ = ("Routes",)

JWKS_SECONDS = 15.0
ANY_ORIGIN: Final[Header] = (b"access-control-allow-origin", b"*")
PREFLIGHT: Final[tuple[Header, ...]] = (
    ANY_ORIGIN,
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-allow-headers", b"MCP-Protocol-Version, Content-Type, Authorization, DPoP"),
    (b"access-control-max-age", b"600"),
)
OPEN: Final = frozenset({"/jwks", "/token", "/register", "/revoke"})
WELL_KNOWN: Final = "/.well-known/"
ROOT: Final = ("/authorize", "/token", "/register")  # where clients of MCP 2025-03-26 look without metadata
READ: Final = ("GET", "HEAD")


class Routes:
    """The endpoints.

    Args:
        core: The server's parts.
        server: What changes while it runs.
    """

    def __init__(self, core: Core, server: Controlled) -> None:
        self._core = core
        self._server = server
        self._path = core.options.url.path.rstrip("/")
        self._interaction = Interaction(core)

    def clear(self) -> None:
        """Forget the authorization requests that wait for a person."""
        self._interaction.clear()

    async def answer(self, request: Request, body: bytes) -> Reply:
        """The answer to a request, a refusal as well."""
        try:
            reply = await self._reply(request, body)
        except OAuthError as error:
            reply = Reply(json_response(error.status, error.members(), error.headers), str(error))
        except PageRefused as refused:
            reply = Reply(error_page(refused, issuer=self._core.iss), str(refused))
        if self._is_open(request.path):
            reply = reply._replace(response=reply.response.with_headers([ANY_ORIGIN]))
        return reply

    def _places(self) -> dict[str, bool]:
        return metadata_places(self._path, oidc=self._core.options.oidc, switches=self._core.switches)

    def _is_open(self, path: str) -> bool:
        return self._inner(path) in OPEN or WELL_KNOWN in path

    def _inner(self, path: str) -> str:
        """A path below the issuer, or one that clients without metadata take for its endpoint."""
        if path.startswith(f"{self._path}/"):
            return path.removeprefix(self._path)
        return path if path in ROOT else ""

    async def _reply(self, request: Request, body: bytes) -> Reply:
        self._check_place(request)
        if len(body) > Issuer.MAX_BODY:
            raise OAuthError("invalid_request", f"The body is longer than {Issuer.MAX_BODY} bytes.", status=413)
        place = self._places().get(request.path)
        inner = self._inner(request.path)
        if request.method == "OPTIONS" and self._is_open(request.path):
            return Reply(Response(204, PREFLIGHT[1:]), "preflight")
        if place is not None:
            _allow(request, *READ)
            document = with_faults(self._core.issuer.metadata, self._core.switches)
            return Reply(
                self._core.issuer.document(
                    oidc_metadata(document, self._core.options.algorithms) if place else document
                )
            )
        return await self._endpoint(inner, request, body)

    async def _endpoint(self, inner: str, request: Request, body: bytes) -> Reply:
        posts = {
            "/token": issue,
            "/introspect": introspect,
            "/revoke": revoke,
        }
        if inner in posts:
            _allow(request, "POST")
            return await posts[inner](self._core, request, body)
        if inner == "/register":
            _allow(request, "POST")
            response, client = self._core.directory.register(request, body)
            return Reply(response, f"client={client.client_id} auth={client.auth_method}")
        if inner == "/authorize":
            _allow(request, "GET", "POST")
            return await self._interaction.authorize(request, body)
        if inner == "/consent":
            _allow(request, "POST")
            return await self._interaction.decide(request, body)
        if inner == "/jwks":
            _allow(request, *READ)
            return await self._key_set()
        if inner in ("/dev/faults", "/dev/rotate", "/dev/forget"):
            _allow(request, *(("GET", "POST") if inner == "/dev/faults" else ("POST",)))
            return control(self._server, inner.removeprefix("/dev/"), request, body)
        if inner == "/":
            _allow(request, *READ)
            return Reply(home_page(self._core.issuer.metadata, issuer=self._core.iss, switches=self._core.switches))
        raise OAuthError("not_found", "There is nothing here: the metadata names the endpoints.", status=404)

    async def _key_set(self) -> Reply:
        if Switch.JWKS_SLOW in self._core.switches:
            await anyio.sleep(JWKS_SECONDS)
        if Switch.JWKS_ERROR in self._core.switches:
            raise OAuthError("temporarily_unavailable", "A fault is switched on.", status=503)
        return Reply(self._core.issuer.document(self._core.issuer.jwks()))

    def _check_place(self, request: Request) -> None:
        """Serve this machine, under its own names: no other one, and no page that has rebound a name to it."""
        if self._core.options.remote:
            return
        peer = request.scope.get("client")
        if peer is not None and _is_elsewhere(str(peer[0])):
            raise OAuthError("access_denied", "This development server serves its own machine only.", status=403)
        hosts = request.fields.get(b"host", [])
        host = parse_url(f"http://{hosts[0].decode('latin-1')}") if len(hosts) == 1 else None
        if host is None or host.path or not is_loopback(host.host):
            raise OAuthError("invalid_request", "The Host is not this machine.", status=421)


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allow = (b"allow", ", ".join(methods).encode("ascii"))
        raise OAuthError("invalid_request", f"Use {' or '.join(methods)} here.", status=405, headers=(allow,))


def _is_elsewhere(address: str) -> bool:
    """Whether an address is of another machine; what is no IP address is a test client's."""
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return False
