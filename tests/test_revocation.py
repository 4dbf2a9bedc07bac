"""Watermarks, `auth.revoke`, their copies in several processes, and the end of open streams."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call, cht, http_scope, protect, send_scope, token
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import AuthInfo, ConfigurationError, MCPAuth, MCPAuthMiddleware, MemoryStore, Verified
from asgi_mcp_auth._signals import revocations as revocations_module
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._signals.watermarks import Kind, Watermark, Watermarks, decode, encode, watermark_of
from asgi_mcp_auth.config import ApiKeys, Choose
from asgi_mcp_auth.errors import Unavailable
from asgi_mcp_auth.stores import LogPage, LogStore
from asgi_mcp_auth.stores import _shared as shared_module
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio]

DAY = 86_400.0
REFUSED = (401, cht())


def revocable(issuer: Issuer, store: Any = None, app: Any = None, **options: Any) -> MCPAuthMiddleware:
    chosen = MemoryStore() if store is None else store
    return protect(issuer, app or RecordingApp(), store=chosen, revocation=True, **options)


async def ask(app: Any, raw: str) -> tuple[int, str | None]:
    answer = await call(app, headers=bearer(raw))
    return answer.status, answer.challenge


# --- watermarks, pure -----------------------------------------------------------------------------------------------


def info(issued_at: object = 100.0, **changes: Any) -> AuthInfo:
    claims = {"jti": "j1", "sid": "s1", "email": "Alice@example.com", "iat": issued_at}
    fields: dict[str, Any] = {"issuer": ISS, "subject": "alice", "client_id": "c1", "claims": claims}
    return AuthInfo(**(fields | changes))


def mark(before: float = 101.0, issuer: str = ISS, **scope: Any) -> Watermark:
    subject, client_id, session, token_id, claim = map(
        scope.get, ("subject", "client_id", "session", "token_id", "claim")
    )
    return watermark_of(issuer, subject, client_id, session, token_id, claim, before)


@pytest.mark.requirement("RV-1")
@pytest.mark.parametrize(
    ("watermark", "caller", "expected"),
    [
        pytest.param(mark(subject="alice"), info(), "subject", id="the subject"),
        pytest.param(mark(subject="alice"), info(101.0), None, id="a token of the same time"),
        pytest.param(mark(subject="alice"), info(None), "subject", id="a token without iat"),
        pytest.param(mark(subject="alice"), info("100"), "subject", id="an iat that is no number"),
        pytest.param(mark(subject="alice"), info(True), "subject", id="an iat that is a boolean"),
        pytest.param(mark(subject="alice"), info(10**400), "subject", id="an iat that is too large"),
        pytest.param(mark(subject="bob"), info(), None, id="another subject"),
        pytest.param(mark(issuer="https://other.example", subject="alice"), info(), None, id="another issuer"),
        pytest.param(mark(subject="alice", client_id="c1"), info(), "client", id="the subject's client"),
        pytest.param(mark(subject="alice", client_id="c2"), info(), None, id="another client"),
        pytest.param(mark(subject="alice", client_id="c1"), info(client_id=None), None, id="a token without client"),
        pytest.param(mark(session="s1"), info(), "session", id="the session"),
        pytest.param(mark(session="j1"), info(), None, id="a jti is no session"),
        pytest.param(mark(token_id="j1"), info(), "token", id="the token"),
        pytest.param(mark(token_id="s1"), info(), None, id="a sid is no token"),
        pytest.param(mark(token_id="j1"), info(claims={"iat": 1}), None, id="a token without jti"),
        pytest.param(mark(claim=("email", "alice@example.com")), info(), "claim", id="the claim, in another case"),
        pytest.param(mark(claim=("email", "bob@example.com")), info(), None, id="another value"),
        pytest.param(mark(claim=("mail", "alice@example.com")), info(), None, id="another claim"),
        pytest.param(
            mark(claim=("email", "5")), info(claims={"iat": 1, "email": 5}), None, id="a claim of another type"
        ),
    ],
)
def test_a_watermark_refuses_tokens_of_its_scope_that_were_issued_before(
    watermark: Watermark, caller: AuthInfo, expected: str | None
) -> None:
    watermarks = Watermarks()
    assert not len(watermarks)
    watermarks.add(watermark)
    assert watermarks.refuses(caller.revocation_keys) == expected
    watermarks.add(watermark._replace(before=50.0))  # an earlier one changes nothing
    assert watermarks.refuses(caller.revocation_keys) == expected
    assert (len(watermarks), watermarks.all(), sum(watermarks.counts().values())) == (1, [watermark], 1)
    watermarks.sweep(watermark.before)
    assert len(watermarks) == 1
    watermarks.sweep(watermark.before + 1)
    assert watermarks.is_empty
    assert watermarks.refuses(caller.revocation_keys) is None


@pytest.mark.requirement("RV-1")
@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({}, id="none"),
        pytest.param({"subject": "alice", "session": "s1"}, id="two"),
        pytest.param({"client_id": "c1"}, id="a client without subject"),
        pytest.param({"session": "s1", "client_id": "c1"}, id="a client with a session"),
        pytest.param({"subject": ""}, id="an empty subject"),
        pytest.param({"subject": "alice", "client_id": ""}, id="an empty client"),
        pytest.param({"subject": 5}, id="a number"),
        pytest.param({"claim": ("email",)}, id="a claim without value"),
        pytest.param({"claim": ("email", 5)}, id="a claim that is a number"),
        pytest.param({"claim": ("x" * 256, "y")}, id="a name that is too long"),
        pytest.param({"issuer": "", "subject": "alice"}, id="no issuer"),
    ],
)
def test_a_watermark_has_exactly_one_scope(scope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="revoke: "):
        mark(**scope)


KEYS = st.binary(min_size=16, max_size=16)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
MARKS = st.one_of(
    st.builds(Watermark, st.sampled_from([kind for kind in Kind if kind is not Kind.CLAIM]), KEYS, TIMES, st.just("")),
    st.builds(Watermark, st.just(Kind.CLAIM), KEYS, TIMES, st.text(min_size=1, max_size=60)),
)


@given(st.lists(MARKS, max_size=5))
def test_what_is_stored_can_be_read(watermarks: list[Watermark]) -> None:
    assert decode(encode(watermarks)) == watermarks


def cut(watermarks: list[Watermark], at: int) -> bytes:
    return encode(watermarks)[:at]


@given(st.binary(max_size=120) | st.builds(cut, st.lists(MARKS, max_size=3), st.integers(0, 120)))
def test_an_entry_that_is_damaged_is_an_error_and_never_a_crash(entry: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert encode(decode(entry)) == entry


@pytest.mark.parametrize("before", [float("inf"), float("nan")])
def test_an_entry_has_a_finite_time(before: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        decode(struct.pack(">c16sdB", b"u", b"k" * 16, before, 0))


@pytest.mark.requirement("FS-3")
async def test_the_store_shows_no_subject(issuer: Issuer) -> None:
    store = MemoryStore()
    app = revocable(issuer, store)
    await app.auth.revoke(issuer=ISS, subject="alice", client_id="client-7")
    await app.auth.revoke(issuer=ISS, claim=("email", "alice@example.com"))
    [log] = store._logs
    page = await store.read_from(log, "")
    for text in (b"alice", b"client-7", ISS.encode(), b"example.com"):
        assert text not in log.encode() + b"".join(page.entries)
    assert [len(entry) for entry in page.entries] == [26, 31]


# --- auth.revoke ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("RV-1")
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({"subject": "alice"}, ["t1", "t2", "t3"], id="subject"),
        pytest.param({"subject": "alice", "client_id": "c1"}, ["t1", "t2"], id="subject and client"),
        pytest.param({"session": "s1"}, ["t1", "t4"], id="session"),
        pytest.param({"token_id": "t2"}, ["t2"], id="token"),
        pytest.param({"claim": ("email", "bob@example.com")}, ["t4"], id="claim"),
        pytest.param({"subject": "carol"}, [], id="another subject"),
    ],
)
async def test_revoke_refuses_cached_and_new_tokens_of_its_scope(
    scope: dict[str, Any], expected: list[str], issuer: Issuer, clock: Clock
) -> None:
    app = revocable(issuer)
    tokens = {
        "t1": token(issuer, jti="t1", sid="s1"),
        "t2": token(issuer, jti="t2"),
        "t3": token(issuer, jti="t3", client_id="c2"),
        "t4": token(issuer, jti="t4", sub="bob", sid="s1", email="bob@example.com"),
    }
    clock.now += 1
    cached = [await ask(app, raw) for raw in tokens.values()]
    assert [status for status, _ in cached] == [200] * 4
    await app.auth.revoke(issuer=ISS, **scope)
    assert [name for name, raw in tokens.items() if await ask(app, raw) == REFUSED] == expected
    again = revocable(issuer, app.auth._builder.options["store"])  # another process, which has no cached token
    assert [name for name, raw in tokens.items() if await ask(again, raw) == REFUSED] == expected


@pytest.mark.requirement("RV-1")
async def test_a_new_login_passes(issuer: Issuer, clock: Clock) -> None:
    app = revocable(issuer)
    old = token(issuer, iat=int(clock()) - 1)
    await app.auth.revoke(issuer=ISS, subject="alice")
    new = token(issuer, iat=int(clock()) + 1)
    assert [await ask(app, old), (await ask(app, new))[0]] == [REFUSED, 200]
    await app.auth.revoke(issuer=ISS, subject="alice", before=clock() + 2)
    assert await ask(app, new) == REFUSED


@pytest.mark.requirement("RV-1")
async def test_one_token_is_revoked_although_the_clock_of_its_issuer_is_ahead(issuer: Issuer, clock: Clock) -> None:
    app = revocable(issuer)
    raw = token(issuer, iat=int(clock()) + 20, jti="t1")
    await app.auth.revoke(issuer=ISS, token_id="t1")
    assert await ask(app, raw) == REFUSED


@pytest.mark.requirement("RV-1")
async def test_a_revocation_outlives_every_token_that_it_refuses(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_module, "SWEEP_SECONDS", -1.0)
    monkeypatch.setattr(revocations_module, "WAIT", 0.001)
    app = revocable(issuer, MemoryStore(clock=clock), max_token_lifetime=3600)
    iat = int(clock())
    raw = token(issuer, iat=iat, exp=iat + 3600)
    clock.now += 1
    await app.auth.revoke(issuer=ISS, subject="alice")
    revocations = app.auth._protection.revocations
    assert revocations is not None
    for passed in (0, 3599, 3629):  # the leeway is 30 s
        clock.now = iat + passed + 0.5
        await revocations._follow_once()
        assert await ask(app, raw) == REFUSED
    clock.now = iat + 3630
    assert await ask(app, raw) == (401, cht("The access token expired"))
    clock.now = iat + 3600 + 700
    await revocations._follow_once()
    assert revocations.watermarks.is_empty


@pytest.mark.requirement("RV-1")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"exp": 1_800_003_600}, 200, id="as long as allowed"),
        pytest.param({"exp": 1_800_003_601}, 401, id="a second longer"),
        pytest.param({"iat": ...}, 401, id="without iat"),
    ],
)
async def test_tokens_that_outlive_a_revocation_are_refused(
    changes: dict[str, Any], status: int, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    app = revocable(issuer, max_token_lifetime=3600)
    answer = await call(app, headers=bearer(issuer.mint(R, typ="JWT", scope="mcp:read", **changes)))
    assert answer.status == status
    reasons = [vars(record)["reason"] for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    assert reasons == ([] if status == 200 else ["token_lifetime_too_long"])
    unlimited = protect(issuer, RecordingApp())
    answer = await call(unlimited, headers=bearer(issuer.mint(R, typ="JWT", scope="mcp:read", **changes)))
    assert answer.status == 200


class Fixed:
    """A verifier of the user's own."""

    def __init__(self, found: AuthInfo) -> None:
        self.found = found

    async def verify(self, credential: object, request: object) -> Verified:
        return Verified(self.found)


