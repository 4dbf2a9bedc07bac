"""Event streams end with their token, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import sys
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from harness import Clock, bearer, call, http_scope, protect, send_scope, token
from operations import call_tool, guarded, post, rpc
from starlette.responses import StreamingResponse

from asgi_mcp_auth import Allow, Decision
from asgi_mcp_auth._mcp.messages import Message
from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]

EVENTS = b"text/event-stream"


def allow(*_: object) -> Allow:
    return Allow()


def ignore(_: object) -> None:
    pass


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("mcp_param_a", "1")], id="with an underscore"),
        pytest.param([("mcp-param-a-b", "1"), ("mcp-param-a_b", "2")], id="two that a WSGI app cannot tell apart"),
    ],
)
async def test_a_parameter_field_that_a_wsgi_app_would_read_otherwise_is_refused(
    fields: list[tuple[str, str]], issuer: Issuer
) -> None:
    guard = guarded(issuer, None, {"authorize": allow})
    answer = await post(guard, token(issuer), call_tool("x"), None, *fields)
    assert (answer.status, answer.json()["error"]["code"]) == (400, -32020)


def streaming(sent: list[Any], clock: Clock, *, chunks: list[bytes], content_type: bytes = b"text/event-stream") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", content_type)]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        clock.now += 1000
        await anyio.sleep(0.05)
        sent.append("late")
        await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


@pytest.mark.parametrize(
    ("content_type", "chunks", "expected"),
    [
        pytest.param(b"text/event-stream", [b"data: 1\n\n"], b"data: 1\n\n", id="RS-212 between events"),
        pytest.param(b"text/event-stream", [b"data: "], b"data: data: late\n\n", id="RS-212 after the event under way"),
        pytest.param(b"text/plain", [b"1"], b"1data: late\n\n", id="RS-212 no event stream"),
    ],
)
async def test_a_stream_ends_with_its_token(  # noqa: PLR0917
    issuer: Issuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    content_type: bytes,
    chunks: list[bytes],
    expected: bytes,
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)
    sent: list[Any] = []
    app = guarded(issuer, streaming(sent, clock, chunks=chunks, content_type=content_type))
    answer = await send_scope(app, http_scope("GET", headers=bearer(token(issuer))))
    assert (answer.body, sent) == (expected, ["late"])


async def test_sending_after_the_end_is_an_oserror_for_the_app_and_no_traceback_for_the_server(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)
    raised: list[str] = []
    streams = streaming([], clock, chunks=[b"data: 1\n\n"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await streams(scope, receive, send)
        except OSError as error:
            raised.append(str(error))
            raise

    scope = http_scope("GET", headers=bearer(token(issuer)), asgi=ASGI_24)
    answer = await send_scope(guarded(issuer, app), scope)
    assert (answer.body, raised) == (b"data: 1\n\n", ["The access token expired"])


ASGI_24 = {"version": "3.0", "spec_version": "2.4"}


async def test_frameworks_that_replace_the_oserror_cause_no_traceback_either(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette raises ClientDisconnect instead, a task group an ExceptionGroup."""
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)

    async def events() -> AsyncGenerator[bytes]:
        yield b"data: 1\n\n"
        clock.now += 1000
        await anyio.sleep(0.05)
        yield STAYS

    async def grouped(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(streaming([], clock, chunks=[b"data: 1\n\n"]), scope, receive, send)

    scope = http_scope("GET", headers=bearer(token(issuer)), asgi=ASGI_24)
    source = events()
    answer = await send_scope(protect(issuer, StreamingResponse(source, media_type="text/event-stream")), scope)
    await source.aclose()  # Starlette leaves that to the garbage collector, and trio warns about it
    assert answer.body == b"data: 1\n\n"
    clock.now -= 1000
    assert (await send_scope(protect(issuer, grouped), scope)).body == b"data: 1\n\n"


@pytest.mark.parametrize("version", ["2.0", "2.4"])
async def test_an_error_of_the_app_that_is_not_the_end_of_the_stream_passes(
    version: str, issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await streaming([], clock, chunks=[b"data: 1\n\n"])(scope, receive, send)

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        async def fail() -> None:
            raise KeyError("own")

        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, receive, send)
            group.start_soon(fail)

    scope = http_scope("GET", headers=bearer(token(issuer)), asgi={"version": "3.0", "spec_version": version})
    with pytest.raises(ExceptionGroup) as raised:
        await send_scope(protect(issuer, failing), scope)
    assert raised.group_contains(KeyError, match="own")


LISTEN = rpc("subscriptions/listen", notifications={"resourcesListChanged": True})
TOOL = call_tool("x")
STAYS, ENDS = b"data: late\n\n", b""


@pytest.mark.parametrize(
    ("method", "body", "fields", "late", "options", "expected"),
    [
        pytest.param("POST", TOOL, [], 1000, {}, STAYS, id="RS-212 a call past expiry"),
        pytest.param("POST", TOOL, [], 3899, {}, STAYS, id="RS-212 a call, 3599 s past exp"),
        pytest.param("POST", TOOL, [], 3901, {}, ENDS, id="RS-212 a call, 3601 s past exp"),
        pytest.param("POST", TOOL, [], 320, {"post_stream_grace": 0}, STAYS, id="RS-212 no grace, within the leeway"),
        pytest.param("POST", TOOL, [], 331, {"post_stream_grace": 0}, ENDS, id="RS-212 no grace, past the leeway"),
        pytest.param("POST", TOOL, [], 370, {"post_stream_grace": 60}, ENDS, id="RS-212 a shorter grace"),
        pytest.param("GET", b"", [], 1000, {}, ENDS, id="RS-212 GET"),
        pytest.param("POST", LISTEN, [("mcp-method", "subscriptions/listen")], 1000, {}, ENDS, id="RS-212 listen"),
    ],
)
@pytest.mark.parametrize("read", [True, False], ids=["body read", "body not read"])
async def test_a_stream_that_answers_a_post_outlives_the_token(  # noqa: PLR0917
    method: str,
    body: bytes,
    fields: list[tuple[str, str]],
    late: float,
    options: dict[str, Any],
    expected: bytes,
    read: bool,
    issuer: Issuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS)]})
        clock.now += late
        await anyio.sleep(0.05)
        await send({"type": "http.response.body", "body": STAYS, "more_body": False})

    guard = guarded(issuer, app, options) if read else protect(issuer, app, **options)
    answer = await post(guard, token(issuer), body, None, *fields, method=method)
    assert (answer.status, answer.body) == (200, expected)


