"""Printing the demo: its steps, the exchanges with their meaning, and failures."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from asgi_mcp_auth.cli._terminal import shell_lines, unbroken, write
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange
from asgi_mcp_auth.cli.demo._explain import meaning_of
from asgi_mcp_auth.cli.demo._meaning import OTHER, Deployment, Meaning

__all__ = ("Display",)

GOOD, REJECTED, BAD, QUIET = "green", "yellow", "bold red", "dim"
FIRST_ERROR = 400


def _origin(exchange: HTTPExchange) -> str:
    return f"http://{exchange.request_fields.get('host', '?')}"


def _visible(text: str) -> str:
    """Return text from other programs (a path, a client's name) without terminal or bidirectional controls."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


@dataclass(slots=True)
class Display:
    """A printer of exchanges, which the threads of several servers report, and of the steps between them.

    Attributes:
        console: The console to print on.
        meanings: The meanings of the exchanges since the current step began.
        check: Whether to print deviations; clients that are not the demo's own may deviate.
    """

    console: Console
    check: bool = True
    meanings: list[Meaning] = field(default_factory=list[Meaning])
    _exchanges: int = 0
    _steps: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def begin_step(self, title: str) -> None:
        """Print the title of the next step."""
        with self._lock:
            self.meanings.clear()
            self._steps += 1
            self._print(f"\n{self._steps}. {title}", style="bold", hanging=3)

    def show_exchange(self, exchange: HTTPExchange, deployment: Deployment) -> None:
        """Print an exchange and its meaning, unless it is outside the flow."""
        meaning = meaning_of(exchange, deployment)
        if meaning is OTHER:
            return
        with self._lock:
            self._exchanges += 1
            self._print_exchange(exchange, meaning)
            self.meanings.append(meaning)  # last: another thread may wait for this meaning, and print next

    def has_shown(self, kind: str) -> bool:
        """Return whether an exchange of a kind has been printed in this step."""
        return any(meaning.kind == kind for meaning in self.meanings)

    def _print_exchange(self, exchange: HTTPExchange, meaning: Meaning) -> None:
        operation = f"  {exchange.operation}" if exchange.operation else ""
        line = Text(f"\n   [{self._exchanges}] {meaning.sender} → {exchange.server}: ")
        line.append(unbroken(_visible(f"{exchange.method} {_origin(exchange)}{exchange.path}")), style="bold")
        line.append(unbroken(_visible(operation)), style="bold")
        line.append(unbroken("  "))
        line.append(str(exchange.status), style=GOOD if exchange.status < FIRST_ERROR else REJECTED)
        write(self.console, line, hanging=7)
        summary = Text(f"       {_visible(meaning.summary)}")
        if meaning.spec:
            citations = ", ".join(map(unbroken, meaning.spec.split(", ")))
            summary.append(f"  ({citations})", style=QUIET)
        write(self.console, summary, hanging=7)
        for detail in meaning.details:
            write(self.console, f"         {_visible(detail)}", "cyan", hanging=11)
        if meaning.problem is not None and self.check:
            self.failure(f"This exchange deviates from the specification: {_visible(meaning.problem)}.")

    def note(self, text: str) -> None:
        """Print a line between the exchanges."""
        self._print(f"   {text}", hanging=3)

    def success(self, text: str) -> None:
        """Print the result of a step."""
        self._print(f"\n   ✓ {text}", style=GOOD, hanging=5)

    def failure(self, text: str) -> None:
        """Print why a step failed."""
        self._print(f"   ✗ {text}", style=BAD, hanging=5)

    def block(self, title: str, lines: Sequence[str]) -> None:
        """Print a title and lines to copy, which are not indented."""
        with self._lock:
            self._print(f"\n{title}", style="bold")
            for line in lines:
                self.console.print(line)

    def command(self, title: str, commands: Sequence[str]) -> None:
        """Print a title and shell commands to copy, folded by backslashes."""
        self.block(title, [line for command in commands for line in shell_lines(command, self.console.width)])

    def _print(self, text: str, style: str = "", *, hanging: int = 0) -> None:
        """Print text, but not while another thread prints an exchange."""
        with self._lock:
            write(self.console, text, style, hanging=hanging)