@pytest.mark.requirement("RV-1")
async def test_identities_of_other_verifiers_need_a_lifetime_too(issuer: Issuer, clock: Clock) -> None:
    now = clock()
    fields: dict[str, Any] = {"issuer": "https://own.example", "subject": "alice", "scopes": ["mcp:read"]}
    known = AuthInfo(**fields, expires_at=now + 60, claims={"iat": now - 1})
    for found, status in ((known, 200), (AuthInfo(**fields), 401), (known.replace(claims={}), 401)):
        app = revocable(issuer, verifier=Fixed(found))
        assert (await ask(app, "opaque"))[0] == status
    app = revocable(issuer, verifier=Fixed(known))
    await app.auth.revoke(issuer="https://own.example", subject="alice")  # an issuer that no list can name
    assert (await ask(app, "opaque"))[0] == 401


@pytest.mark.requirement("RV-1")
@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        pytest.param({"issuer": "https://other.example"}, ValueError, "no resource trusts", id="a foreign issuer"),
        pytest.param({"issuer": "urn:asgi-mcp-auth:api-key"}, ValueError, "no resource trusts", id="API keys"),
        pytest.param({"before": float("inf")}, ValueError, "before", id="for ever"),
        pytest.param({"before": float("nan")}, ValueError, "before", id="no time"),
        pytest.param({"before": 1_800_000_301.0}, ValueError, "before", id="far ahead"),
        pytest.param({"session": "s1"}, ValueError, "exactly one", id="two scopes"),
    ],
)
async def test_revoke_refuses_what_would_have_no_effect(
    changes: dict[str, Any], error: type[Exception], text: str, issuer: Issuer
) -> None:
    app = revocable(issuer)
    scope: dict[str, Any] = {"issuer": ISS, "subject": "alice"}
    with pytest.raises(error, match=text):
        await app.auth.revoke(**(scope | changes))
    assert app.auth.status().revocation is not None


