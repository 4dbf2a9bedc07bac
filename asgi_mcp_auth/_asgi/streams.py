"""Ending what outlives a request: websockets and event streams end with the access token, or when it is revoked.

A request is authorized when it begins, and MCP does not bound what follows. Responses that are no event streams are
not watched.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import anyio

from asgi_mcp_auth._asgi.asgi_types import ASGIApp, Message, Receive, Scope, Send
from asgi_mcp_auth._asgi.response import POLICY_VIOLATION
from asgi_mcp_auth._keys.background import Background, spawn
from asgi_mcp_auth._request import canonical_name
from asgi_mcp_auth._signals.revocations import OpenStream
from asgi_mcp_auth._verify.verifier import Verified

__all__ = (
    "ExpiringStream",
    "OnExpiry",
    "StreamExpiredError",
    "is_caused_by_expiry",
    "is_event_stream",
    "run_until_expiry",
    "stream_deadline",
)

OnExpiry = Callable[[], object] | None

logger = logging.getLogger("asgi_mcp_auth.streams")

EXPIRED = "The access token expired"
REVOKED = "The access token was revoked"
MAX_SLEEP = 60.0  # the wall clock may be changed while a stream sleeps
HALF_EVENT_GRACE = 5.0  # seconds for the app to complete an event
REVOKED_GRACE = 0.5  # the same if the token was revoked: the stream ends within a second
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
OSERROR_SINCE = (2, 4)  # the ASGI revision that lets send() raise OSError for a client that has left
MAX_CAUSES = 10
LISTEN = "subscriptions/listen"


class StreamExpiredError(OSError):
    """Raised into an app that sends to an event stream after its end (ASGI 2.4: the client has left)."""


def is_caused_by_expiry(error: BaseException | None) -> bool:
    """Return whether an error goes back to a `StreamExpiredError`, which frameworks replace or put into groups."""
    for _ in range(MAX_CAUSES):
        if error is None or isinstance(error, StreamExpiredError):
            break
        if isinstance(error, BaseExceptionGroup):
            grouped: Any = error  # pyright: ignore[reportUnknownVariableType] - a group of any errors
            return all(map(is_caused_by_expiry, grouped.exceptions))
        error = error.__cause__ or error.__context__
    return isinstance(error, StreamExpiredError)


async def _until_revoked(time: float, clock: Callable[[], float], opened: OpenStream | None) -> bool:
    """Wait until a time, or until the token is revoked; return whether it was revoked."""
    while (left := time - clock()) > 0:
        if opened is None:
            await anyio.sleep(min(left, MAX_SLEEP))
            continue
        with anyio.move_on_after(min(left, MAX_SLEEP)):
            await opened.revoked.wait()
            return True
    return False


def is_event_stream(start: Message) -> bool:
    """Return whether the start of a response announces server-sent events."""
    for name, value in start.get("headers", ()):
        if len(name) == 12 and bytes(name).lower() == b"content-type":  # noqa: PLR2004 - the length of the name
            return bytes(value).lower().startswith(b"text/event-stream")
    return False


def stream_deadline(scope: Scope, verified: Verified, grace: float, *, listens: bool | None) -> float | None:
    """Return the time at which the event stream of a response has to end. Return None if the token has no end.

    A stream that answers a POST may outlive the token by `grace` seconds: cutting it would lose the result of a call
    that was authorized when it began, and clients repeat such calls. GET streams and `subscriptions/listen` have no
    result to lose, so they end with the token.

    Args:
        scope: The scope of the request.
        verified: The verified credential of the request.
        grace: Seconds after `exp` at which a stream that answers a POST ends at the latest.
        listens: Whether the body asks for `subscriptions/listen`. None if the body was not read: then `Mcp-Method`
            decides, because a false field can only shorten the caller's own stream.
    """
    until = verified.valid_until
    if until is None or scope["method"] != "POST":
        return until
    if listens is None:
        fields = [value for name, value in scope["headers"] if canonical_name(name) == b"mcp-method"]
        listens = any(value.strip() == LISTEN.encode() for value in fields)
    if listens:
        return until
    expires_at = verified.auth_info.expires_at
    return max(until, (until if expires_at is None else expires_at) + grace)


class ExpiringStream:
    """The `send` of an event stream that ends at a deadline, after the event that is half sent.

    Close the stream when its app has ended, however the app has ended: the timer holds the whole request.

    Args:
        send: The `send` of the server.
        clock: Seconds since the epoch.
        until: The deadline; None if only a revocation ends the stream.
        scope: The scope of the request, for the ASGI revision.
        on_expiry: Called when the deadline or a revocation ends the stream.
        opened: Learns of a revocation of the token; None if revocation is off.
    """

    def __init__(  # noqa: PLR0917 - what is known about the stream
        self,
        send: Send,
        clock: Callable[[], float],
        until: float | None,
        scope: Scope,
        on_expiry: OnExpiry = None,
        opened: OpenStream | None = None,
    ) -> None:
        self._opened = opened
        self._send = send
        self._on_expiry = on_expiry
        self._clock = clock
        self._until = math.inf if until is None else until
        asgi: dict[str, object] = scope.get("asgi") or {}
        version = str(asgi.get("spec_version", "2.0"))
        self._raises = tuple(map(int, version.split(".")[:2])) >= OSERROR_SINCE
        self._sending = self._due = self._over = False
        self._between_events = True
        self._timer: Background | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on. After the end of the stream the app learns that the client has left."""
        if self._over:
            if self._raises:
                raise StreamExpiredError(EXPIRED)
            return
        if self._timer is None:  # with the first message, the start: a stream without a body ends as well
            self._timer = spawn(self._expire)
        if message["type"] == "http.response.body":
            if not message.get("more_body"):
                self.close()
            body = message.get("body", b"")
            if body:
                self._between_events = body.endswith(EVENT_ENDS)
        self._sending = True
        try:
            await self._send(message)
        except BaseException:  # the client has left
            self.close()
            raise
        finally:
            self._sending = False
        if self._due and not self._over:
            await self._end()

    def close(self) -> None:
        """Stop the timer. Nothing more is sent."""
        self._over = True
        if self._opened is not None:
            self._opened.close()
        if self._timer is not None:
            self._timer.cancel()

    async def _end(self) -> None:
        self._over = True
        if self._on_expiry is not None:
            self._on_expiry()
        try:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:  # noqa: BLE001 - servers raise various errors for a client that has left
            logger.debug("The client left before its stream ended: %s", type(error).__name__)

    async def _expire(self) -> None:
        revoked = await _until_revoked(self._until, self._clock, self._opened)
        if not self._between_events or self._sending:
            self._due = True  # the next message of the app, or the one under way, is the last
            await anyio.sleep(REVOKED_GRACE if revoked else HALF_EVENT_GRACE)
        if not self._over and not self._sending:
            await self._end()


