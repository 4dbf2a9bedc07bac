"""An app behind the middleware with DPoP, for several workers: it answers with the process that served the request.

RESOURCE and ISSUER as in apps.py, STORE is the URL of a Redis server, MODE the mode of DPoP; NONCES=1 demands nonces.
"""

import os
from typing import Any

from asgi_mcp_auth import DPoPSettings, MCPAuthMiddleware
from asgi_mcp_auth.stores.redis import RedisStore

SECRET = "a secret that all workers share, long enough"


async def pid(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


app = MCPAuthMiddleware(
    pid,
    resource=os.environ["RESOURCE"],
    authorization_servers=[os.environ["ISSUER"]],
    required_scopes=["mcp:read"],
    dpop=os.environ["MODE"],  # type: ignore[arg-type]
    dpop_settings=DPoPSettings(require_nonce=os.environ.get("NONCES") == "1"),
    shared_secret=SECRET,
    store=RedisStore(os.environ["STORE"]) if "STORE" in os.environ else None,
)