async def test_revoke_needs_revocation(issuer: Issuer) -> None:
    with pytest.raises(RuntimeError, match="revocation=True"):
        await protect(issuer, RecordingApp()).auth.revoke(issuer=ISS, subject="alice")


async def test_the_names_of_claims_are_bounded(issuer: Issuer) -> None:
    app = revocable(issuer)
    for number in range(16):
        await app.auth.revoke(issuer=ISS, claim=(f"c{number}", "x"))
    with pytest.raises(ValueError, match="16 claims"):
        await app.auth.revoke(issuer=ISS, claim=("another", "x"))
    await app.auth.revoke(issuer=ISS, claim=("c0", "y"))


@pytest.mark.requirement("RV-1", "FS-4")
async def test_the_number_of_revocations_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations_module, "MAX_WATERMARKS", 2)
    app = revocable(issuer)
    await app.auth.revoke(issuer=ISS, subject="alice")
    await app.auth.revoke(issuer=ISS, subject="bob")
    with pytest.raises(Unavailable):
        await app.auth.revoke(issuer=ISS, subject="carol")
    assert (await ask(app, token(issuer, sub="dave")))[0] == 200


class NoLogs:
    """A `Store` without logs."""

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return [None for _ in keys]

    async def put(self, key: str, value: bytes, ttl: float) -> None: ...
    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None: ...
    async def touch(self, key: str, ttl: float) -> bool:
        return False

    async def delete(self, key: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"revocation": True}, "store", id="no store"),
        pytest.param({"revocation": True, "store": NoLogs()}, "store", id="a store without logs"),
        pytest.param({"revocation": "yes", "store": MemoryStore()}, "revocation", id="no bool"),
        pytest.param({"max_token_lifetime": 59}, "max_token_lifetime", id="a short lifetime"),
        pytest.param({"max_token_lifetime": 3_000_000}, "max_token_lifetime", id="a long lifetime"),
        pytest.param({"revocation_stale_if_error": -1}, "revocation_stale_if_error", id="a negative time"),
    ],
)
def test_configuration(options: dict[str, Any], where: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as raised:
        protect(issuer, RecordingApp(), **options)
    assert [problem.where for problem in raised.value.problems] == [where]


def test_api_keys_are_no_tokens(issuer: Issuer, tmp_path: Any) -> None:
    """They have neither iat nor an end, and are revoked in their file."""
    file = tmp_path / "keys"
    file.write_text("")
    auth: MCPAuth = revocable(issuer, verifier=Choose(keys=ApiKeys(file=str(file)))).auth
    revocations = auth._protection.revocations
    assert revocations is not None
    assert revocations.refuse(AuthInfo(issuer="urn:asgi-mcp-auth:api-key", subject="ci")) is None


# --- replication ----------------------------------------------------------------------------------------------------


class Flaky(MemoryStore):
    """Counts reads, and fails on demand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fails = False
        self.reads = 0

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if self.fails:
            raise ConnectionError("away")
        return await super().get_many(keys)

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        if self.fails:
            raise ConnectionError("away")
        return await super().append(log, value, ttl)

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        self.reads += 1
        if self.fails:
            raise ConnectionError("away")
        return await super().read_from(log, position, limit=limit, wait=wait)


def copy_of(store: LogStore, clock: Clock, monotonic: Clock, **changes: Any) -> Revocations:
    settings: dict[str, Any] = {"clock": clock, "max_token_lifetime": DAY, "stale_if_error": 300.0}
    return Revocations(
        StoreUse(SharedStore(store, None, monotonic), Use.REVOCATION), monotonic=monotonic, **(settings | changes)
    )


async def until(condition: Any, seconds: float = 1.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - of any object
            await anyio.sleep(0.01)


@pytest.mark.every_loop
@pytest.mark.requirement("RV-2")
async def test_a_revocation_reaches_another_process(issuer: Issuer, clock: Clock) -> None:
    store = MemoryStore()
    one, other = revocable(issuer, store), revocable(issuer, store)
    raw = token(issuer)
    clock.now += 1
    assert [(await ask(app, raw))[0] for app in (one, other)] == [200, 200]
    await one.auth.revoke(issuer=ISS, subject="alice")
    assert await ask(one, raw) == REFUSED  # at once
    revocations = other.auth._protection.revocations
    assert revocations is not None
    await until(lambda: not revocations.watermarks.is_empty)
    assert await ask(other, raw) == REFUSED


@pytest.mark.requirement("RV-2", "FS-2")
async def test_requests_do_not_wait_for_the_store(issuer: Issuer) -> None:
    store = Flaky()
    app = revocable(issuer, store)
    assert (await ask(app, token(issuer)))[0] == 200
    reads = store.reads
    for _ in range(200):
        await ask(app, token(issuer))
    assert store.reads - reads <= 3  # those of the process, not of the requests


@pytest.mark.requirement("RV-2", "FS-4")
async def test_the_last_known_state_is_used_for_a_limited_time(clock: Clock) -> None:
    store, monotonic = Flaky(), Clock(0.0)
    revocations = copy_of(store, clock, monotonic)
    store.fails = True
    refused = await revocations.catch_up()  # no state at all
    assert refused is not None
    assert (refused.status, refused.reason) == (503, "store_unavailable")
    assert not revocations.is_usable
    store.fails = False
    monotonic.now += 2
    assert await revocations.catch_up() is None
    assert revocations.is_current()
    store.fails = True
    monotonic.now += 5
    assert not revocations.is_current()
    assert await revocations.catch_up() is None
    monotonic.now += 295
    assert await revocations.catch_up() is None
    assert revocations.status().age == 300
    monotonic.now += 0.1
    assert await revocations.catch_up() is not None
    store.fails = False
    monotonic.now += 2
    assert await revocations.catch_up() is None
    assert revocations.status().age == 0


@pytest.mark.requirement("RV-2", "FS-4", "FS-5")
async def test_a_server_starts_without_its_store_and_says_so(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(revocations_module, "RETRY", 0.05)
    store = Flaky()
    store.fails = True
    app = revocable(issuer, store)
    ready = app.auth.readiness_app()
    assert (await call(ready)).json() == {"ready": False, "unavailable": [ISS, "the store"]}
    answer = await call(app, headers=bearer(token(issuer)))
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    status = app.auth.status()
    assert status.revocation is not None
    assert (status.ready, status.revocation.age, status.revocation.usable) == (False, None, False)
    store.fails = False
    await until(lambda: app.auth.status().ready, 4)
    assert (await ask(app, token(issuer)))[0] == 200
    assert (await call(ready)).status == 200


@pytest.mark.requirement("RV-2", "FS-4")
async def test_an_outage_leaves_a_process_ready_while_it_can_answer(issuer: Issuer) -> None:
    store = Flaky()
    app = revocable(issuer, store)
    raw = token(issuer)
    assert (await ask(app, raw))[0] == 200
    store.fails = True
    with pytest.raises(Unavailable):
        await app.auth.revoke(issuer=ISS, subject="alice")
    assert (await call(app.auth.readiness_app())).status == 200
    assert (await ask(app, raw))[0] == 200
    page = (await call(app.auth.status_app(), "GET")).body.decode()
    assert "<h2>Revocations</h2>" in page
    assert "<p>Age: 0 s.</p>" in page
    status = app.auth.status()
    assert status.store is not None
    assert (status.ready, status.store.state) == (True, "failing")


@pytest.mark.requirement("RV-2")
async def test_a_log_that_the_store_lost_is_restored_once(clock: Clock) -> None:
    store, monotonic = MemoryStore(), Clock(0.0)
    one, other = copy_of(store, clock, monotonic), copy_of(store, clock, monotonic)
    for number in range(3):
        await one.revoke([mark(before=clock(), subject=f"s{number}")])
    for process in (one, other):
        await process._follow_once()
    assert len(other.watermarks) == 3
    store._logs.clear()  # a restart without persistence
    await store.put("x", b"", 1)
    late = copy_of(store, clock, monotonic)
    for process in (one, other, late, one, other, late):
        monotonic.now += 1
        await process._read(0.0)
        if process._lost:
            await process._restore()
    assert len(late.watermarks) == 3
    [log] = store._logs.values()
    assert [len(decode(entry.value)) for entry in log._entries] == [3]
    assert not one._lost
    assert not other._lost


async def test_an_entry_that_cannot_be_read_does_not_stop_the_others(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    revocations = copy_of(store, clock, Clock(0.0))
    await store.append(revocations._log, b"garbage", 60)
    await revocations.revoke([mark(before=clock(), subject="alice")])
    other = copy_of(store, clock, Clock(0.0))
    await other._follow_once()
    assert len(other.watermarks) == 1
    assert "cannot be read" in caplog.text


async def test_a_long_log_is_read_to_its_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations_module, "PAGE", 10)
    store = MemoryStore()
    one, other = copy_of(store, clock, Clock(0.0)), copy_of(store, clock, Clock(0.0))
    for number in range(35):
        await one.revoke([mark(before=clock(), subject=f"s{number}")])
    await other._follow_once()
    assert len(other.watermarks) == 35


# --- open streams ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_request(app: Any, scope: Any, messages: list[Any], started: str) -> AsyncGenerator[None]:
    """Run a request in the background, until it has sent its first message and until the block ends."""

    async def receive() -> Any:
        if scope["type"] == "websocket" and not received:
            received.append(True)
            return {"type": "websocket.connect"}
        if scope["type"] == "http" and not received:
            received.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        messages.append(message)

    received: list[bool] = []
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope, receive, send)
        await until(lambda: any(message["type"] == started for message in messages))
        yield
        group.cancel_scope.cancel()


def streams(half: bool) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1" + b"\n\n" * (not half), "more_body": True})
        await anyio.sleep_forever()

    return app


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await anyio.sleep_forever()


@pytest.mark.every_loop
@pytest.mark.requirement("RV-3")
@pytest.mark.parametrize(
    ("method", "half"),
    [
        pytest.param("GET", False, id="GET"),
        pytest.param("POST", False, id="POST"),
        pytest.param("GET", True, id="within an event"),
    ],
)
async def test_a_stream_of_a_revoked_caller_ends_within_a_second_in_every_process(
    method: str, half: bool, issuer: Issuer, clock: Clock
) -> None:
    store = MemoryStore()
    one, other = revocable(issuer, store), revocable(issuer, store, streams(half))
    raw, bobs = token(issuer), token(issuer, sub="bob")
    clock.now += 1
    messages: list[Any] = []
    bob: list[Any] = []
    async with (
        open_request(other, http_scope(method, "/mcp", bearer(raw)), messages, "http.response.body"),
        open_request(other, http_scope(method, "/mcp", bearer(bobs)), bob, "http.response.body"),
    ):
        await one.auth.revoke(issuer=ISS, subject="alice")
        await until(lambda: not messages[-1].get("more_body", True), 1.0)
        assert len(bob) == 2
    assert messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    revocations = other.auth._protection.revocations
    assert revocations is not None
    assert not any(streams_of.open for streams_of in [revocations._streams.get()])


@pytest.mark.every_loop
@pytest.mark.requirement("RV-3")
async def test_a_websocket_of_a_revoked_caller_is_closed_within_a_second(issuer: Issuer, clock: Clock) -> None:
    store = MemoryStore()
    one, other = revocable(issuer, store), revocable(issuer, store, websocket)
    raw = token(issuer)
    clock.now += 1
    messages: list[Any] = []
    scope = {**http_scope("GET", "/mcp", bearer(raw)), "type": "websocket", "scheme": "wss"}
    async with open_request(other, scope, messages, "websocket.accept"):
        await one.auth.revoke(issuer=ISS, subject="alice")
        await until(lambda: messages[-1]["type"] == "websocket.close", 1.0)
    assert messages[-1] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "The access token was revoked",
    }


@pytest.mark.requirement("RV-3")
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_streams_of_other_verifiers_end_too(kind: str, issuer: Issuer, clock: Clock) -> None:
    """Such a verifier need not say until when its credential is valid."""
    found = AuthInfo(
        issuer=ISS, subject="alice", scopes=["mcp:read"], expires_at=clock() + 60, claims={"iat": clock() - 1}
    )
    app = revocable(issuer, None, websocket if kind == "websocket" else streams(False), verifier=Fixed(found))
    scope = {**http_scope("GET", "/mcp", bearer("opaque")), "type": kind}
    messages: list[Any] = []
    async with open_request(app, scope, messages, "websocket.accept" if kind == "websocket" else "http.response.body"):
        await app.auth.revoke(issuer=ISS, subject="alice")
        await until(lambda: messages[-1].get("more_body") is False or messages[-1]["type"] == "websocket.close", 1.0)
    revocations = app.auth._protection.revocations
    assert revocations is not None
    assert not revocations._streams.get().open


@pytest.mark.requirement("RV-3")
async def test_a_stream_that_ends_is_forgotten(issuer: Issuer) -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    app = revocable(issuer, None, short)
    await send_scope(app, http_scope("GET", "/mcp", bearer(token(issuer))))
    revocations = app.auth._protection.revocations
    assert revocations is not None
    found = revocations._streams.get()
    assert not found.open
    await until(lambda: not found.is_watched)
