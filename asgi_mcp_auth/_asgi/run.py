"""Running the app for a verified caller, with a copy of the scope and a wrapped `send`.

The exceptions of the app pass through, and its streams are not buffered.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from asgi_mcp_auth._asgi.asgi_types import ASGIApp, Message, Receive, Scope, Send, WrapSend
from asgi_mcp_auth._asgi.identity import AuthenticatedUser, Credentials, SDKBridge
from asgi_mcp_auth._asgi.streams import (
    ExpiringStream,
    OnExpiry,
    is_caused_by_expiry,
    is_event_stream,
    run_until_expiry,
    stream_deadline,
)
from asgi_mcp_auth._oauth.origin import Cors
from asgi_mcp_auth._oauth.responses import Header
from asgi_mcp_auth._policy.api_key_file import API_KEY_ISSUER
from asgi_mcp_auth._request import RequestInfo, canonical_name
from asgi_mcp_auth._signals.revocations import OpenStream, Revocations
from asgi_mcp_auth._upstream.exchange import Exchanger
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.context import current_auth_var
from asgi_mcp_auth.errors import ExchangeError, Refusal

__all__ = ("NO_OVERRIDES", "AppContext", "Overrides", "run_app", "run_exchanging", "run_public")

STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
"""The messages that contain the header fields of a response."""


class Overrides(NamedTuple):
    """What the app sees of a request in another way than the server passed it.

    Attributes:
        receive: Replays a body that was read; None for the server's own.
        wrap_send: Wraps `send`, to filter lists or to watch for a new session id.
        removed_fields: Header fields, by canonical name, that the app does not get.
        listens: Whether the body asks for `subscriptions/listen`. None: the body was not read.
        began_anonymously: Whether the caller's session was made without a token.
    """

    receive: Receive | None = None
    wrap_send: WrapSend | None = None
    removed_fields: frozenset[bytes] = frozenset()
    listens: bool | None = None
    began_anonymously: bool = False


NO_OVERRIDES = Overrides()


class AppContext:
    """The values that running the app needs in addition to the request.

    Args:
        app: The ASGI app.
        bridge: Sets the identity of the MCP SDK; None if the SDK is not loaded.
        clock: Seconds since the epoch.
        check_response: Called with the start of a redirect or an error of the app; returns the `send` to go on with.
        expose_token: Whether the app receives the raw token.
        post_stream_grace: Seconds for which the stream of a POST may outlive its token.
        revocations: Ends the streams of revoked tokens; None if revocation is off.
    """

    __slots__ = ("app", "bridge", "check_response", "clock", "expose_token", "post_stream_grace", "revocations")

    def __init__(
        self,
        app: ASGIApp,
        bridge: SDKBridge | None,
        clock: Callable[[], float],
        check_response: Callable[[Message, Scope, Send], Send],
        *,
        expose_token: bool,
        post_stream_grace: float,
        revocations: Revocations | None = None,
    ) -> None:
        self.app = app
        self.bridge = bridge
        self.clock = clock
        self.check_response = check_response
        self.expose_token = expose_token
        self.post_stream_grace = post_stream_grace
        self.revocations = revocations

    def open_stream(self, verified: Verified) -> OpenStream | None:
        """Return what learns of a revocation of the token; None if revocation is off."""
        return None if self.revocations is None else self.revocations.watch(verified.auth_info)


async def run_app(  # noqa: PLR0917 - the three arguments of ASGI and our own
    context: AppContext,
    verified: Verified,
    cors: Cors | None,
    request: RequestInfo,
    receive: Receive,
    send: Send,
    overrides: Overrides = NO_OVERRIDES,
    on_expiry: OnExpiry = None,
) -> None:
    """Run the app with the caller's identity in its scope and in `current_auth()`.

    The MCP SDK binds a session to the SDK's type of user in the scope that made it. In a session that was made without
    a token the scope has our own type, so that the SDK finds the session again.
    """
    info, bridge, scope = verified.auth_info, context.bridge, request.scope
    replayed, wrap_send, removed_fields, listens, began_anonymously = overrides
    user = AuthenticatedUser(info) if bridge is None else bridge.make_user(info)
    child: dict[str, Any] = dict(scope)
    identity = {"mcp_auth": info, "claims": info.claims}
    state = child.get("state")
    child["state"] = {**state, **identity} if state else identity
    child["user"] = AuthenticatedUser(info) if began_anonymously else user
    child["auth"] = Credentials(info.scopes)
    if not context.expose_token or info.issuer == API_KEY_ISSUER:  # MCP forbids token passthrough; a key is no token
        child["headers"] = request.forwarded
    if removed_fields:
        child["headers"] = _without(removed_fields, child["headers"])
    reset_bridge = None if bridge is None else bridge.context_var.set(user)
    reset = current_auth_var.set(info)
    receive = replayed or receive
    try:
        if scope["type"] == "websocket":
            if verified.response_headers:  # no CORS fields: browsers do not apply CORS to websockets
                send = _adding_fields(send, verified.response_headers, None)
            opened, until = context.open_stream(verified), verified.valid_until
            await run_until_expiry(context.app, context.clock, until, child, receive, send, on_expiry, opened)
        else:
            if cors is not None or verified.response_headers:
                send = _adding_fields(send, verified.response_headers, cors)
            watched = _WatchedResponse(send, context, verified, child, listens, on_expiry)
            try:
                await context.app(child, receive, watched.send if wrap_send is None else wrap_send(watched.send))
            except Exception as error:
                if not is_caused_by_expiry(error):  # else the stream has ended as it should: no traceback in the log
                    raise
            finally:
                watched.close()
    finally:
        current_auth_var.reset(reset)
        if bridge is not None and reset_bridge is not None:
            bridge.context_var.reset(reset_bridge)


class _Watched:
    """A `send` that notes whether the app has responded."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    def __call__(self, message: Message) -> Awaitable[None]:
        self.started = True
        sent: Awaitable[None] = self._send(message)
        return sent


