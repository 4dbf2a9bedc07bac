"""`BoundedMap`: the least recently used entry leaves first."""

from __future__ import annotations

import pytest

from asgi_mcp_auth._keys.bounded_map import BoundedMap


@pytest.mark.parametrize("size", [1, 3])
def test_the_oldest_entries_leave_first(size: int) -> None:
    table: BoundedMap[int, int] = BoundedMap(size)
    evicted = [table.put(number, number) for number in range(10)]
    assert [key for keys in evicted for key in keys] == list(range(10 - size))
    assert table.items() == tuple((number, number) for number in range(10 - size, 10))
    assert len(table) == size


@pytest.mark.parametrize(
    ("use", "left"),
    [
        pytest.param(lambda table: table.get("a"), ["a", "c"], id="an entry that was read stays"),
        pytest.param(lambda table: table.put("a", 3), ["a", "c"], id="an entry that was replaced stays"),
        pytest.param(lambda table: table.get("z"), ["b", "c"], id="a missing entry changes nothing"),
        pytest.param(lambda table: table.pop("b"), ["a", "c"], id="a removed entry leaves room"),
        pytest.param(
            lambda table: table.remove_if(lambda value: value == 2), ["a", "c"], id="an unwanted entry is removed"
        ),
        pytest.param(lambda table: table.clear(), ["c"], id="all entries are removed"),
    ],
)
def test_what_is_used_stays(use: object, left: list[str]) -> None:
    table: BoundedMap[str, int] = BoundedMap(2)
    table.put("a", 1)
    table.put("b", 2)
    assert callable(use)
    use(table)
    table.put("c", 3)
    assert sorted(key for key, _ in table.items()) == left


def test_a_removed_entry_is_returned_once() -> None:
    table: BoundedMap[str, int] = BoundedMap(2)
    table.put("a", 1)
    assert (table.pop("a"), table.pop("a")) == (1, None)
