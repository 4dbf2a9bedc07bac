"""Keys and the workers of a server: fetched before it forks them, required when they start, imported beforehand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import Process, free_port, running
from upstream import Upstream

from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork.")

COUNTERPARTS = Path(__file__).parent / "counterparts"
WORKERS = 3


@pytest.mark.requirement("DC-9")
def test_workers_of_gunicorn_use_what_was_fetched_before_the_fork() -> None:
    upstream, port = Upstream(), free_port()
    upstream.issuer = Issuer(upstream.url, algorithms=("ES256",))
    resource = f"http://127.0.0.1:{port}/mcp"
    token = upstream.issuer.mint(resource, scope="mcp:read")
    argv = [sys.executable, "-m", "gunicorn", "preloaded:app", "--preload", "--workers", str(WORKERS)]
    argv += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
    env = {"RESOURCE": resource, "ISSUER": upstream.url}

    def ask(_: int) -> dict[str, Any]:
        response = httpx.get(resource, headers={"authorization": f"Bearer {token}"}, trust_env=False)
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told

    upstream.start()
    try:
        with running(argv, ready_port=port, env=env, cwd=COUNTERPARTS) as process, ThreadPoolExecutor(12) as pool:
            told: list[dict[str, Any]] = []
            for _ in range(20):
                told += pool.map(ask, range(24))
                if len({answer["pid"] for answer in told}) == WORKERS:
                    break
    finally:
        upstream.stop()
    assert len({answer["pid"] for answer in told}) == WORKERS
    assert {answer["parent"] for answer in told} == {process.pid}
    assert {json.dumps(answer["failed"]) for answer in told} == {"[]"}
    assert {answer["fetches"] for answer in told} == {1}
    assert upstream.issuer.requests == {"/.well-known/oauth-authorization-server": 1, "/jwks": 1}


@pytest.mark.requirement("DC-9")
def test_workers_after_hup_use_what_the_master_fetched() -> None:
    """While the issuer is down: as the reference says of `preload_app`."""
    upstream, port = Upstream(), free_port()
    upstream.issuer = Issuer(upstream.url, algorithms=("ES256",))
    resource = f"http://127.0.0.1:{port}/mcp"
    token = upstream.issuer.mint(resource, scope="mcp:read")
    argv = [sys.executable, "-m", "gunicorn", "preloaded:app", "--preload", "--no-control-socket"]
    argv += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
    env = {"PYTHONPATH": str(COUNTERPARTS), "RESOURCE": resource, "ISSUER": upstream.url}

    def ask() -> httpx.Response:
        return httpx.get(resource, headers={"authorization": f"Bearer {token}"}, trust_env=False)

    upstream.start()
    try:
        with running(argv, ready_port=port, env=env, cwd=COUNTERPARTS) as process:
            before = ask().json()["pid"]
            upstream.stop()
            os.kill(process.pid, signal.SIGHUP)
            deadline = time.monotonic() + 20
            while (answer := ask()).status_code == 200 and answer.json()["pid"] == before:
                assert time.monotonic() < deadline, process.output
                time.sleep(0.1)
            assert answer.status_code == 200, answer.text
    finally:
        upstream.stop()


FORK = """
import json, os, sys
import anyio
from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.testing import Issuer

now = 1_800_000_000.0
issuer = Issuer(algorithms=("Ed25519",), clock=lambda: now)
metadata = ResourceServerMetadata(resource="https://mcp.example.com/mcp", authorization_servers=[issuer.url])
auth = MCPAuth(ResourceServerConfig(metadata=metadata), http_client=issuer.http_client, clock=lambda: now)
(keys,) = auth._protection.key_sets._named

def tell():
    document, state = keys.document, keys.document.state
    print(json.dumps({"flights": len(document._flight._flights), "refresh_from": state.refresh_from - now,
        "fresh_until": state.fresh_until - now, "keys": len(keys.status().keys)}), flush=True)

async def main():
    global now
    issuer.cache_control = None
    assert await auth.warm_up() == ()
    issuer.stall()
    now += 590.0
    keys.refresh_in_background()  # is under way when the process forks
    now -= 590.0
    while not sum(issuer.requests.values()) > 2:
        await anyio.sleep(0.01)
    if (child := os.fork()) == 0:
        tell()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    tell()

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", [pytest.param(name, id=f"DC-9 {name}") for name in ("asyncio", "trio")])
def test_a_fork_keeps_the_keys_and_nothing_that_is_under_way(backend: str) -> None:
    argv = [sys.executable, "-W", "error", "-c", FORK, backend]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    [record] = done.stderr.splitlines()  # of the parent, whose event loop ends amid the fetch
    assert record.endswith("The fetch was cancelled, because its event loop ended.")
    child, parent = map(json.loads, done.stdout.splitlines())
    assert (child["flights"], parent["flights"]) == (0, 1)
    assert (child["keys"], parent["keys"]) == (1, 1)
    assert child["fresh_until"] == parent["fresh_until"] == 600
    # Each has its own place in the last fifth of that.
    assert child["refresh_from"] != parent["refresh_from"]
    assert min(child["refresh_from"], parent["refresh_from"]) >= 480
    assert max(child["refresh_from"], parent["refresh_from"]) <= 540


