"""How this library uses a store: keys, time limit, circuit breaker, policies for failures; and a fleet's sessions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest
from harness import Clock, http_scope, send_scope, token
from hypothesis import given
from hypothesis import strategies as st
from operations import LEGACY, Replies, guarded, post, rpc

from asgi_mcp_auth import ConfigurationError, MCPAuthMiddleware, MemoryStore, Store
from asgi_mcp_auth._asgi.response import complete_lifespan
from asgi_mcp_auth._asgi.sessions import IDLE_LIFETIME
from asgi_mcp_auth.errors import Reason, Unavailable
from asgi_mcp_auth.stores import LogPage, StoreFullError
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse
from asgi_mcp_auth.testing import Issuer, running

pytestmark = [pytest.mark.anyio]

SESSION = ("mcp-session-id", "s1")


class Counting(MemoryStore):
    """Counts the calls of each method, and fails on demand."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.calls: list[str] = []
        self.written: list[tuple[str, bytes, float]] = []
        self.error: Exception | None = None
        self.hangs = False

    async def _count(self, method: str) -> None:
        self.calls.append(method)
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        await self._count("get_many")
        return await super().get_many(keys)

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        await self._count("add")
        self.written.append((key, value, ttl))
        return await super().add(key, value, ttl)

    async def touch(self, key: str, ttl: float) -> bool:
        await self._count("touch")
        return await super().touch(key, ttl)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._count("put")
        await super().put(key, value, ttl)

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        await self._count("append")
        return await super().append(log, value, ttl)


@pytest.fixture
def store(clock: Clock) -> Counting:
    return Counting(clock)


def shared(store: Store, clock: Clock, timeout: float = 0.25) -> SharedStore:
    return SharedStore(store, timeout, clock)


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("FS-3")
@given(st.lists(st.text(st.characters()), max_size=4), st.lists(st.text(st.characters()), max_size=4))
def test_keys_are_equal_for_equal_parts_only(parts: list[str], others: list[str]) -> None:
    use = StoreUse(SharedStore(MemoryStore(), 1), Use.SESSION)
    assert (use.key(*parts) == use.key(*others)) is (parts == others)


@pytest.mark.requirement("FS-3")
def test_a_key_shows_the_use_alone() -> None:
    key = StoreUse(SharedStore(MemoryStore(), 1), Use.REPLAY).key("alice@example.com", b"secret")
    assert key.startswith("replay:")
    assert set(key.removeprefix("replay:")) <= set("0123456789abcdef")


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("FS-4")
@pytest.mark.parametrize(
    ("use", "goes_on"),
    [
        pytest.param(Use.REPLAY, False, id="replay: 503"),
        pytest.param(Use.SESSION, False, id="session binding: 503"),
        pytest.param(Use.REVOCATION, False, id="revocation: the reader keeps its last state"),
        pytest.param(Use.INTROSPECTION, True, id="introspection cache: ask the issuer"),
        pytest.param(Use.KEYS, True, id="key cache: fetch"),
        pytest.param(Use.RATE, True, id="rate limits: pass"),
    ],
)
@pytest.mark.parametrize("full", [False, True], ids=["fails", "is full"])
async def test_a_failing_store_by_use(use: Use, goes_on: bool, full: bool, store: Counting, clock: Clock) -> None:
    store.error = StoreFullError("full") if full else ConnectionError("away")
    entries = StoreUse(shared(store, clock), use)
    calls: dict[str, Callable[[], Awaitable[bytes | None]]] = {
        "get": lambda: entries.get("k"),
        "add": lambda: entries.add("k", b"v", 1),
        "put": lambda: entries.put("k", b"v", 1),
    }
    for call in calls.values():
        if goes_on:
            assert await call() is None
            continue
        with pytest.raises(Unavailable) as raised:
            await call()
        assert raised.value.reason is Reason.STORE_UNAVAILABLE
        assert raised.value.found == ("StoreFullError" if full else "ConnectionError")


class Wrong(MemoryStore):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return self.answer  # type: ignore[no-any-return]

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.requirement("FS-4")
@pytest.mark.parametrize("answer", [["text"], [], [None, None], 0, True, [b"a", b"b"]])
async def test_a_store_that_answers_nonsense_fails(answer: Any, clock: Clock) -> None:
    entries = StoreUse(shared(Wrong(answer), clock), Use.REPLAY)
    for work in (entries.get("k"), entries.add("k", b"", 1)):
        with pytest.raises(Unavailable):
            await work


