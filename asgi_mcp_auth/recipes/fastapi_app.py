"""A FastAPI app with an API, an MCP server and a health check.

    uvicorn fastapi_app:app

Needs fastapi, fastmcp and uvicorn.
"""

import os

from fastapi import FastAPI, Request
from fastmcp import FastMCP

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata, ScopePolicy

ORIGIN = os.environ.get("ORIGIN", "http://127.0.0.1:8000")
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:9000")

auth = MCPAuth(  # at module level, so that a mistake in the configuration stops the start
    protected_resources=[
        ResourceServerConfig(
            metadata=ResourceServerMetadata(resource=f"{ORIGIN}/mcp", authorization_servers=[ISSUER]),
            policy=ScopePolicy(default=["notes:read"]),
        ),
        ResourceServerConfig(
            metadata=ResourceServerMetadata(resource=f"{ORIGIN}/api", authorization_servers=[ISSUER]),
            policy=ScopePolicy(default=["notes:read"], paths={"POST /api/notes": ["notes:write"]}),
        ),
    ],
    public_paths=["/healthz"],
)

mcp = FastMCP("notes")
notes: list[str] = []


@mcp.tool
def list_notes() -> list[str]:
    """List all notes."""
    return notes


mcp_app = mcp.http_app(path="/mcp")
app = FastAPI(lifespan=mcp_app.lifespan)  # an MCP server needs its lifespan
app.add_middleware(MCPAuthMiddleware, auth=auth)


@app.get("/healthz")
async def healthz() -> str:
    """Report that the process responds."""
    return "ok"


@app.get("/api/me")
async def me(request: Request) -> dict[str, str]:
    """Return the subject of the caller's token."""
    return {"subject": request.state.claims["sub"]}


@app.post("/api/notes")
async def create_note(text: str) -> list[str]:
    """Create a note."""
    notes.append(text)
    return notes


app.mount("/", mcp_app)  # last, because this mount matches every path
