"""An MCP server without authorization code.

gunicorn.conf.py and mcp-auth.toml protect it. Needs fastmcp.
"""

from fastmcp import FastMCP

from asgi_mcp_auth import current_auth

mcp = FastMCP("notes")


@mcp.tool
def whoami() -> str:
    """Return the subject of the caller's token."""
    auth = current_auth()
    return "no token" if auth is None else auth.subject


app = mcp.http_app(stateless_http=True)  # stateless: with several workers, each request may reach another worker
