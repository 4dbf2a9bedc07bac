"""Latency of good requests while nine in ten requests are garbage, and the delay of the server's event loop.

Measured region: from the time when a request is due to the end of its response, over loopback. The client runs on one
core and is open-loop: it sends each request when it is due, without waiting for earlier responses. The server is one
uvicorn worker on another core, with a hello-world app behind the middleware. Good requests have known tokens, or new
tokens in a row of their own. One control has the same rate of good requests only; another has only the good requests of
the flood. The garbage is random bytes, random text with two dots, good tokens with another signature, unknown kids,
unknown issuers, and tokens for another audience; all are different. Good requests have to get 200, and garbage 400,
401 or 503. The delays of the client itself are the same in all rows.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple, cast

import httpx
from exchanges import RESOURCE, SCOPE
from measuring import Effort, WrongAnswerError, percentile, spread
from reporting import Cell, Report, Table
from serving import LOAD_CORE, SERVER_CORE, Served, check_answers, issuer_at_work, mint_for_long, serve

from asgi_mcp_auth.testing import Issuer

__all__ = ("run",)

RATE = 1000  # requests per second, of which a tenth is good under flood
CONNECTIONS = 64
REFUSED = frozenset((400, 401, 503))
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Planned(NamedTuple):
    """A request to send, and whether it is good."""

    data: bytes
    good: bool


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, ended, rest = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not ended or self._answer is None or (length is not None and len(rest) < int(length[1])):
            return
        self._buffer = b""
        self._answer.set_result(int(head[9:12]))

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Seen(NamedTuple):
    """The latencies of good requests in milliseconds, and the number of garbage requests by status."""

    good: Sequence[float]
    garbage: Counter[int]


async def send_all(port: int, plan: Sequence[Planned], rate: float) -> Seen:
    """Send each request when it is due, on any free connection; latency counts from the due time."""
    loop = asyncio.get_running_loop()
    free: deque[Connection] = deque()
    for _ in range(CONNECTIONS):
        free.append((await loop.create_connection(Connection, "127.0.0.1", port))[1])
    waiting = asyncio.Semaphore(CONNECTIONS)
    seen = Seen([], Counter())
    latencies = cast("list[float]", seen.good)

    async def one(planned: Planned, due: float) -> None:
        async with waiting:
            connection = free.popleft()
            status = await connection.ask(planned.data)
            free.append(connection)
        if not planned.good:
            seen.garbage[status] += 1
        elif status == 200:
            latencies.append((time.perf_counter() - due) * 1e3)
        else:
            msg = f"a good request was answered {status}"
            raise WrongAnswerError(msg)

    started = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as running:
        for number, planned in enumerate(plan):
            due = started + number / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            running.create_task(one(planned, due))
    for connection in free:
        connection.close()
    if odd := set(seen.garbage) - REFUSED:
        msg = f"garbage was answered {sorted(odd)}"
        raise WrongAnswerError(msg)
    return seen


def request_of(token: str) -> bytes:
    return f"GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n".encode("ascii")


def text_of(count: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(count)).rstrip(b"=").decode("ascii")


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode("ascii")).rstrip(b"=").decode("ascii")


def garbage_of(issuer: Issuer) -> list[Callable[[], str]]:
    """Return one factory per kind of garbage. No kind needs a signature; the server can see that for two kinds only."""
    key = issuer.keys[0]
    header = {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}

    def forged(more_header: dict[str, Any], **claims: Any) -> str:
        body = issuer.claims(RESOURCE, scope=SCOPE, **claims)
        return f"{encoded(header | more_header)}.{encoded(body)}.{text_of(256)}"

    return [
        lambda: text_of(400),
        lambda: f"{text_of(60)}.{text_of(300)}.{text_of(256)}",
        lambda: forged({}),
        lambda: forged({"kid": text_of(8)}),
        lambda: forged({}, iss=f"https://{secrets.token_hex(8)}.example.com"),
        lambda: forged({}, aud="https://other.example.com/mcp"),
    ]


class Mix(NamedTuple):
    """A mix of traffic: requests per second, garbage in tenths, and whether good tokens are new."""

    name: str
    rate: int
    garbage: int
    new: bool = False


MIXES = (
    Mix("no flood: 100 % good, at the same total rate", RATE, 0),
    Mix("the good ones of the flood alone", RATE // 10, 0),
    Mix("flood: 90 % garbage", RATE, 9),
    Mix("the good ones alone, new tokens", RATE // 10, 0, new=True),
    Mix("flood: 90 % garbage, new tokens", RATE, 9, new=True),
)


class Target(NamedTuple):
    """A server, its issuer, and known tokens."""

    served: Served
    issuer: Issuer
    known: Sequence[str]


def plan(mix: Mix, seconds: int, target: Target) -> list[Planned]:
    """Return all requests of one run, in order."""
    issuer = target.issuer
    kinds, tokens, made = cycle(garbage_of(issuer)), cycle(target.known), list[Planned]()
    for number in range(mix.rate * seconds):
        if number % 10 < mix.garbage:
            made.append(Planned(request_of(next(kinds)()), good=False))
        else:
            token = issuer.mint(RESOURCE, scope=SCOPE) if mix.new else next(tokens)
            made.append(Planned(request_of(token), good=True))
    return made


def loop_delays(served: Served) -> list[float]:
    """Return the delays of the server's event loop since the last call, in milliseconds."""
    delays: list[float] = httpx.get(f"{served.url}/loop-delay", trust_env=False).json()
    return delays


