"""`RedisStore`: its URL, and (with `--full`) the store on real servers that stop, restart, fill up and are slow."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from certificates import Authority
from harness import Answer, Clock, call, http_scope, send_scope, token
from hypothesis import given
from hypothesis import strategies as st
from operations import LEGACY, Replies, post, rpc
from processes import free_port
from redis_servers import RedisServer, cluster, redis, sentinel, slow_network, wait_for

from asgi_mcp_auth import ConfigurationError, MCPAuth, MCPAuthMiddleware
from asgi_mcp_auth.errors import Unavailable
from asgi_mcp_auth.stores import LogStore, StoreFullError
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._redis_address import RedisAddress, is_redis_url, parse_redis_url
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse
from asgi_mcp_auth.stores.redis import RedisStore
from asgi_mcp_auth.testing import Issuer, check_store

pytestmark = [pytest.mark.anyio]


@pytest.fixture(autouse=True)
def _no_warnings_of_clients(request: pytest.FixtureRequest) -> Generator[None]:
    """Both client libraries leave streams open when a connection fails or is cancelled: collect them here alone."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    gc.disable()
    try:
        yield
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
    finally:
        gc.enable()


# --- the URL --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("FS-6")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://cache", {"kind": "server", "hosts": (("cache", 6379),)}, id="a host"),
        pytest.param("redis://[::1]:7/3", {"kind": "server", "hosts": (("::1", 7),), "db": 3}, id="an address"),
        pytest.param(
            "rediss://user:p%40ss%2F@cache:6380/0?ssl_ca_certs=/ca.pem",
            {
                "kind": "server",
                "hosts": (("cache", 6380),),
                "tls": True,
                "username": "user",
                "password": "p@ss/",
                "files": {"ssl_ca_certs": "/ca.pem"},
            },
            id="TLS and credentials",
        ),
        pytest.param("redis://:secret@cache", {"kind": "server", "hosts": (("cache", 6379),), "password": "secret"}),
        pytest.param(
            "unix:///run/redis.sock?db=2", {"kind": "unix", "path": "/run/redis.sock", "db": 2}, id="a socket"
        ),
        pytest.param(
            "redis+sentinel://:pw@s1,s2:7/main/4?sentinel_password=other",
            {
                "kind": "sentinel",
                "hosts": (("s1", 26379), ("s2", 7)),
                "service": "main",
                "db": 4,
                "password": "pw",
                "sentinel_password": "other",
            },
            id="Sentinels",
        ),
        pytest.param(
            "rediss+cluster://n1,n2:7", {"kind": "cluster", "hosts": (("n1", 6379), ("n2", 7)), "tls": True}, id="nodes"
        ),
    ],
)
def test_a_url(url: str, expected: dict[str, Any]) -> None:
    address = parse_redis_url(url)
    assert address == RedisAddress(**expected)
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        *("", "redis", "http://cache", "redis://", "redis://a,b", "redis://cache:0", "redis://cache:70000"),
        *("redis://cache/db", "redis://cache/1/2", "redis://cache?db=1", "redis://cache#f", "redis://ca che"),
        *("redis+sentinel://s1", "redis+sentinel://s1/main/x", "redis+cluster://n1/0", "unix://host/path", "unix://"),
        *("unix:///path?db=x", "rediss://cache?ssl_cert_reqs=none", "redis://cache?ssl_ca_certs=a&ssl_ca_certs=b"),
    ],
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match="RedisStore: the URL cannot be used"):
        RedisStore(url)


@given(st.text(max_size=40), st.sampled_from(["redis://", "redis+sentinel://", "unix://", ""]))
def test_any_text_is_a_url_or_a_value_error(text: str, scheme: str) -> None:
    try:
        address = parse_redis_url(scheme + text)
    except ValueError:
        return
    assert is_redis_url(scheme + text)
    assert address.hosts or address.path


# --- in a configuration file ----------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "resource": "https://mcp.example.com/mcp",
    "authorization_servers": ["https://auth.example.com"],
    "session_binding": True,
}


