"""A time limit for what nearly always ends at once: the reading of a body.

A timer for each request costs 5 µs, a third of what a decision about a body may. On asyncio what ends without waiting
needs no limit, and one timer for each event loop looks at all the others once a second; on trio a deadline is cheap,
and is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from asgi_mcp_auth._keys.background import trio_here

if TYPE_CHECKING:
    import asyncio  # whose import is a fifth of ours; who runs it has it loaded

__all__ = ("within",)

T = TypeVar("T")

EVERY = 1.0  # seconds between looks: a limit may be late by as much


class _Waiting:
    """A task that is in such a wait, and when it has to be over."""

    __slots__ = ("cancelled", "cancelling", "deadline", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.cancelling = task.cancelling()
        self.cancelled = False


class _Watch:
    """Those of one event loop, which it does not hold. The timer exists only while somebody waits."""

    __slots__ = ("_armed", "waiting")

    def __init__(self) -> None:
        self._armed = False
        self.waiting: set[_Waiting] = set()

    def add(self, waiting: _Waiting, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting.add(waiting)
        if not self._armed:
            self._armed = True
            loop.call_later(EVERY, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in tuple(self.waiting):
            if now >= one.deadline and not one.cancelled:
                one.cancelled = True
                one.task.cancel()
        self._armed = bool(self.waiting)
        if self._armed:
            loop.call_later(EVERY, self._look, loop)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when it took longer than that, or on asyncio than a second more."""
    trio = trio_here()
    if trio is not None:
        result: T | None = None
        with trio.move_on_after(seconds):
            result = await work
        return result  # noqa: RET504 - mypy takes what follows a `with` that returns for unreachable
    try:
        waits_for = work.send(None)
    except StopIteration as done:  # without having waited: no other task ran, and no timer could have
        ended: T = done.value
        return ended
    return await _limited(seconds, _rest(work, waits_for))


@coroutine
def _rest(begun: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Await what has been begun and waits: as `await` does, from there on."""
    while True:
        try:
            try:
                given = yield waits_for
            except BaseException as error:  # noqa: BLE001 - a cancellation is the work's to handle
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(given)
        except StopIteration as done:
            ended: T = done.value
            return ended


async def _limited(seconds: float, work: Awaitable[T]) -> T | None:
    import asyncio  # noqa: PLC0415

    task = asyncio.current_task()
    if task is None:  # not in a task of asyncio: nothing that could be interrupted
        return await work
    loop = task.get_loop()
    watch = _watches.get(loop) or _watches.setdefault(loop, _Watch())
    waiting = _Waiting(task, loop.time() + seconds)
    watch.add(waiting, loop)
    try:
        return await work
    except asyncio.CancelledError:
        # As `asyncio.timeout()` has it: ours alone ends here, anybody else's goes on.
        if waiting.cancelled and task.cancelling() <= waiting.cancelling + 1:
            return None
        raise
    finally:
        watch.waiting.discard(waiting)
        if waiting.cancelled:
            task.uncancel()
