"""`stores`: a bounded store on both event loops, and a revocation list over any store."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from contextlib import suppress
from threading import Barrier, Thread
from typing import Any

import anyio
import pytest
from harness import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import MemoryStore, Store
from asgi_mcp_auth.stores import StoreFullError
from asgi_mcp_auth.stores._contract import DROPPABLE, Use
from asgi_mcp_auth.testing import check_store

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


async def get(store: Store, key: str) -> bytes | None:
    [value] = await store.get_many([key])
    return value


@pytest.mark.requirement("FS-1")
async def test_a_memory_store_keeps_the_contract(clock: Clock) -> None:
    async def sleep(seconds: float) -> None:
        clock.now += seconds

    await check_store(MemoryStore(clock=clock), sleep=sleep)


async def test_a_value_lasts_for_its_time(clock: Clock) -> None:
    store: Store = MemoryStore(clock=clock)
    assert await get(store, "a") is None
    await store.put("a", b"1", 10)
    assert await get(store, "a") == b"1"
    clock.now += 9.9
    assert await get(store, "a") == b"1"
    clock.now += 0.1
    assert await get(store, "a") is None
    clock.now -= 5
    assert await get(store, "a") is None


async def test_a_value_is_replaced_with_its_time(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    await store.put("a", b"1", 10)
    clock.now += 8
    await store.put("a", b"2", 10)
    clock.now += 8
    assert await get(store, "a") == b"2"
    await store.put("a", b"3", 1)
    clock.now += 1
    assert await get(store, "a") is None


@pytest.mark.parametrize("now", [0.0, -100.0, 1.8e9])
async def test_any_clock_will_do(now: float) -> None:
    """Only differences count: the zero of a monotonic clock is undefined."""
    store = MemoryStore(clock=Clock(now))
    assert await get(store, "never written") is None
    await store.put("a", b"", 10)
    assert await get(store, "a") == b""
    assert await store.add("b", b"", 10) is None


@pytest.mark.parametrize("ttl", [0, -1, -0.0, math.inf, -math.inf, math.nan])
async def test_a_time_to_live_is_positive_and_finite(clock: Clock, ttl: float) -> None:
    store = MemoryStore(clock=clock)
    with pytest.raises(ValueError, match="ttl"):
        await store.put("a", b"1", ttl)
    with pytest.raises(ValueError, match="ttl"):
        await store.add("b", b"", ttl)
    assert [await get(store, key) for key in "ab"] == [None, None]


@pytest.mark.parametrize("size", [0, -1, 1.5, None])
def test_a_size_is_a_positive_integer(size: Any) -> None:
    with pytest.raises(ValueError, match="max_entries"):
        MemoryStore(size)


async def test_add(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    assert await store.add("a", b"", 10) is None
    assert await store.add("a", b"", 10) is not None
    assert await store.add("b", b"", 10) is None
    clock.now += 9
    assert await store.add("a", b"", 10) is not None  # and does not prolong
    clock.now += 1
    assert await store.add("a", b"", 10) is None
    await store.put("c", b"", 10)
    assert await store.add("c", b"", 10) is not None


async def test_add_is_atomic() -> None:
    store = MemoryStore()
    won: list[int] = []

    async def add(index: int) -> None:
        if await store.add("once", b"", 60) is None:
            won.append(index)

    async with anyio.create_task_group() as group:
        for index in range(50):
            group.start_soon(add, index)
    assert len(won) == 1


def step(work: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    return ended.value.value


@pytest.mark.requirement("FS-1", "DP-4")
def test_add_is_atomic_between_threads() -> None:
    """Event loops in several threads may share a store."""
    store, rounds, start = MemoryStore(), 250, Barrier(4)
    won: list[int] = []

    def work() -> None:
        start.wait()
        won.extend(number for number in range(rounds) if step(store.add(f"replay:{number}", b"1", 60)) is None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(won) == list(range(rounds))


async def test_a_full_store_drops_the_session_that_was_not_used_for_longest(clock: Clock) -> None:
    store = MemoryStore(3, clock=clock)

    async def found(keys: str) -> list[bytes | None]:
        return [await get(store, f"session:{key}") for key in keys]

    for key in "abcd":
        await store.put(f"session:{key}", key.encode(), 10)
    assert await found("abcd") == [None, b"b", b"c", b"d"]
    await store.put("session:b", b"again", 10)
    await store.put("session:e", b"e", 10)
    assert await found("abcde") == [None, b"again", None, b"d", b"e"]
    for number in range(1000):
        await store.add(f"session:{number}", b"", 10)
    assert sum([await get(store, f"session:{number}") is not None for number in range(1000)]) == 3


@pytest.mark.requirement("FS-4")
@pytest.mark.parametrize("use", Use)
async def test_each_use_has_room_of_its_own(use: Use, clock: Clock) -> None:
    store = MemoryStore(2, clock=clock)
    for other in Use:
        await store.put(f"{other}:first", b"1", 60)
    for number in range(10):
        with suppress(StoreFullError):
            await store.add(f"{use}:{number}", b"", 60)
    kept = [other for other in Use if await get(store, f"{other}:first") is not None]
    assert kept == [other for other in Use if other != use or use not in DROPPABLE]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.floats(1, 20)),
            st.tuples(st.just("wait"), st.floats(0, 10)),
            st.tuples(st.just("read"), st.integers(1, 4)),
        ),
        max_size=60,
    )
)
def test_a_reader_of_a_log_misses_no_entry_that_is_not_over(steps: list[tuple[str, float]]) -> None:
    clock = Clock(0.0)
    store = MemoryStore(1000, clock=clock)
    until: dict[bytes, float] = {}
    seen: list[bytes] = []

    async def run() -> None:
        position = ""
        for number, (step, amount) in enumerate([*steps, ("read", 1000)]):
            if step == "wait":
                clock.now += amount
            elif step == "append":
                until[str(number).encode()] = clock() + 20  # a log has one time to live
                await store.append("log", str(number).encode(), 20)
            else:
                page = await store.read_from("log", position, limit=int(amount))
                seen.extend(page.entries)
                position = page.position
        while (page := await store.read_from("log", position)).entries:
            seen.extend(page.entries)
            position = page.position

    asyncio.run(run())
    assert {entry for entry, over in until.items() if clock() < over} <= set(seen)
    assert sorted(set(seen), key=int) == [entry for entry in until if entry in seen]


@pytest.mark.parametrize("use", ["revoked:", "replay:", ""], ids=["revocations", "another use", "no use"])
async def test_a_full_store_drops_nothing_else_before_its_time(use: str, clock: Clock) -> None:
    store = MemoryStore(3, clock=clock)
    for number in range(3):
        await store.put(f"{use}{number}", b"", 10 + number)
    for put in (store.put(f"{use}3", b"", 10), store.add(f"{use}4", b"", 10)):
        with pytest.raises(StoreFullError, match="max_entries"):
            await put
    await store.put(f"{use}0", b"", 30)  # what is there can be written
    assert [await get(store, f"{use}{number}") for number in range(4)] == [b"", b"", b"", None]
    clock.now += 11
    await store.put(f"{use}3", b"", 10)  # takes the room of 1, which is over, and not of 0
    assert [await get(store, f"{use}{number}") for number in range(4)] == [b"", None, b"", b""]
    with pytest.raises(StoreFullError):
        await store.put(f"{use}5", b"", 10)


async def test_sessions_never_displace_a_revocation(clock: Clock) -> None:
    store = MemoryStore(100, clock=clock)
    await store.put("revoked:j1", b"", 600)
    for number in range(1000):
        await store.put(f"session:{number}", b"alice", 86_400)
    assert await get(store, "revoked:j1") == b""


async def test_a_session_that_is_in_use_outlives_others_at_capacity(clock: Clock) -> None:
    store = MemoryStore(50, clock=clock)
    for number in range(500):
        clock.now += 1
        await store.put("session:kept", b"alice", 86_400)
        await store.put(f"session:{number}", b"bob", 86_400)
    assert await get(store, "session:kept") == b"alice"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # arithmetic, whatever the loop
@pytest.mark.parametrize("use", ["session:", "revoked:"])
@pytest.mark.parametrize("again", [False, True], ids=["new keys", "every key is written again"])
async def test_a_write_at_capacity_takes_a_bounded_number_of_steps(use: str, again: bool) -> None:
    """100,000 entries: 30 to 50 ms a write is what a scan of all of them would take."""
    clock = Clock()
    store = MemoryStore(20_000, clock=clock)
    for _ in range(2 if again else 1):
        for number in range(20_000):
            await store.put(f"{use}{number}", b"", 60)
    clock.now += 30 if use == "session:" else 61
    longest = 0.0
    for number in range(1000):
        begin = time.thread_time()
        await store.put(f"{use}new{number}", b"", 60)
        longest = max(longest, time.thread_time() - begin)
    assert longest < (0.02 if again and use == "revoked:" else 0.005)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.floats(0.1, 20), st.floats(0, 8)),
        max_size=60,
    )
)
def test_a_store_never_says_what_was_not_written_and_forgets_nothing_that_it_must_keep(
    writes: list[tuple[str, float, float]],
) -> None:
    clock = Clock(0.0)
    store = MemoryStore(4, clock=clock)
    kept: dict[str, tuple[bytes, float]] = {}
    takes_room: dict[str, float] = {}  # for the longest time that was written

    async def run() -> None:
        for number, (key, ttl, pause) in enumerate(writes):
            value = str(number).encode()
            try:
                await store.put(f"revoked:{key}", value, ttl)
                kept[key] = value, clock() + ttl
                takes_room[key] = max(takes_room.get(key, 0.0), clock() + ttl)
            except StoreFullError:
                full = [name for name, until in takes_room.items() if clock() < until]
                assert len(full) >= 4
                assert clock() >= kept.get(key, (b"", 0.0))[1]
            for name in "abcdef":
                written, until = kept.get(name, (b"", 0.0))
                assert await get(store, f"revoked:{name}") == (written if clock() < until else None)
            clock.now += pause

    asyncio.run(run())


async def test_a_full_store_may_be_written_again(clock: Clock) -> None:
    store = MemoryStore(2, clock=clock)
    await store.put("a", b"1", 10)
    await store.put("b", b"1", 10)
    await store.put("a", b"2", 10)
    assert [await get(store, key) for key in "ab"] == [b"2", b"1"]