class Fleet:
    """gunicorn with four workers that wait for their keys at start, and the issuer of these keys."""

    def __init__(self, upstream: Upstream, resource: str, process: Process) -> None:
        self.issuer = upstream.issuer
        self.process = process
        self._resource = resource
        self._token = self.issuer.mint(resource, scope="mcp:read")

    def ask(self, _: int = 0) -> int:
        """The pid of the worker that answers, or 0 for a 503."""
        headers = {"authorization": f"Bearer {self._token}"}
        response = httpx.get(self._resource, headers=headers, trust_env=False, timeout=30)
        assert response.status_code in (200, 503), response.text
        return response.json() if response.status_code == 200 else 0

    def ask_for(self, seconds: float) -> Counter[int]:
        """The answers to requests of eight clients within these seconds."""
        answers: Counter[int] = Counter()
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(8) as pool:
            while time.monotonic() < end:
                answers.update(pool.map(self.ask, range(32)))
        return answers


@contextlib.contextmanager
def fleet(worker: str, **env: str) -> Generator[Fleet]:
    upstream, port = Upstream(), free_port()
    upstream.issuer = Issuer(upstream.url, algorithms=("ES256",))
    resource = f"http://127.0.0.1:{port}/mcp"
    argv = [sys.executable, "-m", "gunicorn", "warming:app", "--workers", str(WORKERS + 1)]
    argv += ["--worker-class", worker, "--bind", f"127.0.0.1:{port}"]
    env |= {"RESOURCE": resource, "ISSUER": upstream.url}
    upstream.start()
    try:
        with running(argv, ready_url=resource, env=env, cwd=COUNTERPARTS) as process:
            site = Fleet(upstream, resource, process)
            process.wait_until(lambda: len(set(site.ask_for(0.3))) > WORKERS, 20)
            yield site
    finally:
        upstream.stop()


@pytest.mark.parametrize(
    "worker",
    [
        pytest.param("uvicorn_worker.UvicornWorker", id="uvicorn's worker"),
        pytest.param("asgi", id="gunicorn's own worker"),
    ],
)
@pytest.mark.full
def test_a_worker_that_restarts_in_an_outage_takes_no_server_down(worker: str) -> None:
    """Four workers hold good keys, the issuer answers 500, and one worker dies."""
    with fleet(worker, WARM_UP_TIMEOUT="1") as site:
        site.issuer.fail()
        victim = site.ask()
        os.kill(victim, signal.SIGKILL)
        answers = site.ask_for(5.0)
        assert site.process.returncode is None, "the server has exited"
        assert answers[0] <= answers.total() / 4
        assert len(set(answers) - {0, victim}) == WORKERS
        site.issuer.heal()
        site.process.wait_until(lambda: len(set(site.ask_for(0.5)) - {0}) > WORKERS, 40)


@pytest.mark.full
def test_a_server_exits_when_cold_if_that_is_configured() -> None:
    with fleet("uvicorn_worker.UvicornWorker", WARM_UP_TIMEOUT="1", EXIT_WHEN_COLD="1") as site:
        site.issuer.fail()
        os.kill(site.ask(), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while site.process.returncode is None:
            assert time.monotonic() < deadline, "the server has not exited"
            time.sleep(0.1)


IMPORTS = """
import sys
from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata
{loop}
metadata = ResourceServerMetadata(resource="http://localhost:1/mcp", authorization_servers=[sys.argv[1]])
auth = MCPAuth(ResourceServerConfig(metadata=metadata))

async def main():
    before = set(sys.modules)
    assert await auth.warm_up() == ()
    print(sorted(set(sys.modules) - before))

{run}
"""


@pytest.mark.parametrize(
    ("loop", "run"),
    [
        pytest.param("import asyncio", "asyncio.run(main())", id="asyncio"),
        pytest.param("import trio", "trio.run(main)", id="trio"),
    ],
)
def test_a_fetch_imports_nothing(loop: str, run: str) -> None:
    """Everything was imported when the configuration was constructed: an import in a request stops every other one."""
    upstream = Upstream()
    upstream.issuer = Issuer(f"http://localhost:{upstream.port}", algorithms=("ES256",))
    argv = [sys.executable, "-c", IMPORTS.format(loop=loop, run=run), upstream.issuer.url]
    upstream.start()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    finally:
        upstream.stop()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[]\n")