async def measure_one(mix: Mix, seconds: int, target: Target, answers: Counter[int]) -> list[float]:
    """Return p50 and p99 of the good requests and of the loop's delay; add the garbage by status to `answers`."""
    planned = plan(mix, seconds, target)
    loop_delays(target.served)
    seen = await send_all(int(target.served.url.rpartition(":")[2]), planned, mix.rate)
    delays = loop_delays(target.served)
    answers += seen.garbage
    return [percentile(values, share) for values in (seen.good, delays) for share in (0.5, 0.99)]


async def measure_all(effort: Effort, target: Target) -> tuple[list[tuple[Cell, ...]], Counter[int]]:
    seconds, rounds = effort.of(3, 1), effort.of(6, 1)
    found: dict[str, list[list[float]]] = {mix.name: [] for mix in MIXES}
    answers = Counter[int]()
    for _ in range(rounds):
        for mix in MIXES[effort.of(0, len(MIXES) - 1) :]:
            found[mix.name].append(await measure_one(mix, seconds, target, answers))
    return [(name, *map(spread, zip(*runs, strict=True))) for name, runs in found.items() if runs], answers


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {int(LOAD_CORE)})
    with issuer_at_work() as issuer, serve("uvicorn, h11, asyncio", "hello", issuer, "ours") as served:
        known = [mint_for_long(issuer) for _ in range(20)]
        for token in known:  # fetch the keys and cache the tokens
            fields = {"authorization": f"Bearer {token}"}
            check_answers(f"{served.url}/mcp", fields, None, "ok", refuses=True)
        rows, answers = asyncio.run(measure_all(effort, Target(served, issuer, known)))
    columns = ("traffic", "good p50, ms", "good p99, ms", "loop delay p50, ms", "loop delay p99, ms")
    title = f"{RATE:,} requests per second to one uvicorn worker; the loop is due every 5 ms"
    statuses = ", ".join(f"{count:,} times {status}" for status, count in sorted(answers.items()))
    core = f"The server has core {SERVER_CORE}, the client core {LOAD_CORE}, where there are several."
    table = Table(title=title, columns=columns, rows=rows, plotted=2, logarithmic=True)
    return Report(name="flood", tables=[table], notes=[core, f"Garbage was answered {statuses}."])
