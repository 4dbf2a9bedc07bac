"""The base of the tests: the constants of the requirements, a recording app, and a raw ASGI client.

The client speaks ASGI itself, so that a test can send what no HTTP client would: two Authorization lines,
any bytes, a path that is not normalised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from asgi_mcp_auth import MCPAuthMiddleware
from asgi_mcp_auth.testing import Issuer

R = "https://mcp.example.com/mcp"
PRM = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
PRM_PATH = "/.well-known/oauth-protected-resource/mcp"
ISS = "https://auth.example.com"

CH0 = f'Bearer scope="mcp:read", resource_metadata="{PRM}"'

INVALID = "The access token is invalid"
EXPIRED = "The access token expired"
MALFORMED = "Malformed Authorization header"


def cht(description: str = INVALID) -> str:
    return (
        f'Bearer error="invalid_token", scope="mcp:read", resource_metadata="{PRM}", error_description="{description}"'
    )


def chr_(description: str = MALFORMED) -> str:
    return f'Bearer error="invalid_request", scope="mcp:read", resource_metadata="{PRM}", error_description="{description}"'


def chs(scope: str) -> str:
    return (
        f'Bearer error="insufficient_scope", scope="{scope}", resource_metadata="{PRM}", '
        'error_description="Additional scope required"'
    )


class Clock:
    """A clock in seconds since the epoch that tests set by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class RecordingApp:
    """An ASGI app that answers 200 with the claims of the caller, and keeps every scope."""

    scopes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message.get("text")})
            return
        body = json.dumps(scope.get("state", {}).get("claims")).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": body})

    @property
    def calls(self) -> int:
        return len(self.scopes)


@dataclass
class Answer:
    """A response as the ASGI messages contain it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def lines(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def header(self, name: str) -> str | None:
        lines = self.lines(name)
        assert len(lines) <= 1, f"{name} was sent {len(lines)} times"
        return lines[0] if lines else None

    @property
    def challenge(self) -> str | None:
        return self.header("www-authenticate")

    def json(self) -> Any:
        return json.loads(self.body)


def bearer(token: str | bytes) -> list[tuple[str, bytes]]:
    """Return the header of a request with a token."""
    return [("authorization", b"Bearer " + (token if isinstance(token, bytes) else token.encode("ascii")))]


Headers = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


def http_scope(
    method: str = "POST",
    path: str = "/mcp",
    headers: Headers = (),
    *,
    raw_path: bytes | None = None,
    query: bytes = b"",
    host: str | None = "mcp.example.com",
    **more: Any,
) -> dict[str, Any]:
    pairs: list[tuple[str, str | bytes]] = [] if host is None else [("host", host)]
    pairs += cast("Iterable[tuple[str, str | bytes]]", headers.items() if isinstance(headers, Mapping) else headers)
    encoded = [(k.lower().encode(), v if isinstance(v, bytes) else v.encode("latin-1")) for k, v in pairs]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode("utf-8") if raw_path is None else raw_path,
        "query_string": query,
        "root_path": "",
        "headers": encoded,
        "client": ("127.0.0.1", 5000),
        "server": ("mcp.example.com", 443),
    } | more


async def send_scope(app: Any, scope: Any, body: bytes = b"") -> Answer:
    """Run one HTTP exchange over ASGI; the request body arrives once, then the client stays connected."""
    started: list[Any] = []
    chunks: list[bytes] = []
    given = False

    async def receive() -> Any:
        nonlocal given
        if given:
            await anyio.sleep_forever()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not started, "two response starts"
            started.append(message)
        else:
            assert message["type"] == "http.response.body"
            assert started
            chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    assert started, "no response"
    headers = [(bytes(k), bytes(v)) for k, v in started[0].get("headers", [])]
    return Answer(started[0]["status"], headers, b"".join(chunks))


async def call(
    app: Any, method: str = "POST", path: str = "/mcp", headers: Headers = (), *, body: bytes = b"", **scope: Any
) -> Answer:
    """Send one HTTP request to an ASGI app and return the answer."""
    return await send_scope(app, http_scope(method, path, headers, **scope), body)


@dataclass
class Handshake:
    """The result of a websocket connection: every message that the app sent."""

    sent: list[Any]

    @property
    def accepted(self) -> bool:
        return any(message["type"] == "websocket.accept" for message in self.sent)

    @property
    def closed(self) -> int | None:
        return next((message.get("code") for message in self.sent if message["type"] == "websocket.close"), None)

    @property
    def denial(self) -> Answer | None:
        """The HTTP answer of the `websocket.http.response` extension."""
        starts = [message for message in self.sent if message["type"] == "websocket.http.response.start"]
        if not starts:
            return None
        body = b"".join(m.get("body", b"") for m in self.sent if m["type"] == "websocket.http.response.body")
        return Answer(starts[0]["status"], list(starts[0]["headers"]), body)


async def websocket(
    app: Any, path: str = "/mcp", headers: Headers = (), *, texts: Iterable[str] = (), denial: bool = True, **scope: Any
) -> Handshake:
    """Open a websocket, send texts and disconnect; return what the app sent."""
    whole: dict[str, Any] = http_scope("GET", path, headers) | {
        "type": "websocket",
        "scheme": "wss",
        "subprotocols": [],
    }
    del whole["method"]
    whole["extensions"] = {"websocket.http.response": {}} if denial else {}
    queue: list[Any] = [{"type": "websocket.connect"}]
    queue += [{"type": "websocket.receive", "text": text} for text in texts]
    queue += [{"type": "websocket.disconnect", "code": 1000}]
    sent: list[Any] = []

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(whole | scope, receive, send)
    return Handshake(sent)


def protect(issuer: Issuer, app: Any, *, clock: Callable[[], float] | None = None, **options: Any) -> MCPAuthMiddleware:
    """Return the middleware of the requirements: resource `R`, issuer `ISS`, baseline `mcp:read`, all in process."""
    settings: dict[str, Any] = {
        "resource": R,
        "authorization_servers": [issuer.url],
        "required_scopes": ["mcp:read"],
        "http_client": issuer.http_client,
        "clock": clock or issuer.clock,
    }
    return MCPAuthMiddleware(app, **(settings | options))


def token(issuer: Issuer, **changes: Any) -> str:
    """Return `T{...}` of the requirements: a token for `R` with the scope `mcp:read`, with the given changes."""
    claims: dict[str, Any] = {"scope": "mcp:read"} | changes
    return issuer.mint(claims.pop("aud", R), **claims)


Lines = Iterable[tuple[str, str | bytes]]
APP = "https://app.example"
CORS = [
    (b"access-control-allow-origin", b"https://app.example"),
    (b"vary", b"Origin"),
    (b"access-control-expose-headers", b"WWW-Authenticate, Mcp-Session-Id, DPoP-Nonce"),
]


def lines(*parts: Lines) -> list[tuple[str, str | bytes]]:
    """Return the joined header fields."""
    return [pair for part in parts for pair in part]
