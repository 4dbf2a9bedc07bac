"""MCP servers for the stack tests: the MCP SDK's and fastmcp's, below /NAME, with tools that say who called them.

`wrap` is the middleware around the app, `native` the server's own way of adding it. `own` is no middleware at all but the
server's own `auth=`, with our verification as its `token_verifier=`. The tool `purge` of fastmcp asks for mcp:admin.
"""

from __future__ import annotations

import json
from typing import Any

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider, require_scopes
from fastmcp.server.dependencies import get_access_token as fastmcp_get_access_token
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.middleware import Middleware

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, current_auth

ISSUER = AnyHttpUrl("https://auth.example.com")


def told(token: Any) -> str:
    """What a tool says of its caller: by the server's own function, and by ours."""
    caller = current_auth()
    own = [token and token.claims["sub"], token and list(token.scopes)]
    return json.dumps([own, [caller and caller.subject, caller and list(caller.scopes)]])


def sdk(name: str, auth: MCPAuth) -> Any:
    """`MCPServer.streamable_http_app()`."""
    own: dict[str, Any] = {}
    if name.endswith("-own"):
        resource = AnyHttpUrl(auth._protection.config.resources[0].identifier)
        settings = AuthSettings(issuer_url=ISSUER, resource_server_url=resource, required_scopes=["mcp:read"])
        own = {"token_verifier": auth.token_verifier(), "auth": settings}
    server = MCPServer("notes", **own)

    @server.tool()
    async def whoami() -> str:
        return told(get_access_token())

    @server.tool()
    def whoami_sync() -> str:
        return told(get_access_token())

    app = server.streamable_http_app(streamable_http_path=f"/{name}")
    if name.endswith("-native"):
        app.add_middleware(MCPAuthMiddleware, auth=auth)
    return auth.wrap(app) if name.endswith("-wrap") else app


def fastmcp(name: str, auth: MCPAuth) -> Any:
    """`FastMCP.http_app()`."""
    provider: Any = None
    if name.endswith("-own"):
        resource = auth._protection.config.resources[0].identifier
        verifier: Any = auth.token_verifier()
        base = resource.removesuffix(f"/{name}")
        provider = RemoteAuthProvider(verifier, authorization_servers=[ISSUER], base_url=base)
    server = FastMCP[None]("notes", auth=provider)

    @server.tool
    async def whoami() -> str:
        return told(fastmcp_get_access_token())

    @server.tool
    def whoami_sync() -> str:
        return told(fastmcp_get_access_token())

    @server.tool(auth=require_scopes("mcp:admin"))
    def purge() -> str:
        return "purged"

    layers: Any = [Middleware(MCPAuthMiddleware, auth=auth)] if name.endswith("-native") else []
    app = server.http_app(path=f"/{name}", middleware=layers)
    return auth.wrap(app) if name.endswith("-wrap") else app
