"""A fleet on one machine: how soon every process refuses a revoked subject, while Redis stops and returns.

Each process has an app, and sends requests of all its subjects in process, most about those that will be revoked.
Another process revokes them one after another. In the middle, the Redis server is stopped (SIGSTOP: connections stay
open and nothing answers), continued, and later killed and started again without its data. Measured region: from the
call of `auth.revoke` to the first request that a process refused. A good token that is not accepted, or a revoked one
that is accepted for longer than `Plan.bound`, is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from exchanges import RESOURCE, SCOPE, make_exchange, trivial_app
from measuring import Effort, Skip, WrongAnswerError, percentile
from redis_servers import RedisServer, redis
from reporting import Report, Table

from asgi_mcp_auth import (
    AuthServerConfig,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth._signals.watermarks import Watermarks, watermark_of
from asgi_mcp_auth.errors import Unavailable
from asgi_mcp_auth.stores.redis import RedisStore
from asgi_mcp_auth.testing import Issuer

__all__ = ("Outcome", "Plan", "run", "simulate")

ISSUER = "https://auth.example.com"
BOUND = 1.0  # seconds with a Redis that answers: far below the stated staleness of 300, and a busy machine keeps it
GOOD_PER_PASS = 20
WATERMARKS = 100_000
READINESS: dict[str, Any] = {"type": "http", "method": "GET", "path": "/readyz", "headers": []}

Calls = dict[str, tuple[float, float]]
"""For each subject: when the call of `revoke` that succeeded began, and when it returned."""


class Plan(NamedTuple):
    """The size and the times of a simulation."""

    processes: int
    subjects: int
    revoked: int
    seconds: float
    """How long requests are sent."""
    every: float
    """Seconds between two revocations."""

    @property
    def stopped(self) -> float:
        """Seconds for which Redis is stopped."""
        return self.seconds * 0.15

    @property
    def bound(self) -> float:
        """Seconds for which a process may accept a revoked token. Redis may stop right after it stored a revocation."""
        return self.stopped + BOUND


class Worker(NamedTuple):
    """What one process saw."""

    accepted_until: dict[str, float]
    """For each revoked subject: when its last request was accepted."""
    refused: dict[str, float]
    """When a request of a revoked subject was refused first."""
    good: Counter[int]
    """The statuses of requests with other tokens."""
    calls: int
    """Calls of the store."""
    requests: int


class Outcome(NamedTuple):
    """The result of a simulation."""

    delays: list[float]
    """For each revocation and process: seconds from the call that succeeded until the first refusal."""
    accepted_after: float
    """The longest time for which a process accepted a token after the revocation had returned."""
    unrefused: int
    """Revocations that a process never saw."""
    good: Counter[int]
    requests: int
    calls: int
    late: int
    """Watermarks that a process knows which starts after the data of the store were lost."""


def made(jwks: dict[str, Any], url: str) -> MCPAuth:
    config = ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=RESOURCE, authorization_servers=[AuthServerConfig(issuer=ISSUER, jwks=jwks)]
        ),
        policy=ScopePolicy(default=[SCOPE]),
    )
    return MCPAuth(config, store=RedisStore(url), revocation=True)


async def _work(auth: MCPAuth, tokens: dict[str, str], watched: Sequence[str], until: float) -> Worker:
    app = auth.wrap(trivial_app)
    exchanges = {subject: make_exchange(app, token) for subject, token in tokens.items()}
    pending, good = dict.fromkeys(watched), [exchanges[name] for name in tokens if name not in set(watched)]
    accepted, refused, statuses = dict.fromkeys(watched, 0.0), dict[str, float](), Counter[int]()
    number = requests = 0
    while not auth.status().ready:  # a load balancer sends no request before
        await auth.readiness_app()(READINESS, _nothing, _nothing)
    while time.time() < until:
        for subject in tuple(pending):
            status = await exchanges[subject]()
            requests += 1
            if status == 200:
                accepted[subject] = time.time()
            elif status == 401:
                refused[subject] = time.time()
                del pending[subject]
        for _ in range(GOOD_PER_PASS):
            statuses[await good[number % len(good)]()] += 1
            number += 1
            requests += 1
        await asyncio.sleep(0.002)
    again = [subject for subject in refused if await exchanges[subject]() != 401]
    refused = {subject: at for subject, at in refused.items() if subject not in again}  # once refused, always refused
    store = auth.status().store
    return Worker(accepted, refused, statuses, 0 if store is None else store.calls, requests)


def work(jwks: dict[str, Any], url: str, tokens: dict[str, str], watched: Sequence[str], until: float) -> Worker:
    """Send requests until a time, in a process of its own."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_work(made(jwks, url), tokens, watched, until))


async def _revoke(auth: MCPAuth, subjects: Sequence[str], every: float) -> Calls:
    """Revoke subjects one after another, again while the store fails."""
    returned: Calls = {}
    for subject in subjects:
        while subject not in returned:
            began = time.time()
            with contextlib.suppress(Unavailable):
                await auth.revoke(issuer=ISSUER, subject=subject)
                returned[subject] = began, time.time()
            await asyncio.sleep(every)
    return returned