@pytest.mark.parametrize(
    ("body", "field", "read", "expected"),
    [
        pytest.param(LISTEN, None, True, ENDS, id="RS-212 the body says listen"),
        pytest.param(LISTEN, None, False, STAYS, id="RS-212 nothing says listen"),
        pytest.param(TOOL, "subscriptions/listen", False, ENDS, id="RS-212 a false field shortens the caller's stream"),
        pytest.param(TOOL, "tools/call", False, STAYS, id="RS-212 the field says call"),
    ],
)
@pytest.mark.parametrize("name", ["mcp-method", "mcp_method"])
async def test_listening_is_recognised_by_the_body_where_it_is_read(  # noqa: PLR0917
    body: bytes,
    field: str | None,
    read: bool,
    expected: bytes,
    name: str,
    issuer: Issuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS)]})
        clock.now += 1000
        await anyio.sleep(0.05)
        await send({"type": "http.response.body", "body": STAYS, "more_body": False})

    guard = guarded(issuer, app) if read else protect(issuer, app)
    answer = await post(guard, token(issuer), body, None, *([] if field is None else [(name, field)]))
    assert answer.body == expected


async def test_a_stream_without_a_body_yet_ends_with_its_token(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)
    sent: list[Any] = []
    ended = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS)]})
        clock.now += 1000
        await ended.wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            ended.set()

    with anyio.fail_after(5):
        await protect(issuer, app)(http_scope("GET", headers=bearer(token(issuer))), no_body, send)
    assert sent[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]


async def test_a_client_that_left_before_expiry_causes_no_record(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Granian raises on a connection that is closed; the app has not noticed yet."""
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS)]})
        clock.now += 1000
        await anyio.sleep(0.05)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise RuntimeError("closed")

    await protect(issuer, app)(http_scope("GET", headers=bearer(token(issuer))), no_body, send)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


async def no_body() -> Any:
    await anyio.sleep_forever()


def tasks_running() -> int:
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return int(trio.lowlevel.current_statistics().tasks_living)
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("way", ["returns", "raises", "is cancelled"])
async def test_aborted_streams_leave_neither_tasks_nor_requests(way: str, issuer: Issuer) -> None:
    """300 streams with 20 kB of header fields each, whose clients leave long before the token expires."""
    held: list[weakref.ref[Any]] = []
    raw = token(issuer)

    class Field(bytes):
        """A value that can be watched."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS)]})
        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
        if way == "raises":
            raise OSError
        if way == "is cancelled":
            await anyio.sleep_forever()

    async def send(message: Any) -> None:
        pass

    guard = protect(issuer, app)

    async def one() -> None:
        field = Field(b"x" * 20_000)
        scope = http_scope("GET", headers=[*bearer(raw), ("x-long", field)])
        watched = Watched()
        scope["watched"] = watched
        held.append(weakref.ref(watched))
        with contextlib.suppress(OSError):
            await guard(scope, no_body, send)

    await one() if way != "is cancelled" else None  # fetches the keys
    before = tasks_running()
    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(one)
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    with anyio.fail_after(10):
        while tasks_running() > before:  # noqa: ASYNC110 - nothing announces the end of a task
            await anyio.sleep(0.01)
    gc.collect()
    assert [ref for ref in held if ref() is not None] == []


class Watched:
    """An object in a scope that can be referred to weakly."""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # memory, whatever the loop
async def test_a_request_in_flight_does_not_hold_its_parsed_body(issuer: Issuer) -> None:
    """1 MiB of JSON may take 30 MB when parsed. The decision about an expiry keeps operations without arguments."""
    body = json.dumps(call_tool("x")).encode()
    alive: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == body
        gc.collect()
        objects = gc.get_objects()
        alive.append(
            sum(isinstance(one, Message) or (isinstance(one, Operation) and bool(one.params)) for one in objects)
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    guard = guarded(issuer, app, {"on_decision": [ignore]})
    assert (await post(guard, token(issuer), body)).status == 200
    assert alive == [0]


@pytest.mark.requirement("AU-1")
async def test_an_expired_stream_is_reported_once_with_its_caller(issuer: Issuer, clock: Clock) -> None:
    seen: list[Decision] = []
    reported = anyio.Event()

    def observe(decision: Decision) -> None:
        seen.append(decision)
        if decision.outcome == "expired":
            reported.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.now += 10_000
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        with anyio.fail_after(5):
            await reported.wait()

    guard = guarded(issuer, app, {"on_decision": [observe]})
    await call(guard, "GET", "/mcp", bearer(token(issuer, sub="alice")))
    allowed, expired = seen
    assert (allowed.outcome, expired.outcome) == ("allowed", "expired")
    assert expired.auth_info is allowed.auth_info
