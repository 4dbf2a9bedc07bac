"""The catalogue of requirement ids in tests/README.md."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from requirements import UNKNOWN, UNUSED, catalogue, check


def test_no_id_is_listed_twice() -> None:
    ids = catalogue()
    assert len(ids) > 100
    assert len(set(ids)) == len(ids)


def test_every_listed_id_is_shown_by_a_test(pytestconfig: pytest.Config) -> None:
    """In a run of everything; otherwise the list is empty."""
    assert not pytestconfig.stash[UNUSED], "Remove these ids from the catalogue in tests/README.md, or test them."


def test_an_unknown_id_fails_its_test() -> None:
    stash = pytest.Stash()
    stash[UNKNOWN] = "RS-999"
    with pytest.raises(pytest.fail.Exception, match="Add RS-999 to the catalogue"):
        check(SimpleNamespace(stash=stash))  # type: ignore[arg-type]
