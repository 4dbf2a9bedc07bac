"""Collecting what is wrong with a configuration, so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("Problems", "as_list", "as_strings")


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

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` with everything found."""
        if self.found:
            raise ConfigurationError(self.found)
