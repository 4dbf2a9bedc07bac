"""The share of a server's throughput that the middleware costs: requests per second at saturation.

Measured region: from `wrk` on one core (one thread, 16 connections) over loopback to one worker of the server on
another core, and back. A round has three runs: the bare app, which is the control; the same app behind the middleware,
with a known token; the same app behind `least`, the lower bound of any middleware in Python. The first run alternates.
The figures are ratios within a round. The apps are a hello-world, where the cost of the middleware shows most, and a
tool call on the MCP SDK's server (no sessions, JSON responses). Not measured: TLS, responses of an issuer, a tool that
does work. Every response has to be 2xx. One response of each app is checked, and the protected apps have to reject a
request without a token. The processor time of the server's processes (Linux) is reported too: a busy machine distorts
it least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from measuring import Effort, Skip, Spread, spread
from reporting import Cell, Promise, Report, Table
from serving import SERVERS, Served, check_answers, issuer_at_work, mint_for_long, require_wrk, serve, wrk

from asgi_mcp_auth.testing import Issuer

__all__ = ("run",)

CALL = (
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":"x"},'
    '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    '"io.modelcontextprotocol/clientInfo":{"name":"benchmark","version":"1"},'
    '"io.modelcontextprotocol/clientCapabilities":{}}}}'
)
CALL_FIELDS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "add",
}


class App(NamedTuple):
    """A request to an app, and what the response has to contain."""

    name: str
    path: str
    fields: Mapping[str, str]
    body: str | None
    answer: str
    share: float
    """The target under uvicorn, in percent of the bare app's requests per second."""
    seconds: int
    """The duration of one run: longer if requests are slow."""


APPS = {
    "hello": App("hello world", "/mcp", {}, None, "ok", 88, 1),
    "mcp": App("MCP SDK tool call", "/mcp", CALL_FIELDS, CALL, "1x", 94, 3),
}


class Target(NamedTuple):
    """A server that is ready and checked."""

    served: Served
    url: str
    fields: Mapping[str, str]
    body: str | None


class Run(NamedTuple):
    """One run against one target."""

    per_second: float
    cpu: float
    """Microseconds of processor time per request, of the server's processes."""


SHIELDS = ("none", "least", "ours")


def ready(served: Served, app: App, token: str, *, refuses: bool, warm: bool) -> Target:
    """Check the responses of a server, warm it up, and return it as a target."""
    fields = {**app.fields, "authorization": f"Bearer {token}"}
    url = served.url + app.path
    check_answers(url, fields, app.body, app.answer, refuses=refuses)
    if warm:
        wrk(url, fields, app.body, seconds=1)
    return Target(served, url, fields, app.body)


def load(target: Target, seconds: int = 1) -> Run:
    before = target.served.cpu_seconds()
    seen = wrk(target.url, target.fields, target.body, seconds=seconds)
    return Run(seen.per_second, (target.served.cpu_seconds() - before) / seen.requests * 1e6)


def measure_rounds(server: str, app: str, issuer: Issuer, effort: Effort) -> list[dict[str, Run]]:
    """Return the runs of each round, by shield."""
    token, seconds = mint_for_long(issuer), effort.of(APPS[app].seconds, 1)
    with ExitStack() as stack:
        targets: dict[str, Target] = {}
        for shield in SHIELDS:
            served = stack.enter_context(serve(server, app, issuer, shield, token))
            refuses = shield != "none"
            targets[shield] = ready(served, APPS[app], token, refuses=refuses, warm=not effort.smoke)
        rounds: list[dict[str, Run]] = []
        for number in range(effort.of(10, 1)):
            first = number % len(SHIELDS)
            order = (*SHIELDS[first:], *SHIELDS[:first])
            rounds.append({shield: load(targets[shield], seconds) for shield in order})
    return rounds


def row_of(rounds: Sequence[Mapping[str, Run]]) -> tuple[Spread, ...]:
    """Return the bare app's requests per second, the shares of the others, and the processor time, bare and added."""

    def share(shield: str) -> Spread:
        return spread(100 * one[shield].per_second / one["none"].per_second for one in rounds)

    def more(shield: str) -> Spread:
        return spread(one[shield].cpu - one["none"].cpu for one in rounds)

    bare = [one["none"] for one in rounds]
    rate, cpu = spread(run.per_second for run in bare), spread(run.cpu for run in bare)
    return rate, share("ours"), share("least"), cpu, more("ours"), more("least")


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    require_wrk()
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    promises: list[Promise] = []
    with issuer_at_work() as issuer:
        for server in list(SERVERS)[: effort.of(len(SERVERS), 1)]:
            for app, what in list(APPS.items())[effort.of(0, 1) :]:  # the peers' smoke run covers the other app
                try:
                    row = row_of(measure_rounds(server, app, issuer, effort))
                except Skip as skip:
                    notes.append(str(skip))
                    break
                rows.append((f"{what.name}, {server}", *row))
                if "h11" in server:  # no middleware in Python keeps such a share behind a parser in C
                    name, (_, measured, floor, *_) = f"{what.name} under {server}", row
                    unit, limit = "% of the bare app's requests/s", what.share
                    promise = Promise(name=name, limit=limit, measured=measured, unit=unit, at_least=True, floor=floor)
                    promises.append(promise)
    columns = (
        "app and server",
        "bare, requests/s",
        "protected, % of bare",
        "lower bound, % of bare",
        "CPU µs, bare",
        "protected, CPU µs added",
        "lower bound, CPU µs added",
    )
    title = "At saturation, one worker on one core"
    return Report(
        name="end to end",
        tables=[Table(title=title, columns=columns, rows=rows, plotted=2)],
        promises=promises,
        notes=notes,
    )
