"""Sending a `Response` over ASGI, for an HTTP request or for a refused websocket handshake."""

from __future__ import annotations

from typing import Any

from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.responses import Response

__all__ = ("send_response",)

POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


async def send_response(response: Response, request: Request, receive: Any, send: Any) -> None:
    """Send it; a HEAD gets no body, a websocket the `websocket.http.response` extension or a plain close (HTTP 403)."""
    start: dict[str, Any] = {"status": response.status, "headers": list(response.headers)}
    body = b"" if request.method == "HEAD" else response.body
    if not request.is_websocket:
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body})
        return
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" in (request.scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
