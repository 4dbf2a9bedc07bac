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


def is_two(value: int) -> bool:
    return value == 2


@pytest.mark.parametrize(
    ("method", "arguments", "left"),
    [
        pytest.param("get", ("a",), ["a", "c"], id="an entry that was read stays"),
        pytest.param("put", ("a", 3), ["a", "c"], id="an entry that was replaced stays"),
        pytest.param("get", ("z",), ["b", "c"], id="a missing entry changes nothing"),
        pytest.param("pop", ("b",), ["a", "c"], id="a removed entry leaves room"),
        pytest.param("remove_if", (is_two,), ["a", "c"], id="an unwanted entry is removed"),
        pytest.param("clear", (), ["c"], id="all entries are removed"),
    ],
)
def test_what_is_used_stays(method: str, arguments: tuple[object, ...], left: list[str]) -> None:
    table: BoundedMap[str, int] = BoundedMap(2)
    table.put("a", 1)
    table.put("b", 2)
    getattr(table, method)(*arguments)
    table.put("c", 3)
    assert sorted(key for key, _ in table.items()) == left


def test_a_removed_entry_is_returned_once() -> None:
    table: BoundedMap[str, int] = BoundedMap(2)
    table.put("a", 1)
    assert (table.pop("a"), table.pop("a")) == (1, None)
