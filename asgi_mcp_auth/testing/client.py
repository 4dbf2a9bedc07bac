"""A client whose requests reach an issuer without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

__all__ = ("client_of",)


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


def client_of(app: Any, is_cut: Callable[[str], bool]) -> httpx.AsyncClient:
    """A client of an ASGI app, whose connections fail for the paths of which `is_cut` says so."""
    return httpx.AsyncClient(transport=_Transport(app, is_cut))
