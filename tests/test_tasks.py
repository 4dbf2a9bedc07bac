"""The time limit that the hot path uses, on both event loops."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from asgi_mcp_auth._remote.tasks import within

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize(
    ("work", "seconds", "expected"),
    [
        pytest.param(at_once, 5.0, "done", id="RS-245 at once"),
        pytest.param(soon, 5.0, "done", id="RS-245 in time"),
        pytest.param(never, 0.01, None, id="RS-245 too late"),
    ],
)
async def test_a_time_limit(work: Any, seconds: float, expected: str | None) -> None:
    assert await within(seconds, work) == expected


async def test_a_timeout_of_the_work_is_its_own() -> None:
    with pytest.raises(TimeoutError):
        await within(5.0, timing_out)


async def test_a_cancellation_from_outside_goes_through() -> None:
    with anyio.move_on_after(0.01) as scope:
        await within(5.0, never)
    assert scope.cancelled_caught
    assert await within(5.0, soon) == "done"  # and leaves nothing behind
