"""Several issuers in one process, reached by host name over an httpx transport that counts requests and can fail."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from asgi_mcp_auth.testing import Issuer, SigningKey


class Internet(httpx.AsyncBaseTransport):
    """Hosts of issuers and of single documents; any other host name cannot be resolved."""

    def __init__(self, *issuers: Issuer) -> None:
        self.hosts = {urlsplit(issuer.url).netloc: issuer for issuer in issuers}
        self.documents: dict[str, Any] = {}
        self.asked: list[str] = []
        self.down = False

    def add(self, url: str, like: Issuer) -> Issuer:
        """Add an issuer whose keys have unique kids."""
        issuer = Issuer(url, algorithms=(), clock=like.clock)
        issuer.keys = [SigningKey("Ed25519")]
        self.hosts[urlsplit(url).netloc] = issuer
        return issuer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.asked.append(url)
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        if url in self.documents:
            return httpx.Response(200, content=json.dumps(self.documents[url]))
        issuer = self.hosts.get(request.url.netloc.decode())
        if issuer is None:
            raise httpx.ConnectError("no such host", request=request)
        return await httpx.ASGITransport(app=issuer).handle_async_request(request)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self)

    def hosts_asked(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.asked}
