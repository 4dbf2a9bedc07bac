"""`key_cache`: keys that survive a process, in a directory or in the store."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call, token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Process, free_port, running
from redis_servers import redis
from upstream import Upstream

from asgi_mcp_auth import ConfigurationError, MCPAuthMiddleware, MemoryStore
from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.key_cache import CachedKeys, KeyCache, KeyDirectory
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse
from asgi_mcp_auth.testing import Issuer, without_network

pytestmark = [pytest.mark.anyio]

SECRET, OTHER = "a" * 32, "b" * 32
HOUR = 3600.0


@pytest.fixture
def issuer(clock: Clock) -> Issuer:
    return Issuer(ISS, algorithms=("ES256",), clock=clock)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def worker(issuer: Issuer, cache: Path | MemoryStore, secret: str = SECRET) -> MCPAuthMiddleware:
    """Return one of several processes; on a thread, because the configuration looks at the directory."""
    return await anyio.to_thread.run_sync(make_worker, issuer, cache, secret)


def make_worker(issuer: Issuer, cache: Path | MemoryStore, secret: str = SECRET) -> MCPAuthMiddleware:
    where: dict[str, Any] = {"key_cache": "store", "store": cache}
    if isinstance(cache, Path):
        where = {"key_cache": str(cache)}
    return MCPAuthMiddleware(
        RecordingApp(),
        resource=R,
        authorization_servers=[issuer.url],
        http_client=issuer.http_client,
        clock=issuer.clock,
        shared_secret=secret,
        **where,
    )


SAVING: list[Callable[[], Awaitable[None]]] = []
"""What is being kept in the background."""


@pytest.fixture(autouse=True)
def _watch_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    SAVING.clear()

    def watched(work: Callable[[], Awaitable[None]]) -> None:
        SAVING.append(work)

        async def save() -> None:
            await work()
            SAVING.remove(work)

        spawn(save)

    monkeypatch.setattr("asgi_mcp_auth._keys.remote_jwks.spawn", watched)


async def status(guard: MCPAuthMiddleware, raw: str) -> int:
    found = (await call(guard, headers=bearer(raw))).status
    with anyio.fail_after(10):
        while SAVING:  # noqa: ASYNC110 - a list of many tasks
            await anyio.sleep(0.001)
    return found


@pytest.fixture(params=["directory", "store"])
def cache(request: pytest.FixtureRequest, directory: Path, store: MemoryStore) -> Path | MemoryStore:
    return directory if request.param == "directory" else store


def entries(cache: Path | MemoryStore) -> dict[str, bytes]:
    if isinstance(cache, Path):
        return {path.name: path.read_bytes() for path in cache.iterdir()}
    found: dict[str, Any] = cache._uses[Use.KEYS]._entries
    return {name: entry.value for name, entry in found.items()}


async def write(cache: Path | MemoryStore, name: str, value: bytes) -> None:
    if isinstance(cache, MemoryStore):
        await cache.put(name, value, HOUR)  # noqa: ASYNC240 - not a path
    else:
        await anyio.Path(cache / name).write_bytes(value)


def modes(directory: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()]


@pytest.mark.every_loop
@pytest.mark.requirement("FS-8")
async def test_a_new_process_needs_no_issuer(
    cache: Path | MemoryStore, issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.keys")
    raw = token(issuer, exp=clock() + 7 * 24 * HOUR)
    assert await status(await worker(issuer, cache), raw) == 200
    issuer.fail("/jwks", status=500)
    requests = dict(issuer.requests)
    guard = await worker(issuer, cache)
    assert await status(guard, raw) == 200
    assert issuer.requests == requests
    assert [vars(record)["levelname"] for record in caplog.records if vars(record).get("event") == "keys_loaded"] == [
        "INFO"
    ]
    [document] = [found.key_set for found in guard.auth.status().issuers]
    assert (document.fetches, document.age) == (0, 0)
    clock.now += 2 * HOUR  # stale, and within `stale_if_error`
    assert await status(await worker(issuer, cache), raw) == 200
    clock.now += 100 * HOUR  # too old
    assert await status(await worker(issuer, cache), raw) == 503


@pytest.mark.requirement("FS-8")
async def test_a_new_process_learns_a_rotation_from_the_issuer(
    cache: Path | MemoryStore, issuer: Issuer, clock: Clock
) -> None:
    assert await status(await worker(issuer, cache), token(issuer)) == 200
    issuer.rotate()
    clock.now += 10
    guard = await worker(issuer, cache)
    assert await status(guard, token(issuer)) == 200  # of a key that the cached set does not have
    third = await worker(issuer, cache)
    requests = dict(issuer.requests)
    assert await status(third, token(issuer)) == 200
    assert issuer.requests == requests


@pytest.mark.requirement("FS-8")
async def test_a_poisoned_cache_adds_no_key(
    cache: Path | MemoryStore, issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    attacker = Issuer(issuer.url, algorithms=("ES256",), clock=clock)
    assert await status(await worker(attacker, cache, OTHER), token(attacker)) == 200
    [(name, signed_by_another)] = entries(cache).items()
    assert await status(await worker(issuer, cache), token(attacker)) == 401
    [(name, good)] = entries(cache).items()
    keys = json.dumps(attacker.jwks()["keys"])
    payload = json.dumps({"keys": "%", "lifetime": None, "fetched_at": clock()}).replace('"%"', keys).encode()
    poisoned = [b"", b"x", payload, bytes(32) + payload, good[:32] + payload, signed_by_another, good[:-1]]
    for entry in poisoned:
        caplog.clear()
        await write(cache, name, entry)
        assert await status(await worker(issuer, cache), token(attacker)) == 401
        [record] = [record for record in caplog.records if vars(record).get("event") == "keys_cache_rejected"]
        assert "is ignored: its signature is missing or wrong" in record.getMessage()
        assert await status(await worker(issuer, cache), token(issuer)) == 200


@pytest.mark.requirement("FS-8")
async def test_an_entry_belongs_to_one_source(issuer: Issuer, store: MemoryStore, clock: Clock) -> None:
    use = StoreUse(SharedStore(store, 1, clock), Use.KEYS)
    cache = KeyCache(SECRET, use)
    await cache.save("one", CachedKeys(issuer.jwks(), None, clock()), HOUR)
    [entry] = entries(store).values()
    await store.put(use.key("other"), entry, HOUR)
    assert await cache.load(issuer.url, "one", clock()) is not None
    assert await cache.load(issuer.url, "other", clock()) is None


@pytest.mark.requirement("FS-8")
@pytest.mark.parametrize(
    ("key", "is_used"),
    [
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, False, id="a shared secret"),
        pytest.param({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, False, id="a weak key"),
        pytest.param(None, True, id="a good key"),
    ],
)
async def test_keys_are_checked_again_when_they_are_read(
    key: dict[str, Any] | None, is_used: bool, issuer: Issuer, store: MemoryStore, clock: Clock
) -> None:
    guard = await worker(issuer, store)
    [keys] = guard.auth._protection.key_sets._named
    document: Any = issuer.jwks() if key is None else {"keys": [key]}
    cache = KeyCache(SECRET, StoreUse(SharedStore(store, 1, clock), Use.KEYS))
    await cache.save(keys._source, CachedKeys(document, None, clock()), HOUR)
    issuer.fail("/jwks", status=500)
    assert await status(guard, token(issuer)) == (200 if is_used else 503)


@pytest.mark.requirement("FS-8")
@pytest.mark.parametrize(("ahead", "is_used"), [(0, True), (299, True), (301, False), (1e12, False)])
async def test_the_age_of_an_entry_cannot_be_hidden(
    ahead: float, is_used: bool, issuer: Issuer, store: MemoryStore, clock: Clock
) -> None:
    cache = KeyCache(SECRET, StoreUse(SharedStore(store, 1, clock), Use.KEYS))
    await cache.save("s", CachedKeys(issuer.jwks(), None, clock() + ahead), HOUR)
    found = await cache.load(issuer.url, "s", clock())
    assert (found is not None) is is_used
    assert found is None or found.fetched_at == clock()


@given(st.binary(max_size=200), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_an_entry_or_none(data: bytes, is_signed: bool) -> None:
    async def run() -> None:
        store = MemoryStore()
        use = StoreUse(SharedStore(store, 1), Use.KEYS)
        cache = KeyCache(SECRET, use)
        await store.put(use.key("s"), (cache._sign("s", data) if is_signed else b"") + data, 60)
        assert await cache.load("https://auth.example.com", "s", 0.0) is None

    anyio.run(run)


# --- the directory --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("FS-8")
@pytest.mark.parametrize(
    ("mode", "why"), [(0o755, "other users may open it"), (0o710, "other users may open it"), (None, "No such file")]
)
def test_a_directory_that_does_not_fit_is_a_problem(
    mode: int | None, why: str, directory: Path, issuer: Issuer
) -> None:
    if mode is None:
        directory.rmdir()
    else:
        directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=why) as raised:
        make_worker(issuer, directory)
    assert [problem.where for problem in raised.value.problems] == ["key_cache"]


@pytest.mark.requirement("FS-8")
@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"key_cache": "store", "store": MemoryStore()}, ["key_cache"], id="no secret"),
        pytest.param({"key_cache": "store", "shared_secret": SECRET}, ["store"], id="no store"),
        pytest.param({"key_cache": 1, "shared_secret": SECRET}, ["key_cache"], id="no path"),
        pytest.param({"key_cache": __file__, "shared_secret": SECRET}, ["key_cache"], id="a file"),
        pytest.param(
            {"key_cache": "store", "store": MemoryStore(), "shared_secret": "x"}, ["shared_secret"], id="short"
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], where: list[str], issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as raised:
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[issuer.url], **options)
    assert [problem.where for problem in raised.value.problems] == where


async def test_files_belong_to_the_user_alone(directory: Path, issuer: Issuer) -> None:
    assert await status(await worker(issuer, directory), token(issuer)) == 200
    assert modes(directory) == [0o600]


async def test_a_directory_that_others_may_open_later_is_not_used(
    directory: Path, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    guard = await worker(issuer, directory)
    await anyio.Path(directory).chmod(0o777)
    assert await status(guard, token(issuer)) == 200  # from the issuer
    assert modes(directory) == []
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"key_cache: {directory} cannot be used: other users may open it"


@pytest.mark.requirement("FS-8")
async def test_tests_without_a_network_leave_the_cache_alone(directory: Path, issuer: Issuer, clock: Clock) -> None:
    guard = await worker(issuer, directory)
    other = Issuer(issuer.url, algorithms=("ES256",), clock=clock)
    with without_network(guard.auth, other):
        assert await status(guard, token(other)) == 200
    assert modes(directory) == []


@pytest.mark.requirement("FS-4")
async def test_a_store_that_fails_means_that_keys_are_fetched(issuer: Issuer, clock: Clock) -> None:
    class Broken(MemoryStore):
        async def get_many(self, keys: Any) -> list[bytes | None]:
            raise OSError(keys)

        async def put(self, key: str, value: bytes, ttl: float) -> None:
            raise OSError(key)

    guard = await worker(issuer, Broken())
    assert await status(guard, token(issuer)) == 200
    assert guard.auth.status().ready


async def test_a_directory_that_cannot_be_read_is_one_record(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = KeyDirectory(str(directory))
    await anyio.Path(directory).rmdir()
    for _ in range(3):
        assert await entries.get("x") is None
        await entries.put("x", b"1", 60)
    assert len(caplog.records) == 1


# --- gunicorn -------------------------------------------------------------------------------------------------------

APP = """\
import json, os
from asgi_mcp_auth import MCPAuthMiddleware

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"mcp-session-id", b"s1")]})
    await send({"type": "http.response.body", "body": json.dumps(os.getpid()).encode()})

