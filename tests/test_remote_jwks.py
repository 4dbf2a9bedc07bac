"""The living key set: when it is fetched, what it survives, and that it never believes too long."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from harness import EXPIRED, INVALID, ISS, Answer, Clock, RecordingApp, bearer, call, cht, protect, token

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    Verified,
)
from asgi_mcp_auth._keys import background as tasks
from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth._verify.token_cache import Entry, TokenCache
from asgi_mcp_auth.errors import InvalidToken, Unavailable
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

DISCOVERY = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
FRESH = 60.0  # the testing issuer says no-store, which is clamped to a minute
AHEAD = 54.0  # refreshed a tenth before its end
STALE = 86_400.0


class Upstream(httpx.AsyncBaseTransport):
    """The way to an issuer: it can be cut, held, or made to answer something else."""

    def __init__(self, issuer: Issuer) -> None:
        self._inner = httpx.ASGITransport(app=issuer)
        self._clock = issuer.clock
        self.down = False
        self.gate: anyio.Event | None = None
        self.delay = 0.0
        self.instead: dict[str, httpx.Response] = {}
        self.asked: list[tuple[float, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((self._clock(), path))
        given = self.instead.get(path)  # as of when the request arrived
        if self.gate is not None:
            await self.gate.wait()
        await anyio.sleep(self.delay)
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        if given is not None:
            headers = [(k, v) for k, v in given.headers.items() if k not in ("content-length", "transfer-encoding")]
            return httpx.Response(given.status_code, headers=headers, stream=httpx.ByteStream(given.content))
        return await self._inner.handle_async_request(request)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self)

    @property
    def paths(self) -> list[str]:
        return [path for _, path in self.asked]


@pytest.fixture
def upstream(issuer: Issuer) -> Upstream:
    return Upstream(issuer)


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.random.random", lambda: 0.0)


def quick(issuer: Issuer, **changes: Any) -> str:
    """A good token whose signature is cheap to make."""
    return token(issuer, **({"key": issuer.keys[2]} | changes))


def status_of(answer: Answer) -> tuple[int, str | None]:
    """The status, and the challenge or the Retry-After."""
    assert (answer.challenge is None) or (answer.header("retry-after") is None)
    return answer.status, answer.challenge or answer.header("retry-after")


PASSED = (200, None)
REFUSED = (401, cht(INVALID))


async def ask(guarded: Any, raw: str, **more: Any) -> tuple[int, str | None]:
    return status_of(await call(guarded, headers=bearer(raw), **more))


# --- One fetch for everybody ---


@pytest.mark.requirement("DC-7")
@pytest.mark.every_loop
async def test_500_cold_requests_share_one_fetch(issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    tokens = [quick(issuer, sub=f"u{n}") for n in range(500)]
    answers: list[tuple[int, str | None]] = []
    upstream.gate = anyio.Event()

    async def one(raw: str) -> None:
        answers.append(await ask(guarded, raw))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for raw in tokens:
                group.start_soon(one, raw)
            await anyio.wait_all_tasks_blocked()
            assert (answers, upstream.paths) == ([], [DISCOVERY])
            upstream.gate.set()
    assert answers == [PASSED] * 500
    assert issuer.requests == {DISCOVERY: 1, "/jwks": 1}


@pytest.mark.requirement("DC-7", "DC-9")
async def test_nothing_is_fetched_before_it_is_needed(issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert (await call(guarded)).status == 401
    assert (await ask(guarded, "abc")) == REFUSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == []


@pytest.mark.requirement("DC-7")
@pytest.mark.every_loop
@pytest.mark.parametrize("who", ["first", "second", "all"])
async def test_a_cancelled_waiter_does_not_disturb_the_others(who: str, issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.gate = anyio.Event()
    scopes = [anyio.CancelScope() for _ in range(3)]
    answers: dict[int, tuple[int, str | None]] = {}

    async def one(n: int) -> None:
        with scopes[n]:
            answers[n] = await ask(guarded, quick(issuer, sub=f"u{n}"))

    cancelled = {"first": {0}, "second": {1}, "all": {0, 1, 2}}[who]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(one, n)
                await anyio.wait_all_tasks_blocked()
            for n in cancelled:
                scopes[n].cancel()
            await anyio.wait_all_tasks_blocked()
            upstream.gate.set()
            await anyio.wait_all_tasks_blocked()
        assert await ask(guarded, quick(issuer)) == PASSED
    assert answers == dict.fromkeys({0, 1, 2} - cancelled, PASSED)
    assert upstream.paths == [DISCOVERY, "/jwks"]


@pytest.mark.requirement("RS-6")
@pytest.mark.every_loop
async def test_all_waiters_get_the_error(issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.gate, upstream.down = anyio.Event(), True
    answers: list[tuple[int, str | None]] = []

    async def one() -> None:
        answers.append(await ask(guarded, quick(issuer)))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            upstream.gate.set()
    assert answers == [(503, "1")] * 20
    assert upstream.paths == [DISCOVERY, OPENID]


# --- Unknown kids and rotation ---


@pytest.mark.requirement("DC-10", "RS-77")
async def test_unknown_kid(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    start = clock.now
    assert await ask(guarded, quick(issuer)) == PASSED
    # (seconds after the first fetch, key-set requests so far)
    for after, fetches in [(0, 2), (0.1, 3), (0.2, 3), (29.8, 3), (30, 4), (31, 4), (59, 4), (60, 5), (89, 5), (90, 6)]:
        clock.now = start + after
        bogus = quick(issuer, header={"kid": f"bogus-{after}"}, iat=int(start) - 3600)
        assert await ask(guarded, bogus) == REFUSED
        await anyio.wait_all_tasks_blocked()
        assert issuer.requests["/jwks"] == fetches, after
    assert issuer.requests[DISCOVERY] == 1


@pytest.mark.requirement("DC-10", "RS-77")
@pytest.mark.every_loop
async def test_a_flood_of_unknown_kids_is_one_request(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == PASSED
    old = int(clock.now) - 3600
    bogus = [quick(issuer, header={"kid": f"bogus-{n}"}, iat=old) for n in range(100)]
    answers: list[tuple[int, str | None]] = []

    async def one(raw: str) -> None:
        answers.append(await ask(guarded, raw))

    async with anyio.create_task_group() as group:
        for raw in bogus:
            group.start_soon(one, raw)
    assert answers == [REFUSED] * 100
    assert issuer.requests["/jwks"] == 2


@pytest.mark.requirement("RS-77")
@pytest.mark.every_loop
async def test_a_cold_flood_of_unknown_kids_is_one_request(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    answers: list[tuple[int, str | None]] = []

    async def one(n: int) -> None:
        answers.append(await ask(guarded, quick(issuer, header={"kid": f"bogus-{n}"}, iat=int(clock.now) - 3600)))

    async with anyio.create_task_group() as group:
        for n in range(100):
            group.start_soon(one, n)
    assert answers == [REFUSED] * 100
    assert upstream.paths == [DISCOVERY, "/jwks"]


@pytest.mark.requirement("DC-10", "RS-77")
@pytest.mark.parametrize("keep", [True, False])
async def test_a_new_key_passes_on_its_first_request(keep: bool, issuer: Issuer, upstream: Upstream) -> None:
    """Also right after an ordinary fetch, and twice: the bucket holds two."""
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, token(issuer)) == PASSED
    for _ in range(2):
        issuer.rotate(keep=keep)
        assert await ask(guarded, token(issuer)) == PASSED
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks", "/jwks"]
    issuer.rotate(keep=keep)
    assert await ask(guarded, token(issuer)) == (503, "30")


@pytest.mark.parametrize(
    ("issued", "expected"),
    [
        pytest.param(10, (503, "20"), id="RS-77 newer than the fetch"),
        pytest.param(0, (503, "20"), id="RS-77 as old as the fetch"),
        pytest.param(-29, (503, "20"), id="RS-77 older, within the leeway"),
        pytest.param(-30, REFUSED, id="RS-77 older than the fetch minus leeway"),
        pytest.param(-3600, REFUSED, id="RS-77 much older"),
        pytest.param(..., REFUSED, id="RS-77 no iat"),
        pytest.param("now", REFUSED, id="RS-77 iat that is no number"),
        pytest.param(True, REFUSED, id="RS-77 iat that is a boolean"),
        pytest.param(10**400, REFUSED, id="RS-77 iat beyond a float"),
    ],
)
async def test_unknown_kids_when_no_fetch_is_allowed(
    issued: Any, expected: tuple[int, str], issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    start = int(clock.now)
    assert await ask(guarded, token(issuer)) == PASSED
    for n in range(2):  # uses up the bucket
        assert await ask(guarded, quick(issuer, header={"kid": f"bogus-{n}"}, iat=start - 3600)) == REFUSED
    fetches = [DISCOVERY, "/jwks", "/jwks", "/jwks"]
    clock.now += 10
    issuer.rotate()
    iat = start + issued if type(issued) is int and abs(issued) < 10**6 else issued
    fresh = token(issuer, iat=iat)
    assert await ask(guarded, fresh) == expected
    assert upstream.paths == fetches
    clock.now += 20
    if expected[0] == 503:
        assert await ask(guarded, fresh) == PASSED
        assert upstream.paths == [*fetches, "/jwks"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"use": "enc"}, "not_for_signatures", id="RS-77 use: enc"),
        pytest.param({"key_ops": ["sign"]}, "not_for_signatures", id="RS-77 key_ops"),
        pytest.param({"alg": "none"}, "unsupported_algorithm", id="RS-77 alg: none"),
        pytest.param({"x": "AAAA"}, "invalid", id="RS-77 malformed"),
        pytest.param({"crv": "P-224"}, "unsupported_algorithm", id="RS-77 unsupported curve"),
        pytest.param({"kty": "XYZ"}, "unsupported_type", id="RS-77 unsupported type"),
        pytest.param({"d": "AAAA"}, "private", id="RS-77 private"),
        pytest.param(SigningKey("RS256", bits=1024).jwk, "weak", id="RS-77 weak"),
    ],
)
async def test_a_kid_that_is_published_but_unusable_is_401_at_once(  # noqa: PLR0917 - fixtures
    change: dict[str, Any],
    reason: str,
    issuer: Issuer,
    upstream: Upstream,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    published = SigningKey("ES256", kid="listed")
    bad = published.jwk | change | {"kid": "listed"}
    upstream.instead["/jwks"] = httpx.Response(200, json={"keys": [*issuer.jwks()["keys"], bad]})
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == PASSED
    caplog.clear()
    for _ in range(5):
        clock.now += 1
        assert await ask(guarded, token(issuer, key=published, iat=int(clock.now))) == REFUSED
    assert upstream.paths == [DISCOVERY, "/jwks"]
    refused = [record for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    assert {vars(record)["reason"] for record in refused} == {"key_mismatch"}
    assert all(reason in vars(record)["found"] for record in refused)


async def test_unknown_kids_are_kept_as_hashes(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    keys = living(issuer, upstream.client)
    await keys.warm_up()
    for n in range(3):
        with pytest.raises(InvalidToken):
            await select(keys, f"{n}" * 10_000, "RS256")
        clock.now += 30
    held = keys._unknown_kids._entries  # pyright: ignore[reportPrivateUsage]
    assert [len(digest) for digest in held] == [32]  # of the newest key set


@pytest.mark.requirement("RS-77")
@pytest.mark.every_loop
async def test_a_good_token_of_a_key_newer_than_the_fetch_under_way_is_never_401(
    issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, token(issuer)) == PASSED
    upstream.gate = anyio.Event()
    upstream.instead["/jwks"] = httpx.Response(200, json=issuer.jwks())  # written before the rotation
    answers: dict[str, tuple[int, str | None]] = {}
    rotated = SigningKey("ES256")
    good = token(issuer, key=rotated)

    async def one(name: str, raw: str) -> None:
        answers[name] = await ask(guarded, raw)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for n in range(50):
                bogus = quick(issuer, header={"kid": f"bogus-{n}"}, iat=int(clock.now) - 3600)
                group.start_soon(one, f"bogus-{n}", bogus)
            await anyio.wait_all_tasks_blocked()
            upstream.instead.clear()
            issuer.keys.append(rotated)
            group.start_soon(one, "good", good)
            await anyio.wait_all_tasks_blocked()
            upstream.gate.set()
    assert answers == {**{f"bogus-{n}": REFUSED for n in range(50)}, "good": PASSED}
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks", "/jwks"]


@pytest.mark.requirement("RS-73")
async def test_an_unknown_issuer_costs_nothing(issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    issuers: list[Any] = [issuer.url + "/", "https://evil.example", "https://AUTH.example.com", ["x"], None, 5, ...]
    for claimed in issuers:
        assert await ask(guarded, quick(issuer, iss=claimed)) == REFUSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == []


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"alg": "none"}, id="RS-71 none"),
        pytest.param({"alg": "HS256"}, id="RS-71 HS256"),
        pytest.param({"typ": "dpop+jwt"}, id="RS-74 typ"),
        pytest.param({"crit": ["exp"]}, id="RS-72 crit"),
        pytest.param({"jku": "https://evil.example/jwks", "alg": "none"}, id="RS-72 jku"),
    ],
)
async def test_a_header_that_cannot_be_good_costs_nothing(
    header: dict[str, Any], issuer: Issuer, upstream: Upstream
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer, header=header)) == REFUSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == []


@pytest.mark.requirement("RS-72")
async def test_keys_come_from_the_issuer_only(issuer: Issuer, upstream: Upstream) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    mallory = SigningKey("ES256", kid=issuer.keys[1].kid)
    header = {"jku": "https://evil.example/jwks", "jwk": mallory.jwk, "x5u": "https://evil.example/x"}
    assert await ask(guarded, token(issuer, key=mallory, header=header)) == REFUSED
    assert upstream.paths == [DISCOVERY, "/jwks"]


# --- Outage ---


@pytest.mark.requirement("DC-8", "RS-6")
async def test_stale_keys_serve_through_an_outage_and_then_tokens_are_answered_503(
    issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    start = clock.now
    cached = quick(issuer, exp=int(start) + 200_000)
    assert await ask(guarded, cached) == PASSED
    upstream.down = True
    upstream.asked.clear()
    clock.now = start + AHEAD - 0.1
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.asked == []
    # Each request is served at once; the attempts beside it keep to the back-off.
    for after in [60, 60.5, 61, 62, 63, 67, 75, 91, 100, 121]:
        clock.now = start + after
        assert await ask(guarded, quick(issuer)) == PASSED
        assert await ask(guarded, cached) == PASSED
        await anyio.wait_all_tasks_blocked()
    assert [at - start for at, _ in upstream.asked] == [60, 61, 63, 67, 75, 91, 121]
    clock.now = start + FRESH + STALE - 0.1
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    clock.now = start + FRESH + STALE
    assert await ask(guarded, quick(issuer)) == (503, "30")
    assert await ask(guarded, cached) == (503, "30")
    upstream.down = False
    clock.now += 30
    assert await ask(guarded, quick(issuer)) == PASSED
    assert await ask(guarded, cached) == PASSED


@pytest.mark.requirement("DC-8")
@pytest.mark.every_loop
async def test_a_background_refresh_renews_the_keys(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == PASSED
    clock.now += FRESH
    upstream.gate = anyio.Event()
    with anyio.fail_after(5):
        for _ in range(10):
            assert await ask(guarded, quick(issuer)) == PASSED  # no request waits for the refresh
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks"]
    upstream.gate.set()
    await anyio.wait_all_tasks_blocked()
    clock.now += AHEAD - 0.1
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks"]


@pytest.mark.requirement("DC-9", "RS-6")
async def test_recovery_at_the_first_request_after_the_back_off(
    issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.down = True
    raw = quick(issuer)
    assert await ask(guarded, raw) == (503, "1")
    clock.now += 1
    assert await ask(guarded, raw) == (503, "2")
    upstream.down = False
    clock.now += 1.9
    assert await ask(guarded, raw) == (503, "1")
    assert upstream.paths == [DISCOVERY, OPENID] * 2
    clock.now += 0.1
    assert await ask(guarded, raw) == PASSED
    assert upstream.paths == [DISCOVERY, OPENID] * 2 + [DISCOVERY, "/jwks"]


@pytest.mark.requirement("DC-10", "RS-77")
async def test_a_failed_fetch_does_not_burn_the_allowance_of_a_rotation(
    issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, token(issuer)) == PASSED
    issuer.rotate()
    upstream.down = True
    raw = token(issuer)
    assert await ask(guarded, raw) == (503, "1")
    upstream.down = False
    clock.now += 0.5
    assert await ask(guarded, raw) == (503, "1")
    assert len(upstream.asked) == 3
    clock.now += 0.5
    assert await ask(guarded, raw) == PASSED


@pytest.mark.requirement("RS-6")
@pytest.mark.parametrize("jitter", [0.0, 0.999])
async def test_attempts_while_the_issuer_is_down(
    jitter: float, issuer: Issuer, upstream: Upstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.random.random", lambda: jitter)
    server = AuthServerConfig(issuer=issuer.url, jwks_uri="https://auth.example.com/jwks")
    guarded = protect(issuer, RecordingApp(), authorization_servers=[server], http_client=upstream.client)
    upstream.down = True
    start = clock.now
    for step in range(4 * 180):
        clock.now = start + step / 4
        assert (await ask(guarded, quick(issuer, sub=f"u{step}")))[0] == 503
    minutes = [sum(low <= at - start < low + 60 for at, _ in upstream.asked) for low in (0, 60, 120)]
    if not jitter:
        assert [at - start for at, _ in upstream.asked] == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]
    assert minutes == [6, 2, 2]


@pytest.mark.requirement("RS-6")
@pytest.mark.every_loop
async def test_hanging_keys_end_in_503(issuer: Issuer, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.http.TOTAL_SECONDS", 0.05)
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.gate = anyio.Event()
    with anyio.fail_after(5):
        answer = await call(guarded, headers=bearer(quick(issuer)))
    assert answer.status == 503
    assert answer.json() == {"error": "temporarily_unavailable"}
    assert (answer.challenge, answer.header("retry-after")) == (None, "1")


@pytest.mark.requirement("DC-7")
@pytest.mark.every_loop
async def test_slow_steps_share_one_time_limit(
    issuer: Issuer, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("http", "cached_document"):
        monkeypatch.setattr(f"asgi_mcp_auth._keys.{place}.TOTAL_SECONDS", 0.3)
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.delay = 0.2
    with anyio.fail_after(5):
        assert await ask(guarded, quick(issuer)) == (503, "1")
    assert upstream.paths == [DISCOVERY, "/jwks"]


@pytest.mark.requirement("RS-6", "RS-9")
@pytest.mark.every_loop
async def test_an_unforeseen_failure_backs_off_too(
    issuer: Issuer, upstream: Upstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(document: Any) -> Any:
        raise RecursionError("unforeseen")

    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    with monkeypatch.context() as patch:
        patch.setattr("asgi_mcp_auth._keys.remote_jwks.parse_key_set", broken)
        assert await ask(guarded, quick(issuer)) == (503, "1")
        assert await ask(guarded, quick(issuer)) == (503, "1")
        assert upstream.paths == [DISCOVERY, "/jwks"]
    clock.now += 1
    assert await ask(guarded, quick(issuer)) == PASSED


TOO_MANY = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": str(n), "x": "A" * 43} for n in range(101)]}


@pytest.mark.every_loop
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(httpx.Response(200, json={"keys": []}), id="no keys"),
        pytest.param(httpx.Response(200, json=TOO_MANY), id="101 keys"),
        pytest.param(httpx.Response(200, html="<html>login</html>"), id="HTML"),
        pytest.param(httpx.Response(200, json={}), id="empty object"),
        pytest.param(httpx.Response(200, json=[]), id="array"),
        pytest.param(httpx.Response(200, json={"keys": {}}), id="keys is no array"),
        pytest.param(httpx.Response(200, json={"keys": [{"kty": "oct", "k": "AAAA"}]}), id="only symmetric"),
        pytest.param(
            httpx.Response(200, content=b" " * (512 * 1024) + b'{"keys":[]}'),
            # On trio httpx leaves its own generators to the garbage collector, which trio remarks on.
            marks=pytest.mark.filterwarnings("ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"),
            id="too large",
        ),
        pytest.param(httpx.Response(200, content=b'{"keys":' + b"[" * 5000 + b"]" * 5000 + b"}"), id="deep"),
        pytest.param(httpx.Response(204), id="204"),
        pytest.param(httpx.Response(302, headers={"location": "https://evil.example/"}), id="DC-5 redirect"),
        pytest.param(httpx.Response(404, json={}), id="404"),
        pytest.param(httpx.Response(500, json={}), id="500"),
    ],
)
async def test_a_bad_new_document_keeps_the_old_keys(
    bad: httpx.Response, issuer: Issuer, upstream: Upstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    cached = quick(issuer)
    assert await ask(guarded, cached) == PASSED
    upstream.instead["/jwks"] = bad
    clock.now += FRESH
    for _ in range(3):
        assert await ask(guarded, quick(issuer)) == PASSED
        assert await ask(guarded, cached) == PASSED
        await anyio.wait_all_tasks_blocked()
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks"]

    def failures() -> list[logging.LogRecord]:
        return [record for record in caplog.records if getattr(record, "event", "") == "keys_refresh_failed"]

    with anyio.fail_after(5):
        while not failures():  # noqa: ASYNC110 - a large set is read on a thread
            await anyio.sleep(0.01)
    [record] = failures()
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("Keeping the cached key set of https://auth.example.com, for at most 86400 s")
    upstream.instead.clear()
    clock.now += 1
    issuer.keys.append(SigningKey("ES256"))
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert await ask(guarded, token(issuer, key=issuer.keys[-1])) == PASSED


@pytest.mark.requirement("DC-11")
async def test_a_bad_entry_does_not_sink_the_set(issuer: Issuer, upstream: Upstream) -> None:
    junk: list[Any] = [5, {"kty": "AKP", "kid": "pq"}, {"kty": "oct", "k": "AA"}, {"kty": "RSA", "n": "!", "e": "AQAB"}]
    upstream.instead["/jwks"] = httpx.Response(200, json={"keys": [*junk, *issuer.jwks()["keys"]]})
    assert await ask(protect(issuer, RecordingApp(), http_client=upstream.client), quick(issuer)) == PASSED


@pytest.mark.requirement("DC-8")
async def test_a_removed_key_stops_with_the_next_refresh(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    removed, kept = quick(issuer), token(issuer)
    assert await ask(guarded, removed) == PASSED
    assert await ask(guarded, kept) == PASSED
    del issuer.keys[2]
    assert await ask(guarded, removed) == PASSED
    clock.now += FRESH
    assert await ask(guarded, removed) == PASSED  # stale: refreshed beside this request
    await anyio.wait_all_tasks_blocked()
    assert await ask(guarded, removed) == REFUSED
    assert await ask(guarded, removed) == REFUSED
    assert await ask(guarded, kept) == PASSED
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks", "/jwks"], "its kid is unknown now, and looked for once"


@pytest.mark.parametrize(
    ("headers", "life"),
    [
        pytest.param({}, 600, id="DC-8 default"),
        pytest.param({"cache-control": "max-age=900"}, 900, id="DC-8 max-age"),
        pytest.param({"cache-control": "public, max-age=900", "age": "300"}, 600, id="DC-8 Age"),
        pytest.param({"cache-control": "max-age=1"}, 60, id="DC-8 at least a minute"),
        pytest.param({"cache-control": "max-age=99999999"}, 86_400, id="DC-8 at most a day"),
        pytest.param({"cache-control": "no-cache"}, 60, id="DC-8 no-cache"),
        pytest.param({"cache-control": "max-age=abc"}, 600, id="DC-8 nonsense"),
        pytest.param(
            {"expires": "Mon, 23 Nov 2026 10:15:00 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"},
            900,
            id="DC-8 Expires",
        ),
    ],
)
async def test_the_life_of_a_key_set(
    headers: dict[str, str], life: float, issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    upstream.instead["/jwks"] = httpx.Response(200, json=issuer.jwks(), headers=headers)
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == PASSED
    clock.now += life * 0.9 - 0.1
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths.count("/jwks") == 1
    clock.now += 0.1
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths.count("/jwks") == 2


@pytest.mark.requirement("DC-8")
async def test_the_key_url_is_discovered_again_after_an_hour(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    start = clock.now
    upstream.instead["/jwks2"] = httpx.Response(200, json=issuer.jwks())
    plain = httpx.Response(200, json=issuer.metadata)
    upstream.instead[DISCOVERY] = plain
    assert await ask(guarded, quick(issuer)) == PASSED
    issuer.metadata["jwks_uri"] = "https://auth.example.com/jwks2"
    upstream.instead[DISCOVERY] = httpx.Response(200, json=issuer.metadata)
    for after in (AHEAD, 3240.0):
        clock.now = start + after
        assert await ask(guarded, quick(issuer)) == PASSED
        await anyio.wait_all_tasks_blocked()
    assert upstream.paths == [DISCOVERY, "/jwks", "/jwks", DISCOVERY, "/jwks2"]
    upstream.instead[DISCOVERY] = upstream.instead[OPENID] = httpx.Response(500)
    clock.now = start + 2 * 3665.0
    assert await ask(guarded, quick(issuer)) == PASSED  # two hours later
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths[5:] == [DISCOVERY, OPENID, "/jwks2"]  # the metadata from before still serves


@pytest.mark.requirement("RS-6")
async def test_a_clock_that_is_set_back(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == PASSED
    clock.now -= 7200
    assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == [DISCOVERY, "/jwks", DISCOVERY, "/jwks"]


@pytest.mark.requirement("RS-6")
async def test_a_clock_that_is_set_back_does_not_prolong_the_back_off(
    issuer: Issuer, upstream: Upstream, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    upstream.down = True
    assert await ask(guarded, quick(issuer)) == (503, "1")
    clock.now -= 7200
    upstream.down = False
    await ask(guarded, quick(issuer))
    clock.now += 30
    assert await ask(guarded, quick(issuer)) == PASSED


# --- Several issuers, several resources ---


class Internet(httpx.AsyncBaseTransport):
    """Hosts to issuers."""

    def __init__(self, *issuers: Issuer) -> None:
        self._hosts = {httpx.URL(issuer.url).host: httpx.ASGITransport(app=issuer) for issuer in issuers}
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return await self._hosts[request.url.host].handle_async_request(request)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self)


async def test_two_issuers_with_the_same_kid(clock: Clock) -> None:
    one, two = (Issuer(f"https://{name}.example", algorithms=(), clock=clock) for name in ("one", "two"))
    one.keys, two.keys = [SigningKey("Ed25519", kid="k1")], [SigningKey("Ed25519", kid="k1")]
    internet = Internet(one, two)
    guarded = protect(one, RecordingApp(), authorization_servers=[one.url, two.url], http_client=internet.client)
    assert await ask(guarded, token(one)) == PASSED
    assert await ask(guarded, token(two)) == PASSED
    assert await ask(guarded, token(one, key=two.keys[0])) == REFUSED
    assert await ask(guarded, token(two, key=one.keys[0])) == REFUSED
    assert await ask(guarded, token(one)) == PASSED
    assert len(internet.asked) == 4


async def test_two_issuers_with_the_same_jwks_uri_share_nothing(issuer: Issuer, upstream: Upstream) -> None:
    shared = "https://auth.example.com/jwks"
    other = Issuer("https://other.example", algorithms=(), clock=issuer.clock)
    other.keys = issuer.keys
    servers = [
        AuthServerConfig(issuer=issuer.url, jwks_uri=shared, algorithms=["RS256"]),
        AuthServerConfig(issuer=other.url, jwks_uri=shared, algorithms=["ES256"]),
    ]
    guarded = protect(issuer, RecordingApp(), authorization_servers=servers, http_client=upstream.client)
    rs256, es256 = issuer.keys[:2]
    assert await ask(guarded, token(issuer, key=rs256)) == PASSED
    assert upstream.paths == ["/jwks"]
    assert await ask(guarded, token(other, key=rs256)) == REFUSED
    assert await ask(guarded, token(issuer, key=es256)) == REFUSED
    assert upstream.paths == ["/jwks"]
    assert await ask(guarded, token(other, key=es256)) == PASSED
    assert upstream.paths == ["/jwks", "/jwks"]


def two_resources(issuer: Issuer, factory: Callable[[], httpx.AsyncClient], *servers: str | AuthServerConfig) -> Any:
    configs = [
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=f"https://mcp.example.com/{name}", authorization_servers=servers or [issuer.url]
            ),
            policy=ScopePolicy(default=["mcp:read"]),
        )
        for name in ("a", "b")
    ]
    return MCPAuth(configs, http_client=factory, clock=issuer.clock).wrap(RecordingApp())


@pytest.mark.requirement("RS-89", "RS-104")
async def test_a_cached_token_does_not_speak_for_another_resource(issuer: Issuer, upstream: Upstream) -> None:
    guarded = two_resources(issuer, upstream.client)
    raw = quick(issuer, aud="https://mcp.example.com/a")
    metadata = "https://mcp.example.com/.well-known/oauth-protected-resource/b"
    refused = (401, cht(INVALID).replace("https://mcp.example.com/.well-known/oauth-protected-resource/mcp", metadata))
    for _ in range(2):
        assert await ask(guarded, raw, path="/a") == PASSED
        assert await ask(guarded, raw, path="/b") == refused
    assert upstream.paths == [DISCOVERY, "/jwks"]  # the two share the issuer's keys


# --- The token cache ---


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The kid of every signature that is verified."""
    seen: list[str | None] = []
    verify = VerificationKey.verify

    def counting(key: VerificationKey, alg: str, signing_input: bytes, signature: bytes) -> bool:
        seen.append(key.kid)
        return verify(key, alg, signing_input, signature)

    monkeypatch.setattr(VerificationKey, "verify", counting)
    return seen


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(10, [1, 1, 1, 0, 0, 0, 0], id="RS-89 room for all"),
        pytest.param(2, [1, 1, 1, 0, 0, 1, 1], id="RS-89 bounded, the least recently used leaves"),
        pytest.param(1, [1, 1, 1, 1, 0, 1, 1], id="RS-89 one"),
        pytest.param(0, [1, 1, 1, 1, 1, 1, 1], id="RS-89 off"),
    ],
)
async def test_the_token_cache(size: int, expected: list[int], issuer: Issuer, verified: list[str | None]) -> None:
    guarded = protect(issuer, RecordingApp(), token_cache_size=size)
    a, b, c = (quick(issuer, sub=name) for name in "abc")
    counts: list[int] = []
    for raw in (a, b, c, b, b, a, c):  # of two: ab, bc, cb, ba, ac
        before = len(verified)
        assert await ask(guarded, raw) == PASSED
        counts.append(len(verified) - before)
    assert counts == expected


