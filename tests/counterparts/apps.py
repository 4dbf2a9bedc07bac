"""The protected app of the tests: Starlette behind `MCPAuthMiddleware`, under any ASGI server.

    RESOURCE   the resource identifier; the app's paths begin with /mcp, and so should its path
    ISSUERS    the trusted issuers, separated by spaces
    LEEWAY     seconds (0)

Every request needs the scope mcp:read, /mcp/admin needs mcp:admin as well. /control/* is public:

    POST /control/clock?ahead=31   the middleware's clock is 31 s ahead from now on
    POST /control/release          an open stream may say its second word
    GET  /control/streams          {"ended": number of streams that are over, however}
"""

import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_mcp_auth import (
    AuthServerConfig,
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)


class Controls:
    """What the control paths change."""

    ahead = 0.0
    released = False
    streams_ended = 0


def clock() -> float:
    return time.time() + Controls.ahead


async def whoami(request: Request) -> JSONResponse:
    """Everything an app may learn of its caller, and what it may not."""
    seen: dict[str, Any] = {
        "claims": request.state.claims,
        "subject": request.state.mcp_auth.subject,
        "client_id": request.state.mcp_auth.client_id,
        "expires_at": request.state.mcp_auth.expires_at,
        "user": request.user.display_name,
        "is_authenticated": request.user.is_authenticated,
        "scopes": request.auth.scopes,
        "authorization": request.headers.get("authorization"),
    }
    return JSONResponse(seen)


async def stream(request: Request) -> StreamingResponse:
    """One word at once, the second when it is released, or none if the client leaves before."""

    async def words() -> AsyncGenerator[str]:
        try:
            yield f"first {request.user.display_name}\n"
            while not Controls.released:  # noqa: ASYNC110 - set by another request
                await anyio.sleep(0.01)
            yield "second\n"
        finally:
            Controls.streams_ended += 1

    Controls.released = False
    return StreamingResponse(words(), media_type="text/plain")


async def echo(websocket: WebSocket) -> None:
    """Say who is there, then echo."""
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


async def set_clock(request: Request) -> Response:
    Controls.ahead = float(request.query_params["ahead"])
    return Response(status_code=204)


async def release(request: Request) -> Response:
    Controls.released = True
    return Response(status_code=204)


async def streams(request: Request) -> JSONResponse:
    return JSONResponse({"ended": Controls.streams_ended})


auth = MCPAuth(
    ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=os.environ["RESOURCE"],
            authorization_servers=[
                AuthServerConfig(issuer=issuer, leeway=float(os.environ.get("LEEWAY", "0")))
                for issuer in os.environ["ISSUERS"].split()
            ],
        ),
        policy=ScopePolicy(default=["mcp:read"], paths={"/mcp/admin": ["mcp:admin"]}),
    ),
    public_paths=["/control/*"],
    clock=clock,
)
app = Starlette(
    routes=[
        Route("/mcp", whoami, methods=["GET", "POST"]),
        Route("/mcp/admin", whoami, methods=["POST"]),
        Route("/mcp/stream", stream),
        WebSocketRoute("/mcp/ws", echo),
        Route("/control/clock", set_clock, methods=["POST"]),
        Route("/control/release", release, methods=["POST"]),
        Route("/control/streams", streams),
    ],
    middleware=[Middleware(MCPAuthMiddleware, auth=auth)],
)
