"""Routing, and the rules for all endpoints: loopback peers, own host names, CORS, error responses.

Pages of any origin may read the metadata and the endpoints for programs (browser-based clients). They may read a 404
at a well-known path too, because such a client would otherwise stop its discovery there. They may not read the
authorization endpoint.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

import anyio

from asgi_mcp_auth._oauth.responses import Header, Response, json_response
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._authorization import AuthorizationEndpoint
from asgi_mcp_auth.dev._control import ControllableServer, control
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._errors import OAuthError, PageError
from asgi_mcp_auth.dev._introspection import introspect, revoke
from asgi_mcp_auth.dev._metadata import metadata_paths, oidc_metadata, with_faults
from asgi_mcp_auth.dev._pages import error_page, home_page
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.dev._tokens import issue
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
CROSS_ORIGIN: Final = frozenset({"/jwks", "/token", "/register", "/revoke"})
WELL_KNOWN: Final = "/.well-known/"
ROOT: Final = ("/authorize", "/token", "/register")  # the default endpoints of MCP 2025-03-26, without metadata
READ: Final = ("GET", "HEAD")


class Routes:
    """The endpoints.

    Args:
        core: The parts of the server.
        server: The operations of the control endpoints.
    """

    def __init__(self, core: Core, server: ControllableServer) -> None:
        self._core = core
        self._server = server
        self._path = core.options.url.path.rstrip("/")
        self._authorization = AuthorizationEndpoint(core)

    def clear(self) -> None:
        """Remove the authorization requests that wait for consent."""
        self._authorization.clear()

    async def answer(self, request: RequestInfo, body: bytes) -> Reply:
        """Return the response to a request. Errors become responses too."""
        try:
            reply = await self._reply(request, body)
        except OAuthError as error:
            reply = Reply(json_response(error.status, error.members(), error.headers), str(error))
        except PageError as error:
            reply = Reply(error_page(error, issuer=self._core.iss), str(error))
        if self._is_cross_origin(request.path):
            reply = reply._replace(response=reply.response.with_headers([ANY_ORIGIN]))
        return reply

    def _metadata_paths(self) -> dict[str, bool]:
        return metadata_paths(self._path, oidc=self._core.options.oidc, switches=self._core.switches)

    def _is_cross_origin(self, path: str) -> bool:
        return self._inner(path) in CROSS_ORIGIN or WELL_KNOWN in path

    def _inner(self, path: str) -> str:
        """Return a path relative to the issuer, or a default endpoint at the root, or an empty text."""
        if path.startswith(f"{self._path}/"):
            return path.removeprefix(self._path)
        return path if path in ROOT else ""

    async def _reply(self, request: RequestInfo, body: bytes) -> Reply:
        self._check_peer_and_host(request)
        if len(body) > Issuer.MAX_BODY:
            raise OAuthError("invalid_request", f"The body is longer than {Issuer.MAX_BODY} bytes.", status=413)
        is_oidc = self._metadata_paths().get(request.path)
        if request.method == "OPTIONS" and self._is_cross_origin(request.path):
            return Reply(Response(204, PREFLIGHT[1:]), "preflight")
        if is_oidc is not None:
            _allow(request, *READ)
            document = with_faults(self._core.issuer.metadata, self._core.switches)
            if is_oidc:
                document = oidc_metadata(document, self._core.options.algorithms)
            return Reply(self._core.issuer.document(document))
        return await self._endpoint(self._inner(request.path), request, body)

    async def _endpoint(self, inner: str, request: RequestInfo, body: bytes) -> Reply:
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
            response, client = self._core.clients.register(request, body)
            return Reply(response, f"client={client.client_id} auth={client.auth_method}")
        if inner == "/authorize":
            _allow(request, "GET", "POST")
            return await self._authorization.authorize(request, body)
        if inner == "/consent":
            _allow(request, "POST")
            return await self._authorization.decide(request, body)
        if inner == "/jwks":
            _allow(request, *READ)
            return await self._key_set()
        if inner in ("/dev/faults", "/dev/rotate", "/dev/forget"):
            _allow(request, *(("GET", "POST") if inner == "/dev/faults" else ("POST",)))
            return control(self._server, inner.removeprefix("/dev/"), request, body)
        if inner == "/":
            _allow(request, *READ)
            return Reply(home_page(self._core.issuer.metadata, issuer=self._core.iss, switches=self._core.switches))
        raise OAuthError("not_found", "This path is not an endpoint. The metadata lists the endpoints.", status=404)

    async def _key_set(self) -> Reply:
        if Switch.JWKS_SLOW in self._core.switches:
            await anyio.sleep(JWKS_SECONDS)
        if Switch.JWKS_ERROR in self._core.switches:
            raise OAuthError("temporarily_unavailable", "The fault jwks-error is active.", status=503)
        return Reply(self._core.issuer.document(self._core.issuer.jwks()))

    def _check_peer_and_host(self, request: RequestInfo) -> None:
        """Refuse requests from other machines, and requests for other host names (DNS rebinding)."""
        if self._core.options.remote:
            return
        peer = request.scope.get("client")
        if peer is not None and _is_remote(str(peer[0])):
            raise OAuthError(
                "access_denied", "This development server answers only requests from its own machine.", status=403
            )
        hosts = request.fields.get(b"host", [])
        host = parse_url(f"http://{hosts[0].decode('latin-1')}") if len(hosts) == 1 else None
        if host is None or host.path or not is_loopback(host.host):
            raise OAuthError("invalid_request", "The Host is not a loopback name or address.", status=421)


def _allow(request: RequestInfo, *methods: str) -> None:
    if request.method not in methods:
        allow = (b"allow", ", ".join(methods).encode("ascii"))
        raise OAuthError("invalid_request", f"Use {' or '.join(methods)} here.", status=405, headers=(allow,))


def _is_remote(address: str) -> bool:
    """Return whether an IP address belongs to another machine. Test clients and Unix sockets have no IP address."""
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return False
