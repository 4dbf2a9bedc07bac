"""The line of every value of a TOML document, for the messages about problems in a configuration file."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from asgi_mcp_auth._policy.problems import as_list, as_mapping

__all__ = ("line_of", "statement_lines")

Path = tuple[str | int, ...]

MAX_DEPTH = 32  # deeper values have the line of their ancestor; no setting is nested so deeply

_TOKEN = re.compile(
    r"""
    \"{3}(?:\\.|[^\\])*?\"{3,5}     # a string may end with two quotes of its own before the closing three
    | '{3}.*?'{3,5}
    | "(?:\\.|[^"\\\n])*"
    | '[^'\n]*'
    | \#[^\n]*
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<newline>\n)
    """,
    re.DOTALL | re.VERBOSE,
)
_STEP = re.compile(r"(?:^|\.)(\w+)|\[(\d+|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\]")


def line_of(lines: Mapping[Path, int], where: str) -> int | None:
    """Return the line of the value at `where`, or of its nearest ancestor that exists; None if there is none.

    Args:
        lines: The lines of the document, from `statement_lines`.
        where: The path of the value, for example `protected_resources[0].policy.paths['/x']`.
    """
    path = tuple(key or ast.literal_eval(item) for key, item in _STEP.findall(where))
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)


def statement_lines(text: str) -> dict[Path, int]:
    """Return the line on which the first statement that defines a value begins, for every value of the document.

    The values inside a multi-line array or inline table have the line on which the whole statement begins.

    Args:
        text: A well-formed TOML document.
    """
    lines: dict[Path, int] = {}
    tables: Counter[Path] = Counter()  # arrays of tables, and how many tables each has so far
    table: Path = ()
    for line, statement in _statements(text):
        document: dict[str, Any] = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = ()
            for key, is_last_of_array in _header(document):
                table = (*table, key)
                tables[table] += is_last_of_array
                lines.setdefault(table, line)
                if tables[table]:
                    table = (*table, tables[table] - 1)
                    lines.setdefault(table, line)
        else:
            _add_values(lines, table, document, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement, with the number of its first line; blank lines and comments are statements too."""
    start = depth = 0
    line = first = 1
    for token in _TOKEN.finditer(text):
        line += token[0].count("\n")
        if token["open"] is not None:
            depth += 1
        elif token["close"] is not None:
            depth -= 1
        elif token["newline"] is not None and depth == 0:
            yield first, text[start : token.end()]
            start, first = token.end(), line
    yield first, text[start:]


def _header(document: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the keys of a parsed `[table]` or `[[array]]` header, each with whether it names a new array item."""
    while document:
        key, value = next(iter(document.items()))
        yield key, isinstance(value, list)
        document = {} if isinstance(value, list) else value


def _add_values(lines: dict[Path, int], path: Path, value: object, line: int) -> None:
    items = as_list(value)
    members: Iterable[tuple[str | int, object]] = (
        (as_mapping(value) or {}).items() if items is None else enumerate(items)
    )
    for key, member in members:
        lines.setdefault((*path, key), line)
        if len(path) < MAX_DEPTH:
            _add_values(lines, (*path, key), member, line)
