"""One exchange with an ASGI app, in process: the scopes, the trivial apps, and tokens in any number.

In: an app and what to ask it. Out: coroutine functions that ask it once and give the status, with a fresh scope each
time, as a server makes it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from asgi_mcp_auth import AuthServerConfig, MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata
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
    """The control: the least an app can do."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def reading_app(_scope: Any, receive: Any, send: Any) -> None:
    """Reads its body, as an MCP server does."""
    while (await receive()).get("more_body"):
        pass
    await trivial_app(_scope, receive, send)


def make_scope(path: str, token: str | None, *, length: int = 180, method: str | None = None) -> dict[str, Any]:
    """The scope of an MCP client's request, as uvicorn makes it."""
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
        headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
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
    """One exchange with an app each time it is called; gives the status."""

    def __init__(self, app: Any, make: Callable[[], dict[str, Any]], body: bytes) -> None:
        self._app, self._make, self._body = app, make, body
        self._ahead: list[dict[str, Any]] = []
        self._status = 0

    def ahead(self, count: int) -> None:
        """Make the scopes of so many exchanges, so that this is no part of them."""
        self._ahead = [self._make() for _ in range(count)]

    async def __call__(self) -> int:
        """Ask."""
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
) -> Exchange:
    """One exchange with an app; tokens and paths may be another one each time."""
    length = 180 if body is None else len(body)

    def make() -> dict[str, Any]:
        given = token() if callable(token) else token
        return make_scope(path() if callable(path) else path, given, length=length)

    return Exchange(app, make, body or b"")


def make_body(size: int, *, tool: str = "add") -> bytes:
    """A `tools/call` of MCP 2026-07-28 with a list of rows as its argument; 200 B is one without."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    arguments: dict[str, Any] = {"a": 1, "b": ""}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    if size > 1000:
        row = {"id": 12345, "title": "a row of a table", "price": 12.5, "tags": ["one", "two"]}
        arguments["rows"] = [row] * (size // (len(json.dumps(row)) + 2) - 3)
    arguments["b"] = "x" * (size - len(json.dumps(call)))
    return json.dumps(call).encode("ascii")


def in_turn(values: Iterable[str]) -> Callable[[], str]:
    """Gives the values one after the other, round and round."""
    return itertools.cycle(values).__next__


class FreshTokens:
    """Tokens that nobody has seen, minted in advance for each round: `prepare` outside of it, `next` within."""

    def __init__(self, mint: Callable[[], str], count: int) -> None:
        self._mint, self._count = mint, count
        self._ready: list[str] = []

    @classmethod
    def of(cls, issuer: Issuer, key: SigningKey, count: int) -> FreshTokens:
        """Tokens of one issuer, signed with one of its keys."""
        return cls(lambda: issuer.mint(RESOURCE, scope=SCOPE, key=key), count)

    def prepare(self) -> None:
        """Mint what a round takes, the call that checks the answer included."""
        while len(self._ready) < self._count + 1:
            self._ready.append(self._mint())

    def next(self) -> str:
        """One that was not given before."""
        return self._ready.pop()


def resource_config(
    servers: Sequence[str | AuthServerConfig | IssuerResolver], *, resource: str = RESOURCE, **policy: Any
) -> ResourceServerConfig:
    """One resource that needs `SCOPE`, with further rules."""
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=servers)
    return ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=[SCOPE], **policy))


def protected(
    issuer: Issuer, app: Any = trivial_app, *, options: Mapping[str, Any] | None = None, **policy: Any
) -> MCPAuthMiddleware:
    """The middleware over an issuer in process, whose keys need no refreshing meanwhile."""
    issuer.cache_control = LASTING
    auth = MCPAuth(resource_config([issuer.url], **policy), http_client=issuer.http_client, **(options or {}))
    return auth.wrap(app)
