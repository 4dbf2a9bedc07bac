"""Running the app for a verified caller: on a copied scope, with its responses and its websocket watched.

The app's own errors are never caught, its streams never buffered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anyio

from asgi_mcp_auth._asgi.identity import AuthenticatedUser, Credentials, SDKBridge
from asgi_mcp_auth._asgi.sending import POLICY_VIOLATION
from asgi_mcp_auth._protocol.cross_origin import Cors
from asgi_mcp_auth._protocol.request import CREDENTIAL_FIELDS
from asgi_mcp_auth._remote.tasks import spawn
from asgi_mcp_auth._remote.verifiers import Verified
from asgi_mcp_auth.context import current_auth_var

__all__ = ("Surroundings", "run_app", "run_public")

EXPIRED = "The access token expired"
LONGEST_SLEEP = 60.0  # a wall clock may be set


class Surroundings(NamedTuple):
    """What running an app needs beside the request."""

    app: Any
    bridge: SDKBridge | None
    expose_token: bool
    clock: Callable[[], float]
    app_answered_401: Callable[[], None] | None


async def run_app(  # noqa: PLR0917 - ASGI's three, and ours
    around: Surroundings, verified: Verified, cors: Cors | None, scope: Any, receive: Any, send: Any
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
            await _run_until_expiry(around, verified.valid_until, child, receive, send)
        elif cors is None and not verified.response_headers and around.app_answered_401 is None:
            await around.app(child, receive, send)
        else:
            await around.app(child, receive, _watch_responses(send, verified, cors, around.app_answered_401))
    finally:
        current_auth_var.reset(reset)
        if around.bridge is not None and reset_bridge is not None:
            around.bridge.context_var.reset(reset_bridge)


async def run_public(around: Surroundings, scope: Any, receive: Any, send: Any) -> None:
    """Run the app for nobody: servers start a pipelined request in the context of the one before."""
    reset_bridge = None if around.bridge is None else around.bridge.context_var.set(None)
    reset = current_auth_var.set(None)
    try:
        await around.app(scope, receive, send)
    finally:
        current_auth_var.reset(reset)
        if around.bridge is not None and reset_bridge is not None:
            around.bridge.context_var.reset(reset_bridge)


def _watch_responses(
    send: Any, verified: Verified, cors: Cors | None, app_answered_401: Callable[[], None] | None
) -> Any:
    """`send`, adding header fields to the response's start; everything else passes through."""

    async def watch(message: Any) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 401 and app_answered_401 is not None:  # noqa: PLR2004
                app_answered_401()
            if cors is not None or verified.response_headers:
                headers = list(message.get("headers", ()))
                names = {bytes(name).lower() for name, _ in headers}
                headers += verified.response_headers
                if cors is not None and b"access-control-allow-origin" not in names:  # else the app does CORS itself
                    headers += [field for field in cors.response if field[0] == b"vary" or field[0] not in names]
                message = {**message, "headers": headers}
        await send(message)

    return watch


async def _run_until_expiry(around: Surroundings, until: float | None, scope: Any, receive: Any, send: Any) -> None:
    """Run a websocket app; close the socket when the token has expired."""
    if until is None:
        await around.app(scope, receive, send)
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
        while (left := until - around.clock()) > 0:  # noqa: ASYNC110 - waits for a time, not for an event
            await anyio.sleep(min(left, LONGEST_SLEEP))
        expired = True
        await watched_send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": EXPIRED})

    expiry = spawn(expire)
    try:
        await around.app(scope, watched_receive, watched_send)
    finally:
        over = True
        expiry.cancel()