@pytest.mark.requirement("FS-6")
def test_a_file_names_a_store_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://:hunter2@cache/1")
    for store in ("redis://cache/1", {"from_env": "REDIS_URL"}, "asgi_mcp_auth:MemoryStore()"):
        MCPAuth.from_mapping(SETTINGS | {"store": store})
    auth = MCPAuth.from_env(
        {
            "MCP_AUTH_RESOURCE": SETTINGS["resource"],
            "MCP_AUTH_AUTHORIZATION_SERVERS": "https://auth.example.com",
            "MCP_AUTH_SESSION_BINDING": "true",
            "MCP_AUTH_STORE": "redis://cache/1",
        }
    )
    assert auth.status().store is not None


@pytest.mark.parametrize(
    "store", ["redis://:hunter2@cache/db", {"from_env": "REDIS_URL"}], ids=["in the file", "by reference"]
)
def test_a_problem_with_a_url_does_not_show_it(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@cache/db")
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_mapping(SETTINGS | {"store": store})
    assert "its path is not the number of a database" in str(raised.value)
    assert "hunter2" not in str(raised.value)


# --- no server ------------------------------------------------------------------------------------------------------


def worker(issuer: Issuer, store: RedisStore, **options: Any) -> MCPAuthMiddleware:
    app = Replies(b"{}", mcp_session_id=b"s1")
    return MCPAuthMiddleware(
        app,
        resource="https://mcp.example.com/mcp",
        authorization_servers=[issuer.url],
        http_client=issuer.http_client,
        clock=issuer.clock,
        store=store,
        session_binding=True,
        **options,
    )


async def ready(guard: MCPAuthMiddleware) -> Answer:
    return await send_scope(guard.auth.readiness_app(), http_scope("GET", "/readyz", []), b"")


@pytest.mark.every_loop
@pytest.mark.requirement("FS-5")
async def test_a_server_without_its_store_starts_and_is_not_ready(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(f"redis://:hunter2@127.0.0.1:{free_port()}")
    guard = worker(issuer, store)
    await guard.auth.warm_up()
    answer = await ready(guard)
    assert (answer.status, answer.json()) == (503, {"ready": False, "unavailable": ["the store"]})
    assert (await call(guard)).status == 401
    assert (await post(guard, token(issuer), rpc("ping"))).status == 200
    session = ("mcp-session-id", "s1")
    assert (await post(guard, token(issuer), rpc("ping"), LEGACY, session)).status == 503
    status = guard.auth.status()
    assert status.store is not None
    assert (status.ready, status.store.state) == (False, "failing")
    records = [record for record in caplog.records if record.name == "asgi_mcp_auth.stores"]
    assert len(records) == 1
    assert "hunter2" not in caplog.text


# --- real servers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    with redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


async def contract(url: str) -> None:
    first, second = RedisStore(url), RedisStore(url)
    assert isinstance(first, LogStore)
    try:
        await check_store(first, second)
        assert await first.check() is None
    finally:
        await first.aclose()
        await second.aclose()


@contextmanager
def every_kind(server: RedisServer, directory: Path) -> Generator[dict[str, str]]:
    """Run every kind of server; yield their URLs."""
    authority, tls_port, socket = Authority(), free_port(), directory / "redis.sock"
    authority.server_context(directory, "127.0.0.1")
    (directory / "ca.pem").write_text(authority.pem)
    files = ["--tls-cert-file", "server.pem", "--tls-key-file", "server.pem", "--tls-ca-cert-file", "ca.pem"]
    options = ["--tls-port", str(tls_port), "--tls-auth-clients", "no", "--requirepass", "p@ss"]
    with (
        redis(directory, *files, *options, "--unixsocket", str(socket)),
        sentinel(directory, server) as sentinel_port,
        cluster(directory) as (first, second),
    ):
        yield {
            "server": server.url,
            "socket": f"unix://:p%40ss@{socket}?db=1",
            "TLS": f"rediss://:p%40ss@127.0.0.1:{tls_port}?ssl_ca_certs={directory / 'ca.pem'}",
            "Sentinel": f"redis+sentinel://127.0.0.1:{sentinel_port}/main/2",
            "Cluster": f"redis+cluster://127.0.0.1:{first},127.0.0.1:{second}",
        }


@pytest.mark.full
@pytest.mark.requirement("FS-1", "FS-6")
def test_every_kind_of_server_keeps_the_contract(server: RedisServer, tmp_path: Path) -> None:
    async def check_all(urls: dict[str, str]) -> None:
        async with anyio.create_task_group() as group:
            for url in urls.values():
                group.start_soon(contract, url)

    with every_kind(server, tmp_path) as urls:
        for loop in ("asyncio", "trio"):
            anyio.run(check_all, urls, backend=loop)


@pytest.mark.full
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
@pytest.mark.requirement("FS-1", "FS-5")
async def test_a_store_follows_the_sentinels_to_the_new_primary(tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    settings = ("down-after-milliseconds 300", "failover-timeout 2000")
    with (
        redis(tmp_path) as primary,
        redis(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}") as replica,
        sentinel(tmp_path, primary, *settings) as port,
    ):
        shared, entries = uses(f"redis+sentinel://127.0.0.1:{port}/main/0")
        key = entries.key("alice")
        await entries.put(key, b"1", 60)
        wait_for(port, "SENTINEL MASTER main", b"num-slaves\r\n$1\r\n1\r\n")
        wait_for(replica.port, "DBSIZE", b":1\r\n")
        primary.process.stop()
        with pytest.raises(Unavailable):
            await entries.get(key)
        found: bytes | None = None
        with anyio.fail_after(30):
            while found is None:
                with suppress(Unavailable):
                    found = await entries.get(key)
                await anyio.sleep(0.1)
        assert found == b"1"
        await entries.put(key, b"2", 60)
        assert b"role:master" in replica.ask("INFO", "replication")
        assert await entries.get(key) == b"2"
        await shared.close()


ADDER = """
import sys, anyio
from asgi_mcp_auth.stores.redis import RedisStore

async def main(url, number):
    store, answers = RedisStore(url), []
    async def add(index):
        answers.append(await store.add("session:once", f"{number}.{index}".encode(), 60))
    sys.stdin.readline()
    async with anyio.create_task_group() as group:
        for index in range(25):
            group.start_soon(add, index)
    await store.aclose()
    print(sum(answer is None for answer in answers), *{answer.decode() for answer in answers if answer})

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.full
@pytest.mark.requirement("FS-1")
def test_of_100_concurrent_adds_in_four_processes_one_returns_none(server: RedisServer) -> None:
    command = [sys.executable, "-c", ADDER, server.url]
    adders = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    time.sleep(1)  # all have imported what they need
    answers = [adder.communicate("go\n", timeout=20)[0].split() for adder in adders]
    assert sorted(count for count, *_ in answers) == ["0", "0", "0", "1"]
    assert len({value for _, *values in answers for value in values}) == 1


def uses(url: str, use: Use = Use.SESSION, timeout: float = 0.25) -> tuple[SharedStore, StoreUse]:
    shared = SharedStore(RedisStore(url), timeout)
    return shared, StoreUse(shared, use)


@pytest.mark.full
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
@pytest.mark.requirement("FS-5")
async def test_a_stopped_server_costs_little_time_and_answers_are_never_mixed_up(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    shared, entries = uses(server.url)
    keys = [entries.key(str(number)) for number in range(20)]
    for key in keys:
        await entries.put(key, key.encode(), 60)
    failed = 0

    async def read(key: str) -> None:
        nonlocal failed
        try:
            assert await entries.get(key) == key.encode()
        except Unavailable:
            failed += 1

    with server.stopped():
        begin = time.monotonic()
        for _ in range(50):
            async with anyio.create_task_group() as group:
                for key in keys:
                    group.start_soon(read, key)
        assert time.monotonic() - begin < 5
        assert failed == 1000
    with anyio.fail_after(10):
        while failed:  # until the first answer, one attempt a second
            failed = 0
            async with anyio.create_task_group() as group:
                for key in keys:
                    group.start_soon(read, key)
            await anyio.sleep(0.1)
    assert shared.is_available
    assert len([record for record in caplog.records if record.name == "asgi_mcp_auth.stores"]) == 2
    await shared.store.aclose()  # type: ignore[attr-defined]


@pytest.mark.full
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
async def test_half_a_second_of_latency_is_a_failure_and_no_mixed_up_answer(server: RedisServer) -> None:
    entries = uses(server.url)[1]
    for name in "abc":
        await entries.put(entries.key(name), name.encode(), 60)
    async with slow_network(server.port, 0.5) as port:
        slow = RedisStore(f"redis://127.0.0.1:{port}/0")
        shared = SharedStore(slow, 0.25)
        for name in "abcabc":
            with pytest.raises(Unavailable):
                await StoreUse(shared, Use.SESSION).get(entries.key(name))
        patient = StoreUse(SharedStore(slow, 10), Use.SESSION)
        assert await patient.get(entries.key("b")) == b"b"
        await slow.aclose()


@pytest.mark.full
async def test_a_restart_is_survived_with_or_without_the_data(tmp_path: Path) -> None:
    port = free_port()
    shared, entries = uses(f"redis://127.0.0.1:{port}/0", timeout=3)
    for persistent in ("yes", "no"):
        with redis(tmp_path, "--appendonly", persistent, "--appendfsync", "always", port=port) as running:
            await anyio.sleep(0.1)  # the event loop sees that the old connections are closed
            await entries.put(entries.key("a"), b"1", 60)
            position = await entries.append("revoked:log", b"1", 60)
            running.process.kill()
        with pytest.raises(Unavailable):
            await entries.get(entries.key("a"))
        with redis(tmp_path, "--appendonly", persistent, "--appendfsync", "always", port=port):
            await anyio.sleep(0.1)
            found = await entries.get(entries.key("a"))
            page = await entries.read_from("revoked:log", position)
            expected = (b"1", False) if persistent == "yes" else (None, True)
            assert (found, page.restarted) == expected
    await shared.store.aclose()  # type: ignore[attr-defined]


@pytest.mark.full
@pytest.mark.requirement("FS-4")
async def test_a_full_server_refuses_writes_and_answers_reads(tmp_path: Path) -> None:
    with redis(tmp_path, "--maxmemory", "3mb") as running:
        store = RedisStore(running.url)
        await store.put("session:a", b"1", 60)
        for size in (10_000, 100, 1, 1):
            with suppress(StoreFullError):
                for number in range(2000):
                    await store.put(f"session:{size}.{number}", bytes(size), 60)
        for write in (store.put("session:b", b"1", 60), store.add("session:c", b"1", 60)):
            with pytest.raises(StoreFullError, match="maxmemory"):
                await write
        with pytest.raises(StoreFullError):
            await store.append("revoked:log", b"1", 60)
        assert await store.get_many(["session:a", "session:c"]) == [b"1", None]
        await store.aclose()


@pytest.mark.full
@pytest.mark.requirement("FS-4")
async def test_a_server_that_evicts_is_a_warning_and_not_ready_for_what_must_last(
    server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    ready = {Use.SESSION: True, Use.REPLAY: False, Use.REVOCATION: False}
    stores = {use: SharedStore(RedisStore(server.url), 3, clock) for use in ready}
    for use, shared in stores.items():
        StoreUse(shared, use)
        for _ in range(3):
            await shared.probe()
        assert "allkeys-lru" in str(shared.status().warning)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert {use: shared.is_ready for use, shared in stores.items()} == ready
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert all("Set maxmemory-policy noeviction" in warning for warning in warnings)
    clock.now += 2
    for shared in stores.values():
        await shared.probe()
        assert shared.is_ready
        await shared.store.aclose()  # type: ignore[attr-defined]


@pytest.mark.full
@pytest.mark.requirement("FS-5")
@pytest.mark.parametrize("credentials", ["", ":hunter2@", "nouser:hunter2@"])
async def test_a_wrong_password_is_a_failing_store(
    credentials: str, tmp_path: Path, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis(tmp_path, "--requirepass", "right") as running:
        store = RedisStore(f"redis://{credentials}127.0.0.1:{running.port}")
        guard = worker(issuer, store)
        assert (await ready(guard)).status == 503
        assert (await post(guard, token(issuer), rpc("ping"))).status == 200
        await store.aclose()
    assert "hunter2" not in caplog.text
    assert "asgi_mcp_auth.stores" in {record.name for record in caplog.records}


@pytest.mark.full
@pytest.mark.requirement("FS-3")
async def test_what_the_database_holds_shows_nothing(server: RedisServer, issuer: Issuer) -> None:
    server.ask("FLUSHALL")
    store = RedisStore(server.url)
    guard = worker(issuer, store)
    await post(guard, token(issuer, sub="alice@example.com"), rpc("initialize"))
    keys = server.ask("KEYS", "*")
    assert keys.count(b"asgi-mcp-auth:session:") == 1
    name = keys.split(b"\r\n")[2].decode()
    assert int(server.ask("TTL", name).strip(b":\r\n")) == pytest.approx(86_400, abs=5)
    assert b"alice" not in keys + server.ask("GET", name)
    await store.aclose()
