"""Plain words: texts for people do not contain the words that the project's style replaces by standard terms."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REPLACED = re.compile(
    r"\b(?:told|tells|mend(?:s|ed)?|to\s+the\s+letter|judge(?:s|d|ment)?|judgment|strangers?|nobody|somebody|whoever|brakes)\b",
    re.IGNORECASE,
)
"""Write instead: detect, report, log or know; fix; exactly; check, evaluate or decide; unauthenticated client, no
caller or another caller; rate limits."""

CODE = re.compile(
    r"^(?P<fence> *(?:```|~~~)).*?^(?P=fence)|`+(?:[^`\n]|\n(?!\s*\n))+`+|^ *>[^\n]*", re.DOTALL | re.MULTILINE
)
"""Fenced blocks, code spans within a paragraph, and quotations of other documents."""

IDENTIFIER = re.compile(r"[\w.:-]+")  # a name or a value for programs, not a text

EXCLUDED = ("tests/counterparts/", "tests/test_words.py")
"""Servers and clients as their own documentation has them, and the table of words itself."""


def words(text: str) -> list[tuple[int, str]]:
    """Return every replaced word outside code, with its line in the text, from 0."""
    prose = CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    return [(prose.count("\n", 0, found.start()), found[0]) for found in REPLACED.finditer(prose)]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield every comment and string literal of a module with its line; the text parts of an f-string are literals."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not IDENTIFIER.fullmatch(node.value):
            yield node.lineno, node.value


def findings(path: Path) -> list[str]:
    source = path.read_text("utf-8")
    if not REPLACED.search(source):  # most files; parsing them takes long
        return []
    found = texts(source) if path.suffix == ".py" else [(1, source)]
    return [f"{path.relative_to(ROOT)}:{line + more}: {word}" for line, text in found for more, word in words(text)]


@cache
def dirty() -> dict[str, list[str]]:
    """Return the findings by file, for every module and Markdown file of the project that has any."""
    folders = [ROOT / name for name in ("asgi_mcp_auth", "tests", "benchmarks")]
    files = [
        *ROOT.glob("*.md"),
        *(path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md"}),
    ]
    by_file = {path.relative_to(ROOT).as_posix(): path for path in sorted(files)}
    return {
        name: found for name, path in by_file.items() if not name.startswith(EXCLUDED) and (found := findings(path))
    }


def test_no_text_contains_a_replaced_word() -> None:
    assert [found for lines in dirty().values() for found in lines] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param('"""What it Tells."""', ["Tells"], id="a docstring in any case"),
        pytest.param("# mended\n", ["mended"], id="a comment"),
        pytest.param("x = f'nobody is {told} of it'", ["nobody"], id="the text of an f-string, not its code"),
        pytest.param('"""Equal to\nthe letter."""', ["to\nthe letter"], id="a phrase across lines"),
        pytest.param("judge = told.mend", [], id="identifiers"),
        pytest.param("x = {'told': 1}", [], id="a key"),
        pytest.param('"""Call `told()`.\n\n```\nwhoever\n```\n"""', [], id="code in a docstring"),
        pytest.param('"""Recommend a foretold amendment."""', [], id="parts of other words"),
    ],
)
def test_words_are_found_in_texts_only(source: str, expected: list[str]) -> None:
    assert [word for _, text in texts(source) for _, word in words(text)] == expected
