"""Who the clients are: configured, registered, or found at their URLs; and how one proves at an endpoint who it is."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from asgi_mcp_auth._policy.responses import Header, Response, json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.clients import Client, ClientRules, load_client_object, read_client
from asgi_mcp_auth.dev.documents import ClientDocuments
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.forms import Params, basic_credentials, header_lines, media_type
from asgi_mcp_auth.dev.memory import Bounded

__all__ = ("Directory",)

MAX_REGISTRATION = 16 * 1024
CREATED = 201
BASIC: Final[tuple[Header, ...]] = ((b"www-authenticate", b'Basic realm="token"'),)


class Directory:
    """The clients.

    Args:
        configured: Those of the configuration, by client id.
        rules: What is accepted of new ones.
        registration: Whether new ones may register.
        documents: Clients by URL; None if there are to be none.
        clock: Seconds since the epoch.
        size: How many registered ones to remember.
    """

    def __init__(
        self,
        *,
        configured: Mapping[str, Client],
        rules: ClientRules,
        registration: bool,
        documents: ClientDocuments | None,
        clock: Callable[[], float],
        size: int,
    ) -> None:
        self._configured = configured
        self._rules = rules
        self._registration = registration
        self._documents = documents
        self._clock = clock
        self._registered: Bounded[str, Client] = Bounded(size)

    async def find(self, client_id: str) -> Client:
        """The client of an id.

        Raises:
            OAuthError: `invalid_client`: it is unknown, or its document is no good.
        """
        client = self._configured.get(client_id) or self._registered.get(client_id)
        if client is not None:
            return client
        if self._documents is not None and "://" in client_id:
            return await self._documents.find(client_id)
        raise OAuthError("invalid_client", "The client is unknown: it has to register (again).", status=401)

    def clear(self) -> None:
        """Forget the registered ones, and the documents."""
        self._registered.clear()
        if self._documents is not None:
            self._documents.clear()

    def register(self, request: Request, body: bytes) -> tuple[Response, Client]:
        """Register a client (RFC 7591 section 3).

        Raises:
            OAuthError: `invalid_redirect_uri` or `invalid_client_metadata`.
        """
        if not self._registration:
            raise OAuthError("access_denied", "This server registers no clients.", status=403)
        if media_type(request) != "application/json":
            raise OAuthError("invalid_client_metadata", "The body has to be application/json.")
        if len(body) > MAX_REGISTRATION:
            raise OAuthError("invalid_client_metadata", f"The body is longer than {MAX_REGISTRATION} bytes.")
        client = read_client(
            load_client_object(body),
            client_id=f"dcr_{secrets.token_urlsafe(24)}",
            rules=self._rules,
            default_auth_method=self._rules.default_auth_method,
            secret=f"cs_{secrets.token_urlsafe(32)}",  # in characters that all clients encode alike for Basic
        )
        self._registered.put(client.client_id, client)
        content: dict[str, Any] = {
            "client_id": client.client_id,
            "client_id_issued_at": int(self._clock()),
            **({} if client.secret is None else {"client_secret": client.secret, "client_secret_expires_at": 0}),
            **client.members,
        }
        return json_response(CREATED, content), client

    async def authenticate(self, request: Request, params: Params) -> Client:
        """The client that makes a request, by the one method that it has registered (OAuth 2.1 section 2.4).

        Raises:
            OAuthError: `invalid_client`, or `invalid_request` where two methods are used at once.
        """
        lines = header_lines(request, b"authorization")
        if len(lines) > 1:
            raise OAuthError("invalid_request", "There is more than one Authorization header.")
        client_id, secret, method = params.get("client_id"), params.get("client_secret"), "client_secret_post"
        if lines:
            credentials = basic_credentials(lines[0])
            if credentials is None:
                raise _unauthenticated("The Authorization header is no Basic credential.", challenge=True)
            if secret is not None:
                raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
            if client_id not in (None, credentials[0]):
                raise OAuthError("invalid_request", "The Authorization header and client_id name different clients.")
            (client_id, secret), method = credentials, "client_secret_basic"
        elif secret is None:
            method = "none"
        if client_id is None:
            raise _unauthenticated("The request names no client.", challenge=False)
        client = await self._known(client_id, challenge=bool(lines))
        if client.auth_method != method:
            what = f"The client is registered for {client.auth_method} and used {method}."
            raise _unauthenticated(what, challenge=bool(lines))
        if client.secret is not None and not _same(client.secret, secret or ""):
            raise _unauthenticated("The secret is wrong.", challenge=bool(lines))
        return client

    async def _known(self, client_id: str, *, challenge: bool) -> Client:
        try:
            return await self.find(client_id)
        except OAuthError as error:
            if error.error != "invalid_client":
                raise
            raise _unauthenticated(error.description, challenge=challenge) from None


def _unauthenticated(what: str, *, challenge: bool) -> OAuthError:
    """RFC 6749 section 5.2: challenged with the scheme that was used."""
    return OAuthError("invalid_client", what, status=401, headers=BASIC if challenge else ())


def _same(secret: str, other: str) -> bool:
    return secrets.compare_digest(secret.encode("utf-8"), other.encode("utf-8", "surrogatepass"))
