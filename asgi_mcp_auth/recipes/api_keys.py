"""A fastmcp server that accepts API keys in addition to OAuth: for scripts and other servers.

    uvicorn api_keys:app

Make a key first: `asgi-mcp-auth api-key new --subject nightly-job --scope notes:read --file api-keys`. A client sends
the key as a bearer token or in the field `x-api-key`. Needs fastmcp and uvicorn.
"""

import os

from fastmcp import FastMCP

from asgi_mcp_auth import ApiKeys, Choose, MCPAuthMiddleware, current_auth

mcp = FastMCP("notes")


@mcp.tool
def whoami() -> str:
    """Return the caller: a user who signed in, or the subject of a key."""
    auth = current_auth()
    assert auth is not None  # a request without a credential reaches no tool
    return f"{auth.subject} of {auth.issuer}"


app = MCPAuthMiddleware(
    mcp.http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    verifier=Choose(keys=ApiKeys(file=os.environ.get("API_KEYS", "api-keys"))),
)
