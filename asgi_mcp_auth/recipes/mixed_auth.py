"""A fastmcp server with public and protected tools on one URL.

    uvicorn mixed_auth:app

`search` needs no token. A client that calls `create_note` without one signs in, and goes on. Needs fastmcp and uvicorn.
"""

import os

from fastmcp import FastMCP

from asgi_mcp_auth import MCPAuthMiddleware, ScopePolicy, current_auth

mcp = FastMCP("notes")
notes: list[str] = ["The library opens at nine."]


@mcp.tool
def search(text: str) -> list[str]:
    """Search all notes: public."""
    return [note for note in notes if text.lower() in note.lower()]


@mcp.tool
def greet() -> str:
    """Greet the caller: public, and knows a caller who is signed in."""
    auth = current_auth()
    return "Hello!" if auth is None else f"Hello {auth.subject}!"


@mcp.tool
def create_note(text: str) -> str:
    """Create a note: `notes:write`."""
    notes.append(text)
    return text


app = MCPAuthMiddleware(
    mcp.http_app(stateless_http=True),  # or set session_binding=True, so that sessions go on after the sign-in
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    policy=ScopePolicy(
        default=["notes:read"],
        tools={"create_note": ["notes:write"]},
        public_tools=["search", "greet"],
        challenge_style="auto",  # ChatGPT reads the challenge in a tool result, other clients in a 401
        annotate_lists={"security_schemes"},
    ),
)
