"""The URL of a Redis or Valkey database, parsed; and what a store needs of a client library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ("RedisAddress", "RedisClient", "is_redis_url", "parse_redis_url")

Kind = Literal["server", "unix", "sentinel", "cluster"]

_KINDS: dict[str | None, Kind] = {None: "server", "sentinel": "sentinel", "cluster": "cluster"}
_URL = re.compile(r"(?P<tls>rediss?|unix)(?:\+(?P<kind>sentinel|cluster))?://")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
PORT, SENTINEL_PORT, MAX_PORT = 6379, 26379, 65_535
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
FILE_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path[?db=0], "
    "redis+sentinel://host,host/service[/db] or redis+cluster://host,host"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a database is. No repr contains a password.

    Attributes:
        kind: A single server, a Unix socket, Sentinels that know the server, or nodes of a Cluster.
        hosts: The hosts and ports of the server, the Sentinels or the nodes.
        path: The path of the Unix socket.
        service: The name of the service that Sentinels know.
        db: The number of the database.
        tls: Whether to use TLS.
        username, password: The credentials of the database.
        sentinel_username, sentinel_password: The credentials of the Sentinels.
        files: Paths of certificates, by the name that both client libraries use.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return self.path or f"{hosts}{f'/{self.service}' if self.service else ''}/{self.db}"


class RedisClient(Protocol):
    """The commands of a store, on one event loop. Keys are complete, times are in milliseconds.

    A client raises the exceptions of its library, and tries nothing twice.
    """

    @property
    def is_closed(self) -> bool:
        """Whether the client cannot be used any more, and another one has to be made."""
        ...

    async def get_many(self, keys: list[str]) -> list[bytes | None]:
        """Return the values: MGET, or one GET for each key in a Cluster."""
        ...

    async def set(self, key: str, value: bytes, ttl: int, *, if_absent: bool = False) -> bool:
        """SET with PX, and with NX if `if_absent` is set; return whether the value was set."""
        ...

    async def expire(self, key: str, ttl: int) -> bool:
        """PEXPIRE; return whether there is a value."""
        ...

    async def delete(self, key: str) -> None:
        """DEL."""
        ...

    async def append(self, stream: str, value: bytes, oldest: str) -> str:
        """XADD, which may trim entries before the id `oldest`; return the id of the entry."""
        ...

    async def read(self, stream: str, start: str, count: int) -> list[tuple[str, bytes]]:
        """XRANGE; return at most `count` ids and values from the id `start` on, inclusive."""
        ...

    async def wait(self, stream: str, after: str, limit: int) -> None:
        """XREAD with BLOCK: return when there is an entry after an id, or when the time is over."""
        ...

    async def eviction_policy(self) -> str | None:
        """Return `maxmemory-policy`; None if the server does not say it. Raise if there is no server."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def is_redis_url(text: str) -> bool:
    """Return whether a text is meant as the URL of a database."""
    return _URL.match(text) is not None


def parse_redis_url(text: str) -> RedisAddress:
    """Return the parsed URL.

    Raises:
        ValueError: The URL cannot be used. The message does not contain the URL, which may have a password.
    """
    begin = _URL.match(text)
    if begin is None:
        raise ValueError(f"it is none of {FORMS}")
    parts = urlsplit(text)
    tls, kind = begin["tls"], _KINDS[begin["kind"]]
    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    query = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(query)
    allowed = {*FILE_OPTIONS, *(SENTINEL_OPTIONS if kind == "sentinel" else ()), *(("db",) if tls == "unix" else ())}
    if len(options) < len(query) or set(options) - allowed:
        raise ValueError(f"its query is not made of {', '.join(sorted(allowed))}, each once")
    if parts.fragment or (tls == "unix" and (netloc or kind != "server" or not parts.path)):
        raise ValueError(f"it is none of {FORMS}")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    if tls == "unix":
        segments = [options["db"]] if "db" in options else []
    service, db = _service_and_db(segments, kind)
    return RedisAddress(
        kind="unix" if tls == "unix" else kind,
        hosts=()
        if tls == "unix"
        else _hosts(netloc, SENTINEL_PORT if kind == "sentinel" else PORT, several=kind != "server"),
        path=unquote(parts.path) if tls == "unix" else None,
        service=service,
        db=db,
        tls=tls == "rediss",
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        files={name: options[name] for name in FILE_OPTIONS if name in options},
    )


def _hosts(netloc: str, port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    found = [_HOST.fullmatch(host) for host in netloc.split(",")]
    hosts = tuple((match["host"].strip("[]"), int(match["port"] or port)) for match in found if match is not None)
    if (
        len(hosts) < len(found)
        or (len(hosts) > 1 and not several)
        or any(not 0 < host[1] <= MAX_PORT for host in hosts)
    ):
        raise ValueError(f"its hosts are not {'host[:port],host[:port]' if several else 'host[:port]'}")
    return hosts


def _service_and_db(segments: list[str], kind: Kind) -> tuple[str, int]:
    """Return the service of Sentinels, and the number of the database."""
    service = ""
    if kind == "sentinel":
        if not segments:
            raise ValueError("the name of the service is missing: redis+sentinel://host,host/service")
        service, *segments = segments
    if len(segments) > (0 if kind == "cluster" else 1) or not all(segment.isdecimal() for segment in segments):
        raise ValueError("its path is not the number of a database; a Cluster has none")
    return service, int(segments[0]) if segments else 0
