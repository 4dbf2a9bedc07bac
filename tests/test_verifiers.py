"""The seams behind the token check: revocation, verifiers of the user's own, and functions from token to identity."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.lowlevel
import pytest
from harness import EXPIRED, INVALID, ISS, Answer, Clock, R, RecordingApp, bearer, call, chs, cht, protect, token

from asgi_mcp_auth import (
    Allow,
    AuthInfo,
    Decision,
    MCPAuth,
    MCPAuthMiddleware,
    MemoryStore,
    Operation,
    Reason,
    Refusal,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    Verified,
)
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.verifier import CallableVerifier, VerifyFunction
from asgi_mcp_auth.errors import Forbidden, InsufficientScope, InvalidToken, Unavailable
from asgi_mcp_auth.stores import LogPage
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

REFUSED = (401, cht(INVALID))
FAILED = (503, "1")
PASSED = (200, None)


def outcome(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.challenge or answer.header("retry-after")


async def ask(guarded: Any, raw: str, **more: Any) -> tuple[int, str | None]:
    return outcome(await call(guarded, headers=bearer(raw), **more))


def logged(records: list[logging.LogRecord]) -> str:
    formatter = logging.Formatter()
    return "\n".join(formatter.format(record) + repr(vars(record)) for record in records)


# --- Revocation ---


def hook(answer: Any) -> Callable[[AuthInfo], Any]:
    return lambda _: answer


def hook_later(answer: Any) -> Callable[[AuthInfo], Any]:
    return lambda _: slowly(answer)


class Odd:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("neither")


async def slowly(answer: bool) -> bool:
    await anyio.lowlevel.checkpoint()
    return answer


def fails(info: AuthInfo) -> bool:
    raise KeyError("the database")


async def fails_later(info: AuthInfo) -> bool:
    await anyio.lowlevel.checkpoint()
    raise KeyError("the database")


def takes_nothing() -> bool:
    return False


def refuses(info: AuthInfo) -> bool:
    raise Forbidden(Reason.REVOKED)


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        pytest.param(hook(False), PASSED, id="RS-88 not revoked"),
        pytest.param(hook_later(False), PASSED, id="RS-88 not revoked, async"),
        pytest.param(hook(True), REFUSED, id="RS-88 revoked"),
        pytest.param(hook_later(True), REFUSED, id="RS-88 revoked, async"),
        pytest.param(hook(None), REFUSED, id="RS-88 forgot to return"),
        pytest.param(hook(0), REFUSED, id="RS-88 a falsy value is not False"),
        pytest.param(hook(""), REFUSED, id="RS-88 an empty string is not False"),
        pytest.param(hook(Odd()), REFUSED, id="RS-88 something that has no truth"),
        pytest.param(fails, FAILED, id="RS-88 raises"),
        pytest.param(fails_later, FAILED, id="RS-88 raises, async"),
        pytest.param(takes_nothing, FAILED, id="RS-88 takes no argument"),
        pytest.param(refuses, (403, None), id="RS-88 raises a refusal of its own"),
    ],
)
async def test_is_revoked(hook: Callable[..., Any], expected: tuple[int, str | None], issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app, is_revoked=hook)
    raw = token(issuer)
    assert await ask(guarded, raw) == expected
    assert await ask(guarded, raw) == expected
    assert app.calls == (2 if expected == PASSED else 0)


@pytest.mark.requirement("RS-39", "RS-88")
async def test_a_failing_hook_tells_the_operator_only(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    answer = await call(protect(issuer, RecordingApp(), is_revoked=fails), headers=bearer(token(issuer)))
    assert answer.json() == {"error": "temporarily_unavailable"}
    messages = [record.getMessage() for record in caplog.records if record.name == "asgi_mcp_auth.verifiers"]
    assert len(messages) == 1
    assert messages[0].startswith("is_revoked failed:\nTraceback")
    assert messages[0].rstrip().endswith("KeyError: 'the database'")
    [decision] = [record for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    assert vars(decision)["reason"] == "hook_failed"


@pytest.mark.requirement("RS-88", "RS-89")
async def test_the_hook_is_asked_every_time(issuer: Issuer) -> None:
    asked: list[str] = []
    revoked: set[str] = set()

    def asking(info: AuthInfo) -> bool:
        asked.append(info.subject)
        return info.subject in revoked

    guarded = protect(issuer, RecordingApp(), is_revoked=asking)
    raw = token(issuer)
    assert await ask(guarded, raw) == PASSED
    assert await ask(guarded, raw) == PASSED
    revoked.add("alice")
    assert await ask(guarded, raw) == REFUSED
    revoked.clear()
    assert await ask(guarded, raw) == PASSED
    assert asked == ["alice"] * 4


@pytest.mark.requirement("RS-88")
async def test_the_hook_is_not_asked_about_bad_tokens(issuer: Issuer) -> None:
    asked: list[AuthInfo] = []
    guarded = protect(issuer, RecordingApp(), is_revoked=asked.append)
    for raw in ("abc", token(issuer, aud="https://other.example"), token(issuer, exp=issuer.clock() - 60)):
        assert (await ask(guarded, raw))[0] == 401
    assert asked == []


# --- A verifier of the user's own ---


INFO = AuthInfo(issuer=ISS, subject="alice", client_id="c1", scopes=["mcp:read"], claims={"sub": "alice"})


@dataclass
class Own:
    """A verifier (Protocol): answers or raises what it was given, and remembers what it was asked."""

    result: Verified | Refusal | Exception
    raises: bool = False
    asked: list[tuple[Credential, RequestInfo]] = field(default_factory=list[tuple[Credential, RequestInfo]])

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        self.asked.append((credential, request))
        if self.raises or not isinstance(self.result, (Refusal, Verified)):
            assert isinstance(self.result, Exception)
            raise self.result
        return self.result


def owned(issuer: Issuer, app: Any, verifier: Any, **options: Any) -> MCPAuthMiddleware:
    config = ResourceServerConfig(
        metadata=ResourceServerMetadata(resource=R, authorization_servers=[issuer.url]),
        policy=ScopePolicy(default=["mcp:read"]),
    )
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, verifier=verifier, **options)
    return auth.wrap(app)


REFUSALS = [
    pytest.param(InvalidToken(Reason.REJECTED_BY_VERIFIER), REFUSED, id="InvalidToken"),
    pytest.param(InvalidToken(Reason.TOKEN_EXPIRED, description=EXPIRED), (401, cht(EXPIRED)), id="a description"),
    pytest.param(Forbidden(Reason.REJECTED_BY_VERIFIER), (403, None), id="RS-43 Forbidden"),
    pytest.param(InsufficientScope(required=("a", "b")), (403, chs("a b")), id="RS-42 InsufficientScope"),
    pytest.param(Unavailable(Reason.KEYS_UNAVAILABLE, retry_after=12.3), (503, "13"), id="RS-6 Unavailable"),
]


@pytest.mark.parametrize("raises", [False, True], ids=["returned", "raised"])
@pytest.mark.parametrize(("refusal", "expected"), REFUSALS)
async def test_a_refusal_of_a_verifier(
    refusal: Refusal, expected: tuple[int, str | None], raises: bool, issuer: Issuer
) -> None:
    app = RecordingApp()
    verifier = Own(refusal, raises)
    assert await ask(owned(issuer, app, verifier), "opaque-token") == expected
    [(credential, request)] = verifier.asked
    assert credential == Credential(b"bearer", b"opaque-token")
    assert "opaque" not in repr(credential)
    assert (request.method, request.path, request.public_url("https://mcp.example.com")) == ("POST", "/mcp", R)
    assert app.calls == 0


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RuntimeError("opaque-token is bad"), id="RS-9 RS-241 RuntimeError"),
        pytest.param(KeyError(b"opaque-token"), id="RS-9 RS-241 KeyError with bytes"),
        pytest.param(ExceptionGroup("many", [ValueError("opaque-token")]), id="RS-9 RS-241 a group"),
        pytest.param(TimeoutError(), id="RS-9 TimeoutError"),
    ],
)
async def test_an_exception_of_a_verifier(error: Exception, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    app = RecordingApp()
    answer = await call(owned(issuer, app, Own(error)), headers=bearer("opaque-token"))
    assert (outcome(answer), answer.json()) == (FAILED, {"error": "temporarily_unavailable"})
    assert app.calls == 0
    assert type(error).__name__ in caplog.text
    assert "Traceback" in caplog.text
    assert "opaque-token" not in logged(caplog.records)


async def test_headers_of_a_verifier_are_added_to_the_apps_response(issuer: Issuer) -> None:
    app = RecordingApp(headers=[(b"x-app", b"1"), (b"dpop-nonce", b"the app's")])
    verifier = Own(Verified(INFO, None, ((b"dpop-nonce", b"n1"), (b"x-more", b"2"))))
    for options in ({}, {"expose_token": True}):
        answer = await call(owned(issuer, app, verifier, **options), headers=bearer("opaque"))
        assert answer.headers == [
            (b"x-app", b"1"),
            (b"dpop-nonce", b"the app's"),
            (b"dpop-nonce", b"n1"),
            (b"x-more", b"2"),
        ]
    assert app.headers == [(b"x-app", b"1"), (b"dpop-nonce", b"the app's")]


@pytest.mark.requirement("RS-115")
async def test_a_verifiers_identity_is_held_to_the_scopes(issuer: Issuer) -> None:
    verifier = Own(Verified(AuthInfo(issuer=ISS, subject="alice", scopes=["other"])))
    assert await ask(owned(issuer, RecordingApp(), verifier), "opaque") == (403, chs("mcp:read"))


@pytest.mark.requirement("RS-88")
@pytest.mark.parametrize(("revoked", "expected"), [(False, PASSED), (True, REFUSED)])
async def test_the_hook_comes_after_any_verifier(
    revoked: bool, expected: tuple[int, str | None], issuer: Issuer
) -> None:
    guarded = owned(issuer, RecordingApp(), Own(Verified(INFO)), is_revoked=hook(revoked))
    assert await ask(guarded, "opaque") == expected


# --- A function of the user's own ---


def info(**changes: Any) -> AuthInfo:
    settings: dict[str, Any] = {
        "issuer": ISS,
        "subject": "alice",
        "scopes": ["mcp:read"],
        "audience": R,
        "claims": {"sub": "alice"},
    }
    return AuthInfo(**settings | changes)


def by(function: VerifyFunction, issuer: Issuer, *, expose: bool = False) -> CallableVerifier:
    return CallableVerifier(
        function,
        issuers=frozenset({ISS, "https://second.example"}),
        resource=R,
        accepts_audience=lambda found: found.audience == R,
        clock=issuer.clock,
        expose_token=expose,
    )


def at_once(found: Any) -> Any:
    return found


async def later(found: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return found


NOW = 1_800_000_000.0


@pytest.mark.every_loop
@pytest.mark.parametrize("wrap", [at_once, later], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(info(), PASSED, id="good"),
        pytest.param(info(issuer="https://second.example"), PASSED, id="another trusted issuer"),
        pytest.param(info(expires_at=NOW + 1), PASSED, id="still good"),
        pytest.param(info(expires_at=NOW), (401, cht(EXPIRED)), id="RS-81 expired"),
        pytest.param(info(issuer="https://evil.example"), REFUSED, id="RS-79 an issuer that is not trusted"),
        pytest.param(info(audience="https://other.example"), REFUSED, id="RS-80 another audience"),
        pytest.param(info(audience=None), REFUSED, id="RS-80 no audience"),
        pytest.param(info(scopes=[]), (403, chs("mcp:read")), id="RS-115 no scope"),
        pytest.param(None, FAILED, id="RS-9 nothing returned"),
        pytest.param(True, FAILED, id="RS-9 True is no identity"),
        pytest.param({"sub": "alice"}, FAILED, id="RS-9 a dict is no identity"),
    ],
)
async def test_callable_verifier(
    found: Any, wrap: Callable[[Any], Any], expected: tuple[int, str | None], issuer: Issuer
) -> None:
    given: list[str] = []

    def function(raw: str) -> Any:
        given.append(raw)
        return wrap(found)

    app = RecordingApp()
    assert await ask(owned(issuer, app, by(function, issuer)), "opaque-token") == expected
    assert given == ["opaque-token"]
    assert app.calls == (1 if expected == PASSED else 0)


@pytest.mark.parametrize(("refusal", "expected"), REFUSALS)
async def test_a_function_may_raise_a_refusal(
    refusal: Refusal, expected: tuple[int, str | None], issuer: Issuer
) -> None:
    def function(raw: str) -> AuthInfo:
        raise refusal

    assert await ask(owned(issuer, RecordingApp(), by(function, issuer)), "opaque") == expected


@pytest.mark.requirement("RS-9", "RS-241")
@pytest.mark.parametrize("wrap", [False, True], ids=["sync", "async"])
async def test_a_function_that_fails(wrap: bool, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    def function(raw: str) -> AuthInfo:
        raise RuntimeError(f"bad token {raw!r}") from ValueError(f"cannot decode {raw}")

    async def function_later(raw: str) -> AuthInfo:
        return function(raw)

    verifier = by(function_later if wrap else function, issuer)
    assert await ask(owned(issuer, RecordingApp(), verifier), "opaque-token") == FAILED
    assert "ValueError: cannot decode [token]" in caplog.text
    assert "RuntimeError: bad token '[token]'" in caplog.text
    assert "opaque-token" not in logged(caplog.records)


@pytest.mark.parametrize(
    ("expose", "own", "expected"),
    [
        pytest.param(False, None, None, id="RS-240 hidden"),
        pytest.param(False, "opaque", None, id="RS-240 hidden though the function kept it"),
        pytest.param(True, None, "opaque", id="RS-240 exposed"),
        pytest.param(True, "other", "opaque", id="RS-240 exposed as it was sent"),
    ],
)
async def test_the_raw_token_of_a_function(expose: bool, own: str | None, expected: str | None, issuer: Issuer) -> None:
    app = RecordingApp()
    verifier = by(lambda _: info(token=own), issuer, expose=expose)
    assert await ask(owned(issuer, app, verifier, expose_token=expose), "opaque") == PASSED
    [scope] = app.scopes
    seen = scope["state"]["mcp_auth"]
    assert (seen.token, seen.resource, seen.subject) == (expected, R, "alice")


async def test_the_resource_that_a_function_names_is_kept(issuer: Issuer) -> None:
    app = RecordingApp()
    await ask(owned(issuer, app, by(lambda _: info(resource="https://mcp.example.com/mcp/x"), issuer)), "opaque")
    assert app.scopes[0]["state"]["mcp_auth"].resource == "https://mcp.example.com/mcp/x"


# --- Time limits and records of failures ---


Fields = list[tuple[str, str | bytes]]


async def hangs(*_: Any) -> Any:
    await anyio.sleep_forever()


class HangingVerifier:
    verify = staticmethod(hangs)


class HangingStore(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        await anyio.sleep_forever()
        raise AssertionError

    async def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> LogPage:
        await anyio.sleep_forever()
        raise AssertionError

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        await anyio.sleep_forever()
        raise AssertionError


def hangs_on_a_thread(raw: str) -> AuthInfo:
    time.sleep(0.5)
    raise AssertionError(raw)


def hanging(kind: str, issuer: Issuer) -> tuple[Any, Fields]:
    """An app whose hook hangs, and the header fields of a request that has the hook called."""
    headers: Fields = [*bearer(token(issuer)), ("content-type", "application/json")]
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
    options: dict[str, Any] = {"http_client": issuer.http_client, "clock": issuer.clock, "hook_timeout": 0.05}
    if kind == "is_revoked":
        options["is_revoked"] = hangs
    elif kind == "authorize":
        options["authorize"] = hangs
    elif kind == "verifier":
        options["verifier"] = HangingVerifier()
    elif kind == "session_binding":
        options |= {"store": HangingStore(), "session_binding": True}
        headers.append(("mcp-session-id", "s1"))
    elif kind == "revocations":
        options |= {"store": HangingStore(), "revocation": True}
    auth = MCPAuth(config, **options)
    if kind.startswith("function"):
        return _with_function(auth, hangs if kind == "function" else hangs_on_a_thread), headers
    return auth.wrap(RecordingApp()), headers


def _with_function(auth: MCPAuth, function: Any) -> Any:
    return auth.bearer_auth_middleware(function)(RecordingApp())


BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}'


@pytest.mark.every_loop
@pytest.mark.parametrize(
    "kind",
    ["is_revoked", "revocations", "authorize", "verifier", "session_binding", "function", "function on a thread"],
)
async def test_a_hook_that_hangs_is_503_after_its_time_limit(
    kind: str, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    app, headers = hanging(kind, issuer)
    with anyio.fail_after(3):
        answer = await call(app, headers=headers, body=BODY)
    assert outcome(answer) == FAILED
    [decision] = [record for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    by_store = {"session_binding": "TimeoutError", "revocations": "revocations that are too old"}
    expected = ("store_unavailable", by_store[kind]) if kind in by_store else ("hook_failed", "TimeoutError")
    assert (vars(decision)["reason"], vars(decision)["found"]) == expected


@pytest.mark.every_loop
async def test_the_time_limit_is_for_all_operations_of_a_request_together(issuer: Issuer) -> None:
    """A batch must not multiply the limit by the number of its messages."""
    asked: list[str] = []

    async def slow(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow:
        asked.append(operation.method)
        await anyio.sleep(0.02)
        return Allow()

    guarded = protect(issuer, RecordingApp(), authorize=slow, hook_timeout=0.1)
    headers: Fields = [*bearer(token(issuer)), ("content-type", "application/json")]
    headers.append(("mcp-protocol-version", "2025-03-26"))
    batch = b"[" + b",".join([BODY] * 100) + b"]"
    assert outcome(await call(guarded, headers=headers, body=batch)) == FAILED
    assert len(asked) < 20


@pytest.mark.every_loop
async def test_a_store_that_hangs_does_not_hold_the_response_that_makes_a_session(issuer: Issuer) -> None:
    app = RecordingApp(headers=[(b"mcp-session-id", b"s1")])
    guarded = protect(issuer, app, store=HangingStore(), session_binding=True)
    with anyio.fail_after(3):
        assert (await call(guarded, headers=bearer(token(issuer)))).status == 200


SHUTDOWN = """
import asyncio, time
from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.testing import Issuer

