"""One exchange with an ASGI app in process: scopes, trivial apps, and any number of tokens.

`make_exchange` returns a coroutine function that sends one request and returns the status. Each request has a new
scope, as from a server.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from asgi_mcp_auth import AuthServerConfig, MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth._options import MCPAuthOptions
from asgi_mcp_auth.config import IssuerResolver, ScopePolicy
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = (
    "LASTING",
    "METADATA_PATH",
    "RESOURCE",
    "SCOPE",
    "Exchange",
    "FreshTokens",
    "in_turn",
    "make_body",
    "make_exchange",
    "make_scope",
    "protected",
    "reading_app",
    "resource_config",
    "trivial_app",
)

RESOURCE = "https://mcp.example.com/mcp"
METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
SCOPE = "mcp:read"
LASTING = "max-age=86400"


async def trivial_app(_scope: Any, _receive: Any, send: Any) -> None:
    """The control: the smallest ASGI app."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def reading_app(_scope: Any, receive: Any, send: Any) -> None:
    """The trivial app, after reading the body as an MCP server does."""
    while (await receive()).get("more_body"):
        pass
    await trivial_app(_scope, receive, send)


def make_scope(
    path: str, token: str | None, *, length: int = 180, method: str | None = None, proof: str | None = None
) -> dict[str, Any]:
    """Return the scope of an MCP client's request, as uvicorn makes it."""
    headers = [
        (b"host", b"mcp.example.com"),
        (b"user-agent", b"python-httpx/0.28.1"),
        (b"accept", b"application/json, text/event-stream"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/json"),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", b"add"),
        (b"content-length", str(length).encode("ascii")),
    ]
    if token is not None:
        scheme = b"Bearer " if proof is None else b"DPoP "
        headers.append((b"authorization", scheme + token.encode("ascii")))
    if proof is not None:
        headers.append((b"dpop", proof.encode("ascii")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": method or ("GET" if "/.well-known/" in path else "POST"),
        "root_path": "",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


class Exchange:
    """A callable that sends one request to an app and returns the status."""

    def __init__(self, app: Any, make: Callable[[], dict[str, Any]], body: bytes) -> None:
        self._app, self._make, self._body = app, make, body
        self._ahead: list[dict[str, Any]] = []
        self._status = 0

    def ahead(self, count: int) -> None:
        """Make the scopes of the next `count` exchanges, outside the measured region."""
        self._ahead = [self._make() for _ in range(count)]

    async def __call__(self) -> int:
        """Send one request and return the status."""
        await self._app(self._ahead.pop() if self._ahead else self._make(), self._receive, self._send)
        return self._status

    async def _receive(self) -> Any:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]


def make_exchange(
    app: Any,
    token: Callable[[], str] | str | None = None,
    *,
    path: Callable[[], str] | str = "/mcp",
    body: bytes | None = None,
    method: str | None = None,
    proof: Callable[[], str] | None = None,
) -> Exchange:
    """Return an exchange with an app. Callables return another token, path or DPoP proof for each request."""
    length = 180 if body is None else len(body)

    def make() -> dict[str, Any]:
        given = token() if callable(token) else token
        proven = None if proof is None else proof()
        return make_scope(path() if callable(path) else path, given, length=length, method=method, proof=proven)

    return Exchange(app, make, body or b"")


def make_body(size: int, *, tool: str = "add") -> bytes:
    """Return a `tools/call` of MCP 2026-07-28 with `size` bytes. Bodies over 1,000 bytes have a list of rows."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    arguments: dict[str, Any] = {"a": 1, "b": ""}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    if size > 1000:
        row = {
            "id": 12345,
            "title": "a row of a table with a title of the usual length",
            "price": 12.5,
            "tags": ["one", "two"],
        }
        arguments["rows"] = [row] * (size // (len(json.dumps(row)) + 2) - 3)
    arguments["b"] = "x" * (size - len(json.dumps(call)))
    return json.dumps(call).encode("ascii")


def in_turn(values: Iterable[str]) -> Callable[[], str]:
    """Return a function that returns the values in turn, endlessly."""
    return itertools.cycle(values).__next__


class FreshTokens:
    """Tokens that no app has seen. `prepare` mints them outside the measured region, `next` returns one."""

    def __init__(self, mint: Callable[[], str], count: int) -> None:
        self._mint, self._count = mint, count
        self._ready: list[str] = []

    @classmethod
    def of(cls, issuer: Issuer, key: SigningKey, count: int) -> FreshTokens:
        """Return fresh tokens of one issuer, signed with one of its keys."""
        return cls(lambda: issuer.mint(RESOURCE, scope=SCOPE, key=key), count)

    def prepare(self) -> None:
        """Mint the tokens of one round, including one for the call that checks the answer."""
        while len(self._ready) < self._count + 1:
            self._ready.append(self._mint())

    def next(self) -> str:
        """Return a token that was not returned before."""
        return self._ready.pop()


def resource_config(
    servers: Sequence[str | AuthServerConfig | IssuerResolver], *, resource: str = RESOURCE, **policy: Any
) -> ResourceServerConfig:
    """Return one resource that needs `SCOPE`, with further rules."""
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=servers)
    return ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=[SCOPE], **policy))


def protected(
    issuer: Issuer, app: Any = trivial_app, *, options: MCPAuthOptions | None = None, **policy: Any
) -> MCPAuthMiddleware:
    """Return a protected app with an in-process issuer whose keys stay fresh during the benchmark."""
    issuer.cache_control = LASTING
    given: MCPAuthOptions = {"http_client": issuer.http_client, **(options or {})}
    return MCPAuth(resource_config([issuer.url], **policy), **given).wrap(app)
