"""Clients whose requests reach issuers, and an app, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.testing.issuer import Issuer

__all__ = ("client_of", "client_of_hosts")


class _Transport(httpx.ASGITransport):
    """In process nothing can be cut but here."""

    def __init__(self, app: Any, is_cut: Callable[[str], bool]) -> None:
        super().__init__(app=app)
        self._is_cut = is_cut

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._is_cut(request.url.path):
            msg = "the issuer of the tests is cut off"
            raise httpx.ConnectError(msg, request=request)
        return await super().handle_async_request(request)


class _Hosts(httpx.AsyncBaseTransport):
    """Everything there is: issuers, apps by their origins, and URLs that stand for others."""

    def __init__(self, issuers: Iterable[Issuer], apps: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
        self._issuers = tuple(issuers)
        self._apps = apps
        self._aliases = aliases

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = httpx.URL(self._aliases.get(str(request.url), request.url))
        transport = self._find(str(request.url))
        if transport is None:
            msg = f"nothing in this test serves {request.url.scheme}://{request.url.netloc.decode('ascii')}"
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
        issuer = max(own, key=lambda issuer: len(issuer.url))  # that of a tenant before that of its host
        return _Transport(issuer, issuer.is_cut)


def _serves(issuer: Issuer, origin: str, path: str) -> bool:
    """Whether a URL is one of an issuer's: below it, or a well-known one that its path was appended to."""
    parsed = parse_url(issuer.url)
    own = urlsplit(issuer.url).path.rstrip("/")
    return parsed is not None and parsed.origin == origin and (f"{path}/".startswith(f"{own}/") or path.endswith(own))


def client_of(app: Any, is_cut: Callable[[str], bool]) -> httpx.AsyncClient:
    """A client of an ASGI app, whose connections fail for the paths of which `is_cut` says so."""
    return httpx.AsyncClient(transport=_Transport(app, is_cut))


def client_of_hosts(
    issuers: Iterable[Issuer], *, apps: Mapping[str, Any] | None = None, aliases: Mapping[str, str] | None = None
) -> httpx.AsyncClient:
    """A client for which there is nothing but these.

    Args:
        issuers: Each is asked for what is at its URL, and for its metadata.
        apps: ASGI apps by their origins, which are asked first.
        aliases: URLs, and those to ask for instead.
    """
    return httpx.AsyncClient(transport=_Hosts(issuers, apps or {}, aliases or {}))
