"""A fastmcp server whose tools need different scopes.

    uvicorn fastmcp_scopes:app

Needs fastmcp and uvicorn.
"""

import os

from fastmcp import FastMCP

from asgi_mcp_auth import MCPAuthMiddleware, ScopePolicy, current_auth

mcp = FastMCP("notes")
notes: dict[str, list[str]] = {}


def caller() -> str:
    """Return the key of the caller: it covers issuer, subject and client, so callers never share data."""
    auth = current_auth()
    assert auth is not None  # a request without a token reaches no tool
    return auth.principal.key


@mcp.tool
def list_notes() -> list[str]:
    """List your notes: `notes:read`, which every request needs."""
    return notes.get(caller(), [])


@mcp.tool
def create_note(text: str) -> str:
    """Create a note: `notes:write` too."""
    notes.setdefault(caller(), []).append(text)
    return text


@mcp.tool
def purge() -> int:
    """Delete the notes of all callers: `notes:admin` too."""
    count = sum(map(len, notes.values()))
    notes.clear()
    return count


app = MCPAuthMiddleware(
    mcp.http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    policy=ScopePolicy(
        default=["notes:read"],
        tools={"create_*": ["notes:write"], "purge": ["notes:admin"]},
        implies={"notes:admin": ["notes:write", "notes:read"]},
    ),
)
