"""Reports of benchmarks as text, Markdown and JSON.

Numbers have three significant digits. A `Spread` is shown as its median and its quartiles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from measuring import Spread

__all__ = (
    "Cell",
    "Curves",
    "Promise",
    "Report",
    "Table",
    "as_json",
    "as_markdown",
    "as_text",
    "fill",
    "promises_table",
    "show",
    "tables_markdown",
)

Cell = str | float | Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns. `plotted` is the column for a plot, if any; `logarithmic` is its axis."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    plotted: int | None = None
    logarithmic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Cost by size, one curve per name, for two logarithmic axes."""

    title: str
    x: str
    y: str
    points: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A target with its measured value. A missed target is reported, not an error.

    `floor` is the measured value of `least`, if it applies.
    """

    name: str
    limit: float
    measured: Spread
    unit: str
    at_least: bool = False
    floor: Spread | None = None

    @property
    def kept(self) -> bool:
        """Whether the median meets the target."""
        return self.measured.median >= self.limit if self.at_least else self.measured.median <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of one benchmark."""

    name: str
    tables: Sequence[Table]
    curves: Sequence[Curves] = ()
    promises: Sequence[Promise] = ()
    notes: Sequence[str] = field(default_factory=tuple[str, ...])


def show(cell: Cell) -> str:
    """Return the text of a cell."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Spread):
        return f"{_number(cell.median)} ({_number(cell.low)} … {_number(cell.high)})"
    return _number(cell)


def _number(value: float) -> str:
    """Return a number with three significant digits and without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 3)}f}"


def as_text(report: Report) -> str:
    """Return a report for a terminal."""
    blocks = [f"{table.title}\n{_aligned(table)}" for table in report.tables]
    return "\n\n".join((f"== {report.name}", *blocks, *(f"Note: {note}" for note in report.notes)))


def _aligned(table: Table) -> str:
    lines = [table.columns, *(tuple(map(show, row)) for row in table.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def as_markdown(report: Report) -> str:
    """Return a report as a Markdown section."""
    return "\n\n".join((f"### {report.name}", tables_markdown(report), *report.notes))


def tables_markdown(report: Report) -> str:
    """Return the tables of a report in Markdown."""
    blocks: list[str] = []
    for table in report.tables:
        lines = ["| " + " | ".join(map(_escaped, cells)) + " |" for cells in (table.columns, *table.rows)]
        rule = "|---|" + "---:|" * (len(table.columns) - 1)
        blocks += [f"{table.title}:", "\n".join([lines[0], rule, *lines[1:]])]
    return "\n\n".join(blocks)


def fill(text: str, name: str, content: str) -> str:
    """Return a document with new content between `<!-- benchmarks NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: The document has no such markers.
    """
    begin, end = f"<!-- benchmarks {name} -->", "<!-- end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        msg = f"There is no {begin} … {end}."
        raise ValueError(msg)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def _escaped(cell: Cell) -> str:
    return show(cell).replace("|", "\\|")


def promises_table(reports: Sequence[Report]) -> Report:
    """Return a report of all targets with their measured values."""
    rows = [
        (
            promise.name,
            f"{'≥' if promise.at_least else '≤'} {_number(promise.limit)} {promise.unit}",
            promise.measured,
            "yes" if promise.kept else "no",
            promise.floor,
        )
        for report in reports
        for promise in report.promises
    ]
    title = "Targets and measured values"
    columns = ("case", "target", "median (quartiles)", "met", "lower bound")
    return Report(name="promises", tables=[Table(title=title, columns=columns, rows=rows)] if rows else [])


def as_json(reports: Sequence[Report], machine: Mapping[str, str]) -> str:
    """Return reports and machine for programs."""
    return json.dumps({"machine": dict(machine), "reports": [_plain(report) for report in reports]}, indent=1)


def _plain(value: Any) -> Any:
    """Return a value as JSON types; a `Spread` is an object."""
    if isinstance(value, Spread):
        return value._asdict()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (Report, Table, Curves, Promise)):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value
