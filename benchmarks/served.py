"""The app that the servers of the benchmarks serve, chosen by environment variables.

`APP` is "hello" or "mcp". `SHIELD` is the middleware: "none", "least" or "ours". `ISSUER` is the trusted issuer, and
`TOKEN` is the token that `least` knows. `GET /loop-delay` returns the delays of the event loop since the last call, in
milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from typing import Any

from exchanges import RESOURCE, SCOPE, trivial_app
from least import Least

from asgi_mcp_auth import MCPAuthMiddleware

__all__ = ("app",)

EVERY = 0.005
LONGEST = 100_000


class LoopDelay:
    """A middleware that measures the delay of a periodic task, and serves the delays."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.delays: list[float] = []
        self.watching: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + EVERY
            await asyncio.sleep(EVERY)
            if len(self.delays) < LONGEST:
                self.delays.append((time.perf_counter() - due) * 1e3)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/loop-delay":
            await self.inner(scope, receive, send)
            return
        if self.watching is None:  # the first call starts the task: other benchmarks do not pay for it
            self.watching = asyncio.get_running_loop().create_task(self.watch())
        body, self.delays = json.dumps(self.delays).encode("ascii"), []
        fields = [(b"content-length", str(len(body)).encode("ascii")), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI app with a lifespan."""
    if scope["type"] != "lifespan":
        await trivial_app(scope, receive, send)
        return
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


def add(a: int, b: str) -> str:
    """Do nothing expensive."""
    return f"{a}{b}"


def tool_server() -> Any:
    """Return the MCP SDK's server, without sessions."""
    from mcp.server.mcpserver import MCPServer

    logging.getLogger("mcp").setLevel(logging.WARNING)
    server = MCPServer("benchmark", log_level="WARNING")
    server.add_tool(add)
    return server.streamable_http_app(stateless_http=True, json_response=True)


def build() -> Any:
    served = hello if os.environ["APP"] == "hello" else tool_server()
    shield = os.environ["SHIELD"]
    if shield == "none":
        return LoopDelay(served)
    if shield == "least":
        return LoopDelay(Least(served, os.environ["TOKEN"]))
    protected = MCPAuthMiddleware(
        served, resource=RESOURCE, authorization_servers=[os.environ["ISSUER"]], required_scopes=[SCOPE]
    )
    return LoopDelay(protected)


app = build()
