"""The demo's three servers under uvicorn on loopback: authorization server, MCP server, and the client's callback.

Each reports its exchanges. All share one clock, which can be advanced.
"""

from __future__ import annotations

import contextlib
import html
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from mcp.server.mcpserver import MCPServer

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._oauth.responses import Response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange, record_exchanges
from asgi_mcp_auth.cli.demo._meaning import AUTHORIZATION_SERVER, CLIENT, MCP_SERVER, Deployment
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.dev import DevServer

__all__ = ("READ", "START_SECONDS", "CallbackApp", "Clock", "RunningServers", "mcp_server", "running", "wait_until")

START_SECONDS = 10.0
MAX_CALLBACKS = 100
READ = "notes:read"
WRITE = "notes:write"
SCOPES = {READ: "Read your notes", WRITE: "Add notes in your name"}


class Clock:
    """A clock that can be advanced."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        """Return the seconds since the epoch, plus the offset."""
        return time.time() + self.offset


def mcp_server() -> Any:
    """Return an MCP SDK server with two tools, as an ASGI app without any authorization."""
    notes = ["Water the plants"]
    server = MCPServer("notes", log_level="CRITICAL")

    @server.tool()
    def list_notes() -> list[str]:  # pyright: ignore[reportUnusedFunction]
        """Return all notes."""
        return notes

    @server.tool()
    def add_note(text: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """Add a note."""
        notes.append(text)
        return f"{len(notes)} notes"

    return server.streamable_http_app(stateless_http=True)  # stateless: curl can call a tool with one request


class CallbackApp:
    """The client's redirect URI: keeps the last authorization responses by `state`, since any page can send one."""

    def __init__(self) -> None:
        self._responses: BoundedMap[str, dict[str, str]] = BoundedMap(MAX_CALLBACKS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Keep an authorization response, and send the page that ends the flow in the browser."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = RequestInfo(scope)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if request.path != "/callback" or "state" not in query:
            await send_response(Response(404, (), b""), request, receive, send)
            return
        self._responses.put(query["state"], query)
        outcome = "Allowed." if "code" in query else f"Not allowed: {html.escape(query.get('error', 'no code'))}."
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=color-scheme content='light dark'>"
            f"<title>{outcome}</title><p>{outcome} You can close this window."
        )
        headers = ((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", b"default-src 'none'"))
        await send_response(Response(200, headers, page.encode("utf-8")), request, receive, send)

    def take(self, state: str) -> dict[str, str] | None:
        """Return and forget the authorization response for a `state`; None if there is none yet."""
        return self._responses.pop(state)


@dataclass(frozen=True, slots=True)
class RunningServers:
    """The running servers, with what the client needs of them."""

    deployment: Deployment
    issuer: DevServer
    clock: Clock
    callback: CallbackApp
    redirect_uri: str


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition that another thread fulfils; return whether it is fulfilled."""
    deadline = time.monotonic() + seconds
    while not (done := ready()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return done


@contextlib.contextmanager
def _serving(app: Any, listener: socket.socket) -> Generator[None]:
    """Serve an app with uvicorn on a bound socket, in a thread.

    Raises:
        RuntimeError: uvicorn did not start.
    """
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    if not wait_until(lambda: server.started or not thread.is_alive(), START_SECONDS) or not server.started:
        raise RuntimeError("uvicorn did not start")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


def _listen(port: int) -> socket.socket:
    """Return a socket on a loopback port, or on a free port if that one is in use."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


@contextlib.contextmanager
def running(
    on_exchange: Callable[[HTTPExchange, Deployment], None],
    *,
    consent: bool = False,
    clients: Sequence[Mapping[str, Any]] = (),
    ports: tuple[int, int] = (0, 0),
) -> Generator[RunningServers]:
    """Run the servers until the end of the block.

    Args:
        on_exchange: Called with each exchange.
        consent: Whether to show the consent page; otherwise every request is approved at once.
        clients: Clients that are registered from the start.
        ports: The ports of the MCP server and of the authorization server, if they are free.
    """
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(_listen(port)) for port in (*ports, 0)]
        origin, issuer_origin, client_origin = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in listeners)
        resource, clock, callback = f"{origin}/mcp", Clock(), CallbackApp()
        issuer = DevServer(
            issuer=issuer_origin,
            resources=[resource],
            scopes=SCOPES,
            auto_approve=not consent,
            clients=clients,
            clock=clock,
        )
        auth = MCPAuth(
            ResourceServerConfig(
                metadata=ResourceServerMetadata(resource=resource, authorization_servers=[issuer_origin]),
                policy=ScopePolicy(default=[READ], tools={"add_note": [WRITE]}),
            ),
            clock=clock,
        )
        metadata_url = f"{origin}/.well-known/oauth-protected-resource/mcp"
        deployment = Deployment(resource=resource, metadata_url=metadata_url, issuer=issuer_origin, baseline=READ)

        def report(exchange: HTTPExchange) -> None:
            on_exchange(exchange, deployment)

        protected = auth.wrap(mcp_server())
        apps = {MCP_SERVER: protected, AUTHORIZATION_SERVER: issuer, CLIENT: callback}
        for (server, app), listener in zip(apps.items(), listeners, strict=True):
            stack.enter_context(_serving(record_exchanges(app, server, report), listener))
        yield RunningServers(deployment, issuer, clock, callback, f"{client_origin}/callback")
