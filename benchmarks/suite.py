"""The command `python benchmarks [NAME …] [--smoke]`: run all or some benchmarks, each in a process of its own.

The reports go to the terminal and to `benchmarks/results/`: `report.md`, `report.json`, and one plot per benchmark. A
benchmark that cannot run is skipped with a message. No time is asserted.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measuring import Effort, Skip, machine
from plotting import draw
from reporting import Report, as_json, as_markdown, as_text, fill, promises_table, tables_markdown

__all__ = ("main", "run_alone", "with_figures")

IN_README = ("promises", "peers", "memory", "flood", "store", "fleet")
HERE = Path(__file__).parent
BENCHMARKS = ("in_process", "growth", "memory", "peers", "end_to_end", "flood", "store", "fleet")


def run_alone(name: str, effort: Effort) -> Report:
    """Run a benchmark in this process. Its imports change later benchmarks (the MCP SDK above all)."""
    logging.disable(logging.CRITICAL)  # log handlers are not measured
    report: Report = importlib.import_module(name).run(effort)
    return report


def run_one(name: str, effort: Effort) -> Report | None:
    """Run a benchmark in a new process and return its report, or None if it cannot run."""
    started = time.monotonic()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        future = fresh.submit(run_alone, name, effort)
    try:
        report = future.result()
    except Skip as skip:
        print(f"\n== {name}: skipped. {skip}")
        return None
    print(f"\n{as_text(report)}\n({time.monotonic() - started:.0f} s)", flush=True)
    return report


def with_figures(text: str, reports: Sequence[Report], where: Mapping[str, str]) -> str:
    """Return the README with the figures of this run for the reports that it shows."""
    for report in reports:
        if report.name in IN_README:
            text = fill(text, report.name, tables_markdown(report))
    return fill(text, "machine", ", ".join(f"{name} {value}" for name, value in where.items()) + ".")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks", description="Measure the cost of the middleware.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a benchmark: {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--smoke", action="store_true", help="send a few requests each, to see that the benchmarks run")
    parser.add_argument("--readme", action="store_true", help="write the figures into benchmarks/README.md")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="the folder for the files")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    found = [run_one(name, Effort(smoke=arguments.smoke)) for name in arguments.names or BENCHMARKS]
    reports = [report for report in found if report is not None]
    promised = promises_table(reports)
    if promised.tables:
        print(f"\n{as_text(promised)}")
        reports = [promised, *reports]
    where = machine()
    arguments.results.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(f"- {name}: {value}" for name, value in where.items())
    text = "\n\n".join([listed, *map(as_markdown, reports)])
    (arguments.results / "report.md").write_text(text + "\n", encoding="utf-8")
    (arguments.results / "report.json").write_text(as_json(reports, where), encoding="utf-8")
    if arguments.readme:
        readme = HERE / "README.md"
        readme.write_text(with_figures(readme.read_text("utf-8"), reports, where), encoding="utf-8")
    try:
        draw(reports, arguments.results)
    except Skip as skip:
        print(f"\n{skip}")
    if arguments.smoke:
        print("\nThis was a smoke run: its figures mean nothing.")
    print(f"\n{', '.join(f'{name} {value}' for name, value in where.items())}\nWritten to {arguments.results}")
