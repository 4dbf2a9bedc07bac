"""Requirement ids of tests, compared with the catalogue in tests/README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ID = re.compile(r"\b(?:AS|AU|CK|DC|DP|FS|IN|MX|PQ|RS|RV|TX)-\d+\b")
UNKNOWN = pytest.StashKey[str]()
"""Of a test: the ids that the catalogue lacks."""
UNUSED = pytest.StashKey[list[str]]()
"""Of a run of everything: the ids in the catalogue that no test shows."""


def catalogue() -> list[str]:
    """Return the ids in the tables of the catalogue."""
    return re.findall(r"^\| ([A-Z]{2}-\d+) \|", (TESTS / "README.md").read_text("utf-8"), re.MULTILINE)


def mark(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Mark tests with the ids in the ids of their parameters, and note ids that are unknown or unused."""
    listed = set(catalogue())
    used: set[str] = set()
    files: set[Path] = set()
    for item in items:
        files.add(item.path)
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            item.add_marker(pytest.mark.requirement(*ID.findall(item.callspec.id)))
        ids = {one for marker in item.iter_markers("requirement") for one in marker.args}
        if unknown := ids - listed:
            item.stash[UNKNOWN] = ", ".join(sorted(unknown))
        item.extra_keyword_matches.update(ids)
        used |= ids
    everything = files.issuperset(TESTS.glob("test_*.py"))
    config.stash[UNUSED] = sorted(listed - used) if everything else []


def check(item: pytest.Item) -> None:
    """Fail a test that names an unknown id."""
    if unknown := item.stash.get(UNKNOWN, None):
        pytest.fail(f"Add {unknown} to the catalogue in tests/README.md, or correct the id.", pytrace=False)
