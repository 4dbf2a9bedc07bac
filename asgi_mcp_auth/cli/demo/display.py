"""Showing the story on a terminal: acts, exchanges and what they mean, and what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from asgi_mcp_auth.cli.demo.exchanges import Exchange
from asgi_mcp_auth.cli.demo.explained import meaning_of
from asgi_mcp_auth.cli.demo.meaning import OTHER, Meaning, Place

__all__ = ("Display",)

GOOD, REFUSED, BAD, QUIET = "green", "yellow", "bold red", "dim"
FIRST_REFUSAL = 400


def _origin(exchange: Exchange) -> str:
    return f"http://{exchange.request_fields.get('host', '?')}"


def _visible(text: str) -> str:
    """What strangers wrote (a path, a client's name), without characters that control a terminal or turn text round."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


@dataclass(slots=True)
class Display:
    """Shows exchanges as they are told, from the threads of several servers, and keeps what they were.

    Attributes:
        console: Where it is shown.
        meanings: Of the exchanges since the last act began.
        judge: Whether to say so where something is not as it should be: clients of others may do what they like.
    """

    console: Console
    judge: bool = True
    meanings: list[Meaning] = field(default_factory=list[Meaning])
    _number: int = 0
    _acts: int = 0
    _one_at_a_time: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def act(self, title: str) -> None:
        """Begin an act."""
        with self._one_at_a_time:
            self.meanings.clear()
            self._acts += 1
            self._print(f"\n{self._acts}. {title}", style="bold")

    def tell(self, exchange: Exchange, place: Place) -> None:
        """Show an exchange, unless it is no step of the flow."""
        meaning = meaning_of(exchange, place)
        if meaning is OTHER:
            return
        with self._one_at_a_time:
            self._number += 1
            self._show(exchange, meaning)
            self.meanings.append(meaning)  # now that it has been shown: whoever waits for it goes on

    def has_shown(self, kind: str) -> bool:
        """Whether an exchange of a kind has been shown in this act."""
        return any(meaning.kind == kind for meaning in self.meanings)

    def _show(self, exchange: Exchange, meaning: Meaning) -> None:
        operation = f"  {exchange.operation}" if exchange.operation else ""
        line = Text(f"\n   [{self._number}] {meaning.sender} → {exchange.server}: ")
        line.append(_visible(f"{exchange.method} {_origin(exchange)}{exchange.path}{operation}"), style="bold")
        line.append("  ")
        line.append(str(exchange.status), style=GOOD if exchange.status < FIRST_REFUSAL else REFUSED)
        self.console.print(line)
        says = Text(f"       {_visible(meaning.says)}")
        if meaning.spec:
            says.append(f"  ({meaning.spec})", style=QUIET)
        self.console.print(says)
        for detail in meaning.details:
            self.console.print(Text(f"         {_visible(detail)}", style="cyan"))
        if meaning.problem is not None and self.judge:
            self.wrong(f"This is not as it should be: {_visible(meaning.problem)}.")

    def say(self, text: str) -> None:
        """A line beside the exchanges."""
        self._print(f"   {text}")

    def got(self, text: str) -> None:
        """What the client got in the end."""
        self._print(f"\n   ✓ {text}", style=GOOD)

    def wrong(self, text: str) -> None:
        """What is not as it should be."""
        self._print(f"   ✗ {text}", style=BAD)

    def block(self, title: str, lines: Sequence[str]) -> None:
        """Lines to copy: nothing stands before them."""
        with self._one_at_a_time:
            self._print(f"\n{title}", style="bold")
            for line in lines:
                self._print(line)

    def _print(self, text: str, style: str = "") -> None:
        """A line, never within an exchange."""
        with self._one_at_a_time:
            self.console.print(Text(text, style=style))
