"""What outlives a request ends with its token: websockets, and event streams.

A request is authorized when it begins; nothing in MCP bounds what follows. An ordinary response costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgi_mcp_auth._asgi.response import POLICY_VIOLATION
from asgi_mcp_auth._keys.background import Background, spawn

__all__ = ("StreamEnd", "is_event_stream", "run_until_expiry")

EXPIRED = "The access token expired"
MAX_SLEEP = 60.0  # a wall clock may be set
GRACE = 5.0  # for an event that is half sent
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
OSERROR_SINCE = (2, 4)  # the ASGI revision in which send() may say that the client has gone


async def _sleep_until(time: float, clock: Callable[[], float]) -> None:
    import anyio  # noqa: PLC0415

    while (left := time - clock()) > 0:  # noqa: ASYNC110 - waits for a time, not for an event
        await anyio.sleep(min(left, MAX_SLEEP))


def is_event_stream(start: Any) -> bool:
    """Whether a response's start announces server-sent events."""
    for name, value in start.get("headers", ()):
        if len(name) == 12 and bytes(name).lower() == b"content-type":  # noqa: PLR2004 - its length, told quickly
            return bytes(value).lower().startswith(b"text/event-stream")
    return False


class StreamEnd:
    """The `send` of an event stream that ends, after the event under way, when the token does.

    Args:
        send: Where messages go.
        clock: Seconds since the epoch.
        until: The end.
        scope: The request's, for the ASGI revision.
    """

    def __init__(self, send: Any, clock: Callable[[], float], until: float, scope: Any) -> None:
        self._send = send
        self._clock = clock
        self._until = until
        asgi: dict[str, Any] = scope.get("asgi") or {}
        version = str(asgi.get("spec_version", "2.0"))
        self._raises = tuple(map(int, version.split(".")[:2])) >= OSERROR_SINCE
        self._sending = self._due = self._over = False
        self._between_events = True
        self._timer: Background | None = None

    async def send(self, message: Any) -> None:
        """Pass a message on, unless the stream is over: then the client has gone, as far as the app is concerned."""
        if self._over:
            if self._raises:
                raise OSError(EXPIRED)
            return
        if message["type"] == "http.response.body":
            if not message.get("more_body"):
                self._over = True
                if self._timer is not None:
                    self._timer.cancel()
            elif self._timer is None:
                self._timer = spawn(self._expire)
            body = message.get("body", b"")
            if body:
                self._between_events = body.endswith(EVENT_ENDS)
        self._sending = True
        try:
            await self._send(message)
        except BaseException:  # the client has gone: nobody is left to wait for
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            raise
        finally:
            self._sending = False
        if self._due and not self._over:
            await self._end()

    async def _end(self) -> None:
        self._over = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _expire(self) -> None:
        await _sleep_until(self._until, self._clock)
        if not self._between_events or self._sending:
            self._due = True  # the app's next message, or the one under way, is the last
            import anyio  # noqa: PLC0415

            await anyio.sleep(GRACE)
        if not self._over and not self._sending:
            await self._end()


async def run_until_expiry(  # noqa: PLR0917 - ASGI's three, and ours
    app: Any, clock: Callable[[], float], until: float | None, scope: Any, receive: Any, send: Any
) -> None:
    """Run a websocket app; close the socket when the token has expired."""
    if until is None:
        await app(scope, receive, send)
        return
    over = expired = False

    async def watched_receive() -> Any:
        nonlocal over
        message = await receive()
        if expired:  # not every server stops delivering what a client goes on sending
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": EXPIRED}
        over = over or message["type"] == "websocket.disconnect"
        return message

    async def watched_send(message: Any) -> None:
        nonlocal over
        if over and message["type"].startswith("websocket."):
            return  # closed under the app, or by the client: swallow what it still says, as servers do
        over = message["type"] == "websocket.close"
        await send(message)

    async def expire() -> None:
        nonlocal expired
        await _sleep_until(until, clock)
        expired = True
        await watched_send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": EXPIRED})

    expiry = spawn(expire)
    try:
        await app(scope, watched_receive, watched_send)
    finally:
        over = True
        expiry.cancel()
