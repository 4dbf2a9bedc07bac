"""Running the app for a verified caller: on a copied scope, with its responses and its websocket watched.

The app's own errors are never caught, its streams never buffered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asgi_mcp_auth._asgi.expiry import StreamEnd, is_event_stream, run_until_expiry
from asgi_mcp_auth._asgi.identity import AuthenticatedUser, Credentials, SDKBridge
from asgi_mcp_auth._protocol.cross_origin import Cors
from asgi_mcp_auth._protocol.request import CREDENTIAL_FIELDS
from asgi_mcp_auth._remote.verifiers import Verified
from asgi_mcp_auth.context import current_auth_var

__all__ = ("Surroundings", "run_app", "run_public")


class Surroundings(NamedTuple):
    """What running an app needs beside the request."""

    app: Any
    bridge: SDKBridge | None
    expose_token: bool
    clock: Callable[[], float]
    app_answered_401: Callable[[], None] | None


async def run_app(  # noqa: PLR0917 - ASGI's three, and ours
    around: Surroundings,
    verified: Verified,
    cors: Cors | None,
    scope: Any,
    receive: Any,
    send: Any,
    wrap_send: Callable[[Any], Any] | None = None,
) -> None:
    """Run the app with the caller's identity in its scope and in `current_auth()`."""
    info = verified.auth_info
    claims = info.claims
    user = AuthenticatedUser(info) if around.bridge is None else around.bridge.make_user(info, claims)
    child: dict[str, Any] = {
        **scope,
        "state": {**(scope.get("state") or {}), "mcp_auth": info, "claims": claims},
        "user": user,
        "auth": Credentials(info.scopes),
    }
    if not around.expose_token:  # a token that the app cannot see, it cannot pass on (MCP: token passthrough)
        child["headers"] = [field for field in scope["headers"] if field[0] not in CREDENTIAL_FIELDS]
    reset_bridge = None if around.bridge is None else around.bridge.context_var.set(user)
    reset = current_auth_var.set(info)
    try:
        if scope["type"] == "websocket":
            await run_until_expiry(around.app, around.clock, verified.valid_until, child, receive, send)
        else:
            watched = _watch_responses(send, around, verified, cors, child)
            await around.app(child, receive, watched if wrap_send is None else wrap_send(watched))
    finally:
        current_auth_var.reset(reset)
        if around.bridge is not None and reset_bridge is not None:
            around.bridge.context_var.reset(reset_bridge)


async def run_public(  # noqa: PLR0917 - ASGI's three, and ours
    around: Surroundings,
    cors: Cors | None,
    scope: Any,
    receive: Any,
    send: Any,
    wrap_send: Callable[[Any], Any] | None = None,
) -> None:
    """Run the app for nobody: servers start a pipelined request in the context of the one before."""

    async def with_cors(message: Any) -> None:
        await send(add_fields(message, (), cors) if message["type"] == "http.response.start" else message)

    reset_bridge = None if around.bridge is None else around.bridge.context_var.set(None)
    reset = current_auth_var.set(None)
    try:
        watched = send if cors is None else with_cors
        await around.app(scope, receive, watched if wrap_send is None else wrap_send(watched))
    finally:
        current_auth_var.reset(reset)
        if around.bridge is not None and reset_bridge is not None:
            around.bridge.context_var.reset(reset_bridge)


def _watch_responses(send: Any, around: Surroundings, verified: Verified, cors: Cors | None, scope: Any) -> Any:
    """`send`, adding header fields to the response's start and ending an event stream with the token."""
    stream: StreamEnd | None = None

    async def watch(message: Any) -> None:
        nonlocal stream
        if stream is not None:
            await stream.send(message)
            return
        if message["type"] == "http.response.start":
            if message["status"] == 401 and around.app_answered_401 is not None:  # noqa: PLR2004
                around.app_answered_401()
            if verified.valid_until is not None and is_event_stream(message):
                stream = StreamEnd(send, around.clock, verified.valid_until, scope)
            message = add_fields(message, verified.response_headers, cors)
        await send(message)

    return watch


def add_fields(message: Any, fields: Iterable[tuple[bytes, bytes]], cors: Cors | None) -> Any:
    """A response's start with fields added; CORS only where the app does not do it itself."""
    if cors is None and not fields:
        return message
    headers = list(message.get("headers", ()))
    names = {bytes(name).lower() for name, _ in headers}
    headers += fields
    if cors is not None and b"access-control-allow-origin" not in names:
        headers += [field for field in cors.response if field[0] == b"vary" or field[0] not in names]
    return {**message, "headers": headers}
