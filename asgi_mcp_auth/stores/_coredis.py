"""The client of a `RedisStore` on trio, by coredis."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
from coredis import PureToken, Redis, RedisCluster, Sentinel
from coredis.connection import TCPLocation
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth.stores._redis_address import RedisAddress, RedisClient

__all__ = ("open_coredis",)

CONNECT_SECONDS = 5.0


async def open_coredis(address: RedisAddress) -> RedisClient:
    """Return a client. Its connections belong to a task in the background, which ends with the event loop."""
    opened = _Opened(address)
    spawn(opened.run)
    try:
        await opened.done.wait()
    finally:
        if not opened.done.is_set():  # a client that connects after the time limit of the call is of no use
            opened.closed.set()
    if opened.error is not None:
        raise opened.error
    return _Coredis(opened)


class _Opened:
    """A client of coredis within its context manager, which needs a task of its own."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self.done = anyio.Event()
        self.closed = anyio.Event()
        self.ended = False
        self.client: Any = None
        self.error: Exception | None = None

    async def run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                self.client = await _enter(self._address, stack)
                self.done.set()
                await self.closed.wait()
        except Exception as error:  # noqa: BLE001 - raised where the client is needed
            self.error = error
        finally:
            self.ended = True
            self.done.set()


async def _enter(address: RedisAddress, stack: AsyncExitStack) -> Any:
    tls: dict[str, Any] = {"ssl": True, **address.files} if address.tls else {}
    common: dict[str, Any] = {
        **tls,
        "username": address.username,
        "password": address.password,
        "connect_timeout": CONNECT_SECONDS,
    }
    locations = [TCPLocation(host, port) for host, port in address.hosts]
    options: dict[str, Any] = {"verify_version": False, "retry_policy": NoRetryPolicy()}
    if address.kind == "cluster":
        return await stack.enter_async_context(RedisCluster(startup_nodes=locations, **common, **options))
    if address.kind == "sentinel":
        credentials = {"username": address.sentinel_username, "password": address.sentinel_password}
        sentinel: Any = Sentinel(locations, sentinel_kwargs=common | credentials, db=address.db, **common)
        await stack.enter_async_context(sentinel)
        return await stack.enter_async_context(sentinel.primary_for(address.service))
    if address.kind == "unix":
        unix = Redis(unix_socket_path=address.path, db=address.db, **common, **options)
        return await stack.enter_async_context(unix)
    [(host, port)] = address.hosts
    return await stack.enter_async_context(Redis(host, port, address.db, **common, **options))


class _Coredis:
    """See `RedisClient`."""

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened
        self._client = opened.client

    @property
    def is_closed(self) -> bool:
        return self._opened.ended

    async def get_many(self, keys: list[str]) -> list[bytes | None]:
        return list(await self._client.mget(keys))

    async def set(self, key: str, value: bytes, ttl: int, *, if_absent: bool = False) -> bool:
        return bool(await self._client.set(key, value, px=ttl, condition=PureToken.NX if if_absent else None))

    async def expire(self, key: str, ttl: int) -> bool:
        return bool(await self._client.pexpire(key, ttl))

    async def delete(self, key: str) -> None:
        await self._client.delete([key])

    async def append(self, stream: str, value: bytes, oldest: str) -> str:
        added: bytes = await self._client.xadd(
            stream,
            {"v": value},
            trim_strategy=PureToken.MINID,
            threshold=oldest,
            trim_operator=PureToken.APPROXIMATELY,
        )
        return added.decode("ascii")

    async def read(self, stream: str, start: str, count: int) -> list[tuple[str, bytes]]:
        entries = await self._client.xrange(stream, start, "+", count)
        return [(entry.identifier.decode("ascii"), entry.field_values.get(b"v", b"")) for entry in entries]

    async def wait(self, stream: str, after: str, limit: int) -> None:
        await self._client.xread({stream: after}, count=1, block=limit)

    async def eviction_policy(self) -> str | None:
        await self._client.ping()
        try:
            found: dict[bytes, bytes] = await self._client.config_get(["maxmemory-policy"])
        except RedisError:  # managed databases and access control lists hide CONFIG; a Cluster has one for each node
            return None
        policy = found.get(b"maxmemory-policy")
        return None if policy is None else policy.decode("ascii", "replace")

    async def close(self) -> None:
        self._opened.closed.set()
