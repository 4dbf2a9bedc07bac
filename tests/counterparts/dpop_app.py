"""An app behind the middleware with DPoP, for several workers: it answers with the process that served the request.

RESOURCE and ISSUER as in apps.py, STORE is the URL of a Redis server, MODE the mode of DPoP; NONCES=1 demands nonces.
KEYS is the key set of the issuer as JSON, if its metadata cannot be fetched. A websocket is accepted and closed.
"""

import json
import os
from typing import Any

from asgi_mcp_auth import AuthServerConfig, DPoPSettings, MCPAuthMiddleware
from asgi_mcp_auth.stores.redis import RedisStore

SECRET = "a secret that all workers share, long enough"


async def pid(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


issuer = os.environ["ISSUER"]
keys = json.loads(os.environ.get("KEYS", "null"))

app = MCPAuthMiddleware(
    pid,
    resource=os.environ["RESOURCE"],
    authorization_servers=[issuer if keys is None else AuthServerConfig(issuer=issuer, jwks=keys)],
    required_scopes=["mcp:read"],
    dpop=os.environ["MODE"],  # type: ignore[arg-type]
    dpop_settings=DPoPSettings(require_nonce=os.environ.get("NONCES") == "1"),
    shared_secret=SECRET,
    store=RedisStore(os.environ["STORE"]) if "STORE" in os.environ else None,
)