issuer = Issuer()
metadata = ResourceServerMetadata(resource="https://mcp.example.com/mcp", authorization_servers=[issuer.url])
auth = MCPAuth(ResourceServerConfig(metadata=metadata), http_client=issuer.http_client, hook_timeout=0.1)
guarded = auth.bearer_auth_middleware(lambda raw: time.sleep(1000))(lambda *_: None)
scope = {
    "type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"",
    "headers": [(b"authorization", b"Bearer abc")],
}

async def receive():
    await asyncio.sleep(1000)

async def send(message):
    if message["type"] == "http.response.start":
        print(message["status"])

asyncio.run(guarded(scope, receive, send))
"""


def test_a_function_that_hangs_on_its_thread_does_not_hold_the_end_of_the_process() -> None:
    ran = subprocess.run([sys.executable, "-c", SHUTDOWN], capture_output=True, text=True, timeout=20, check=False)
    assert (ran.returncode, ran.stdout) == (0, "503\n")


@pytest.mark.every_loop
async def test_threads_that_hang_are_bounded_and_a_waiting_request_is_503(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._verify.hooks.MAX_THREADS", 2)
    running: list[str] = []

    def function(raw: str) -> AuthInfo:
        running.append(raw)
        time.sleep(0.3)
        return info()

    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, hook_timeout=0.05)
    guarded = _with_function(auth, function)
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await ask(guarded, "abc"))[0])

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
    assert (statuses, len(running)) == ([503] * 10, 2)
    await anyio.sleep(0.5)
    await one()
    assert len(running) == 3


def answers_none(*_: object) -> None:
    pass


def observer_fails(decision: Decision) -> None:
    raise KeyError("the observer")


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        pytest.param({"is_revoked": fails}, [], 503, id="is_revoked"),
        pytest.param({"authorize": fails}, [], 503, id="authorize"),
        pytest.param({"authorize": answers_none}, [], 503, id="a wrong answer of authorize"),
        pytest.param({"on_decision": [observer_fails]}, [], 200, id="an observer"),
        pytest.param({"verifier": Own(KeyError("the verifier"))}, [], 503, id="a verifier"),
        pytest.param({"verifier": HangingVerifier(), "hook_timeout": 0.001}, [], 503, id="a verifier that hangs"),
    ],
)
async def test_records_of_failures_are_limited_like_those_of_refusals(  # noqa: PLR0917
    options: dict[str, Any],
    headers: list[tuple[str, str]],
    status: int,
    issuer: Issuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guarded = protect(issuer, RecordingApp(headers=[(b"mcp-session-id", b"s2")]), **options)
    fields: Fields = [*bearer(token(issuer)), ("content-type", "application/json"), *headers]

    def records() -> int:
        return sum(record.name == "asgi_mcp_auth.verifiers" for record in caplog.records)

    for _ in range(50):
        assert (await call(guarded, headers=fields, body=BODY)).status == status
    assert records() == 20
    clock.now += 61
    assert (await call(guarded, headers=fields, body=BODY)).status == status
    assert records() == 21
    assert "(30 more like it before)" in caplog.records[-2 if status != 200 else -1].getMessage()  # then the refusal