@pytest.mark.requirement("FS-5")
@pytest.mark.every_loop
async def test_a_store_that_hangs_is_waited_for_three_times(store: Counting, clock: Clock) -> None:
    store.hangs = True
    entries = StoreUse(shared(store, clock, 0.01), Use.SESSION)
    with anyio.fail_after(2):
        for _ in range(100):
            with pytest.raises(Unavailable):
                await entries.get("k")
        assert len(store.calls) == 3
        for _ in range(100):
            clock.now += 0.1
            with pytest.raises(Unavailable):
                await entries.get("k")
    assert 9 <= len(store.calls) - 3 <= 11  # one attempt a second


@pytest.mark.requirement("FS-5")
async def test_an_outage_is_one_record_and_its_end_another(
    store: Counting, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.stores")
    fleet = shared(store, clock)
    entries = StoreUse(fleet, Use.SESSION)
    store.error = ConnectionError("Error 111 connecting to cache.internal\n")
    assert fleet.status().state == "unused"
    for _ in range(1000):
        clock.now += 0.05
        with pytest.raises(Unavailable):
            await entries.get("k")
    status = fleet.status()
    assert (status.state, fleet.is_available) == ("failing", False)
    assert status.last_error == "ConnectionError: Error 111 connecting to cache.internal\\n"
    assert status.failing_for == pytest.approx(49.95)
    store.error = None
    clock.now += 1.01
    assert await entries.get("k") is None
    assert (fleet.status().state, fleet.status().failing_for) == ("working", None)
    assert [record.getMessage() for record in caplog.records] == [
        "Counting fails (no more of these for 60 s): ConnectionError: Error 111 connecting to cache.internal\\n",
        "Counting answers again after 51.0 s",
    ]


@pytest.mark.requirement("FS-5")
async def test_a_store_that_fails_now_and_then_is_few_records(
    store: Counting, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.stores")
    entries = StoreUse(shared(store, clock), Use.RATE)
    for number in range(1000):
        clock.now += 0.1
        store.error = ConnectionError("away") if number % 2 else None
        await entries.get("k")
    assert len(caplog.records) == 4  # two windows of a minute, each with a failure and its end


@pytest.mark.requirement("FS-4")
async def test_a_full_store_can_be_read(store: Counting, clock: Clock) -> None:
    entries = StoreUse(shared(store, clock), Use.REPLAY)
    await entries.put("k", b"v", 60)
    for _ in range(10):
        store.error = StoreFullError("full")
        with pytest.raises(Unavailable):
            await entries.add("other", b"v", 60)
        store.error = None
        assert await entries.get("k") == b"v"


async def test_logs_are_read_within_their_waiting_time(store: Counting, clock: Clock) -> None:
    entries = StoreUse(shared(store, clock, 0.05), Use.REVOCATION)
    position = await entries.append("revoked:log", b"1", 60)
    assert await entries.read_from("revoked:log", "", wait=1) == LogPage((b"1",), position)
    assert await entries.read_from("revoked:log", position, wait=0.1) == LogPage((), position)


# --- sessions of a fleet --------------------------------------------------------------------------------------------


def worker(issuer: Issuer, store: Store, app: Any = None, **policy: Any) -> MCPAuthMiddleware:
    """One of several processes."""
    app = app or Replies(b"{}", mcp_session_id=b"s1")
    return guarded(issuer, app, {"store": store, "session_binding": True}, **policy)


@pytest.mark.requirement("FS-7")
async def test_of_two_workers_and_principals_the_second_gets_404(issuer: Issuer, store: Counting) -> None:
    first, second = worker(issuer, store), worker(issuer, store)
    alice, bob = token(issuer), token(issuer, sub="bob")
    for guard, who in ((first, alice), (second, bob)):
        assert (await post(guard, who, rpc("initialize"))).status == 200
    found = [
        (await post(guard, who, rpc("ping"), LEGACY, SESSION)).status
        for guard in (first, second)
        for who in (alice, bob)
    ]
    assert found == [200, 404, 200, 404]
    assert store.calls[:2] == ["add", "add"]


@pytest.mark.requirement("FS-2", "FS-7")
async def test_a_session_in_use_reads_the_store_once_a_minute_and_is_renewed_then(
    issuer: Issuer, store: Counting, clock: Clock
) -> None:
    guard, other = worker(issuer, store), worker(issuer, store)
    alice = token(issuer, exp=clock() + 7200)
    assert (await post(guard, alice, rpc("initialize"))).status == 200
    store.calls.clear()

    async def requests(guard: MCPAuthMiddleware, count: int) -> None:
        for _ in range(count):
            assert (await post(guard, alice, rpc("ping"), LEGACY, SESSION)).status == 200
        await anyio.sleep(0.01)

    await requests(guard, 1000)
    assert store.calls == []  # the process that bound the session
    await requests(other, 1000)
    assert store.calls == ["get_many", "touch"]
    clock.now += 61
    await requests(guard, 1000)
    assert store.calls == ["get_many", "touch"] * 2
    assert [ttl for _, _, ttl in store.written] == [IDLE_LIFETIME]


@pytest.mark.requirement("MX-10", "FS-7")
async def test_one_caller_of_many_workers_claims_an_anonymous_session(issuer: Issuer, store: Counting) -> None:
    workers = [worker(issuer, store, public_methods=["ping", "initialize"]) for _ in range(3)]
    assert (await post(workers[0], None, rpc("initialize"))).status == 200
    assert (await post(workers[1], None, rpc("ping"), LEGACY, SESSION)).status == 200
    statuses: list[tuple[int, int]] = []

    async def claim(number: int) -> None:
        who = token(issuer, sub=f"user{number % 4}")
        answer = await post(workers[number % 3], who, rpc("ping"), LEGACY, SESSION)
        statuses.append((number % 4, answer.status))

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(claim, number)
    assert len({user for user, status in statuses if status == 200}) == 1
    assert sorted(status for _, status in statuses) == [200] * 3 + [404] * 9
    for guard in workers:
        assert (await post(guard, None, rpc("ping"), LEGACY, SESSION)).status == 404


@pytest.mark.requirement("FS-3")
async def test_the_store_has_no_session_id_and_no_subject(issuer: Issuer, store: Counting) -> None:
    guard = worker(issuer, store, Replies(b"{}", mcp_session_id=b"secret-session"))
    await post(guard, token(issuer, sub="alice@example.com"), rpc("initialize"))
    [(key, value, ttl)] = store.written
    assert (len(key), len(value), ttl) == (len("session:") + 64, 64, IDLE_LIFETIME)
    assert b"alice" not in value


@pytest.mark.requirement("FS-4")
async def test_without_the_store_a_session_is_503_and_a_new_one_starts(issuer: Issuer, store: Counting) -> None:
    guard = worker(issuer, store)
    store.error = ConnectionError()
    assert (await post(guard, token(issuer), rpc("initialize"))).status == 200
    answer = await post(guard, token(issuer), rpc("ping"), LEGACY, SESSION)
    assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"1")


async def test_the_status_page_shows_the_store(issuer: Issuer, store: Counting) -> None:
    guard = worker(issuer, store)
    store.error = ConnectionError("<away>")
    await guard.auth._protection.probe_store()
    page = await send_scope(guard.auth.status_app(), http_scope("GET", "/status", []), b"")
    assert b"<h2>Shared store</h2>" in page.body
    assert b"ConnectionError: &lt;away&gt;" in page.body
    assert guard.auth.status().to_dict()["store"]["state"] == "failing"


class Closable(MemoryStore):
    def __init__(self, error: Exception | None, *, hangs: bool = False) -> None:
        super().__init__()
        self.error, self.hangs, self.closed = error, hangs, 0

    async def aclose(self) -> None:
        self.closed += 1
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error


@pytest.mark.every_loop
@pytest.mark.parametrize(
    "store", [Closable(None), Closable(OSError()), Closable(None, hangs=True)], ids=["closes", "fails", "hangs"]
)
async def test_connections_are_closed_at_the_end_of_the_lifespan(
    store: Closable, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth.stores._shared.CLOSE_SECONDS", 0.01)
    before = store.closed
    async with running(worker(issuer, store, lifespan_app)):
        assert store.closed == before
    assert store.closed == before + 1


async def lifespan_app(scope: Any, receive: Any, send: Any) -> None:
    await complete_lifespan(receive, send)


# --- the options ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("FS-9")
@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"session_binding": True}, "store", id="session_binding without a store"),
        pytest.param({"store": MemoryStore()}, "store", id="a store that nothing uses"),
        pytest.param({"store": object(), "session_binding": True}, "store", id="no store"),
        pytest.param({"store": MemoryStore, "session_binding": True}, "store", id="a class"),
        pytest.param({"session_binding": 1, "store": MemoryStore()}, "session_binding", id="no bool"),
        pytest.param({"session_store": MemoryStore()}, "session_store", id="an unknown option"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], where: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as raised:
        guarded(issuer, None, options)
    assert [problem.where for problem in raised.value.problems] == [where]
