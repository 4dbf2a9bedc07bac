"""Opening the client of a `RedisStore` on trio, without a server; `tests/test_redis.py` has the tests with one."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from asgi_mcp_auth.stores import _coredis
from asgi_mcp_auth.stores._redis_address import RedisAddress, parse_redis_url

pytestmark = pytest.mark.anyio


async def test_a_client_that_connects_after_the_time_limit_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = anyio.Event()

    async def enter(address: RedisAddress, stack: AsyncExitStack) -> object:
        await anyio.sleep(0.05)
        stack.callback(closed.set)
        return address

    monkeypatch.setattr(_coredis, "_enter", enter)
    with anyio.move_on_after(0.01):
        await _coredis.open_coredis(parse_redis_url("redis://localhost"))
    with anyio.fail_after(2.0):
        await closed.wait()