def make():
    from asgi_mcp_auth import MCPAuth
    return MCPAuth.from_toml("mcp-auth.toml").wrap(app)
"""


@contextlib.contextmanager
def gunicorn(site: Path, lines: str, workers: int) -> Generator[tuple[Upstream, str, Process]]:
    """Run workers that each load the configuration; yield the issuer, the resource and the master."""
    upstream, port = Upstream(), free_port()
    upstream.issuer = Issuer(upstream.url, algorithms=("ES256",))
    resource = f"http://127.0.0.1:{port}/mcp"
    (site / "shop.py").write_text(APP)
    (site / "mcp-auth.toml").write_text(
        f'resource = "{resource}"\nauthorization_servers = ["{upstream.url}"]\nshared_secret = "{SECRET}"\n{lines}'
    )
    argv = [sys.executable, "-m", "gunicorn", "shop:make()", "--workers", str(workers), "--no-control-socket"]
    argv += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
    upstream.start()
    try:
        with running(
            argv, ready_port=port, cwd=site, env={"PYTHONPATH": f"{site}:{os.environ['PYTHONPATH']}"}
        ) as master:
            yield upstream, resource, master
    finally:
        with contextlib.suppress(Exception):
            upstream.stop()


def ask(resource: str, raw: str, **fields: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {raw}", "mcp-protocol-version": "2025-11-25"} | fields
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
    return httpx.post(resource, headers=headers, json=body, trust_env=False)


def pids_of(resource: str, raw: str, count: int, other_than: frozenset[int] = frozenset()) -> frozenset[int]:
    """Ask until `count` workers have answered, each time with 200. A killed worker takes its connections with it."""
    found: set[int] = set()
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline
        with contextlib.suppress(httpx.TransportError):
            answer = ask(resource, raw)
            assert answer.status_code == 200, answer.text
            found |= {answer.json()} - other_than
    return frozenset(found)


@pytest.mark.full
@pytest.mark.requirement("FS-8")
def test_good_requests_survive_hup_and_kills_while_the_issuer_is_away(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis(tmp_path))
        lines = f'key_cache = "store"\nstore = "{server.url}"\n'
        upstream, resource, master = stack.enter_context(gunicorn(tmp_path, lines, 2))
        raw = upstream.issuer.mint(resource)
        before = pids_of(resource, raw, 2)
        upstream.stop()
        os.kill(master.pid, signal.SIGHUP)
        after = pids_of(resource, raw, 2, before)
        os.kill(next(iter(after)), signal.SIGKILL)
        time.sleep(0.5)  # a request that the worker had accepted is lost with it
        pids_of(resource, raw, 1, before | after)


@pytest.mark.full
@pytest.mark.requirement("FS-7")
def test_four_workers_share_a_session_and_one_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    with (
        redis(tmp_path) as server,
        gunicorn(tmp_path, f'session_binding = true\nstore = "{server.url}"\n', 4) as (upstream, resource, _),
    ):
        alice, bob = upstream.issuer.mint(resource), upstream.issuer.mint(resource, sub="bob")
        workers = pids_of(resource, alice, 4)  # the app names the session s1 in every response
        assert {ask(resource, bob).status_code for _ in range(8)} == {200}
        session = {"mcp-session-id": "s1"}
        assert {ask(resource, alice, **session).status_code for _ in range(20)} == {200}
        assert {ask(resource, bob, **session).status_code for _ in range(20)} == {404}
        os.kill(next(iter(workers)), signal.SIGKILL)
        time.sleep(0.5)
        pids_of(resource, alice, 1, workers)
        assert {ask(resource, alice, **session).status_code for _ in range(20)} == {200}
        assert {ask(resource, bob, **session).status_code for _ in range(20)} == {404}
