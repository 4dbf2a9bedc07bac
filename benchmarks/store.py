"""What requests cost the store that processes share: round trips, and time with a Redis server on this machine.

Measured region: one request in process (`await app(scope, receive, send)`), as in `in_process`, with a `RedisStore`
whose calls are counted. A waited call adds its latency to the request; another call runs in the background. The control
is a configuration without a store. Every request has to get 200.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from exchanges import RESOURCE, SCOPE, make_scope, protected
from measuring import Effort, Skip, WrongAnswerError
from redis_servers import redis
from reporting import Cell, Report, Table

from asgi_mcp_auth._options import MCPAuthOptions
from asgi_mcp_auth.stores import LogPage
from asgi_mcp_auth.stores.redis import RedisStore
from asgi_mcp_auth.testing import Issuer

__all__ = ("run",)

PER = 1000
WAITED = ("get_many", "add")


class Counted:
    """A store that counts the calls of another one."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self.calls["get_many"] += 1
        return await self._store.get_many(keys)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self.calls["put"] += 1
        await self._store.put(key, value, ttl)

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        self.calls["add"] += 1
        return await self._store.add(key, value, ttl)

    async def touch(self, key: str, ttl: float) -> bool:
        self.calls["touch"] += 1
        return await self._store.touch(key, ttl)

    async def delete(self, key: str) -> None:
        self.calls["delete"] += 1
        await self._store.delete(key)

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        self.calls["append"] += 1
        return await self._store.append(log, value, ttl)

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        self.calls["read_from"] += 1
        return await self._store.read_from(log, position, limit=limit, wait=wait)


class Situation(NamedTuple):
    """A kind of request.

    Attributes:
        name: The row.
        scopes: Makes the scopes of some requests.
        app: The protected app.
    """

    name: str
    scopes: Callable[[int], list[dict[str, Any]]]
    app: Any


def in_session(token: str, number: int) -> dict[str, Any]:
    """Return the scope of a request in a session, by a client of MCP 2025-11-25."""
    scope = make_scope("/mcp", token)
    fields = [field for field in scope["headers"] if not field[0].startswith(b"mcp-")]
    session = (b"mcp-session-id", b"session-%d" % number)
    return {**scope, "headers": [*fields, (b"mcp-protocol-version", b"2025-11-25"), session]}


async def naming_app(scope: Any, _receive: Any, send: Any) -> None:
    """An app that names the session of the request: a new one for the middleware."""
    name = dict(scope["headers"]).get(b"x-new-session")
    fields = [(b"content-length", b"2"), *([] if name is None else [(b"mcp-session-id", name)])]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"ok"})


def starting(token: str, number: int) -> dict[str, Any]:
    """Return the scope of a request that begins a session."""
    scope = in_session(token, number)
    *fields, (_, name) = scope["headers"]
    return {**scope, "headers": [*fields, (b"x-new-session", name)]}


async def seconds_of(app: Any, scopes: Sequence[dict[str, Any]]) -> float:
    """Return the time that the requests take, one after another."""
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    began = perf_counter()
    for scope in scopes:
        await app(scope, receive, send)
    took = perf_counter() - began
    if set(statuses) != {200}:
        raise WrongAnswerError(f"statuses {set(statuses)}")
    return took


async def measure_all(url: str, effort: Effort) -> Report:
    count = effort.of(PER, 20)
    issuer = Issuer("https://auth.example.com", algorithms=("ES256",))
    token = issuer.mint(RESOURCE, scope=SCOPE)
    bound = issuer.mint(RESOURCE, scope=SCOPE, cnf={"jkt": issuer.proof_key.thumbprint})
    store = Counted(RedisStore(url))
    options: MCPAuthOptions = {"store": store, "session_binding": True, "dpop": "allowed"}
    without = protected(issuer, naming_app)
    first, second = (protected(issuer, naming_app, options=options) for _ in range(2))

    def plain(count: int) -> list[dict[str, Any]]:
        return [make_scope("/mcp", token)] * count

    def one_session(count: int) -> list[dict[str, Any]]:
        return [in_session(token, 0)] * count

    def sessions(count: int) -> list[dict[str, Any]]:
        return [in_session(token, number) for number in range(count)]

    def new_sessions(count: int) -> list[dict[str, Any]]:
        return [starting(token, number) for number in range(count)]

    def proofs(count: int) -> list[dict[str, Any]]:
        return [make_scope("/mcp", bound, proof=issuer.prove("POST", RESOURCE, bound)) for _ in range(count)]

    situations = [
        Situation("without a store", plain, without),
        Situation("no session", plain, first),
        Situation("new sessions", new_sessions, first),
        Situation("a session in use", one_session, first),
        Situation("sessions that another process began", sessions, second),
        Situation("the same again, within a minute", sessions, second),
        Situation("DPoP proofs", proofs, first),
    ]
    await seconds_of(first, [*plain(1), *proofs(1)])  # the tokens are known then
    for app in (second, without):
        await seconds_of(app, plain(1))
    rows: list[tuple[Cell, ...]] = []
    for situation in situations:
        scopes = situation.scopes(count)
        store.calls.clear()
        took = await seconds_of(situation.app, scopes)
        await asyncio.sleep(0.05)
        waited = sum(store.calls[name] for name in WAITED)
        background = sum(store.calls.values()) - waited
        rows.append((situation.name, waited * PER / count, background * PER / count, took / count * 1e6))
    columns = ("requests", "waited calls per 1,000", "calls in the background", "µs per request")
    return Report(
        name="store", tables=[Table(title="Calls of the store by 1,000 requests", columns=columns, rows=rows)]
    )


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    if shutil.which("redis-server") is None:
        raise Skip("It needs redis-server: apt-get install --no-install-recommends redis-server")
    with tempfile.TemporaryDirectory() as directory, redis(Path(directory)) as server:
        return asyncio.run(measure_all(server.url, effort))
