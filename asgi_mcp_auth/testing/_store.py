"""The contract of a store as a test: `check_store`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex

import anyio

from asgi_mcp_auth.stores import LogStore, Store

__all__ = ("check_store",)

LONG, SHORT = 60.0, 1.0  # seconds to live
CONCURRENT = 50
LOG_WAIT = 5.0

Sleep = Callable[[float], Awaitable[None]]


async def check_store(store: Store, other: Store | None = None, *, sleep: Sleep | None = None) -> None:
    """Assert that a store keeps its contract: the methods of `Store`, and those of `LogStore` if it has them.

    The check takes about two seconds. It writes entries under new keys that begin with `session:check-`, so it may run
    on a database with other content.

    Args:
        store: The store.
        other: A second store object on the same database, such as another process would have; default: `store`.
        sleep: Lets a number of seconds pass, for a store with a clock of its own; default: wait.

    Raises:
        AssertionError: With every rule that the store breaks.
    """
    __tracebackhide__ = True  # so that pytest shows the line of the test
    check = _Check(store, other or store, sleep or anyio.sleep, f"session:check-{token_hex(8)}", [])
    await check.values()
    await check.first_writer_wins()
    if isinstance(check.store, LogStore) and isinstance(check.other, LogStore):
        await check.log(check.store, check.other)
    if check.broken:
        raise AssertionError("The store breaks its contract:" + "".join(f"\n  - {rule}" for rule in check.broken))


@dataclass(frozen=True, slots=True)
class _Check:
    store: Store
    other: Store
    sleep: Sleep
    prefix: str
    broken: list[str]

    def expect(self, rule: str, found: object, expected: object) -> None:
        if found != expected:
            self.broken.append(f"{rule}: expected {expected!r}, found {found!r}")

    async def read(self, *names: str) -> list[bytes | None]:
        return list(await self.other.get_many([self.prefix + name for name in names]))

    async def values(self) -> None:
        store, prefix = self.store, self.prefix
        every_byte = bytes(range(256))
        self.expect("get_many of no key returns no value", list(await store.get_many([])), [])
        self.expect("a key that was not written has no value", await self.read("a"), [None])
        await store.put(f"{prefix}a", every_byte, LONG)
        await store.put(f"{prefix}b", b"", LONG)
        await store.put(f"{prefix}c", b"old", SHORT)
        await store.put(f"{prefix}c", b"new", LONG)
        await store.put(f"{prefix}short", b"1", SHORT)
        await store.put(f"{prefix}touched", b"1", SHORT)
        await store.put(f"{prefix}cut", b"1", LONG)
        self.expect("add to a free key returns None", await store.add(f"{prefix}added", b"1", SHORT), None)
        self.expect("add to a used key returns its value", await self.other.add(f"{prefix}added", b"2", LONG), b"1")
        self.expect("an empty value is a value", await store.add(f"{prefix}b", b"2", LONG), b"")
        self.expect("touch of a value returns True", await store.touch(f"{prefix}touched", LONG), True)
        self.expect("touch of nothing returns False", await store.touch(f"{prefix}nothing", LONG), False)
        await store.touch(f"{prefix}cut", SHORT)
        found = await self.read("b", "nothing", "a", "c", "added")
        self.expect("get_many keeps the order of its keys", found, [b"", None, every_byte, b"new", b"1"])
        await store.delete(f"{prefix}a")
        await store.delete(f"{prefix}nothing")
        self.expect("a deleted value is gone", await self.read("a", "b"), [None, b""])
        await self.sleep(SHORT + 0.3)
        found = await self.read("short", "cut", "added")
        self.expect("a value is gone after its time; add does not prolong it", found, [None, None, None])
        self.expect("the last put and touch set the time to live", await self.read("c", "touched"), [b"new", b"1"])
        self.expect("add works after the time", await store.add(f"{prefix}added", b"3", LONG), None)
        self.expect("touch after the time returns False", await store.touch(f"{prefix}short", LONG), False)

    async def first_writer_wins(self) -> None:
        answers: dict[int, bytes | None] = {}

        async def add(number: int) -> None:
            store = (self.store, self.other)[number % 2]
            answers[number] = await store.add(f"{self.prefix}once", str(number).encode(), LONG)

        async with anyio.create_task_group() as group:
            for number in range(CONCURRENT):
                group.start_soon(add, number)
        winners = [number for number, answer in answers.items() if answer is None]
        self.expect("one of many concurrent calls of add returns None", len(winners), 1)
        losers = {answer for answer in answers.values() if answer is not None}
        first = {str(number).encode() for number in winners}
        self.expect("the other calls return the value of the first", losers, first)

    async def log(self, store: LogStore, other: LogStore) -> None:
        log = f"{self.prefix}log"
        page = await other.read_from(log, "")
        self.expect("an empty log has no entries", tuple(page), ((), "", False))
        positions = [await store.append(log, str(number).encode(), LONG) for number in range(5)]
        page = await other.read_from(log, "", limit=3)
        self.expect("entries are read in order", page.entries, (b"0", b"1", b"2"))
        page = await other.read_from(log, page.position, limit=3)
        self.expect("reading continues after the position", (page.entries, page.restarted), ((b"3", b"4"), False))
        self.expect("append returns the position of its entry", page.position, positions[-1])
        page = await other.read_from(log, page.position)
        self.expect("the end of the log has no entries", tuple(page), ((), positions[-1], False))
        await self._wake_up(store, other, log, positions[-1])
        await store.delete(log)
        gone = f"{self.prefix}gone"
        position = await store.append(gone, b"lost", SHORT)
        page = await other.read_from(f"{self.prefix}new", position)
        self.expect("a log without the entry at the position has restarted", tuple(page), ((), "", True))

    async def _wake_up(self, store: LogStore, other: LogStore, log: str, position: str) -> None:
        found: list[tuple[bytes, ...]] = []

        async def follow() -> None:
            with anyio.move_on_after(LOG_WAIT):
                found.append((await other.read_from(log, position, wait=LOG_WAIT * 2)).entries)

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await anyio.sleep(0.2)
            await store.append(log, b"5", LONG)
        self.expect("a waiting reader gets a new entry at once", found, [(b"5",)])
