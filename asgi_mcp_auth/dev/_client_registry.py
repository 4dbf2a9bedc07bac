"""The clients of the server (configured, registered, or with a metadata document) and their authentication."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._oauth.responses import Header, Response, json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._client_documents import ClientDocuments
from asgi_mcp_auth.dev._clients import Client, ClientRules, load_client_object, read_client
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._forms import Params, basic_credentials, header_values, media_type

__all__ = ("ClientRegistry",)

MAX_REGISTRATION = 16 * 1024
CREATED = 201
BASIC: Final[tuple[Header, ...]] = ((b"www-authenticate", b'Basic realm="token"'),)


class ClientRegistry:
    """The clients of the server.

    Args:
        configured: The configured clients, by client ID.
        rules: The rules for client metadata.
        registration: Whether clients may register.
        documents: Clients with metadata documents; None if documents are not accepted.
        clock: Seconds since the epoch.
        size: The largest number of registered clients.

    Attributes:
        revision: A number that changes with the registered clients.
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
        self.revision = 0
        self._configured = configured
        self._rules = rules
        self._registration = registration
        self._documents = documents
        self._clock = clock
        self._registered: BoundedMap[str, Client] = BoundedMap(size)

    @property
    def registered(self) -> list[Client]:
        """The registered clients, the oldest first."""
        return [client for _, client in self._registered.items()]

    def restore(self, clients: Iterable[Client]) -> None:
        """Add clients that registered before a restart."""
        for client in clients:
            self._registered.put(client.client_id, client)

    def is_configured(self, client: Client) -> bool:
        """Return whether the operator configured the client. Other clients are not trusted."""
        return client.client_id in self._configured

    def may_exist(self, client_id: str) -> bool:
        """Return whether a client ID is configured, is registered, or can be the URL of a document."""
        known = client_id in self._configured or self._registered.get(client_id) is not None
        return known or (self._documents is not None and "://" in client_id)

    async def find(self, client_id: str) -> Client:
        """Return the client with an ID.

        Raises:
            OAuthError: `invalid_client`: the client is unknown, or its metadata document is invalid.
        """
        client = self._configured.get(client_id) or self._registered.get(client_id)
        if client is not None:
            return client
        if self._documents is not None and "://" in client_id:
            return await self._documents.find(client_id)
        raise OAuthError("invalid_client", "The client is unknown: it has to register (again).", status=401)

    def clear(self) -> None:
        """Remove the registered clients and the cached documents."""
        self.revision += 1
        self._registered.clear()
        if self._documents is not None:
            self._documents.clear()

    def register(self, request: RequestInfo, body: bytes) -> tuple[Response, Client]:
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
        self.revision += 1
        self._registered.put(client.client_id, client)
        content: dict[str, Any] = {
            "client_id": client.client_id,
            "client_id_issued_at": int(self._clock()),
            **({} if client.secret is None else {"client_secret": client.secret, "client_secret_expires_at": 0}),
            **client.members,
        }
        return json_response(CREATED, content), client

    async def authenticate(self, request: RequestInfo, params: Params) -> Client:
        """Return the client that makes a request, authenticated by its registered method (OAuth 2.1 section 2.4).

        Raises:
            OAuthError: `invalid_client`, or `invalid_request` if the request uses two methods at once.
        """
        values = header_values(request, b"authorization")
        if len(values) > 1:
            raise OAuthError("invalid_request", "The request has more than one Authorization header.")
        client_id, secret, method = params.get("client_id"), params.get("client_secret"), "client_secret_post"
        if values:
            credentials = basic_credentials(values[0])
            if credentials is None:
                raise _unauthenticated("The Authorization header is not a Basic credential.", challenge=True)
            if secret is not None:
                raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
            if client_id not in (None, credentials[0]):
                raise OAuthError("invalid_request", "The Authorization header and client_id name different clients.")
            (client_id, secret), method = credentials, "client_secret_basic"
        elif secret is None:
            method = "none"
        if client_id is None:
            raise _unauthenticated("The request names no client.", challenge=False)
        client = await self._find_or_challenge(client_id, challenge=bool(values))
        if client.auth_method != method:
            what = f"The client is registered for {client.auth_method} but used {method}."
            raise _unauthenticated(what, challenge=bool(values))
        if client.secret is not None and not _equal(client.secret, secret or ""):
            raise _unauthenticated("The client secret is wrong.", challenge=bool(values))
        return client

    async def _find_or_challenge(self, client_id: str, *, challenge: bool) -> Client:
        try:
            return await self.find(client_id)
        except OAuthError as error:
            if error.error != "invalid_client":
                raise
            raise _unauthenticated(error.description, challenge=challenge) from None


def _unauthenticated(what: str, *, challenge: bool) -> OAuthError:
    """Return the error for a failed authentication, with a challenge if the request used Basic (RFC 6749 5.2)."""
    return OAuthError("invalid_client", what, status=401, headers=BASIC if challenge else ())


def _equal(secret: str, other: str) -> bool:
    return secrets.compare_digest(secret.encode("utf-8"), other.encode("utf-8", "surrogatepass"))
