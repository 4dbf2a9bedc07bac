"""Small ASGI apps to serve in addition to a protected app: metadata documents, and readiness for health checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._oauth.responses import json_response
from asgi_mcp_auth._policy.compile import CompiledConfig
from asgi_mcp_auth._request import RequestInfo

__all__ = (
    "MetadataApp",
    "ReadinessApp",
)


class MetadataApp:
    """An ASGI app that answers the metadata paths of a configuration, and 404 for any other path."""

    def __init__(self, config: CompiledConfig) -> None:
        self._documents = config.documents

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or complete a lifespan."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = RequestInfo(scope)
        document = None if request.is_websocket else self._documents.get(request.well_known_path)
        answer = json_response(404, {"detail": "Not found"}) if document is None else document.answer(request)
        await send_response(answer, request, receive, send)


RETRY_AFTER = ((b"retry-after", b"1"),)


class ReadinessApp:
    """An ASGI app that answers 200 if tokens can be verified, and 503 with what does not work: issuers, the store.

    A request starts to fetch missing keys in the background, within the rate limits of fetching. A server without a
    lifespan therefore becomes ready after readiness requests.

    Args:
        unusable: Returns the issuers whose keys cannot be used now, and "the store".
    """

    def __init__(self, unusable: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        self._unusable = unusable

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or complete a lifespan."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        missing = await self._unusable()
        if missing:
            answer = json_response(503, {"ready": False, "unavailable": list(missing)}, RETRY_AFTER)
        else:
            answer = json_response(200, {"ready": True})
        await send_response(answer, RequestInfo(scope), receive, send)
