"""HTTP clients whose requests reach issuers and apps in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from asgi_mcp_auth._oauth.urls import parse_url

__all__ = ("InProcessIssuer", "client_of", "client_of_hosts")


class InProcessIssuer(Protocol):
    """An ASGI app with an issuer URL, such as `Issuer`."""

    url: str

    def is_cut(self, path: str) -> bool:
        """Return whether a connection for this path has to fail."""
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        ...


class _Transport(httpx.ASGITransport):
    """A transport whose connections fail for some paths: an in-process app cannot refuse a connection itself."""

    def __init__(self, app: Any, is_cut: Callable[[str], bool]) -> None:
        super().__init__(app=app)
        self._is_cut = is_cut

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._is_cut(request.url.path):
            msg = "the issuer of the test is cut off: remove the fault with issuer.heal()"
            raise httpx.ConnectError(msg, request=request)
        return await super().handle_async_request(request)


class _Hosts(httpx.AsyncBaseTransport):
    """A transport that knows the issuers and apps of a test, and no other host."""

    def __init__(self, issuers: Iterable[InProcessIssuer], apps: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
        self._issuers = tuple(issuers)
        self._apps = apps
        self._aliases = aliases

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = httpx.URL(self._aliases.get(str(request.url), request.url))
        transport = self._find(str(request.url))
        if transport is None:
            origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
            msg = f"nothing in this test serves {origin}: pass an Issuer with that URL"
            raise httpx.ConnectError(msg, request=request)
        return await transport.handle_async_request(request)

    def _find(self, text: str) -> httpx.AsyncBaseTransport | None:
        url = parse_url(text)
        if url is None:
            return None
        if url.origin in self._apps:
            return httpx.ASGITransport(app=self._apps[url.origin])
        own = [issuer for issuer in self._issuers if _serves(issuer, url.origin, url.path)]
        if not own:
            return None
        issuer = max(own, key=lambda issuer: len(issuer.url))  # a tenant's issuer goes before its host's
        return _Transport(issuer, issuer.is_cut)


def _serves(issuer: InProcessIssuer, origin: str, path: str) -> bool:
    """Return whether a URL belongs to an issuer: it is below the issuer, or is well-known and ends with its path."""
    parsed = parse_url(issuer.url)
    own = urlsplit(issuer.url).path.rstrip("/")
    return parsed is not None and parsed.origin == origin and (f"{path}/".startswith(f"{own}/") or path.endswith(own))


def client_of(app: Any, is_cut: Callable[[str], bool]) -> httpx.AsyncClient:
    """Return a client of one ASGI app; connections fail for the paths for which `is_cut` returns True."""
    return httpx.AsyncClient(transport=_Transport(app, is_cut))


def client_of_hosts(
    issuers: Iterable[InProcessIssuer],
    *,
    apps: Mapping[str, Any] | None = None,
    aliases: Mapping[str, str] | None = None,
    auth: httpx.Auth | None = None,
) -> httpx.AsyncClient:
    """Return a client that reaches these issuers and apps; connections to other hosts fail.

    Args:
        issuers: Each serves the URLs below its own, and its metadata.
        apps: ASGI apps by origin. An app goes before an issuer with the same origin.
        aliases: URLs, each with the URL to request instead.
        auth: The authentication of the client's requests.
    """
    return httpx.AsyncClient(transport=_Hosts(issuers, apps or {}, aliases or {}), auth=auth)
