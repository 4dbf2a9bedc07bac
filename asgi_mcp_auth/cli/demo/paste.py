"""What to paste into real clients, for a server that `demo --serve` keeps up."""

from __future__ import annotations

import json
import shlex
from typing import Any

__all__ = ("CURL_CLIENT", "lines_for")

CURL_CLIENT = "curl"


def lines_for(resource: str, token_endpoint: str, secret: str, scope: str, tool: str) -> list[tuple[str, list[str]]]:
    """A title and lines for each client: MCP Inspector, Claude Code, VS Code, curl."""
    form = f"grant_type=client_credentials&scope={scope}"
    ask = shlex.join(["curl", "-s", token_endpoint, "-u", f"{CURL_CLIENT}:{secret}", "-d", form])
    call: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}},
    }
    fields = ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    options = " ".join(f"-H {shlex.quote(field)}" for field in fields)
    extract = """sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/'"""
    return [
        ("MCP Inspector (Node.js 22 or newer)", [f"npx @modelcontextprotocol/inspector {resource} --transport http"]),
        (
            "Claude Code (then type /mcp in it, and choose notes)",
            [f"claude mcp add --transport http notes {resource}"],
        ),
        (
            "VS Code: .vscode/mcp.json",
            json.dumps({"servers": {"notes": {"type": "http", "url": resource}}}, indent=2).splitlines(),
        ),
        (
            "curl",
            [
                f"curl -i {resource}",
                f"TOKEN=$({ask} | {extract})",
                f'curl -i {resource} -H "Authorization: Bearer $TOKEN" {options} -d {shlex.quote(json.dumps(call))}',
            ],
        ),
    ]