async def run_until_expiry(  # noqa: PLR0917 - ASGI's three, and the token's end
    app: ASGIApp,
    clock: Callable[[], float],
    until: float | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    on_expiry: OnExpiry = None,
    opened: OpenStream | None = None,
) -> None:
    """Run a websocket app. Close the websocket when the token has expired or was revoked."""
    if until is None and opened is None:
        await app(scope, receive, send)
        return
    deadline, over = math.inf if until is None else until, False
    ended = ""

    async def watched_receive() -> Message:
        nonlocal over
        message = await receive()
        if ended:  # some servers go on delivering what the client sends
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": ended}
        over = over or message["type"] == "websocket.disconnect"
        return message

    async def watched_send(message: Message) -> None:
        nonlocal over
        if over and message["type"].startswith("websocket."):
            return  # the websocket is closed: drop the message, as servers do
        over = message["type"] == "websocket.close"
        await send(message)

    async def expire() -> None:
        nonlocal ended
        ended = REVOKED if await _until_revoked(deadline, clock, opened) else EXPIRED
        if on_expiry is not None and not over:
            on_expiry()
        try:
            await watched_send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ended})
        except Exception as error:  # noqa: BLE001 - servers raise various errors for a client that has left
            logger.debug("The client left before its websocket was closed: %s", type(error).__name__)

    expiry = spawn(expire)
    try:
        await app(scope, watched_receive, watched_send)
    finally:
        over = True
        expiry.cancel()
        if opened is not None:
            opened.close()