@pytest.mark.requirement("RS-89")
async def test_only_accepted_tokens_are_remembered(issuer: Issuer, verified: list[str | None]) -> None:
    guarded = protect(issuer, RecordingApp())
    wrong = quick(issuer, aud="https://other.example")
    for _ in range(2):
        assert await ask(guarded, wrong) == REFUSED
    assert len(verified) == 2


@pytest.mark.parametrize(
    ("at", "changes", "expected"),
    [
        pytest.param(329.9, {}, PASSED, id="RS-81 RS-89 within the leeway"),
        pytest.param(330.0, {}, (401, cht(EXPIRED)), id="RS-81 RS-89 past exp and leeway"),
        pytest.param(10_000.0, {}, (401, cht(EXPIRED)), id="RS-89 long past"),
        pytest.param(-60.0, {}, REFUSED, id="RS-82 RS-89 before iat, by a clock set back"),
        pytest.param(-60.0, {"iat": ...}, PASSED, id="RS-89 no iat"),
        pytest.param(-60.0, {"iat": ..., "nbf": 1_800_000_000}, REFUSED, id="RS-82 RS-89 before nbf"),
    ],
)
async def test_a_cached_token_is_held_to_its_times(
    at: float, changes: dict[str, Any], expected: tuple[int, str | None], issuer: Issuer, clock: Clock
) -> None:
    guarded = protect(issuer, RecordingApp())
    raw = quick(issuer, **changes)
    assert await ask(guarded, raw) == PASSED
    clock.now += at
    assert await ask(guarded, raw) == expected
    await anyio.wait_all_tasks_blocked()


