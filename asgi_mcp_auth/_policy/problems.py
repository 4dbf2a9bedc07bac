"""The problems and warnings of a configuration, collected so that all of them are reported at once.

A value may come from a file or from the environment, so no value is assumed to have its declared type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

from asgi_mcp_auth._oauth.json_types import is_mapping, is_sequence
from asgi_mcp_auth._oauth.urls import mask_userinfo, redact_url
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("Problems", "Referenced", "as_list", "as_mapping", "as_strings", "show", "show_url")

T = TypeVar("T")

SHOWN_ITEMS = 8
SHOWN_CHARACTERS = 128


class Referenced(str):
    """A text from an environment variable or a file that a setting refers to; never shown, as it may be a secret."""

    __slots__ = ("origin",)
    origin: str

    def __new__(cls, text: str, origin: str) -> Self:
        """Return the text with its origin, for example `from_env = 'NAME'`."""
        made = super().__new__(cls, text)
        made.origin = origin
        return made

    def __repr__(self) -> str:
        return f"<{self.origin}>"


def show(value: object) -> str:
    """Return a value as text for a message: short and on one line.

    The text contains no password of a URL, no content of an object and no memory address.
    """
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
    """Return a sequence as a list; None for any other value, and for a string."""
    return list(value) if is_sequence(value) and not isinstance(value, str) else None


def as_strings(value: object) -> list[str] | None:
    """Return a sequence of strings as a list; None for any other value."""
    items = as_list(value)
    if items is None:
        return None
    texts = [item for item in items if isinstance(item, str)]
    return texts if len(texts) == len(items) else None


def as_mapping(value: object) -> dict[str, object] | None:
    """Return a mapping with string keys as a dict; None for any other value."""
    if not is_mapping(value):
        return None
    items = {name: item for name, item in value.items() if isinstance(name, str)}
    return items if len(items) == len(value) else None


class Problems:
    """The problems and warnings of one configuration.

    Attributes:
        found: The problems; a configuration with problems is rejected.
        warnings: The warnings; a configuration with warnings is accepted.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.warnings: list[Problem] = []

    def add(self, where: str, what: str, fix: str) -> None:
        """Add a problem: the setting cannot work or would be unsafe."""
        self.found.append(Problem(where, what, fix))

    def warn(self, where: str, what: str, fix: str) -> None:
        """Add a warning: the setting works, but probably not as its author expects."""
        self.warnings.append(Problem(where, what, fix))

    def strings(self, value: object, where: str) -> list[str]:
        """Return a list of non-empty strings; add a problem and return an empty list for any other value."""
        strings = as_strings(value)
        if strings is None or not all(strings):
            self.add(where, f"{show(value)} is not a list of non-empty strings.", "Pass a list of strings.")
            return []
        return strings

    def parsed(self, value: object, where: str, parse: Callable[[str], T | None], what: str, fix: str) -> tuple[T, ...]:
        """Return a list of non-empty strings parsed; add a problem for each string for which `parse` returns None."""
        parsed = {text: parse(text) for text in self.strings(value, where)}
        for text, found in parsed.items():
            if found is None:
                self.add(where, f"{show(text)} is not {what}.", fix)
        return tuple(found for found in parsed.values() if found is not None)

    def mapping(self, value: object, where: str) -> dict[str, object]:
        """Return a mapping with string keys as a dict; add a problem and return an empty dict for any other value."""
        mapping = as_mapping(value)
        if mapping is None:
            self.add(where, f"{show(value)} is not a mapping with string keys.", "Pass a mapping; in a file, a table.")
        return mapping or {}

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` if there are problems; the exception lists all of them."""
        if self.found:
            raise ConfigurationError(self.found)
