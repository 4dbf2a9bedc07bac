"""The cost of one request by the size of the configuration and of the caches, on two logarithmic axes.

Measured region: one request in process (`await app(scope, receive, send)`) with a trivial app, minus the same request
to the bare app, which is the control. The figure is the fastest of the interleaved rounds, so that a busy machine does
not look like growth. A size counts the named things; everything else is as small as possible. Requests are spread over
all items, or aim at the worst item. Building the configuration, which happens once, is timed once.

Growth is the exponent of the steepest step of a curve: 0 for a constant cost, 1 for a linear cost, and below 0.2 for a
logarithmic cost from size ten on. Costs are those of the whole request: a linear part that is negligible at the largest
size does not show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dimensions import DIMENSIONS, KNOWN, MAKING, Dimension
from exchanges import make_body, make_exchange
from measuring import Case, Effort, growth_exponent, measure
from reporting import Cell, Curves, Report, Table

__all__ = ("run",)

SUSPICIOUS, LINEAR = 0.2, 1.3
NOTICEABLE = 100.0
SIZES = (1, 10, 100, 1000, 10_000)
Points = list[tuple[float, float]]


async def measure_dimension(dimension: Dimension, effort: Effort) -> tuple[Points, Points]:
    """Return the added cost of a request, and the milliseconds to build the configuration, by size."""
    calls, most = effort.of(100, 2), min(dimension.most, effort.of(10_000, 10))
    sizes = sorted({1, 10, 100, 1000, 10_000, most})
    MAKING.clear()
    cases = [await dimension.build(size, calls) for size in sizes if size <= most]
    making = list(zip(map(float, sizes), MAKING, strict=False))
    control = Case(name="control", exchange=make_exchange(dimension.control, KNOWN, body=make_body(200)))
    times = await measure([control, *cases], rounds=effort.of(40, 2), calls=calls)
    costs = [min(times[case.name]) - min(times["control"]) for case in cases]
    return list(zip(map(float, sizes), costs, strict=False)), making


def rows_of(points: Mapping[str, Points], limit: float) -> list[tuple[Cell, ...]]:
    """Return a row per dimension: the figures by size, the exponent, and whether the exponent exceeds the limit."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in points.items():
        by_size = dict(found)
        exponent = growth_exponent([point for point in found if point[0] >= 10])
        rows.append((name, *(by_size.get(float(size)) for size in SIZES), exponent, "yes" if exponent > limit else ""))
    return rows


async def measure_all(effort: Effort) -> Report:
    found = {dimension.name: await measure_dimension(dimension, effort) for dimension in DIMENSIONS}
    costs = {name: points for name, (points, _) in found.items()}
    making = {name: points for name, (_, points) in found.items() if not points or points[-1][1] > NOTICEABLE}
    sizes = tuple(f"{size:,}" for size in SIZES)
    hot = ("number of", *sizes, "steepest exponent", "faster than log")
    once = ("number of", *sizes, "steepest exponent", "faster than linear")
    return Report(
        name="growth",
        tables=[
            Table(title="µs added to a request, by the number of", columns=hot, rows=rows_of(costs, SUSPICIOUS)),
            Table(title="ms to make the configuration, once", columns=once, rows=rows_of(making, LINEAR)),
        ],
        curves=[Curves(title="Cost by size", x="number", y="µs added to a request", points=costs)],
    )


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    return asyncio.run(measure_all(effort))
