"""`asgi-mcp-auth dev-server`: the development authorization server under uvicorn, what to paste, a line per request."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import secrets
import socket
import time
from typing import Any, BinaryIO, cast

import click
from rich.text import Text

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_value
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth.cli.commands import console
from asgi_mcp_auth.dev import DevServer, Exchange
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("exchange_line", "run_dev_server", "what_to_paste")

MAX_CLIENTS_FILE = 1024 * 1024
STYLES = {2: "green", 3: "cyan", 4: "yellow", 5: "red"}
CLIENT = "curl"


def _mistake(what: str) -> click.UsageError:
    return click.UsageError(what, click.get_current_context())


def _listen(host: str, port: int, *, remote: bool) -> socket.socket:
    """A bound socket, on this machine unless it is said otherwise."""
    if not remote and not is_loopback(f"[{host}]" if ":" in host else host):
        msg = f"--host {host} is not this machine, and this server lets everybody in: use 127.0.0.1."
        raise _mistake(msg)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # the second is of a name that cannot be one
        why = getattr(error, "strerror", None) or error
        msg = f"Cannot listen on {host} port {port}: {why}. Try --port 0, or --host 127.0.0.1."
        raise _mistake(msg) from None


def _scopes(given: tuple[str, ...]) -> dict[str, str]:
    """`name` or `name=what it means` for each."""
    pairs = [scope.partition("=") for scope in given]
    return {name.strip(): words.strip() for name, _, words in pairs}


def _clients(file: BinaryIO | None) -> list[Any]:
    if file is None:
        return []
    try:
        found = load_value(file.read(MAX_CLIENTS_FILE))
    except JSONRefused as error:
        msg = f"{file.name} is refused: {error}. Write a JSON list of objects."
        raise _mistake(msg) from None
    if not isinstance(found, list):
        msg = f"{file.name} is no JSON list. Write a list of objects, each as for registration (RFC 7591)."
        raise _mistake(msg)
    return cast("list[Any]", found)  # type: ignore[redundant-cast]  # pyright sees a list of unknowns


def exchange_line(exchange: Exchange, now: float) -> Text:
    """One request and its answer, on one line; in colours where there are any."""
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
    """What a person needs to go on: the issuer, the metadata, lines for an app and for curl."""
    options, issuer = server.options, server.url
    base, path = issuer.rstrip("/"), options.url.path.rstrip("/")
    origin = base.removesuffix(path)
    policy = options.policy
    resource = policy.resources[0] if policy.resources else "http://127.0.0.1:8000/mcp"
    scopes = list(policy.default_scopes or policy.scopes[:1])
    asked = f" -d scope='{' '.join(scopes)}'" if scopes else ""
    how = "approved at once" if options.auto_approve else "chosen on the consent page"
    required = f"\n        required_scopes={json.dumps(scopes)}," if scopes else ""
    return f"""\
Issuer      {issuer}
Metadata    {origin}/.well-known/oauth-authorization-server{path}
Resources   {" ".join(policy.resources) or "any on this machine"}
Scopes      {" ".join(policy.scopes) or "any"}
Users       {" ".join(options.users)} ({how})
Faults      {" ".join(sorted(server.faults)) or "none"}

Protect an app:

    app = MCPAuthMiddleware(
        app,
        resource="{resource}",
        authorization_servers=["{issuer}"],{required}
    )

Give the app's URL to an MCP client. Or, without one, get a token, change a fault, rotate the keys, forget everything:

curl -s {base}/token -u {CLIENT}:{secret} -d grant_type=client_credentials -d resource={resource}{asked}
curl -s {base}/dev/faults -H 'Content-Type: application/json' -d '{{"on": ["unknown-kid"], "off": []}}'
curl -s {base}/dev/rotate -H 'Content-Type: application/json' -d '{{}}'
curl -s {base}/dev/forget -H 'Content-Type: application/json' -d '{{}}'
"""


def _issuer(host: str, port: int, path: str) -> str:
    """The issuer of an address; for one beyond this machine, what a forwarded port is here (a container, say)."""
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
    dangerously_allow_remote: bool,
    **options: Any,
) -> int:
    """Serve until Ctrl-C. What is wrong with the options is said in a line each."""
    if importlib.util.find_spec("uvicorn") is None:
        msg = "The server needs uvicorn: pip install 'asgi-mcp-auth[demo]'."
        raise _mistake(msg)
    out = console()
    secret = secrets.token_urlsafe(12)
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
                on_exchange=lambda exchange: out.print(exchange_line(exchange, time.time())),
                **options,
            )
        except ConfigurationError as error:
            raise _mistake(" ".join(map(str, error.problems))) from None
        out.print("DEVELOPMENT ONLY: this server lets everybody in, without a password.\n", style="bold yellow")
        out.print(what_to_paste(server, secret))
        out.print("Press Ctrl-C to stop.\n", style="dim")
        _serve(server, listener)
    return 0


def _serve(server: DevServer, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - an extra

    config = uvicorn.Config(server, log_level="warning", access_log=False, proxy_headers=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
