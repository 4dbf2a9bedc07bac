"""Sending a `Response` over ASGI, for an HTTP request or for a refused websocket handshake."""

from __future__ import annotations

import anyio

from asgi_mcp_auth._asgi.asgi_types import Message, Receive, Send
from asgi_mcp_auth._oauth.responses import Response
from asgi_mcp_auth._request import RequestInfo

__all__ = ("Incoming", "complete_lifespan", "send_response")

MAX_WAIT = 1.0  # seconds
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class Incoming:
    """The `receive` of a request over HTTP/2; it records whether the body has been read."""

    __slots__ = ("_receive", "_unread")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._unread = True

    async def __call__(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self._unread = message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Drain the request body, for at most `MAX_WAIT` seconds (`_compat.asgi_servers.BREAKS_ON_LATE_BODY`)."""
        with anyio.move_on_after(MAX_WAIT):
            while self._unread:
                await self()


async def complete_lifespan(receive: Receive, send: Send) -> None:
    """Complete the lifespan of an app that has nothing to start."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def send_response(response: Response, request: RequestInfo, receive: Receive, send: Send) -> None:
    """Send a response; over HTTP/2, drain the request's body first.

    The response to a HEAD has no body. A websocket handshake is denied by the `websocket.http.response` extension, or
    by a close if the server has no such extension (HTTP 403).
    """
    status, fields, body = response
    headers, scope = list(fields), request.scope
    if scope["type"] != "websocket":
        if scope["method"] == "HEAD":
            body = b""
        if isinstance(receive, Incoming):
            await receive.drain()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
