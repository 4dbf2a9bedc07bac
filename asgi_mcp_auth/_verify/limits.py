"""A time limit that is free for work which does not wait, as most bodies and many hooks do not.

Setting and cancelling a timer for each body costs 35 to 57 % of a policy decision (benchmarks: in_process, bodies of
200 B). So the first step of the work runs without a limit: no other task runs before it ends. The rest has the time
limit of asyncio or of trio. anyio's cancel scopes do not fit: they must nest, and the first step may have entered one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

from asgi_mcp_auth._keys.background import trio_here

__all__ = ("within",)

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`.

    Raises:
        TimeoutError: The work took more than `seconds`; it was cancelled.
    """
    trio = trio_here()
    if trio is not None:
        results: list[T] = []
        with trio.move_on_after(seconds):
            results.append(await work)
        if not results:
            raise TimeoutError
        return results[0]
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        ended: T = done.value
        return ended
    if asyncio.current_task() is None:  # a server that drives coroutines itself, without tasks to cancel
        return await _rest(work, waits_for)
    async with asyncio.timeout(seconds):
        return await _rest(work, waits_for)


@coroutine
def _rest(begun: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Await a coroutine whose first step has run and which waits for `waits_for`."""
    while True:
        try:
            try:
                given = yield waits_for
            except BaseException as error:  # noqa: BLE001 - the work handles its own cancellation
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(given)
        except StopIteration as done:
            ended: T = done.value
            return ended
