"""The client of a `RedisStore` on asyncio, by redis-py."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from redis.asyncio import Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from asgi_mcp_auth.stores._redis_address import RedisAddress, RedisClient

__all__ = ("open_redis_py",)

SOCKET_SECONDS = 5.0  # for a store that is used alone; this library has a shorter limit of its own
ABOUT_THE_LIBRARY = ("driver_info",) if "driver_info" in signature(Redis).parameters else ("lib_name", "lib_version")
"""Options that are set to None: redis-py reads its version from disk for each connection, for the server."""
CLUSTER_ATTEMPTS = 3  # for a key that has moved to another node


def open_redis_py(address: RedisAddress) -> RedisClient:
    """Return a client. It connects when it is used."""
    tls: dict[str, Any] = {"ssl": True, **address.files} if address.tls else {}
    common: dict[str, Any] = {
        **tls,
        "username": address.username,
        "password": address.password,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "protocol": 2,
        **dict.fromkeys(ABOUT_THE_LIBRARY),
        "retry": Retry(NoBackoff(), CLUSTER_ATTEMPTS if address.kind == "cluster" else 0),
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return _RedisPy(RedisCluster(startup_nodes=nodes, **common), is_cluster=True)
    common["db"] = address.db
    if address.kind == "sentinel":
        credentials = {"username": address.sentinel_username, "password": address.sentinel_password}
        sentinel_options = common | credentials | {"db": 0}
        make_sentinel: Any = Sentinel  # untyped
        sentinel = make_sentinel(list(address.hosts), sentinel_kwargs=sentinel_options, **common)
        return _RedisPy(sentinel.master_for(address.service), sentinel.sentinels)
    if address.kind == "unix":
        return _RedisPy(Redis(unix_socket_path=address.path, **common))
    [(host, port)] = address.hosts
    client = Redis(host=host, port=port, **common)
    if address.tls:
        client.connection_pool.connection_class = _TLSConnection
    return _RedisPy(client)


_contexts: dict[str | None, Any] = {}


class _TLSConnection(SSLConnection):
    """A connection to a single server that shares its TLS context: loading certificates blocks for 40 ms each time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        if self.certfile is None:  # else its file is read again, because it may be replaced
            self.ssl_context = _contexts.setdefault(self.ca_certs, self.ssl_context)


class _RedisPy:
    """See `RedisClient`. Everything that redis-py returns is untyped for mypy."""

    def __init__(self, client: Any, sentinels: Sequence[Any] = (), *, is_cluster: bool = False) -> None:
        self._client = client
        self._sentinels = sentinels
        self._is_cluster = is_cluster

    @property
    def is_closed(self) -> bool:
        return False  # it connects again when it is used

    async def get_many(self, keys: list[str]) -> list[bytes | None]:
        get_many = self._client.mget_nonatomic if self._is_cluster else self._client.mget
        return list(await get_many(keys))

    async def set(self, key: str, value: bytes, ttl: int, *, if_absent: bool = False) -> bool:
        return await self._client.set(key, value, px=ttl, nx=if_absent) is not None

    async def expire(self, key: str, ttl: int) -> bool:
        return bool(await self._client.pexpire(key, ttl))

    async def delete(self, key: str) -> None:
        await self._client.delete(key)

    async def append(self, stream: str, value: bytes, oldest: str) -> str:
        added: bytes = await self._client.xadd(stream, {"v": value}, minid=oldest, approximate=True)
        return added.decode("ascii")

    async def read(self, stream: str, start: str, count: int) -> list[tuple[str, bytes]]:
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await self._client.xrange(stream, start, "+", count)
        return [(position.decode("ascii"), fields.get(b"v", b"")) for position, fields in entries]

    async def wait(self, stream: str, after: str, limit: int) -> None:
        await self._client.xread({stream: after}, count=1, block=limit)

    async def eviction_policy(self) -> str | None:
        await self._client.ping()
        try:
            found: dict[str, str] = await self._client.config_get("maxmemory-policy")
        except ResponseError:  # managed databases and access control lists hide CONFIG
            return None
        return found.get("maxmemory-policy")

    async def close(self) -> None:
        for client in (self._client, *self._sentinels):
            await client.aclose()
