"""An MCP server and its authorization server, whose exchanges are written down, for clients of the whole flow.

`protected` is an app factory: the MCP SDK's server with the tools `read`, which needs mcp:read, and `write`, which
needs mcp:write as well; with PUBLIC=1 `read` needs no token, and mcp:read of callers with one. RESOURCE, ISSUER, JOURNAL and CLOCK say what is meant; REPUBLISH=1 serves the issuer's
metadata at the resource's own origin too (MCP 2025-03-26), CHALLENGE is what a first 401 asks for. DPOP is the mode of
DPoP, with nonces.
"""

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asgi_mcp_auth import (
    AuthServerConfig,
    DPoPSettings,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange, record_exchanges
from asgi_mcp_auth.stores import MemoryStore


def journaled(app: Any, server: str) -> Any:
    """The app, with each of its exchanges as a line of JSON in the file JOURNAL."""
    journal = Path(os.environ["JOURNAL"])

    def write_down(exchange: HTTPExchange) -> None:
        line = {
            "server": server,
            "method": exchange.method,
            "path": exchange.path,
            "status": exchange.status,
            "operation": exchange.operation,
            "query": exchange.query,
            "form": exchange.form,
            "message": exchange.request_object,
            "answer": exchange.response_object,
            "challenge": exchange.response_fields.get("www-authenticate"),
            "sent_to": exchange.redirect,
            "token": exchange.request_fields.get("authorization", "").removeprefix("Bearer "),
        }
        with journal.open("a", encoding="utf-8") as file:  # small appends are whole, whoever else appends
            file.write(json.dumps(line) + "\n")

    return record_exchanges(app, server, write_down)


def clock() -> float:
    """The time, moved ahead by as many seconds as the file CLOCK says."""
    return time.time() + float(Path(os.environ["CLOCK"]).read_text(encoding="utf-8"))


def read() -> str:
    return "read"


def write() -> str:
    return "written"


def dpop() -> dict[str, Any]:
    if "DPOP" not in os.environ:
        return {}
    secret = "a secret that all workers share, long enough"
    return {
        "dpop": os.environ["DPOP"],
        "dpop_settings": DPoPSettings(require_nonce=True),
        "shared_secret": secret,
    }


def protected() -> Any:
    from mcp.server.mcpserver import MCPServer

    resource, public = os.environ["RESOURCE"], os.environ.get("PUBLIC") == "1"
    server = MCPServer("notes")
    server.add_tool(read)
    server.add_tool(write)
    auth = MCPAuth(
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=resource,
                authorization_servers=[AuthServerConfig(issuer=os.environ["ISSUER"], leeway=0)],
                scopes_supported=["mcp:read"],
            ),
            policy=ScopePolicy(
                default=[] if public else ["mcp:read"],
                tools={"write": ["mcp:write"], **({"read": ["mcp:read"]} if public else {})},
                public_tools=["read"] if public else [],
                challenge_scopes=os.environ["CHALLENGE"].split() if "CHALLENGE" in os.environ else None,
            ),
        ),
        clock=clock,
        store=MemoryStore() if public else None,
        session_binding=public,
        **dpop(),
        republish_server_metadata=os.environ.get("REPUBLISH") == "1",
    )
    app = server.streamable_http_app(streamable_http_path=urlsplit(resource).path or "/")
    return journaled(auth.wrap(app), "resource")


def authority() -> Any:
    """The development authorization server for it, as an app factory; AUTO_APPROVE=1 shows no consent page, CLIENTS is JSON, LIFETIME that of tokens."""
    from asgi_mcp_auth.dev import DevServer

    return journaled(
        DevServer(
            issuer=os.environ["ISSUER"],
            resources=[os.environ["RESOURCE"]],
            scopes={"mcp:read": "Read notes", "mcp:write": "Write notes"},
            token_lifetime=int(os.environ.get("LIFETIME", "600")),
            auto_approve=os.environ.get("AUTO_APPROVE") == "1",
            clients=json.loads(os.environ.get("CLIENTS", "[]")),
            clock=clock,
        ),
        "authority",
    )
