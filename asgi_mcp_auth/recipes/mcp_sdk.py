"""A server of the MCP SDK, protected, with the caller in its tools.

    uvicorn mcp_sdk:app

Needs mcp and uvicorn. The MCP SDK itself accepts only loopback hosts by default: behind a public host name, pass
`streamable_http_app(transport_security=TransportSecuritySettings(allowed_hosts=["api.example.com"]))`.
"""

import os

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer

from asgi_mcp_auth import MCPAuthMiddleware, current_auth

server = MCPServer("notes")


@server.tool()
def whoami() -> str:
    """Return the subject of the caller's token and the issuer that vouches for it."""
    auth = current_auth()
    assert auth is not None  # a request without a token reaches no tool
    return f"{auth.subject} of {auth.issuer}"


@server.tool()
def scopes() -> list[str]:
    """Return the scopes of the caller's token, from the SDK's own function."""
    token = get_access_token()
    return [] if token is None else token.scopes


app = MCPAuthMiddleware(
    server.streamable_http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
)
