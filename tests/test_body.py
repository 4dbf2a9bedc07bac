"""Which bodies are read, within which bounds, and that the app gets the same bytes."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from harness import RecordingApp, bearer, http_scope, token
from operations import LEGACY, LIST, EchoApp, call_tool, guarded, post

from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("RS-195")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(
            b'{"jsonrpc":"2.0","method":"tools/list","method":"tools/call"}', 400, -32600, id="RS-187 duplicate"
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","name":"b"}}',
            400,
            -32600,
            id="RS-187 deep duplicate",
        ),
        pytest.param(b'{"jsonrpc":"2.0","method":"ping","Method":"tools/call"}', 400, -32600, id="RS-187 look-alike"),
        pytest.param('{"jsonrpc":"2.0","method":"ping","param\u017f":{}}'.encode(), 400, -32600, id="RS-187 long s"),
        pytest.param(b"\xef\xbb\xbf" + LIST, 400, -32700, id="RS-187 BOM"),
        pytest.param(LIST.decode().encode("utf-16"), 400, -32700, id="RS-187 UTF-16"),
        pytest.param(LIST.decode().encode("utf-16-le"), 400, -32700, id="RS-187 UTF-16 without BOM"),
        pytest.param(b'{"a":NaN}', 400, -32600, id="RS-187 NaN"),
        pytest.param(b'{"a":1e999}', 400, -32600, id="RS-187 overflow"),
        pytest.param(b'{"jsonrpc":"2.0","method":"\\ud800"}', 400, -32600, id="RS-187 surrogate"),
        pytest.param(b"[" * 100_000, 400, -32600, id="RS-187 nesting"),
        pytest.param(b"", 400, -32700, id="RS-187 nothing"),
        pytest.param(b"{}", 400, -32600, id="RS-188 no jsonrpc"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":["x"]}', 400, -32600, id="RS-188 method"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"x","result":{}}', 400, -32600, id="RS-188 both"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["x"]}}', 400, -32602, id="RS-188 name"
        ),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}', 400, -32602, id="RS-188 params"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', 400, -32602, id="RS-188 none"),
        pytest.param(b'{"jsonrpc":"2.0","id":true,"method":"ping"}', 400, -32600, id="RS-188 id"),
        pytest.param(b"x" * 2_000_000, 413, -32600, id="RS-187 too large"),
        pytest.param(b"[" + LIST + b"]", 400, -32600, id="RS-189 batch"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///x/../secret/a"}}',
            400,
            -32602,
            id="RS-192 dots",
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"FILE:///secret/a"}}',
            400,
            -32602,
            id="RS-192 scheme",
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///secret%2Fa"}}',
            400,
            -32602,
            id="RS-192 encoded",
        ),
    ],
)
async def test_refused_bodies(issuer: Issuer, body: bytes, status: int, code: int) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app), token(issuer), body)
    assert (answer.status, answer.json()["error"]["code"], app.calls) == (status, code, 0)
    assert answer.json()["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    ("content_type", "fields", "status"),
    [
        pytest.param("text/plain", [], 415, id="RS-187 media type"),
        pytest.param(None, [], 415, id="RS-187 no media type"),
        pytest.param("application/json; charset=utf-8", [], 200, id="RS-187 parameters"),
        pytest.param("application/json", [("content-encoding", "gzip")], 415, id="RS-187 gzip"),
        pytest.param("application/json", [("content-encoding", "identity")], 200, id="RS-187 identity"),
        pytest.param("application/json", [("content-length", "0")], 400, id="a body after none was declared"),
        pytest.param("application/json", [("content-length", "99")], 400, id="a lying Content-Length"),
        pytest.param("application/json", [("content-length", "46"), ("content-length", "46")], 400, id="two lengths"),
        pytest.param("application/json", [("content-length", "9" * 5000)], 413, id="RS-187 a huge length"),
    ],
)
async def test_content(issuer: Issuer, content_type: str | None, fields: list[tuple[str, str]], status: int) -> None:
    answer = await post(guarded(issuer), token(issuer), LIST, LEGACY, *fields, content_type=content_type)
    assert answer.status == status


@pytest.mark.parametrize(
    ("path", "method", "with_token", "policy"),
    [
        pytest.param("/mcp/upload/x", "POST", True, {"non_mcp_paths": ["/mcp/upload/*"]}, id="RS-180 plain path"),
        pytest.param("/mcp", "POST", False, {}, id="RS-1 without a token"),
        pytest.param(
            "/mcp",
            "POST",
            True,
            dict[str, Any](tools={}, resources={}, prompts={}, rpc_methods={}),
            id="RS-180 no rules",
        ),
    ],
)
async def test_nothing_is_read(issuer: Issuer, path: str, method: str, with_token: bool, policy: Any) -> None:
    app = guarded(issuer, RecordingApp(), **policy)

    async def receive() -> Any:
        pytest.fail("the body was read")

    async def send(message: Any) -> None:
        pass

    await app(http_scope(method, path, bearer(token(issuer)) if with_token else ()), receive, send)


async def test_a_plain_path_has_one_spelling(issuer: Issuer) -> None:
    app = guarded(issuer, non_mcp_paths=["/mcp/upload/*"])
    assert (await post(app, token(issuer), b"x", path="/mcp/upload/../x")).status == 400


@pytest.mark.requirement("RS-186")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_message(issuer: Issuer, method: str) -> None:
    answer = await post(guarded(issuer), token(issuer), call_tool("delete_file"), method=method)
    assert (answer.status, answer.body) == (200, b"")  # a message there does not reach the app


@pytest.mark.parametrize("at", range(len(json.dumps(call_tool("x"))) + 1), ids="RS-180 chunked at {}".format)
async def test_chunks(issuer: Issuer, at: int) -> None:
    body = json.dumps(call_tool("x")).encode()
    chunks = [body[:at], body[at:]]
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive(), await receive()])

    queue = [{"type": "http.request", "body": chunk, "more_body": not n} for n, chunk in enumerate(chunks)]
    queue.append({"type": "http.disconnect"})

    async def receive() -> Any:
        return queue.pop(0)

    scope = http_scope(headers=[*bearer(token(issuer)), ("content-type", "application/json")])
    await guarded(issuer, app)(scope, receive, anyio.sleep)
    assert seen == [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]


UTF7 = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","x":"+ACIALAAi-method+ACIAOgAi-tools/call"}'


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        pytest.param("application/json; charset=utf-7", 415, id="RS-187 UTF-7"),
        pytest.param("application/json;charset=hz", 415, id="RS-187 hz"),
        pytest.param("application/json; charset=utf-8; charset=utf-7", 415, id="RS-187 two charsets"),
        pytest.param('application/json; x="; charset=utf-8"; charset=utf-7', 415, id="RS-187 one in quotes"),
        pytest.param("application/json; charset*=utf-7''x", 415, id="RS-187 an extended parameter"),
        pytest.param("application/json; charset = utf-7", 415, id="RS-187 spaces"),
        pytest.param("application/json, text/plain", 415, id="RS-187 two types"),
        pytest.param("application/jsonx", 415, id="RS-187 another type"),
        pytest.param(" Application/JSON\t;Charset=UTF-8 ", 200, id="RS-187 case and spaces"),
        pytest.param('application/json; charset="utf-8"', 200, id="RS-187 quoted"),
        pytest.param("application/json; profile=x", 200, id="RS-187 another parameter"),
    ],
)
async def test_charset(issuer: Issuer, content_type: str, status: int) -> None:
    body = UTF7 if status != 200 else LIST
    assert (await post(guarded(issuer), token(issuer), body, content_type=content_type)).status == status


async def feed(issuer: Issuer, messages: list[Any], app: Any = None) -> int:
    """The status of a POST whose body comes in the given messages, and then nothing more."""
    statuses: list[int] = []

    async def receive() -> Any:
        if not messages:
            await anyio.sleep_forever()
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers: list[tuple[str, str | bytes]] = [*bearer(token(issuer)), ("content-type", "application/json")]
    await guarded(issuer, app)(http_scope(headers=headers), receive, send)
    return statuses[0]


@pytest.mark.every_loop
@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="RS-180 nothing comes"),
        pytest.param([b""], id="RS-180 an empty chunk"),
        pytest.param([LIST[:9], b""], id="RS-180 a part"),
    ],
)
async def test_a_slow_body(issuer: Issuer, monkeypatch: pytest.MonkeyPatch, messages: list[bytes]) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.body.MAX_WAIT", 0.02)
    app = EchoApp()
    with anyio.fail_after(5):
        chunks = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in messages]
        assert await feed(issuer, chunks, app) == 400
    assert app.calls == 0


@pytest.mark.every_loop
async def test_a_body_in_single_bytes(issuer: Issuer) -> None:
    chunks: list[Any] = [{"type": "http.request", "body": bytes([byte]), "more_body": True} for byte in LIST]
    assert await feed(issuer, [*chunks, {"type": "http.request"}]) == 200
    assert await feed(issuer, [*chunks, {"type": "http.disconnect"}]) == 400
