"""An upstream API for tests, which checks the tokens that arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from asgi_mcp_auth._asgi.response import send_response
from asgi_mcp_auth._oauth.responses import json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.auth import MCPAuthMiddleware
from asgi_mcp_auth.testing._client import client_of_hosts
from asgi_mcp_auth.testing._issuer import Issuer

__all__ = ("UpstreamAPI",)


class UpstreamAPI:
    """An API that accepts tokens of one issuer for itself only, and answers with the claims of the caller.

    Args:
        url: The URL of the API, which tokens must have as their audience.
        issuer: The issuer of the tokens.
        required_scopes: The scopes that every request needs.

    Attributes:
        requests: The header fields of every request, in lower case, also of refused ones.
        callers: The claims of every accepted request.
    """

    def __init__(self, url: str, issuer: Issuer, *, required_scopes: Sequence[str] = ()) -> None:
        self.url = url
        self.requests: list[dict[str, str]] = []
        self.callers: list[dict[str, Any]] = []
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._issuer = issuer
        self._guarded = MCPAuthMiddleware(
            self._accept,
            resource=url,
            authorization_servers=[issuer.url],
            required_scopes=required_scopes,
            http_client=issuer.http_client,
            clock=issuer.clock,
        )

    def client(self, auth: Any = None, apps: Mapping[str, Any] | None = None) -> Any:
        """Return an `httpx.AsyncClient` that reaches this API in process.

        Args:
            auth: The authentication of the client's requests, such as `auth.exchange_auth(...)`.
            apps: Other ASGI apps by origin, for redirects.
        """
        return client_of_hosts([self._issuer], apps={self._origin: self, **(apps or {})}, auth=auth)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check and answer one request."""
        fields = scope.get("headers", ())
        self.requests.append({name.decode("latin-1"): value.decode("latin-1") for name, value in fields})
        await self._guarded(scope, receive, send)

    async def _accept(self, scope: Any, receive: Any, send: Any) -> None:
        claims = scope["state"]["claims"]
        self.callers.append(claims)
        await send_response(json_response(200, claims), RequestInfo(scope), receive, send)
