"""Plots of tables and curves, with matplotlib (the extra `bench`): one SVG per report."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Skip, Spread
from reporting import Cell, Curves, Report, Table

__all__ = ("draw",)


def draw(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Draw the reports that have curves or plotted tables, and return the files.

    Raises:
        Skip: matplotlib is not installed.
    """
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        msg = "The plots need matplotlib: pip install '.[bench]'."
        raise Skip(msg) from None
    return [
        _draw_one(pyplot, report, folder / f"{report.name.replace(' ', '_')}.svg")
        for report in reports
        if report.curves or any(table.plotted is not None for table in report.tables)
    ]


def _draw_one(pyplot: Any, report: Report, path: Path) -> Path:
    tables = [table for table in report.tables if table.plotted is not None]
    heights = [7.0 for _ in report.curves] + [0.8 + 0.28 * len(table.rows) for table in tables]
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(10, sum(heights) + 1), squeeze=False, height_ratios=heights, layout="constrained"
    )
    parts: list[Curves | Table] = [*report.curves, *tables]
    for axis, part in zip(axes[:, 0], parts, strict=True):
        if isinstance(part, Curves):
            _curves(axis, part)
        else:
            _bars(axis, part)
        axis.set_title(part.title)
    figure.suptitle(report.name)
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _curves(axis: Any, curves: Curves) -> None:
    """Draw on two logarithmic axes: a constant cost is flat, a linear cost has the slope of the grid."""
    for index, (name, points) in enumerate(curves.points.items()):
        axis.loglog(*zip(*points, strict=True), marker="osv^D"[index % 5], label=name)
    axis.set_xlabel(curves.x)
    axis.set_ylabel(curves.y)
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _bars(axis: Any, table: Table) -> None:
    """Draw medians, with quartiles as whiskers."""
    column = table.plotted or 0
    shown = [(str(row[0]), _as_spread(row[column])) for row in table.rows]
    known = [(name, value) for name, value in shown if value is not None]
    names, medians = [name for name, _ in known], [value.median for _, value in known]
    below = [max(0.0, value.median - value.low) for _, value in known]
    above = [max(0.0, value.high - value.median) for _, value in known]
    axis.barh(names, medians, xerr=(below, above), capsize=2)
    axis.invert_yaxis()
    axis.set_xlabel(table.columns[column])
    if table.logarithmic:
        axis.set_xscale("log")


def _as_spread(cell: Cell) -> Spread | None:
    if isinstance(cell, Spread):
        return cell
    return None if cell is None or isinstance(cell, str) else Spread(cell, cell, cell)
