"""A fastmcp server whose tokens are bound to a key of the client (DPoP, RFC 9449): a stolen token is of no use.

    asgi-mcp-auth dev-server --curl-secret SECRET
    SHARED_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") uvicorn dpop_server:app
    CLIENT_SECRET=SECRET python dpop_client.py http://127.0.0.1:8000/mcp http://127.0.0.1:9000

Your authorization server must support DPoP: its metadata has `dpop_signing_alg_values_supported`. With several workers,
set `store=` too, so that a proof is used once among all of them. Needs fastmcp and uvicorn.
"""

import os

from fastmcp import FastMCP

from asgi_mcp_auth import DPoPSettings, MCPAuthMiddleware, current_auth

mcp = FastMCP("notes")


@mcp.tool
def whoami() -> str:
    """Return the subject of the caller."""
    auth = current_auth()
    assert auth is not None  # a request without a token reaches no tool
    return auth.subject


app = MCPAuthMiddleware(
    mcp.http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    dpop="required",  # "allowed" accepts bearer tokens too, for clients without DPoP
    dpop_settings=DPoPSettings(algorithms=["ES256", "EdDSA"], require_nonce="SHARED_SECRET" in os.environ),
    shared_secret=os.environ.get("SHARED_SECRET"),  # the same in all workers: any of them accepts a nonce of another
)
