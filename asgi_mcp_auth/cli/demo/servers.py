"""The demonstration's three servers under uvicorn on loopback: authorization server, MCP server, and the client's own.

Each tells its exchanges. One clock, that can be put ahead, is that of all.
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

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._policy.responses import Response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.cli.demo.exchanges import Exchange, observed
from asgi_mcp_auth.cli.demo.meaning import AUTHORIZATION_SERVER, CLIENT, MCP_SERVER, Place
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.dev import DevServer
from asgi_mcp_auth.dev.memory import Bounded

__all__ = (
    "READ",
    "START_SECONDS",
    "WRITE",
    "Clock",
    "Returns",
    "Running",
    "listening",
    "mcp_server",
    "running",
    "serving",
    "until",
)

START_SECONDS = 10.0
MAX_RETURNS = 100
READ = "notes:read"
WRITE = "notes:write"
SCOPES = {READ: "Read your notes", WRITE: "Add notes in your name"}


class Clock:
    """Seconds since the epoch, that can be put ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """The time."""
        return time.time() + self.ahead


def mcp_server() -> Any:
    """A server of the MCP SDK with two tools, as an ASGI app; it knows nothing of authorization."""
    from mcp.server.mcpserver import MCPServer  # noqa: PLC0415 - an extra

    notes = ["Water the plants"]
    server = MCPServer("notes", log_level="CRITICAL")

    @server.tool()
    def list_notes() -> list[str]:  # pyright: ignore[reportUnusedFunction]
        """All notes."""
        return notes

    @server.tool()
    def add_note(text: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """Add a note."""
        notes.append(text)
        return f"{len(notes)} notes"

    return server.streamable_http_app(stateless_http=True)  # stateless: curl can call a tool with one request


class Returns:
    """Where a browser comes back to a client: what it brought, by `state`, for a while: any page can send one."""

    def __init__(self) -> None:
        self._found: Bounded[str, dict[str, str]] = Bounded(MAX_RETURNS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the page that a person sees at the end."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = Request(scope)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if request.path != "/callback" or "state" not in query:
            await send_response(Response(404, (), b""), request, receive, send)
            return
        self._found.put(query["state"], query)
        says = "Allowed." if "code" in query else f"Not allowed: {html.escape(query.get('error', 'no code'))}."
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=color-scheme content='light dark'>"
            f"<title>{says}</title><p>{says} You can close this window."
        )
        headers = ((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", b"default-src 'none'"))
        await send_response(Response(200, headers, page.encode("utf-8")), request, receive, send)

    def take(self, state: str) -> dict[str, str] | None:
        """What the browser brought, None if it has not come back yet."""
        return self._found.pop(state)


@dataclass(frozen=True, slots=True)
class Running:
    """The servers, up."""

    place: Place
    issuer: DevServer
    clock: Clock
    returns: Returns
    redirect_uri: str


def until(ready: Callable[[], bool], seconds: float) -> bool:
    """Wait for something that another thread does; returns whether it did."""
    deadline = time.monotonic() + seconds
    while not (done := ready()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return done


@contextlib.contextmanager
def serving(app: Any, listener: socket.socket) -> Generator[None]:
    """An app under uvicorn on a bound socket, in a thread.

    Raises:
        RuntimeError: It did not start.
    """
    import uvicorn  # noqa: PLC0415 - an extra

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    if not until(lambda: server.started or not thread.is_alive(), START_SECONDS) or not server.started:
        msg = "uvicorn did not start"
        raise RuntimeError(msg)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


def listening(port: int) -> socket.socket:
    """A socket on a port of loopback, on any other if that is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


@contextlib.contextmanager
def running(
    tell: Callable[[Exchange, Place], None],
    *,
    asks: bool = False,
    clients: Sequence[Mapping[str, Any]] = (),
    ports: tuple[int, int] = (0, 0),
) -> Generator[Running]:
    """The servers, from their start to the end of the block.

    Args:
        tell: Called with each exchange.
        asks: Whether a person is asked on the consent page; otherwise everything is allowed at once.
        clients: Registered from the beginning.
        ports: Those of the MCP server and the authorization server, if they are free.
    """
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listening(port)) for port in (*ports, 0)]
        origin, issuer_origin, client_origin = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in listeners)
        resource, clock, returns = f"{origin}/mcp", Clock(), Returns()
        issuer = DevServer(
            issuer=issuer_origin,
            resources=[resource],
            scopes=SCOPES,
            auto_approve=not asks,
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
        place = Place(resource=resource, metadata_url=metadata_url, issuer=issuer_origin, baseline=READ)

        def note(exchange: Exchange) -> None:
            tell(exchange, place)

        protected = auth.wrap(mcp_server())
        apps = {MCP_SERVER: protected, AUTHORIZATION_SERVER: issuer, CLIENT: returns}
        for (server, inner), listener in zip(apps.items(), listeners, strict=True):
            stack.enter_context(serving(observed(inner, server, note), listener))
        yield Running(place, issuer, clock, returns, f"{client_origin}/callback")
