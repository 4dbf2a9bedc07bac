"""Real servers and a real load generator as processes: the server on one core, the load on another.

Requests per second and latencies are those of `wrk`. A response other than 2xx is an error. With one core, or without
`taskset`, processes are not pinned.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from exchanges import LASTING, RESOURCE, SCOPE
from measuring import Skip, WrongAnswerError
from processes import free_port, importing_from, running

from asgi_mcp_auth.testing import Issuer

__all__ = (
    "SERVERS",
    "Load",
    "Served",
    "check_answers",
    "issuer_at_work",
    "mint_for_long",
    "on_load_core",
    "on_server_core",
    "require_wrk",
    "serve",
    "wrk",
)

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = "0", "1"
HOURS = 12 * 3600

Argv = Callable[[int], Sequence[str]]


def uvicorn(*options: str) -> Argv:
    def argv(port: int) -> Sequence[str]:
        quiet = ("--no-access-log", "--log-level", "warning", "--workers", "1")
        return (sys.executable, "-m", "uvicorn", "served:app", "--port", str(port), *quiet, *options)

    return argv


def granian(port: int) -> Sequence[str]:
    one = ("--workers", "1", "--runtime-threads", "1", "--no-access-log", "--log-level", "warning")
    return (sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), *one, "served:app")


SERVERS: Mapping[str, tuple[Argv, tuple[str, ...]]] = {
    "uvicorn, h11, asyncio": (uvicorn("--http", "h11", "--loop", "asyncio"), ("uvicorn",)),
    "uvicorn, httptools, uvloop": (
        uvicorn("--http", "httptools", "--loop", "uvloop"),
        ("uvicorn", "httptools", "uvloop"),
    ),
    "granian": (granian, ("granian",)),
}
"""The command line and the needed modules, by name."""


def on_server_core(argv: Sequence[str]) -> Sequence[str]:
    return _pinned(argv, SERVER_CORE)


def on_load_core(argv: Sequence[str]) -> Sequence[str]:
    return _pinned(argv, LOAD_CORE)


def _pinned(argv: Sequence[str], core: str) -> Sequence[str]:
    several = (os.cpu_count() or 1) > 1
    return ("taskset", "-c", core, *argv) if several and shutil.which("taskset") else argv


def require_wrk() -> None:
    """Check that the load generator is installed.

    Raises:
        Skip: It is missing.
    """
    if shutil.which("wrk") is None:
        msg = "The benchmark needs wrk: apt-get install wrk."
        raise Skip(msg)


@contextlib.contextmanager
def issuer_at_work(*algorithms: str) -> Generator[Issuer, None, None]:
    """Run an issuer over HTTP on loopback in a thread; it serves its keys a few times only."""
    try:
        import uvicorn as server_module
    except ImportError:
        msg = "The benchmark needs uvicorn: pip install '.[bench]'."
        raise Skip(msg) from None
    port = free_port()
    issuer = Issuer(f"http://127.0.0.1:{port}", algorithms=algorithms or ("RS256",))
    issuer.cache_control = LASTING
    issuer.metadata["authorization_endpoint"] = f"{issuer.url}/authorize"  # mcpauth requires this member
    server = server_module.Server(server_module.Config(issuer, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
        yield issuer
    finally:
        server.should_exit = True
        thread.join()


def mint_for_long(issuer: Issuer) -> str:
    """Return a token that outlives the benchmark."""
    return issuer.mint(RESOURCE, scope=SCOPE, exp=int(issuer.clock()) + HOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server."""

    url: str
    sessions: tuple[int, ...]
    """The session ids of its processes."""

    def cpu_seconds(self) -> float:
        """Return the processor time of its processes, workers included; 0 if the system does not report it."""
        spent = 0.0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # the process has ended
                fields = status.read_text("ascii", "replace").rpartition(")")[2].split()
                if int(fields[3]) in self.sessions:
                    spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return spent


@contextlib.contextmanager
def serve(server: str, app: str, issuer: Issuer, shield: str, token: str = "") -> Generator[Served, None, None]:
    """Run one worker of a server of `SERVERS` on the server's core.

    Args:
        server: The name in `SERVERS`.
        app: "hello" or "mcp".
        issuer: The issuer that the middleware trusts.
        shield: The middleware around the app: "none", "least" or "ours".
        token: The token that `least` knows.

    Raises:
        Skip: The server is not installed.
    """
    argv, modules = SERVERS[server]
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        msg = f"{server} needs {' and '.join(missing)}: pip install '.[bench]'."
        raise Skip(msg)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"APP": app, "SHIELD": shield, "ISSUER": issuer.url, "TOKEN": token}
    with running(on_server_core(argv(port)), ready_port=port, env=importing_from(HERE, env)) as process:
        yield Served(url=url, sessions=(process.pid,))


class Load(NamedTuple):
    """The result of the load generator."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


SCRIPT = """
wrk.method = %(method)s
wrk.body = %(body)s
for name, value in pairs(%(headers)s) do wrk.headers[name] = value end
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nRESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99)))
end
"""


def wrk(url: str, headers: Mapping[str, str], body: str | None, *, seconds: int, connections: int = 16) -> Load:
    """Generate load at saturation: one thread and several connections, each with one request at a time.

    Raises:
        WrongAnswerError: A response was not 2xx, or there was no response.
    """
    table = "{" + ", ".join(f"[{_lua(name)}] = {_lua(value)}" for name, value in headers.items()) + "}"
    method = "GET" if body is None else "POST"
    text = SCRIPT % {"method": _lua(method), "body": "nil" if body is None else _lua(body), "headers": table}
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "request.lua"
        script.write_text(text, encoding="utf-8")
        argv = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url)
        done = subprocess.run(on_load_core(argv), check=True, capture_output=True, text=True, timeout=seconds + 60)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    requests, duration, failed, p50, p99 = map(int, line.split()[1:])
    if failed or not requests:
        msg = f"{url}: {failed} of {requests} requests failed under load"
        raise WrongAnswerError(msg)
    return Load(requests, requests / duration * 1e6, p50 / 1e3, p99 / 1e3)


def _lua(text: str) -> str:
    """Return a Lua string literal, which is the same as in JSON for the ASCII text used here."""
    return json.dumps(text)


def check_answers(url: str, headers: Mapping[str, str], body: str | None, expected: str, *, refuses: bool) -> None:
    """Send one request with the token and one without.

    Raises:
        WrongAnswerError: The response lacks the expected text, or the request without a token has the wrong status.
    """
    anonymous = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    good, bad = (_ask(url, fields, body) for fields in (headers, anonymous))
    if good.status_code != 200 or expected not in good.text or (bad.status_code == 401) != refuses:
        msg = f"{url}: {good.status_code} {good.text[:300]} with a token, {bad.status_code} without"
        raise WrongAnswerError(msg)


def _ask(url: str, headers: Mapping[str, str], body: str | None) -> httpx.Response:
    more: dict[str, Any] = {} if body is None else {"content": body}
    return httpx.request("GET" if body is None else "POST", url, headers=headers, trust_env=False, **more)
