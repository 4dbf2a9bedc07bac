"""A protected app that waits for its keys at start: for gunicorn, whose workers start one by one."""

import json
import os
from typing import Any

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy

metadata = ResourceServerMetadata(resource=os.environ["RESOURCE"], authorization_servers=[os.environ["ISSUER"]])
auth = MCPAuth(
    ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])),
    require_warm_up=True,
    warm_up_timeout=float(os.environ["WARM_UP_TIMEOUT"]),
    dangerously_exit_when_cold=bool(os.environ.get("EXIT_WHEN_COLD")),
)


async def who(scope: Any, receive: Any, send: Any) -> None:
    """Say which process this is."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(os.getpid()).encode()})


app = auth.wrap(who)
