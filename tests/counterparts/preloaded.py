"""A protected app that fetches its keys when it is imported: for gunicorn with --preload, before it forks."""

import json
import os
from typing import Any

import anyio

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy

metadata = ResourceServerMetadata(resource=os.environ["RESOURCE"], authorization_servers=[os.environ["ISSUER"]])
auth = MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])))
failed = anyio.run(auth.warm_up)


async def who(scope: Any, receive: Any, send: Any) -> None:
    """Say which process this is, what it fetched, and when it will again."""
    (issuer,) = auth.status().issuers
    answer = {"pid": os.getpid(), "parent": os.getppid(), "failed": failed, "fetches": issuer.key_set.fetches}
    await anyio.sleep(0.05)  # so that the others get their share
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = auth.wrap(who)
