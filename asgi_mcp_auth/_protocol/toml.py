"""TOML as a configuration file: its tables, and the lines that its keys stand on."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from asgi_mcp_auth._protocol.problems import as_list, as_mapping

__all__ = ("line_of",)

LONGEST_SEARCHED = 2000
_STEP = re.compile(r"(?:^|\.)(\w+)|\[(\d+)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


def line_of(text: str, where: str) -> int | None:
    """The line on which a place of a well-formed document is written, as far as the place exists; None if nowhere.

    TOML has no statement that is well-formed when it is cut: so the first lines of a document that parse end with a
    whole statement, and the statement begins on the line after those that parsed before.

    Args:
        text: The document.
        where: `protected_resources[0].policy.paths['/x']`.
    """
    path = [int(number) if number else key or single or double for key, number, single, double in _STEP.findall(where)]
    lines = text.splitlines(keepends=True)
    if len(lines) > LONGEST_SEARCHED:
        return None
    found: int | None = None
    deepest = parsed = 0
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        if (depth := _depth(document, path)) > deepest:
            found, deepest = parsed + 1, depth
        parsed = count
    return found


def _depth(document: Any, path: list[Any]) -> int:
    """How many steps of the path exist."""
    here = document
    for depth, step in enumerate(path):
        items, table = as_list(here), as_mapping(here)
        if items is not None and isinstance(step, int) and step < len(items):
            here = items[step]
        elif table is not None and step in table:
            here = table[step]
        else:
            return depth
    return len(path)