# --- Loops, threads ---


def on(backend: str, work: Callable[[], Any]) -> Any:
    return anyio.run(work, backend=backend)


@pytest.mark.parametrize(
    "backends",
    [("asyncio", "asyncio"), ("asyncio", "trio"), ("trio", "asyncio"), ("trio", "trio")],
    ids=lambda backends: "RS-245 " + ", then ".join(backends),
)
def test_successive_event_loops(backends: tuple[str, str], issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    for backend in backends:

        async def main() -> None:
            assert await ask(guarded, quick(issuer)) == PASSED
            clock.now += FRESH
            assert await ask(guarded, quick(issuer)) == PASSED
            await anyio.wait_all_tasks_blocked()

        on(backend, main)
    assert upstream.paths.count("/jwks") == 3


Runner = Callable[[Callable[[], Any]], Any]


@contextmanager
def closing(backend: str) -> Generator[Runner]:
    """Each piece of work runs on a loop of its own, which cancels background work at its end."""
    yield lambda work: on(backend, work)


@contextmanager
def frozen(_: str) -> Generator[Runner]:
    """All work runs on the same loop, which stands still in between (AWS Lambda)."""
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(work())


CUT_OFF = [AHEAD, 2.0]  # due, and refreshed in the background; then a moment later
IDLE = [FRESH + 60]
BUSY = [AHEAD, 2.0, FRESH - AHEAD, 57.0, 1.0]


@pytest.mark.parametrize(
    ("runners", "backend", "steps"),
    [
        pytest.param(closing, "asyncio", CUT_OFF, id="asyncio, after a refresh that was cut off"),
        pytest.param(closing, "trio", CUT_OFF, id="trio, after a refresh that was cut off"),
        pytest.param(closing, "asyncio", IDLE, id="asyncio, a minute past expiry"),
        pytest.param(closing, "trio", IDLE, id="trio, a minute past expiry"),
        pytest.param(frozen, "asyncio", IDLE, id="frozen, a minute past expiry"),
        pytest.param(frozen, "asyncio", BUSY, id="frozen, a minute past expiry, with requests until then"),
    ],
)
def test_a_withdrawn_key_stops_where_background_work_starves(  # noqa: PLR0917 - fixtures
    runners: Any,
    backend: str,
    steps: list[float],
    issuer: Issuer,
    upstream: Upstream,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    cached, late = (quick(issuer, sub=name, exp=int(clock.now) + 3600) for name in ("a", "b"))
    answers: list[tuple[int, str | None]] = []
    with runners(backend) as run:
        assert run(lambda: ask(guarded, cached)) == PASSED
        del issuer.keys[2]
        upstream.delay = 0.05
        for seconds in steps:
            clock.now += seconds
            answers = [run(lambda raw=raw: ask(guarded, raw)) for raw in (cached, late)]
    assert answers == [REFUSED, REFUSED]
    cut_off = [record for record in caplog.records if "cancelled" in record.getMessage()]
    assert len(cut_off) in ([1] if steps is CUT_OFF else [0, 1])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_issuer_that_hangs_delays_a_request_by_seconds_at_most(
    issuer: Issuer, upstream: Upstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.MAX_FOREGROUND_SECONDS", 0.05)
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.TOTAL_SECONDS", 0.2)
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    cached = quick(issuer, exp=int(clock.now) + 3600)
    assert await ask(guarded, cached) == PASSED
    upstream.gate = anyio.Event()
    clock.now += FRESH + 60
    with anyio.fail_after(1):
        for _ in range(3):
            assert await ask(guarded, cached) == PASSED
            assert await ask(guarded, quick(issuer)) == PASSED
    await anyio.sleep(0.3)
    start = anyio.current_time()
    for _ in range(20):  # the failed attempt says that background work runs
        assert await ask(guarded, cached) == PASSED
    assert anyio.current_time() - start < 0.2
    upstream.gate.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_starting_work_looks_at_no_other_task(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def look(of: object) -> bool:
        looks.append(of)
        return False

    monkeypatch.setattr("asgi_mcp_auth._keys.background._Tasks.forget_if_closed", look)
    release = anyio.Event()
    tasks.spawn(release.wait)
    looks.clear()
    for _ in range(1000):
        tasks.spawn(release.wait)
    assert looks == []
    release.set()
    await anyio.wait_all_tasks_blocked()


@pytest.mark.requirement("RS-245")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio remarks on such tasks
def test_loops_that_are_closed_without_cancelling_do_not_pile_up() -> None:
    def pile_up() -> None:
        flight = tasks.SingleFlight(anyio.sleep_forever)

        async def begin() -> None:
            flight.start()
            await asyncio.sleep(0)

        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin())
            loop.close()
            assert len(flight._flights) == 1  # pyright: ignore[reportPrivateUsage]
            assert sum(len(one.running) for one in tasks._loops) == 1  # pyright: ignore[reportPrivateUsage]

    pile_up()
    for one in tasks._loops:  # pyright: ignore[reportPrivateUsage]
        one.running.clear()
    gc.collect()  # what asyncio remarks, it remarks here


@pytest.mark.parametrize("backend", ["asyncio", "trio"], ids=lambda backend: f"RS-245 {backend}")
def test_a_loop_that_ends_during_a_fetch(
    backend: str, issuer: Issuer, upstream: Upstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The cancelled fetch counts as a failure, and is logged."""
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)

    async def abandon() -> None:
        upstream.gate = anyio.Event()
        with anyio.move_on_after(0.02):
            await ask(guarded, quick(issuer))
        upstream.gate = None

    async def main() -> None:
        with anyio.fail_after(5):
            assert await ask(guarded, quick(issuer)) == PASSED

    on(backend, abandon)
    assert upstream.paths == [DISCOVERY]
    [record] = [record for record in caplog.records if getattr(record, "event", "") == "keys_unavailable"]
    assert "cancelled" in record.getMessage()
    clock.now += 1
    on(backend, main)


@pytest.mark.requirement("RS-245")
def test_two_threads_with_loops_of_their_own(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), token_cache_size=2)
    tokens = [quick(issuer, sub=f"u{n}") for n in range(4)]
    results: list[list[tuple[int, str | None]]] = []
    barrier = threading.Barrier(2)

    async def main() -> None:
        barrier.wait()
        own: list[tuple[int, str | None]] = []
        for n in range(400):
            own.append(await ask(guarded, tokens[n % 4]))  # noqa: PERF401
        results.append(own)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=on, args=(backend, main)) for backend in ("asyncio", "trio")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert results == [[PASSED] * 400] * 2


@pytest.mark.requirement("RS-245")
def test_an_entry_that_is_evicted_while_it_is_read() -> None:
    verified = Verified(AuthInfo(issuer=ISS, subject="alice"))

    class Evicting(RemoteJWKS):
        def usable(self, generation: object, now: float) -> bool:
            cache.put(b"other", Entry(verified, 0.0, 10.0, keys, None, 100))
            return True

    def settings() -> dict[str, Any]:
        return {"fetcher": Fetcher(), "clock": lambda: 0.0, "allow_http": False}

    keys = RemoteJWKS(ISS, AuthServerConfig(issuer=ISS), None, **settings())
    evicting = Evicting(ISS, AuthServerConfig(issuer=ISS), None, **settings())
    cache = TokenCache(1, 10_000, lambda: 5.0)
    cache.put(b"mine", Entry(verified, 0.0, 10.0, evicting, None, 100))
    assert cache.get(b"mine") is verified
    assert cache.get(b"mine") is None


# --- The key set on its own ---


def living(issuer: Issuer, factory: Callable[[], httpx.AsyncClient], **config: Any) -> RemoteJWKS:
    settings: dict[str, Any] = {"issuer": issuer.url} | config
    return RemoteJWKS(
        issuer.url,
        AuthServerConfig(**settings),
        None,
        fetcher=Fetcher(factory),
        clock=issuer.clock,
        allow_http=False,
    )


async def select(keys: RemoteJWKS, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
    found, generation = await keys.select(kid, alg, issued_at=None, leeway=30.0, max_without_kid=1)
    assert keys.usable(generation, keys._clock())  # pyright: ignore[reportPrivateUsage]
    return found


@pytest.mark.requirement("DC-9")
@pytest.mark.every_loop
async def test_warm_up(issuer: Issuer, upstream: Upstream) -> None:
    keys = living(issuer, upstream.client)
    await keys.warm_up()
    assert upstream.paths == [DISCOVERY, "/jwks"]
    await keys.warm_up()
    assert [key.kid for key in await select(keys, issuer.keys[0].kid, "RS256")] == [issuer.keys[0].kid]
    assert upstream.paths == [DISCOVERY, "/jwks"]


@pytest.mark.requirement("DC-9")
@pytest.mark.every_loop
async def test_warm_up_never_raises(
    issuer: Issuer, upstream: Upstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.down = True
    keys = living(issuer, upstream.client)
    await keys.warm_up()
    await keys.warm_up()  # inside the back-off
    assert upstream.paths == [DISCOVERY, OPENID]
    logged = [(record.levelname, getattr(record, "event", "")) for record in caplog.records]
    assert logged == [("ERROR", "keys_unavailable")]
    with pytest.raises(Unavailable) as caught:
        await select(keys, issuer.keys[0].kid, "RS256")
    assert (str(caught.value.reason), caught.value.retry_after) == ("keys_unavailable", 1.0)
    upstream.down = False
    clock.now += 1
    assert len(await select(keys, issuer.keys[0].kid, "RS256")) == 1


@pytest.mark.requirement("DC-2")
async def test_a_document_of_another_issuer_is_never_used(
    issuer: Issuer, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.metadata["issuer"] = "https://auth.example.com/"
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == (503, "1")
    assert upstream.paths == [DISCOVERY, OPENID]
    [record] = [r for r in caplog.records if r.name == "asgi_mcp_auth.keys" and r.levelname == "ERROR"]
    assert "has the issuer https://auth.example.com/, not https://auth.example.com." in record.getMessage()


@pytest.mark.requirement("DC-13")
async def test_metadata_without_a_key_url(issuer: Issuer, upstream: Upstream) -> None:
    del issuer.metadata["jwks_uri"]
    guarded = protect(issuer, RecordingApp(), http_client=upstream.client)
    assert await ask(guarded, quick(issuer)) == (503, "1")


@pytest.mark.requirement("DC-13")
async def test_keys_on_another_host(issuer: Issuer, clock: Clock) -> None:
    keys = Issuer("https://keys.example", algorithms=(), clock=clock)
    keys.keys = issuer.keys
    issuer.metadata["jwks_uri"] = "https://keys.example/jwks"
    internet = Internet(issuer, keys)
    assert await ask(protect(issuer, RecordingApp(), http_client=internet.client), quick(issuer)) == PASSED
    assert internet.asked == [
        "https://auth.example.com/.well-known/oauth-authorization-server",
        "https://keys.example/jwks",
    ]


@pytest.mark.requirement("DC-1")
async def test_static_keys_are_never_fetched(issuer: Issuer, upstream: Upstream, clock: Clock) -> None:
    server = AuthServerConfig(issuer=issuer.url, jwks=json.loads(json.dumps(issuer.jwks())))
    guarded = protect(issuer, RecordingApp(), authorization_servers=[server], http_client=upstream.client)
    for _ in range(3):
        assert await ask(guarded, quick(issuer)) == PASSED
        assert await ask(guarded, quick(issuer, header={"kid": "other"})) == REFUSED
        clock.now += 10 * STALE
    await anyio.wait_all_tasks_blocked()
    assert upstream.paths == []


# --- Background work ---


var: ContextVar[str] = ContextVar("var", default="empty")


@pytest.mark.every_loop
async def test_spawned_work_runs_in_an_empty_context() -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(var.get())

    reset = var.set("the request's")
    tasks.spawn(work)
    await anyio.wait_all_tasks_blocked()
    var.reset(reset)
    assert seen == ["empty"]


@pytest.mark.every_loop
async def test_spawned_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise RuntimeError("lost?")

    tasks.spawn(work)
    await anyio.wait_all_tasks_blocked()
    [record] = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "asgi_mcp_auth.background",
        logging.ERROR,
        "Background work failed",
    )
    assert "RuntimeError: lost?" in caplog.text


@pytest.mark.every_loop
async def test_spawned_work_survives_the_cancellation_of_the_caller() -> None:
    release, done = anyio.Event(), anyio.Event()

    async def work() -> None:
        await release.wait()
        done.set()

    async def caller() -> None:
        tasks.spawn(work)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    release.set()
    with anyio.fail_after(5):
        await done.wait()


@pytest.mark.every_loop
async def test_spawned_work_is_not_collected() -> None:
    done = anyio.Event()

    async def work() -> None:
        await anyio.sleep(0.02)
        done.set()

    tasks.spawn(work)
    await anyio.lowlevel.checkpoint()
    gc.collect()
    with anyio.fail_after(5):
        await done.wait()


@pytest.mark.every_loop
async def test_spawned_work_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("stopped")

    background = tasks.spawn(work)
    await anyio.wait_all_tasks_blocked()
    assert ended == []
    background.cancel()
    await anyio.wait_all_tasks_blocked()
    assert ended == ["stopped"]
    assert caplog.records == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_work_starts_while_another_thread_imports_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen under load: httpcore imports trio when it is first used, and a module is in sys.modules before it is whole."""
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))
    done = anyio.Event()

    async def work() -> None:
        done.set()

    tasks.spawn(work)
    with anyio.fail_after(5):
        await done.wait()


@pytest.mark.every_loop
async def test_work_that_is_stopped_before_it_starts_does_nothing() -> None:
    ran: list[str] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        ran.append("ran")

    tasks.spawn(work).cancel()
    await anyio.wait_all_tasks_blocked()
    assert ran == []