async def _late(auth: MCPAuth) -> int:
    """Return how many watermarks a new process knows, once the fleet has restored the log."""
    known: list[int] = [0]
    for _ in range(100):
        await auth.readiness_app()(READINESS, _nothing, _nothing)
        status = auth.status().revocation
        known.append(0 if status is None else status.watermarks["subject"])
        if known[-1] and known[-3:] == known[-1:] * 3:
            break
        await asyncio.sleep(0.3)
    return known[-1]


async def _nothing(*_: object) -> None: ...


def simulate(plan: Plan, directory: Path) -> Outcome:
    """Run a fleet while Redis is stopped for a time, and killed and started again."""
    issuer = Issuer(ISSUER, algorithms=("Ed25519",))
    issued = int(time.time()) - 5
    names = [f"user-{number}" for number in range(plan.subjects)]
    tokens = {name: issuer.mint(RESOURCE, sub=name, scope=SCOPE, iat=issued, exp=issued + 3600) for name in names}
    watched = names[: plan.revoked]
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        server = running.enter_context(redis(directory))
        pool = stack.enter_context(ProcessPoolExecutor(plan.processes + 1, multiprocessing.get_context("spawn")))
        list(pool.map(start, range(plan.processes + 1)))
        until = time.time() + plan.seconds
        arguments = (issuer.jwks(), server.url, tokens, watched, until)
        workers = [pool.submit(work, *arguments) for _ in range(plan.processes)]
        time.sleep(plan.seconds * 0.2)
        half = len(watched) // 2
        first = pool.submit(revoke_all, issuer.jwks(), server.url, watched[:half], plan.every)
        _stop(server, plan.stopped)
        returned = first.result()
        running.close()  # the data are lost
        running.enter_context(redis(directory, port=server.port))
        returned |= pool.submit(revoke_all, issuer.jwks(), server.url, watched[half:], plan.every).result()
        late = asyncio.run(_late(made(issuer.jwks(), server.url)))
        return _outcome(workers, returned, late)


def start(_: int) -> None:
    """Keep a process busy until all have started."""
    time.sleep(0.2)


def revoke_all(jwks: dict[str, Any], url: str, subjects: Sequence[str], every: float) -> Calls:
    """Revoke subjects, in a process of its own."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_revoke(made(jwks, url), subjects, every))


def _stop(server: RedisServer, seconds: float) -> None:
    """Stop the server in the middle of the revocations."""
    time.sleep(0.3)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def _outcome(workers: Sequence[Future[Worker]], calls: Calls, late: int) -> Outcome:
    found = [worker.result() for worker in workers]
    return Outcome(
        delays=[
            one.refused[name] - began for one in found for name, (began, _) in calls.items() if name in one.refused
        ],
        accepted_after=max(one.accepted_until[name] - after for one in found for name, (_, after) in calls.items()),
        unrefused=sum(len(calls.keys() - one.refused.keys()) for one in found),
        good=sum((one.good for one in found), Counter[int]()),
        requests=sum(one.requests for one in found),
        calls=sum(one.calls for one in found),
        late=late,
    )


def bytes_per_watermark(count: int) -> float:
    """Return the memory of one watermark."""
    marks = [watermark_of(ISSUER, f"user-{n}", None, None, None, None, 1e9 + n) for n in range(count)]
    gc.collect()
    tracemalloc.start()
    watermarks = Watermarks()
    for kind, key, before, claim in marks:
        watermarks.add(marks[0]._replace(kind=kind, key=bytes(bytearray(key)), before=before + 0.5, claim=claim))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / count


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    if shutil.which("redis-server") is None:
        raise Skip("It needs redis-server: apt-get install --no-install-recommends redis-server")
    plan = Plan(4, 2000, effort.of(400, 40), effort.of(20, 8), 0.01)
    with tempfile.TemporaryDirectory() as directory:
        found = simulate(plan, Path(directory))
    if found.unrefused or found.accepted_after > plan.bound or set(found.good) != {200}:
        late = f"accepted for {found.accepted_after:.3f} s"
        raise WrongAnswerError(f"{found.unrefused} not refused, {late}, statuses {dict(found.good)}")
    count = effort.of(WATERMARKS, 1000)
    rows = [
        ("from `revoke` to refusal, p50, ms", percentile(found.delays, 0.5) * 1000),
        ("from `revoke` to refusal, p99, ms", percentile(found.delays, 0.99) * 1000),
        ("calls of the store per 1,000 requests", found.calls * 1000 / found.requests),
        ("calls of the store per second and process", found.calls / plan.seconds / plan.processes),
        ("memory of 100,000 watermarks, MB", bytes_per_watermark(count) * WATERMARKS / 1e6),
    ]
    title = f"{plan.processes} processes with {plan.subjects} subjects; Redis stops, and loses its data once"
    return Report(name="fleet", tables=[Table(title=title, columns=("figure", "value"), rows=rows)])
