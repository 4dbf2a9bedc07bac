"""The last change of each subject, for answers that are on their way or shared while their subject changes."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ("Change", "SubjectChanges")

MAX_CHANGES = 10_000


class Change(NamedTuple):
    """A moment at which the answers about a subject went out of date, and the number of the change."""

    number: int
    at: float


class SubjectChanges:
    """The last change of each subject: answers from before it may still be shared, or be on their way.

    If there are too many subjects, the next change is one of all subjects.

    Attributes:
        count: The number of changes.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_subject: dict[bytes, Change] = {}
        self._of_all = Change(0, -math.inf)

    def add(self, subject: bytes, now: float) -> None:
        """Note a change; see `RevocationKeys.subject`."""
        self.count += 1
        change = Change(self.count, now)
        if len(self._by_subject) >= MAX_CHANGES:
            self._by_subject.clear()
            self._of_all = change
        self._by_subject[subject] = change

    def last(self, subject: bytes) -> Change:
        """Return the last change of a subject."""
        return self._by_subject.get(subject, self._of_all)
