"""The run of the demo: the scenario, and with `--serve` the servers for real clients and what to paste into those."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shlex
import sys
import threading

import anyio

from asgi_mcp_auth.cli._terminal import console, write
from asgi_mcp_auth.cli.demo._client import approve, open_browser
from asgi_mcp_auth.cli.demo._display import Display
from asgi_mcp_auth.cli.demo._meaning import Deployment
from asgi_mcp_auth.cli.demo._scenario import STARTUP, run_scenario
from asgi_mcp_auth.cli.demo._servers import READ, START_SECONDS, running, wait_until

__all__ = ("run",)

PORTS = (8765, 8766)
CURL_CLIENT = "curl"


def run(*, serve: bool, browser: bool) -> int:
    """Run the scenario, then with `serve` the servers until Ctrl-C. Return the exit status."""
    for name in ("asgi_mcp_auth", "mcp"):  # the demo itself prints what they would log
        logging.getLogger(name).setLevel(logging.CRITICAL)
    succeeded = _run_scenario(browser=browser)
    if succeeded and serve:
        _serve()
    return 0 if succeeded else 1


def _run_scenario(*, browser: bool) -> bool:
    display = Display(console())
    user = open_browser(display.note) if browser else approve
    display.begin_step(STARTUP)
    with running(display.show_exchange, consent=browser) as servers:
        succeeded = anyio.run(run_scenario, servers, user, display)
    write(display.console, "\nEvery step succeeded." if succeeded else "\nA step failed.")
    return succeeded


def _serve() -> None:
    display = Display(console(), check=False)
    secret = secrets.token_urlsafe(12)
    curl = {"client_id": CURL_CLIENT, "client_secret": secret, "grant_types": ["client_credentials"]}
    display.block("The servers start again, on fixed ports", ())
    with running(display.show_exchange, consent=True, clients=[curl], ports=PORTS) as servers:
        wait_until(lambda: display.has_shown("keys"), START_SECONDS)  # no exchange is printed between the next lines
        deployment = servers.deployment
        write(display.console, f"\nMCP server  {deployment.resource}")
        write(display.console, f"Metadata    {deployment.metadata_url}")
        write(display.console, f"Issuer      {deployment.issuer}")
        _print_what_to_paste(display, deployment, secret)
        write(display.console, "\nThe exchanges of your clients are shown here. Ctrl-C stops.")
        sys.stdout.flush()
        _wait_for_ctrl_c()


def _print_what_to_paste(display: Display, deployment: Deployment, secret: str) -> None:
    """Print the lines for MCP Inspector, Claude Code, VS Code and curl."""
    resource = deployment.resource
    inspector = f"npx @modelcontextprotocol/inspector {resource} --transport http"
    display.command("MCP Inspector (Node.js 22 or newer)", [inspector])
    claude_code = f"claude mcp add --transport http notes {resource}"
    display.command("Claude Code (then type /mcp in it, and choose notes)", [claude_code])
    vs_code = {"servers": {"notes": {"type": "http", "url": resource}}}
    display.block("VS Code: .vscode/mcp.json", json.dumps(vs_code, indent=2).splitlines())
    display.command("curl", _curl_commands(resource, f"{deployment.issuer}/token", secret))


def _curl_commands(resource: str, token_endpoint: str, secret: str) -> list[str]:
    """Return the commands that show the 401, get a token, and call a tool."""
    form = f"grant_type=client_credentials&scope={READ}"
    get_token = shlex.join(["curl", "-s", token_endpoint, "-u", f"{CURL_CLIENT}:{secret}", "-d", form])
    extract = """sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/'"""
    call = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_notes"}}, separators=(",", ":")
    )
    fields = ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    options = " ".join(f"-H {shlex.quote(field)}" for field in fields)
    return [
        f"curl -i {resource}",
        f"TOKEN=$({get_token} | {extract})",
        f'curl -i {resource} -H "Authorization: Bearer $TOKEN" {options} -d {shlex.quote(call)}',
    ]


def _wait_for_ctrl_c() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
