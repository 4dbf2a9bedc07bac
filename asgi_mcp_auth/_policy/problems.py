"""Collecting what is wrong with a configuration, so that all of it is reported at once.

A configuration may come from a file or from the environment, so nothing is taken to have the type it should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, cast

from asgi_mcp_auth._oauth.urls import mask_userinfo, redact_url
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("Problems", "Referenced", "as_list", "as_mapping", "as_strings", "show", "show_url")

SHOWN_ITEMS = 8
SHOWN_CHARACTERS = 128


class Referenced(str):
    """A text that a configuration refers to, in a file or in the environment. It may be secret, so it is not shown."""

    __slots__ = ("origin",)
    origin: str

    def __new__(cls, text: str, origin: str) -> Self:
        """The text, and where it was found."""
        made = super().__new__(cls, text)
        made.origin = origin
        return made

    def __repr__(self) -> str:
        return f"<{self.origin}>"


def show(value: object) -> str:
    """Return a value for a message: short, on one line, without passwords in URLs, contents of objects or addresses."""
    if isinstance(value, Referenced):
        return f"The text of {value.origin}"
    if isinstance(value, str):
        text = mask_userinfo(value)  # before the text is cut: the "@" may be in what is cut off
        return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    items = as_strings(value)
    if items is None:
        return f"a value of type {type(value).__name__}"
    return f"[{', '.join(map(show, items[:SHOWN_ITEMS]))}{', ...' if len(items) > SHOWN_ITEMS else ''}]"


def show_url(url: str) -> str:
    """Return a URL for a message or a log record, without its secrets: for a `Referenced` one, only its origin."""
    return f"({url.origin})" if isinstance(url, Referenced) else redact_url(url)


def as_list(value: object) -> list[object] | None:
    """What a user gave as a sequence, as a list; None for anything else, a lone string above all."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    return list(cast("Sequence[object]", value))


def as_strings(value: object) -> list[str] | None:
    """As `as_list`, if every item is a string."""
    items = as_list(value)
    if items is None or not all(isinstance(item, str) for item in items):
        return None
    return cast("list[str]", items)


def as_mapping(value: object) -> dict[str, object] | None:
    """What a user gave as a mapping from strings, as a dict; None for anything else."""
    if not isinstance(value, Mapping):
        return None
    items = dict(cast("Mapping[object, object]", value))
    return cast("dict[str, object]", items) if all(isinstance(name, str) for name in items) else None


class Problems:
    """Problems (which refuse a configuration) and warnings (which do not), each with its place and the mend."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.warnings: list[Problem] = []

    def add(self, where: str, what: str, fix: str) -> None:
        """Record something that cannot work, or would be unsafe."""
        self.found.append(Problem(where, what, fix))

    def warn(self, where: str, what: str, fix: str) -> None:
        """Record something that works and will surprise."""
        self.warnings.append(Problem(where, what, fix))

    def strings(self, value: object, where: str) -> list[str]:
        """A list of non-empty strings; anything else is a problem, and empty."""
        strings = as_strings(value)
        if strings is None or not all(strings):
            self.add(where, f"{show(value)} is not a list of non-empty strings.", "Write a list.")
            return []
        return strings

    def mapping(self, value: object, where: str) -> dict[str, object]:
        """A mapping from strings; anything else is a problem, and empty."""
        mapping = as_mapping(value)
        if mapping is None:
            self.add(where, f"{show(value)} is not a mapping from strings.", "Write a table.")
        return mapping or {}

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` with everything found."""
        if self.found:
            raise ConfigurationError(self.found)
