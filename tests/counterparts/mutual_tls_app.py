"""An app behind the middleware with client certificates: it answers with the fields for certificates that it sees.

RESOURCE and ISSUER as in apps.py, JWKS is the key set, SOURCE the fields of ClientCertificates as JSON.
"""

import json
import os
from typing import Any

from asgi_mcp_auth import AuthServerConfig, ClientCertificates, MCPAuthMiddleware


async def fields(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    seen = sorted(name.decode() for name, _ in scope["headers"] if b"cert" in name.lower())
    answer = {"fields": seen, "extension": "tls" in (scope.get("extensions") or {})}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = MCPAuthMiddleware(
    fields,
    resource=os.environ["RESOURCE"],
    authorization_servers=[AuthServerConfig(issuer=os.environ["ISSUER"], jwks=json.loads(os.environ["JWKS"]))],
    required_scopes=["mcp:read"],
    client_certificates=ClientCertificates(**json.loads(os.environ["SOURCE"])),
)
