"""Apps with rules for MCP operations, and the JSON-RPC requests to them."""

from __future__ import annotations

import json
from typing import Any

from harness import Answer, R, RecordingApp, bearer, http_scope, send_scope

from asgi_mcp_auth import (
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
)
from asgi_mcp_auth.testing import Issuer

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION = "io.modelcontextprotocol/protocolVersion"
POLICY: dict[str, Any] = {
    "default": ["mcp:read"],
    "tools": {"delete_file": ["files:write"], "ab": ["a", "b"], "mfa": ScopeRule(acr_values=["urn:mfa"])},
    "resources": {"file:///secret/*": ["files:secret"]},
    "prompts": {"boss": ["prompts:boss"]},
    "rpc_methods": {"tasks/*": ["tasks:use"]},
}


class EchoApp(RecordingApp):
    """Answers with the body that reached it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def guarded(issuer: Issuer, app: Any = None, options: dict[str, Any] | None = None, **policy: Any) -> MCPAuthMiddleware:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(**(POLICY | policy)))
    more: dict[str, Any] = options or {}
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, **more)
    return auth.wrap(app or EchoApp())


def rpc(method: str, message_id: int | None = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **({} if message_id is None else {"id": message_id}), "method": method, "params": params}


def modern(body: dict[str, Any], version: str = MODERN) -> dict[str, Any]:
    return body | {"params": {**body["params"], "_meta": {VERSION: version}}}


def call_tool(name: str, **more: Any) -> dict[str, Any]:
    return rpc("tools/call", name=name, arguments={}, **more)


async def post(
    app: Any,
    bearer_token: str | None,
    body: Any,
    version: str | None = LEGACY,
    *fields: tuple[str, str],
    path: str = "/mcp",
    method: str = "POST",
    content_type: str | None = "application/json",
) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers: list[tuple[str, str | bytes]] = [*(bearer(bearer_token) if bearer_token else ()), *fields]
    headers += [("content-type", content_type)] if content_type else []
    headers += [("mcp-protocol-version", version)] if version else []
    return await send_scope(app, http_scope(method, path, headers), data)


LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'

TOOLS = {"tools": [{"name": "delete_file"}, {"name": "x"}], "cacheScope": "public", "nextCursor": "n"}


class Replies:
    """An app that answers with given chunks."""

    def __init__(self, *chunks: bytes, content_type: bytes = b"application/json", **more: bytes) -> None:
        self.chunks = chunks
        self.headers = [(b"Content-Type", content_type), (b"content-length", str(sum(map(len, chunks))).encode())]
        self.headers += [(name.replace("_", "-").encode(), value) for name, value in more.items()]
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def reply(result: Any, message_id: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message_id, "result": result}).encode()


def names(answer: Answer) -> list[str]:
    return [tool["name"] for tool in answer.json()["result"]["tools"]]
