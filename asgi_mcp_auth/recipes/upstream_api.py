"""A server of the MCP SDK whose tool calls another API for the caller, without passing the caller's token on.

    CLIENT_SECRET=... uvicorn upstream_api:app

The server needs a client id and a secret at the authorization server, and the permission to exchange tokens there
(RFC 8693). If the user must consent first, the tool asks the MCP client to open CONSENT_URL (MCP: URL elicitation).
Needs mcp, httpx and uvicorn.
"""

import os
import uuid

import httpx
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import ElicitRequestURLParams

from asgi_mcp_auth import ExchangeError, ExchangeReason, MCPAuthMiddleware, TokenExchange

API = os.environ.get("API", "https://api.example.com")
CONSENT_URL = os.environ.get("CONSENT_URL", "https://mcp.example.com/consent")

server = MCPServer("orders")


@server.tool()
async def list_orders() -> list[str]:
    """Return the orders of the caller, from the API that has them."""
    try:
        response = await orders.get(f"{API}/orders")
    except ExchangeError as error:
        if error.reason is not ExchangeReason.INTERACTION_REQUIRED:
            raise
        # A page of yours, which sends the user to the authorization server; with Entra ID, pass error.claims on there.
        request = ElicitRequestURLParams(
            message="Allow this server to read your orders.", url=CONSENT_URL, elicitation_id=str(uuid.uuid4())
        )
        raise UrlElicitationRequiredError([request]) from None
    response.raise_for_status()
    found: list[str] = response.json()["orders"]
    return found


app = MCPAuthMiddleware(
    server.streamable_http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    token_exchange=[
        TokenExchange(client_id=os.environ.get("CLIENT_ID", "mcp-server"), client_secret=os.environ["CLIENT_SECRET"])
    ],
)
# One client for all callers: each request uses a token of the caller that the tool runs for.
orders = httpx.AsyncClient(auth=app.auth.exchange_auth(audience=API, scopes=["orders:read"], allow=[API]))
