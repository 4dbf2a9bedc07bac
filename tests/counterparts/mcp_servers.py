"""MCP servers behind `MCPAuthMiddleware` with rules for operations: SERVER is "sdk" or "fastmcp".

RESOURCE and ISSUERS as in apps.py. Every request needs mcp:read, the tool `write` mcp:write as well.
"""

import os
from typing import Any

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy


def read() -> str:
    return "read"


def write() -> str:
    return "written"


def build() -> Any:
    if os.environ["SERVER"] == "fastmcp":
        from fastmcp import FastMCP

        fast = FastMCP("notes")
        fast.tool(read)
        fast.tool(write)
        return fast.http_app(path="/mcp")
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("notes")
    server.add_tool(read)
    server.add_tool(write)
    return server.streamable_http_app()


auth = MCPAuth(
    ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=os.environ["RESOURCE"], authorization_servers=os.environ["ISSUERS"].split()
        ),
        policy=ScopePolicy(
            default=["mcp:read"],
            tools={"write": ["mcp:write"]},
            filter_lists=True,
            annotate_lists=["required_scopes"] if os.environ.get("MARK") == "1" else [],
        ),
    )
)
app = auth.wrap(build())
