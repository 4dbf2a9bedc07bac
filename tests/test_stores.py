"""`stores`: a bounded store on both event loops, and a revocation list over any store (RS-88)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from harness import ISS, Clock

from asgi_mcp_auth import AuthInfo, MemoryStore, Principal, RevocationList, Store

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


async def test_a_value_lasts_for_its_time(clock: Clock) -> None:
    store: Store = MemoryStore(clock=clock)
    assert await store.get("a") is None
    await store.put("a", b"1", 10)
    assert await store.get("a") == b"1"
    clock.now += 9.9
    assert await store.get("a") == b"1"
    clock.now += 0.1
    assert await store.get("a") is None
    clock.now -= 5
    assert await store.get("a") is None


async def test_a_value_is_replaced_with_its_time(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    await store.put("a", b"1", 10)
    clock.now += 8
    await store.put("a", b"2", 10)
    clock.now += 8
    assert await store.get("a") == b"2"
    await store.put("a", b"3", 1)
    clock.now += 1
    assert await store.get("a") is None


@pytest.mark.parametrize("now", [0.0, -100.0, 1.8e9])
async def test_any_clock_will_do(now: float) -> None:
    """Only differences count: the zero of a monotonic clock is undefined."""
    store = MemoryStore(clock=Clock(now))
    assert await store.get("never written") is None
    await store.put("a", b"", 10)
    assert await store.get("a") == b""
    assert await store.add_if_absent("b", 10) is True


@pytest.mark.parametrize("ttl", [0, -1])
async def test_no_time_is_no_entry(clock: Clock, ttl: float) -> None:
    store = MemoryStore(clock=clock)
    await store.put("a", b"1", ttl)
    assert await store.get("a") is None
    assert await store.add_if_absent("b", ttl) is True
    assert await store.add_if_absent("b", ttl) is True


async def test_add_if_absent(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    assert await store.add_if_absent("a", 10) is True
    assert await store.add_if_absent("a", 10) is False
    assert await store.add_if_absent("b", 10) is True
    clock.now += 9
    assert await store.add_if_absent("a", 10) is False  # and does not prolong
    clock.now += 1
    assert await store.add_if_absent("a", 10) is True
    await store.put("c", b"", 10)
    assert await store.add_if_absent("c", 10) is False


async def test_add_if_absent_is_atomic() -> None:
    store = MemoryStore()
    won: list[int] = []

    async def add(index: int) -> None:
        if await store.add_if_absent("once", 60):
            won.append(index)

    async with anyio.create_task_group() as group:
        for index in range(50):
            group.start_soon(add, index)
    assert len(won) == 1


async def test_bounded(clock: Clock) -> None:
    store = MemoryStore(3, clock=clock)
    for key in "abcd":
        await store.put(key, key.encode(), 10)
    assert [await store.get(key) for key in "abcd"] == [None, b"b", b"c", b"d"]
    await store.put("b", b"again", 10)
    await store.put("e", b"e", 10)
    assert [await store.get(key) for key in "abcde"] == [None, b"again", None, b"d", b"e"]
    for number in range(1000):
        await store.add_if_absent(str(number), 10)
    assert len(vars(store)["_entries"]) == 3


async def test_a_full_store_may_be_written_again(clock: Clock) -> None:
    store = MemoryStore(2, clock=clock)
    await store.put("a", b"1", 10)
    await store.put("b", b"1", 10)
    await store.put("a", b"2", 10)
    assert [await store.get(key) for key in "ab"] == [b"2", b"1"]


# --- RevocationList -------------------------------------------------------------------------------------------------

Revoke = Callable[[RevocationList], Awaitable[None]]
ALICE = Principal(issuer=ISS, subject="alice", client_id="c1")


def caller(**changes: Any) -> AuthInfo:
    claims = {"jti": "j1", "sid": "s1"}
    fields: dict[str, Any] = {"issuer": ISS, "subject": "alice", "client_id": "c1", "claims": claims}
    return AuthInfo(**(fields | changes))


def by_token(token_id: str, issuer: str = ISS) -> Revoke:
    return lambda revocations: revocations.revoke_token(issuer, token_id, ttl=60)


def by_session(session_id: str, issuer: str = ISS) -> Revoke:
    return lambda revocations: revocations.revoke_session(issuer, session_id, ttl=60)


def by_principal(principal: Principal) -> Revoke:
    return lambda revocations: revocations.revoke_principal(principal, ttl=60)


@pytest.mark.parametrize(
    ("revoke", "info", "expected"),
    [
        pytest.param(by_token("j1"), caller(), True, id="RS-88 this token"),
        pytest.param(by_token("j2"), caller(), False, id="RS-88 another token"),
        pytest.param(by_token("j1", "https://other.example"), caller(), False, id="RS-88 another issuer's token"),
        pytest.param(by_token("s1"), caller(), False, id="RS-88 a jti is not a sid"),
        pytest.param(by_session("s1"), caller(), True, id="RS-88 this session"),
        pytest.param(by_session("j1"), caller(), False, id="RS-88 a sid is not a jti"),
        pytest.param(by_session("s1", "https://other.example"), caller(), False, id="RS-88 another issuer's session"),
        pytest.param(by_principal(ALICE), caller(), True, id="RS-88 this principal"),
        pytest.param(by_principal(ALICE), caller(claims={}), True, id="RS-88 this principal without jti and sid"),
        pytest.param(by_principal(ALICE), caller(client_id="c2"), False, id="RS-87 RS-88 another client"),
        pytest.param(by_principal(ALICE), caller(issuer="https://o.example"), False, id="RS-87 RS-88 another issuer"),
        pytest.param(by_token("j1"), caller(claims={}), False, id="RS-88 a token without jti"),
    ],
)
async def test_revocation(revoke: Revoke, info: AuthInfo, expected: bool, clock: Clock) -> None:
    revocations = RevocationList(MemoryStore(clock=clock))
    assert await revocations(info) is False
    await revoke(revocations)
    assert await revocations(info) is expected
    clock.now += 60
    assert await revocations(info) is False


class BrokenStore:
    """A store whose server is away."""

    async def get(self, key: str) -> bytes | None:
        raise ConnectionError

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        raise ConnectionError

    async def add_if_absent(self, key: str, ttl: float) -> bool:
        raise ConnectionError


async def test_a_store_that_fails_is_no_pass() -> None:
    """RS-88: the error goes to the middleware, which answers 503."""
    with pytest.raises(ConnectionError):
        await RevocationList(BrokenStore())(caller())
