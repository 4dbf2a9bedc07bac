"""`RedisStore`: a store in Redis (6.2 or newer) or Valkey. Needs the extra `redis`, or `redis-trio` on trio."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import TypeVar

import anyio

from asgi_mcp_auth._keys.background import PerLoop, trio_here
from asgi_mcp_auth.stores._contract import LogPage, StoreFullError
from asgi_mcp_auth.stores._redis_address import RedisAddress, RedisClient, parse_redis_url

__all__ = ("RedisStore",)

T = TypeVar("T")

MAX_WAIT = 2.0  # seconds that one command may block: shorter than the time limit of a socket
CLOCK_SLACK = 3600.0  # seconds that a log keeps entries longer: this machine's clock may differ from the server's
ADD_ATTEMPTS = 3
FULL = "'maxmemory'"  # in the error of a server that is full: "OOM command not allowed when used memory > 'maxmemory'."


class _Opened:
    """The client on one event loop, and the limit of its connections."""

    def __init__(self, max_connections: int) -> None:
        self.client: RedisClient | None = None
        self.opening = anyio.Lock()
        self.free = anyio.Semaphore(max_connections)


class RedisStore:
    """A `LogStore` in Redis 6.2 or newer, or in Valkey: a single server, Sentinels or a Cluster.

    Every command has a single key, and no transaction and no script. Nothing connects before the first use, and a
    failure is not tried again: the caller decides. One object may serve several event loops, and survives a fork.

    The database must not drop entries: set `maxmemory-policy noeviction`. Replicas may lag behind: a failover can lose
    the last writes, so a replayed proof or a second caller of a session is possible in that moment.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, `unix:///path[?db=0]`,
            `redis+sentinel://host,host/service[/db]` or `redis+cluster://host,host` (both also `rediss+…`). The query
            may have `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` (paths), and for Sentinels `sentinel_username` and
            `sentinel_password`.
        prefix: The beginning of every key.
        max_connections: Commands at once on each event loop; further ones wait. A server accepts 10,000
            connections of all processes together (`maxclients`).

    Raises:
        ValueError: The URL cannot be used, or the client library is not installed.
    """

    def __init__(self, url: str, *, prefix: str = "asgi-mcp-auth:", max_connections: int = 8) -> None:
        has_redis_py, has_coredis = find_spec("redis") is not None, find_spec("coredis") is not None
        if not (has_redis_py or has_coredis):
            raise ValueError("RedisStore: no client library is installed; pip install '.[redis]'")
        if has_redis_py:  # now: an import takes 100 ms, for which it would block the event loop
            _opener_on_asyncio()
        if has_coredis and "trio" in sys.modules:
            _opener_on_trio()
        try:
            self._address = parse_redis_url(url)
        except ValueError as error:
            raise ValueError(f"RedisStore: the URL cannot be used: {error}") from None
        self._prefix = prefix
        self._opened = PerLoop("asgi_mcp_auth redis", lambda: _Opened(max_connections))

    def __repr__(self) -> str:
        return f"<RedisStore {self._address}>"

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store.get_many`."""
        named = [self._prefix + key for key in keys]
        return await self._run(lambda client: client.get_many(named)) if named else []

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See `Store.put`.

        Raises:
            StoreFullError: The server has no memory left.
            ValueError: `ttl` is not a positive, finite number.
        """
        await self._run(lambda client: client.set(self._prefix + key, value, _milliseconds(ttl)))

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        """See `Store.add`: one command if there is no value. Raises what `put` raises."""
        named, milliseconds = self._prefix + key, _milliseconds(ttl)

        async def work(client: RedisClient) -> bytes | None:
            for _ in range(ADD_ATTEMPTS):  # SET with NX and GET in one command needs Redis 7
                if await client.set(named, value, milliseconds, if_absent=True):
                    return None
                [existing] = await client.get_many([named])
                if existing is not None:
                    return existing
            raise TimeoutError(f"the value expired {ADD_ATTEMPTS} times before it was read")

        return await self._run(work)

    async def touch(self, key: str, ttl: float) -> bool:
        """See `Store.touch`. Raises what `put` raises."""
        return await self._run(lambda client: client.expire(self._prefix + key, _milliseconds(ttl)))

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        await self._run(lambda client: client.delete(self._prefix + key))

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        """See `LogStore.append`. A log is a stream; a position is the id of its entry. Raises what `put` raises."""
        stream, milliseconds = self._prefix + log, _milliseconds(ttl + CLOCK_SLACK)
        oldest = max(0, int(time.time() * 1000) - milliseconds)

        async def work(client: RedisClient) -> str:
            position = await client.append(stream, value, str(oldest))
            await client.expire(stream, milliseconds)
            return position

        return await self._run(work)

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        """See `LogStore.read_from`."""
        stream, deadline = self._prefix + log, anyio.current_time() + wait
        while True:
            page = await self._run(lambda client: _read(client, stream, position, limit))
            left = deadline - anyio.current_time()
            if page.entries or page.restarted or left <= 0:
                return page
            client = (await self._open()).client
            if client is not None:  # not counted as one of the commands at once, because it only waits
                await client.wait(stream, position or "0", max(1, int(min(left, MAX_WAIT) * 1000)))

    async def check(self) -> str | None:
        """Return why the database may drop entries before their time, if it may.

        Raises an exception if the database cannot be used.
        """
        policy = await self._run(lambda client: client.eviction_policy())
        if policy in (None, "noeviction"):
            return None
        return f"maxmemory-policy is {policy}: a full database drops entries. Set maxmemory-policy noeviction."

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        opened = self._opened.get()
        if opened.client is not None:
            client, opened.client = opened.client, None
            await client.close()

    async def _run(self, work: Callable[[RedisClient], Awaitable[T]]) -> T:
        opened = await self._open()
        async with opened.free:
            if opened.client is None:
                raise ConnectionError("the store was closed")
            try:
                return await work(opened.client)
            except Exception as error:
                if FULL in str(error):
                    raise StoreFullError("the database has no memory left; set maxmemory higher") from None
                raise

    async def _open(self) -> _Opened:
        """Return the client of this event loop."""
        opened = self._opened.get()
        if opened.client is None or opened.client.is_closed:
            async with opened.opening:
                if opened.client is None or opened.client.is_closed:
                    if trio_here() is not None:
                        opened.client = await _opener_on_trio()(self._address)
                    else:
                        opened.client = _opener_on_asyncio()(self._address)
        return opened


def _opener_on_asyncio() -> Callable[[RedisAddress], RedisClient]:
    from asgi_mcp_auth.stores._redis_py import open_redis_py  # noqa: PLC0415 - imports an optional package

    return open_redis_py


def _opener_on_trio() -> Callable[[RedisAddress], Awaitable[RedisClient]]:
    from asgi_mcp_auth.stores._coredis import open_coredis  # noqa: PLC0415 - imports an optional package

    return open_coredis


async def _read(client: RedisClient, stream: str, position: str, limit: int) -> LogPage:
    """Return the entries after a position; from the beginning if the entry at the position is gone."""
    found = await client.read(stream, position or "-", limit + 1 if position else limit)
    if position and found and found[0][0] == position:
        del found[0]
        return LogPage(tuple(value for _, value in found), found[-1][0] if found else position)
    if position:
        found = await client.read(stream, "-", limit)
    return LogPage(tuple(value for _, value in found), found[-1][0] if found else "", restarted=position != "")


def _milliseconds(ttl: float) -> int:
    if not 0 < ttl < math.inf:
        raise ValueError(f"RedisStore: ttl is {ttl!r}; pass a positive, finite number of seconds")
    return math.ceil(ttl * 1000)
