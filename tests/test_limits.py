"""The time limit of bodies and hooks: on asyncio, uvloop, eager tasks and trio."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import anyio
import pytest
import uvloop

from asgi_mcp_auth._verify.limits import within

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


async def at_once() -> str:
    return "done"


async def soon() -> str:
    await anyio.sleep(0.01)
    return "done"


async def never() -> str:
    await anyio.sleep_forever()
    raise AssertionError


async def timing_out() -> str:
    raise TimeoutError


async def limited(seconds: float, work: Any) -> str:
    try:
        return await within(seconds, work())
    except TimeoutError:
        return "too late"


OUTCOMES = pytest.mark.parametrize(
    ("work", "seconds", "expected"),
    [
        pytest.param(at_once, 5.0, "done", id="RS-245 at once"),
        pytest.param(soon, 5.0, "done", id="RS-245 in time"),
        pytest.param(never, 0.01, "too late", id="RS-245 too late"),
        pytest.param(never, 0.0, "too late", id="RS-245 no time at all"),
    ],
)


@OUTCOMES
async def test_a_time_limit(work: Any, seconds: float, expected: str) -> None:
    assert await limited(seconds, work) == expected


@OUTCOMES
def test_a_time_limit_on_uvloop(work: Any, seconds: float, expected: str) -> None:
    assert uvloop.run(limited(seconds, work)) == expected


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@OUTCOMES
def test_a_time_limit_in_an_eager_task(work: Any, seconds: float, expected: str) -> None:
    async def run() -> list[str]:
        eager: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(eager)
        return await asyncio.gather(*(asyncio.create_task(limited(seconds, work)) for _ in range(3)))

    assert asyncio.run(run()) == [expected] * 3


async def test_work_that_enters_a_cancel_scope_before_it_waits() -> None:
    """Starlette's BaseHTTPMiddleware wraps `receive` in a task group; anyio's scopes have to nest."""

    async def grouped() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.01)
        return "done"

    async def stuck() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
        return "done"

    assert await limited(5.0, grouped) == "done"
    assert await limited(0.01, stuck) == "too late"


async def test_a_timeout_of_the_work_is_its_own() -> None:
    with pytest.raises(TimeoutError):
        await within(5.0, timing_out())


async def test_a_cancellation_from_outside_goes_through() -> None:
    with anyio.move_on_after(0.01) as scope:
        await within(5.0, never())
    assert scope.cancelled_caught
    assert await within(5.0, soon()) == "done"  # and leaves nothing behind


async def test_many_at_once_each_has_its_own() -> None:
    found: list[str] = []

    async def one(seconds: float, work: Any) -> None:
        found.append(await limited(seconds, work))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one, 0.02, never)
            group.start_soon(one, 5.0, soon)
    assert sorted(found) == ["done"] * 20 + ["too late"] * 20


async def test_a_cancellation_from_outside_at_the_same_time_goes_through() -> None:
    """The limit is over too when the outer scope ends the wait: the outer one wins."""
    reached = False
    with anyio.move_on_after(0.05) as scope:
        with anyio.CancelScope(shield=True):
            assert await limited(0.01, never) == "too late"
        await anyio.sleep_forever()
        reached = True
    assert scope.cancelled_caught
    assert not reached


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_is_not_cancelled_twice() -> None:
    calls = 0

    async def stubborn() -> str:
        nonlocal calls
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            calls += 1
            await asyncio.sleep(0.05)
            raise
        return "never"

    assert await limited(0.01, stubborn) == "too late"
    assert calls == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_the_work_keeps_is_taken_back() -> None:
    """As `asyncio.timeout()` does; a task that counts as cancelled has its next TaskGroup cancelled by itself."""

    async def keeping() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "kept"
        return "never"

    assert await within(0.0, keeping()) == "kept"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.requirement("RS-245")
def test_a_loop_that_is_gone_is_not_held() -> None:
    """`async_to_sync` makes a loop for each call."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await within(5.0, at_once()) == "done"

    for _ in range(3):
        asyncio.run(use())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
