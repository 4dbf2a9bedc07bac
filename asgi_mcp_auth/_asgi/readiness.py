"""Readiness as an ASGI app, for the health path of an orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgi_mcp_auth._asgi.sending import complete_lifespan, send_response
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.responses import json_response

__all__ = ("ReadinessApp",)

RETRY_AFTER = ((b"retry-after", b"1"),)


class ReadinessApp:
    """Answers every request 200 when tokens can be verified, and 503 with the issuers whose keys are missing.

    Asking is enough to have missing keys fetched in the background, within the usual brakes: a server without a
    lifespan becomes ready by being asked.

    Args:
        unusable: The issuers whose keys cannot be used now.
    """

    def __init__(self, unusable: Callable[[], tuple[str, ...]]) -> None:
        self._unusable = unusable

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; a lifespan is completed at once."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        missing = self._unusable()
        if missing:
            answer = json_response(503, {"ready": False, "unavailable": list(missing)}, RETRY_AFTER)
        else:
            answer = json_response(200, {"ready": True})
        await send_response(answer, Request(scope), receive, send)
