"""A fastmcp server that accepts opaque tokens: the authorization server is asked about each token (RFC 7662).

    CLIENT_SECRET=... uvicorn opaque_tokens:app

The server needs a client id and a secret of its own at the authorization server. To try it: `asgi-mcp-auth dev-server
--dialect google --curl-secret SECRET`, and that secret here. Needs fastmcp and uvicorn.
"""

import os

from fastmcp import FastMCP

from asgi_mcp_auth import Choose, Introspection, MCPAuthMiddleware, current_auth

mcp = FastMCP("notes")


@mcp.tool
def whoami() -> str:
    """Return the subject of the caller, as the authorization server names it."""
    auth = current_auth()
    assert auth is not None  # a request without a token reaches no tool
    return auth.subject


app = MCPAuthMiddleware(
    mcp.http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    verifier=Choose(
        opaque=Introspection(
            client_id=os.environ.get("CLIENT_ID", "curl"),
            client_secret=os.environ["CLIENT_SECRET"],
            ttl=60,  # a revoked token is accepted for at most this many seconds
        )
    ),
)
