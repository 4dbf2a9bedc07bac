"""`asgi-mcp-auth dev-server`: runs the development authorization server, and prints what to paste and each request."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
import socket
import time
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.text import Text

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_value
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth.cli._terminal import console, shell_lines, write
from asgi_mcp_auth.dev import DevServer, Exchange
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("exchange_line", "run_dev_server", "what_to_paste")

MAX_CLIENTS_FILE = 1024 * 1024
STYLES = {2: "green", 3: "cyan", 4: "yellow", 5: "red"}
CLIENT = "curl"
LABELS = 12  # columns
CLOCK = 10  # columns
CURL_SECRET = re.compile(r"[A-Za-z0-9_\-]{8,128}")


def _usage_error(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())


def _listen(host: str, port: int, *, remote: bool) -> socket.socket:
    """Return a bound socket; its address is on this machine unless `remote`."""
    if not remote and not is_loopback(f"[{host}]" if ":" in host else host):
        msg = f"--host {host} is not an address of this machine, and this server asks for no password. Use 127.0.0.1."
        raise _usage_error(msg)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name with an invalid label
        why = getattr(error, "strerror", None) or error
        raise _usage_error(f"Cannot listen on {host} port {port}: {why}. Try --port 0, or --host 127.0.0.1.") from None


def _scopes(given: tuple[str, ...]) -> dict[str, str]:
    """Return the text of each scope by name; a scope is given as `name` or `name=text`."""
    pairs = [scope.partition("=") for scope in given]
    return {name.strip(): words.strip() for name, _, words in pairs}


def _clients(file: BinaryIO | None) -> list[Any]:
    if file is None:
        return []
    try:
        found = load_value(file.read(MAX_CLIENTS_FILE))
    except JSONRefused as error:
        raise _usage_error(f"{file.name} cannot be used: {error}. Write a JSON list of objects.") from None
    if not isinstance(found, list):
        raise _usage_error(f"{file.name} is not a JSON list. Write a list of client metadata (RFC 7591).")
    return found


def exchange_line(exchange: Exchange, now: float) -> Text:
    """Return the log line of one request and its response."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    milliseconds = f"{exchange.seconds * 1000:.0f} ms"
    line = Text(f"{clock}  ")
    line.append(f"{exchange.status}", style=STYLES.get(exchange.status // 100, ""))
    line.append(f"  {exchange.method} {exchange.path}  ", style="bold" if exchange.method == "POST" else "")
    line.append(f"{milliseconds}  ", style="dim")
    arrow, note = ("→ ", exchange.note[2:]) if exchange.note.startswith("→ ") else ("", exchange.note)
    line.append(arrow + printable(note, 400))
    return line


def what_to_paste(server: DevServer, secret: str) -> str:
    """Return the text to continue with: the issuer, the metadata URL, lines for an app and for curl."""
    options, issuer = server.options, server.url
    base, path = issuer.rstrip("/"), options.url.path.rstrip("/")
    origin = base.removesuffix(path)
    policy = options.policy
    resource = policy.resources[0] if policy.resources else "http://127.0.0.1:8000/mcp"
    scopes = list(policy.default_scopes or policy.scopes[:1])
    scope = f" -d scope='{' '.join(scopes)}'" if scopes else ""
    sign_in = "approved without a consent page" if options.auto_approve else "chosen on the consent page"
    required = f"\n        required_scopes={json.dumps(scopes)}," if scopes else ""
    return f"""\
Issuer      {issuer}
Metadata    {origin}/.well-known/oauth-authorization-server{path}
Resources   {" ".join(policy.resources) or "any on this machine"}
Scopes      {" ".join(policy.scopes) or "any"}
Users       {" ".join(options.users)} ({sign_in})
Faults      {" ".join(sorted(server.faults)) or "none"}

Protect an app:

    app = MCPAuthMiddleware(
        app,
        resource="{resource}",
        authorization_servers=["{issuer}"],{required}
    )

Give the app's URL to an MCP client. With curl instead, you can get a token, switch a fault on, rotate the keys, and \
delete clients and grants:

curl -s {base}/token -u {CLIENT}:{secret} -d grant_type=client_credentials -d resource={resource}{scope}
curl -s {base}/dev/faults -H 'Content-Type: application/json' -d '{{"on": ["unknown-kid"], "off": []}}'
curl -s {base}/dev/rotate -H 'Content-Type: application/json' -d '{{}}'
curl -s {base}/dev/forget -H 'Content-Type: application/json' -d '{{}}'
"""


def _print_what_to_paste(out: Console, text: str) -> None:
    for line in text.splitlines():
        if line.startswith("curl "):
            for part in shell_lines(line, out.width):
                out.print(part)
        else:
            indented = line.startswith(" ") or line.partition(" ")[0] in ("Resources", "Scopes", "Users", "Faults")
            write(out, line, hanging=LABELS if indented else 0)
    out.print()


def _log(out: Console, exchange: Exchange) -> None:
    """Print a log line; it is folded on a terminal, and remains one line in a file or a pipe."""
    line = exchange_line(exchange, time.time())
    if out.is_terminal or "COLUMNS" in os.environ:
        write(out, line, hanging=CLOCK)
    else:
        out.print(line)


def _issuer(host: str, port: int, path: str) -> str:
    """Return the issuer of an address; of an address beyond this machine, for its port forwarded to this machine."""
    named = f"[{host}]" if ":" in host else host
    if not is_loopback(named):
        named = "127.0.0.1"
    return f"http://{named}:{port}{'' if path in ('', '/') else '/' + path.strip('/')}"


def run_dev_server(
    *,
    host: str,
    port: int,
    path: str,
    issuer: str | None,
    scopes: tuple[str, ...],
    default_scopes: tuple[str, ...],
    clients_file: BinaryIO | None,
    curl_secret: str | None,
    dangerously_allow_remote: bool,
    **options: Any,
) -> int:
    """Serve until Ctrl-C. Return the exit status.

    Raises:
        click.UsageError: An option cannot be used, or uvicorn is not installed.
    """
    if importlib.util.find_spec("uvicorn") is None:
        raise _usage_error("The server needs uvicorn. In a clone, run: pip install '.[demo]'.")
    out = console()
    secret = secrets.token_urlsafe(12) if curl_secret is None else curl_secret
    if CURL_SECRET.fullmatch(secret) is None:
        msg = "--curl-secret has to be 8 to 128 letters, digits, '-' or '_', so that the curl line needs no quotes."
        raise _usage_error(msg)
    own = {"client_id": CLIENT, "client_secret": secret, "grant_types": ["client_credentials"]}
    clients = [*_clients(clients_file), own]
    with _listen(host, port, remote=dangerously_allow_remote) as listener:
        try:
            server = DevServer(
                issuer or _issuer(host, listener.getsockname()[1], path),
                scopes=_scopes(scopes),
                default_scopes=default_scopes or None,
                clients=clients,
                dangerously_allow_remote=dangerously_allow_remote,
                on_exchange=lambda exchange: _log(out, exchange),
                **options,
            )
        except ConfigurationError as error:
            raise _usage_error(" ".join(map(str, error.problems))) from None
        write(out, "DEVELOPMENT ONLY: this server signs in any user without a password.\n", "bold yellow")
        _print_what_to_paste(out, what_to_paste(server, secret))
        write(out, "Press Ctrl-C to stop.\n", "dim")
        _serve(server, listener)
    return 0


def _serve(server: DevServer, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - needs the extra `demo`

    config = uvicorn.Config(server, log_level="warning", access_log=False, proxy_headers=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
