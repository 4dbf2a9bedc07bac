"""Output for people: the consoles, and text folded between words at the width of the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

__all__ = ("console", "fold", "shell_lines", "unbroken", "write")

NO_BREAK_SPACE = "\u00a0"
_WORD = re.compile(rf"(?:\S|{NO_BREAK_SPACE})+")
_SHELL_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")


def console(*, stderr: bool = False) -> Console:
    """Return a console: coloured on a terminal unless NO_COLOR is set, plain elsewhere.

    Its width is COLUMNS, else the width of the terminal, else 80. rich itself folds nothing: it breaks long words.
    """
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def write(out: Console, text: Text | str, style: str = "", *, hanging: int = 0) -> None:
    """Print text, folded at the console's width; `hanging` is the indentation of the lines after a fold."""
    whole = Text(text, style) if isinstance(text, str) else text
    for line in whole.split(allow_blank=True) if whole else [whole]:
        for part in fold(line, out.width, hanging):
            out.print(part)


def unbroken(text: str) -> str:
    """Return text that `write` does not fold at its spaces."""
    return text.replace(" ", NO_BREAK_SPACE)


def fold(line: Text, width: int, hanging: int = 0) -> Iterator[Text]:
    """Yield the parts of a line, broken between words; a longer word has a line of its own.

    No word is broken: a URL or token remains whole, so that it can be copied.
    """
    plain, begin, indent, breaks = line.plain, 0, 0, list[int]()
    for word in _WORD.finditer(plain):
        if plain[begin : word.start()].strip() and indent + cell_len(plain[begin : word.end()]) > width:
            begin, indent = word.start(), hanging
            breaks.append(begin)
    for number, part in enumerate(line.divide(breaks)):
        part.rstrip()
        part.plain = part.plain.replace(NO_BREAK_SPACE, " ")
        yield Text(" " * hanging).append_text(part) if number else part


def shell_lines(command: str, width: int) -> list[str]:
    """Return a shell command as lines of at most `width`, joined by backslashes.

    An option stays with its value if both fit.
    """
    units: list[str] = []
    for word in _SHELL_WORD.findall(command):
        value = units and units[-1].startswith("-") and " " not in units[-1] and not word.startswith("-")
        if value and cell_len(f"  {units[-1]} {word} \\") <= width:
            units[-1] += f" {word}"
        else:
            units.append(word)
    lines: list[str] = []
    for unit in units:
        if lines and cell_len(f"{lines[-1]} {unit} \\") <= width:
            lines[-1] += f" {unit}"
        else:
            lines.append(f"  {unit}" if lines else unit)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
