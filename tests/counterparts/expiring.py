"""Event streams whose token expires, under any ASGI server; RESOURCE is the resource identifier.

GET /mcp             an event every 0.1 s, until the app is told that the client has gone
GET /control/token   a token that lives for 2 s
GET /control/woken   the number of streams that were told so
"""

import os
from typing import Any

import anyio

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.testing import Issuer

RESOURCE = os.environ["RESOURCE"]
issuer = Issuer("https://auth.example.com")


class Counted:
    woken = 0


async def stream(receive: Any, send: Any) -> None:
    fields = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})

    async def talk() -> None:
        number = 0
        while True:
            number += 1
            for part in (b"data: %d" % number, b"\n\n"):  # an event in two pieces
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk)
        while (await receive())["type"] != "http.disconnect":
            pass
        Counted.woken += 1
        tasks.cancel_scope.cancel()


async def inner(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/mcp":
        await stream(receive, send)
    else:
        exp = int(issuer.clock()) + 2
        told = (
            issuer.mint(RESOURCE, scope="mcp:read", exp=exp)
            if scope["path"] == "/control/token"
            else str(Counted.woken)
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": told.encode()})


auth = MCPAuth(
    ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=RESOURCE, authorization_servers=[AuthServerConfig(issuer=issuer.url, leeway=0)]
        ),
        policy=ScopePolicy(default=["mcp:read"], tools={"x": ["mcp:x"]}, filter_lists=True),
    ),
    http_client=issuer.http_client,
    public_paths=["/control/*"],
)
app = auth.wrap(inner)
