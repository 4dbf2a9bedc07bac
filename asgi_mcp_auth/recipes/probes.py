"""A protected app with probes for Kubernetes.

Liveness is at /healthz, readiness at /readyz, both without a token.

    uvicorn probes:app

Needs fastmcp and uvicorn. kubernetes.yaml runs this file.
"""

import os

from fastmcp import FastMCP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy

auth = MCPAuth(
    ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
            authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
        ),
        policy=ScopePolicy(default=["notes:read"]),
    ),
    public_paths=["/healthz", "/readyz"],
)


async def healthz(request: Request) -> PlainTextResponse:
    """Report that the process responds. Nothing else: an outage of the issuer must not restart containers."""
    del request
    return PlainTextResponse("ok")


mcp = FastMCP("notes").http_app()
app = auth.wrap(
    Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", auth.readiness_app()),  # a Route, not a Mount: a Mount redirects /readyz to /readyz/
            Mount("/", app=mcp),
        ],
        lifespan=mcp.lifespan,
    )
)