class _Received:
    """The `receive` of a websocket, which keeps the last message."""

    __slots__ = ("_last", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._last: Message | None = None

    async def __call__(self) -> Message:
        """Return the next message."""
        self._last = await self._receive()
        return self._last

    async def again(self) -> Message:
        """Return the last message once more; wait for the first one if there was none."""
        return await self() if self._last is None else self._last


async def run_exchanging(  # noqa: PLR0917 - the arguments of `run_app`, and two more
    exchanger: Exchanger,
    answer: Callable[[Refusal, Verified, Cors | None, RequestInfo, Receive, Send], Awaitable[None]],
    context: AppContext,
    verified: Verified,
    cors: Cors | None,
    request: RequestInfo,
    receive: Receive,
    send: Send,
    overrides: Overrides = NO_OVERRIDES,
    on_expiry: OnExpiry = None,
) -> None:
    """Run the app as `run_app` does, with the caller's token held for exchange.

    An `ExchangeError` that the app lets pass before it responds is answered, unless only the app can decide about it.
    """
    watched, again = _Watched(send), receive
    if request.is_websocket:  # the app may have received the handshake that is to be answered
        received = _Received(receive)
        receive, again = received, received.again
    entered = exchanger.enter(verified.auth_info, request, verified.valid_until)
    try:
        await run_app(context, verified, cors, request, receive, watched, overrides, on_expiry)
    except ExchangeError as error:
        refusal = error.refusal()
        if refusal is None or watched.started:
            raise
    else:
        return
    finally:
        exchanger.leave(entered)
    await answer(refusal, verified, cors, request, again, send)


async def run_public(  # noqa: PLR0917 - the three arguments of ASGI and our own
    context: AppContext,
    cors: Cors | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    overrides: Overrides = NO_OVERRIDES,
) -> None:
    """Run the app without an identity.

    The context variables are reset, because a server may start a pipelined request in the context of the previous one.
    """
    reset_bridge = None if context.bridge is None else context.bridge.context_var.set(None)
    reset = current_auth_var.set(None)
    if overrides.removed_fields:
        scope = {**scope, "headers": _without(overrides.removed_fields, scope["headers"])}
    try:
        watched = send if cors is None else _adding_fields(send, (), cors)
        if overrides.wrap_send is not None:
            watched = overrides.wrap_send(watched)
        await context.app(scope, overrides.receive or receive, watched)
    finally:
        current_auth_var.reset(reset)
        if context.bridge is not None and reset_bridge is not None:
            context.bridge.context_var.reset(reset_bridge)


def _without(names: frozenset[bytes], headers: Iterable[Header]) -> list[Header]:
    """Return the header fields without those that have one of these canonical names."""
    return [field for field in headers if canonical_name(field[0]) not in names]


def _as_coroutine_function(send: Any) -> Any:
    """Return `send` marked as a coroutine function: `async_to_sync` of asgiref warns if it is not."""
    mark: Any = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if mark is not None:
        return mark(send)

    async def sending(self: Any, message: Message) -> None:
        await send(self, message)

    return sending


class _WatchedResponse:
    """A `send` that passes redirects and errors of the app to a check, and ends an event stream with the token."""

    __slots__ = ("_context", "_listens", "_on_expiry", "_scope", "_send", "_stream", "_verified")

    def __init__(  # noqa: PLR0917 - what is known about the response
        self,
        send: Send,
        context: AppContext,
        verified: Verified,
        scope: Scope,
        listens: bool | None,
        on_expiry: OnExpiry,
    ) -> None:
        self._on_expiry = on_expiry
        self._send = send
        self._context = context
        self._verified = verified
        self._scope = scope
        self._listens = listens
        self._stream: ExpiringStream | None = None

    def close(self) -> None:
        """Stop what was started for the response: the app has ended."""
        if self._stream is not None:
            self._stream.close()

    @_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        """Return the awaitable of the server's `send`, which saves one coroutine per message."""
        send = self._send
        if message["type"] == "http.response.start":
            if message["status"] >= 300:  # noqa: PLR2004 - a redirect or an error
                self._send = send = self._context.check_response(message, self._scope, send)
            context, verified = self._context, self._verified
            if (verified.valid_until is not None or context.revocations is not None) and is_event_stream(message):
                opened, grace = context.open_stream(verified), context.post_stream_grace
                until = stream_deadline(self._scope, verified, grace, listens=self._listens)
                self._stream = ExpiringStream(send, context.clock, until, self._scope, self._on_expiry, opened)
                self._send = send = self._stream.send
        sent: Awaitable[None] = send(message)
        return sent


def _adding_fields(send: Send, fields: tuple[Header, ...], cors: Cors | None) -> Send:
    """Return a `send` that adds header fields to the start of the response, or to the answer to a handshake."""

    async def adding(message: Message) -> None:
        await send(add_fields(message, fields, cors) if message["type"] in STARTS else message)

    return adding


def add_fields(message: Message, fields: tuple[Header, ...], cors: Cors | None) -> Message:
    """Return the start of a response with more header fields; CORS fields only if the app does not set its own."""
    sent: Iterable[Header] = message.get("headers") or ()  # some apps accept a websocket with headers=None
    headers = list(sent)
    names = {bytes(name).lower() for name, _ in headers}
    headers += fields
    if cors is not None and b"access-control-allow-origin" not in names:
        headers += [field for field in cors.response if field[0] == b"vary" or field[0] not in names]
    return {**message, "headers": headers}
