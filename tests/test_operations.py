"""Authorizing what a JSON-RPC body asks for, through the whole middleware."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pydantic_core
import pytest
from harness import PRM, Answer, R, RecordingApp, bearer, chs, http_scope, send_scope, token
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp_types.jsonrpc import JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter

from asgi_mcp_auth import (
    Allow,
    AuthInfo,
    ConfigurationError,
    Decision,
    Deny,
    MCPAuth,
    MCPAuthMiddleware,
    NeedScopes,
    Operation,
    RequestInfo,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
)
from asgi_mcp_auth._mcp.headers import MCPFields
from asgi_mcp_auth._mcp.messages import parse, read_messages
from asgi_mcp_auth._mcp.operations import asks, asks_of, operations
from asgi_mcp_auth.errors import MessageRefused
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION = "io.modelcontextprotocol/protocolVersion"
POLICY: dict[str, Any] = {
    "default": ["mcp:read"],
    "tools": {"delete_file": ["files:write"], "ab": ["a", "b"], "mfa": ScopeRule(acr_values=["urn:mfa"])},
    "resources": {"file:///secret/*": ["files:secret"]},
    "prompts": {"boss": ["prompts:boss"]},
    "rpc_methods": {"tasks/*": ["tasks:use"]},
}


def fields_of(lines: Iterable[tuple[bytes, bytes]]) -> MCPFields:
    return MCPFields(RequestInfo(http_scope() | {"headers": list(lines)}).fields)


class EchoApp(RecordingApp):
    """Answers with the body that reached it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def guarded(issuer: Issuer, app: Any = None, options: dict[str, Any] | None = None, **policy: Any) -> MCPAuthMiddleware:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(**(POLICY | policy)))
    more: dict[str, Any] = options or {}
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, **more)
    return auth.wrap(app or EchoApp())


def rpc(method: str, message_id: int | None = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **({} if message_id is None else {"id": message_id}), "method": method, "params": params}


def modern(body: dict[str, Any], version: str = MODERN) -> dict[str, Any]:
    return body | {"params": {**body["params"], "_meta": {VERSION: version}}}


def call_tool(name: str, **more: Any) -> dict[str, Any]:
    return rpc("tools/call", name=name, arguments={}, **more)


async def post(
    app: Any,
    bearer_token: str | None,
    body: Any,
    version: str | None = LEGACY,
    *fields: tuple[str, str],
    path: str = "/mcp",
    method: str = "POST",
    content_type: str | None = "application/json",
) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers: list[tuple[str, str | bytes]] = [*(bearer(bearer_token) if bearer_token else ()), *fields]
    headers += [("content-type", content_type)] if content_type else []
    headers += [("mcp-protocol-version", version)] if version else []
    return await send_scope(app, http_scope(method, path, headers), data)


def error(code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("body", "granted", "expected"),
    [
        pytest.param(call_tool("delete_file"), "mcp:read files:write", None, id="RS-42 enough"),
        pytest.param(call_tool("delete_file"), "mcp:read", "mcp:read files:write", id="RS-42 lacking"),
        pytest.param(call_tool("ab"), "mcp:read", "mcp:read a b", id="RS-111 all at once"),
        pytest.param(call_tool("ab"), "mcp:read a", "mcp:read a b", id="RS-111 all, not the missing one"),
        pytest.param(call_tool("ab"), "", "mcp:read a b", id="RS-111 with the baseline"),
        pytest.param(rpc("tools/list"), "", "mcp:read", id="RS-115 the baseline is 403 too"),
        pytest.param(call_tool("Delete_File"), "mcp:read", None, id="RS-191 case matters"),
        pytest.param(call_tool("delete_file\u200b"), "mcp:read", None, id="RS-191 another name"),
        pytest.param(
            rpc("tools/call", None, name="delete_file"), "mcp:read", "mcp:read files:write", id="RS-186 no id"
        ),
        pytest.param(
            rpc("resources/read", uri="file:///secret/a"), "mcp:read", "mcp:read files:secret", id="RS-192 read"
        ),
        pytest.param(
            rpc("resources/subscribe", uri="file:///secret/a"), "mcp:read", "mcp:read files:secret", id="RS-192 sub"
        ),
        pytest.param(
            rpc("subscriptions/listen", notifications={"resourceSubscriptions": ["x://a", "file:///secret/a"]}),
            "mcp:read",
            "mcp:read files:secret",
            id="RS-192 listen",
        ),
        pytest.param(rpc("prompts/get", name="boss"), "mcp:read", "mcp:read prompts:boss", id="RS-192 prompt"),
        pytest.param(
            rpc("completion/complete", ref={"type": "ref/prompt", "name": "boss"}),
            "mcp:read",
            "mcp:read prompts:boss",
            id="RS-192 completion of a prompt",
        ),
        pytest.param(
            rpc("completion/complete", ref={"type": "ref/resource", "uri": "file:///{dir}/{name}"}),
            "mcp:read",
            "mcp:read files:secret",
            id="RS-192 completion of a template that reaches a secret",
        ),
        pytest.param(rpc("tasks/result", taskId="1"), "mcp:read", "mcp:read tasks:use", id="RS-192 tasks"),
        *[
            pytest.param(rpc(method), "mcp:read", None, id=f"RS-197 {method}")
            for method in ("initialize", "ping", "server/discover", "tools/list", "logging/setLevel")
        ],
        pytest.param({"jsonrpc": "2.0", "id": 1, "result": {}}, "mcp:read", None, id="RS-190 a response"),
    ],
)
async def test_scopes(issuer: Issuer, body: Any, granted: str, expected: str | None) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app, scope_strategy="minimal"), token(issuer, scope=granted), body)
    if expected is None:
        assert (answer.status, answer.json()) == (200, body)
    else:
        assert (answer.status, answer.challenge, app.calls) == (403, chs(expected), 0)
        assert answer.json() == {"error": "insufficient_scope", "error_description": "Additional scope required"}


@pytest.mark.parametrize(
    ("body", "version", "fields", "message"),
    [
        pytest.param(
            modern(call_tool("bar")),
            MODERN,
            {"mcp-method": "tools/call", "mcp-name": "foo"},
            "Mcp-Name",
            id="RS-181 name",
        ),
        pytest.param(modern(call_tool("bar")), MODERN, {"mcp-method": "tools/call"}, "Mcp-Name", id="RS-181 no name"),
        pytest.param(modern(rpc("tools/list")), MODERN, {}, "Mcp-Method", id="RS-181 no method"),
        pytest.param(
            modern(call_tool("x")),
            MODERN,
            {"mcp-method": "TOOLS/CALL", "mcp-name": "x"},
            "Mcp-Method",
            id="RS-181 case",
        ),
        pytest.param(call_tool("delete_file"), LEGACY, {"mcp-method": "tools/list"}, "Mcp-Method", id="RS-182 legacy"),
        pytest.param(modern(rpc("ping")), LEGACY, {}, "MCP-Protocol-Version", id="RS-183 legacy header"),
        pytest.param(modern(rpc("ping")), None, {}, "MCP-Protocol-Version", id="RS-183 no header"),
        *[
            pytest.param(
                modern(call_tool("Hello")),
                MODERN,
                {"mcp-method": "tools/call", "mcp-name": value},
                "Mcp-Name",
                id=f"RS-185 {value}",
            )
            for value in ("=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "=?base64?SGVsbG9=?=", "=?base64?/w==?=")
        ],
    ],
)
async def test_mismatch(issuer: Issuer, body: Any, version: str | None, fields: dict[str, str], message: str) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app), token(issuer), body, version, *fields.items())
    assert (answer.status, answer.json(), app.calls) == (400, error(-32020, f"Header mismatch: {message}"), 0)


@pytest.mark.parametrize(
    "name", ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"], ids="RS-181 two lines of {}".format
)
async def test_two_lines(issuer: Issuer, name: str) -> None:
    fields = [
        ("mcp-method", "tools/call"),
        ("mcp-name", "x"),
        (name, {"Mcp-Name": "x", "Mcp-Method": "tools/call"}.get(name, MODERN)),
    ]
    answer = await post(guarded(issuer), token(issuer), modern(call_tool("x")), MODERN, *fields)
    assert (answer.status, answer.json()) == (400, error(-32020, f"Header mismatch: {name}"))


@pytest.mark.parametrize(
    ("body", "version", "fields"),
    [
        pytest.param(
            modern(call_tool("Hello")), MODERN, {"mcp-method": "tools/call", "mcp-name": " Hello  "}, id="RS-184 OWS"
        ),
        pytest.param(
            modern(call_tool("Hello")),
            MODERN,
            {"mcp-method": "tools/call", "mcp-name": "=?base64?SGVsbG8=?="},
            id="RS-185 base64",
        ),
        pytest.param(
            modern(call_tool("SGVsbG8=")),
            MODERN,
            {"mcp-method": "tools/call", "mcp-name": "SGVsbG8="},
            id="RS-185 literal",
        ),
        pytest.param(
            modern(call_tool("=?BASE64?SGVsbG8=?=")),
            MODERN,
            {"mcp-method": "tools/call", "mcp-name": "=?BASE64?SGVsbG8=?="},
            id="RS-185 upper case",
        ),
        pytest.param(rpc("notifications/cancelled", None), MODERN, {}, id="RS-186 notification"),
    ],
)
async def test_agreement(issuer: Issuer, body: Any, version: str, fields: dict[str, str]) -> None:
    answer = await post(guarded(issuer), token(issuer), body, version, *fields.items())
    assert (answer.status, answer.json()) == (200, body)


LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'


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
    ("version", "options", "expected"),
    [
        pytest.param("2025-03-26", {}, "mcp:read files:write", id="RS-189 the union"),
        pytest.param(None, {"allow_batches": True}, "mcp:read files:write", id="RS-189 no header, allowed"),
        pytest.param(None, {}, None, id="RS-189 no header"),
        pytest.param("2025-06-18", {"allow_batches": True}, None, id="RS-189 abolished"),
    ],
)
async def test_batches(issuer: Issuer, version: str | None, options: Any, expected: str | None) -> None:
    app = EchoApp()
    batch = [rpc("tools/list"), call_tool("delete_file") | {"id": 2}]
    answer = await post(guarded(issuer, app, **options), token(issuer), batch, version)
    assert (answer.status, answer.challenge, app.calls) == ((403, chs(expected), 0) if expected else (400, None, 0))


@pytest.mark.requirement("RS-190")
async def test_a_modern_client_posts_no_response(issuer: Issuer) -> None:
    answer = await post(guarded(issuer), token(issuer), {"jsonrpc": "2.0", "id": 1, "result": {}}, MODERN)
    assert (answer.status, answer.json()) == (400, error(-32600, "Invalid request"))


@pytest.mark.parametrize(
    ("strategy", "version", "expected"),
    [
        pytest.param("auto", MODERN, "mcp:read files:write", id="RS-113 modern"),
        pytest.param("auto", LEGACY, "mcp:read prompts:boss files:write", id="RS-113 legacy"),
        pytest.param("auto", None, "mcp:read prompts:boss files:write", id="RS-113 unknown"),
        pytest.param("minimal", LEGACY, "mcp:read files:write", id="RS-113 minimal"),
        pytest.param("cumulative", MODERN, "mcp:read prompts:boss files:write", id="RS-113 cumulative"),
    ],
)
async def test_strategy(issuer: Issuer, strategy: Any, version: str | None, expected: str) -> None:
    body, fields = call_tool("delete_file"), list[tuple[str, str]]()
    if version == MODERN:
        body, fields = modern(body), [("mcp-method", "tools/call"), ("mcp-name", "delete_file")]
    app = guarded(issuer, scope_strategy=strategy)
    answer = await post(app, token(issuer, scope="mcp:read foreign prompts:boss"), body, version, *fields)
    assert (answer.status, answer.challenge) == (403, chs(expected))


def step_up(*params: str) -> str:
    inside = "".join(f"{param}, " for param in params)
    description = "A different authentication level is required"
    return f'Bearer error="insufficient_user_authentication", {inside}resource_metadata="{PRM}", error_description="{description}"'


@pytest.mark.parametrize(
    ("rule", "claims", "expected"),
    [
        pytest.param(ScopeRule(acr_values=["urn:mfa"]), {}, ['acr_values="urn:mfa"'], id="RS-120 no acr"),
        pytest.param(ScopeRule(acr_values=["urn:mfa"]), {"acr": "urn:mfa"}, None, id="RS-120 the acr"),
        pytest.param(ScopeRule(max_age=300), {"auth_time": -900}, ['max_age="300"'], id="RS-120 too old"),
        pytest.param(ScopeRule(max_age=300), {"auth_time": -310}, None, id="RS-120 within the leeway"),
        pytest.param(ScopeRule(max_age=300), {}, ['max_age="300"'], id="RS-120 no auth_time"),
        pytest.param(ScopeRule(max_age=300), {"auth_time": 10**400}, ['max_age="300"'], id="RS-122 a huge auth_time"),
        pytest.param(ScopeRule(max_age=300), {"auth_time": 3600}, ['max_age="300"'], id="RS-122 in the future"),
        pytest.param(
            {"scopes": ["files:write"], "acr_values": ["urn:mfa"]},
            {},
            ['scope="mcp:read files:write"', 'acr_values="urn:mfa"'],
            id="RS-121 both, from a table",
        ),
        pytest.param(
            ScopeRule(acr_values=["urn:gold", "urn:silver"], max_age=0),
            {"auth_time": -900},
            ['acr_values="urn:gold urn:silver"', 'max_age="0"'],
            id="RS-122 both parameters",
        ),
    ],
)
async def test_authentication(issuer: Issuer, rule: Any, claims: dict[str, Any], expected: list[str] | None) -> None:
    if "auth_time" in claims:
        claims = {"auth_time": int(issuer.clock()) + claims["auth_time"]}
    answer = await post(guarded(issuer, tools={"x": rule}), token(issuer, **claims), call_tool("x"))
    assert (answer.status, answer.challenge) == ((200, None) if expected is None else (401, step_up(*expected)))


@pytest.mark.requirement("RS-43")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(call_tool("unknown"), 403, id="RS-191 a tool"),
        pytest.param(rpc("unknown/method"), 403, id="RS-191 a method"),
        pytest.param(rpc("resources/read", uri="x://y"), 403, id="RS-191 a resource"),
        pytest.param(call_tool("ab"), 200, id="RS-191 a listed tool"),
        pytest.param(rpc("initialize"), 200, id="RS-197 initialize"),
        pytest.param(rpc("notifications/initialized", None), 200, id="RS-197 a notification"),
    ],
)
async def test_deny(issuer: Issuer, body: Any, status: int) -> None:
    answer = await post(guarded(issuer, unlisted="deny"), token(issuer, scope="mcp:read a b"), body)
    assert (answer.status, answer.challenge) == (status, None)  # a scope would not help
    assert status == 200 or answer.json() == {"error": "access_denied"}


@pytest.mark.requirement("RS-196")
async def test_public_methods(issuer: Issuer) -> None:
    app = EchoApp()
    open_ = guarded(issuer, app, public_methods=["server/discover"])
    answers = [
        await post(open_, None, rpc("server/discover")),
        await post(open_, token(issuer, exp=0), rpc("server/discover")),
        await post(open_, None, rpc("tools/list")),
        await post(open_, None, b"{"),
        await post(open_, None, b" " * 100_000 + LIST.replace(b"tools/list", b"server/discover")),
    ]
    assert [answer.status for answer in answers] == [200, 401, 401, 401, 401]
    assert "mcp_auth" not in app.scopes[0].get("state", {})
    assert app.calls == 1


@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [
        pytest.param(None, {"mcp-method": "tools/list"}, 400, id="RS-193 no version"),
        pytest.param(LEGACY, {"mcp-method": "tools/list"}, 400, id="RS-193 legacy"),
        pytest.param(MODERN, {}, 400, id="RS-193 no method"),
        pytest.param(MODERN, {"mcp-method": "tools/call"}, 400, id="RS-193 no name"),
        pytest.param(MODERN, {"mcp-method": "tools/list"}, 200, id="RS-193 enough"),
        pytest.param(MODERN, {"mcp-method": "tools/call", "mcp-name": "delete_file"}, 403, id="RS-193 lacking"),
        pytest.param(MODERN, {"mcp-method": "completion/complete"}, 400, id="RS-193 the body is needed"),
    ],
)
async def test_headers_only(issuer: Issuer, version: str | None, fields: dict[str, str], status: int) -> None:
    answer = await post(guarded(issuer, headers_only=True), token(issuer), b"not read", version, *fields.items())
    assert answer.status == status
    assert status != 200 or answer.body == b"not read"


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


def tenant_rule(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow | Deny:
    tenants = {operation.arguments.get("tenant"), operation.header_params.get("tenantid")} - {None}
    return Allow() if tenants <= {info.claims.get("tenant")} else Deny("another tenant")


async def needs(info: AuthInfo, operation: Operation, request: RequestInfo) -> NeedScopes:
    return NeedScopes(["extra"])


async def fails(info: AuthInfo, operation: Operation, request: RequestInfo) -> Any:
    raise RuntimeError


def says_true(*_: object) -> Any:
    return True


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("hook", "changes", "arguments", "fields", "status", "challenge"),
    [
        pytest.param(tenant_rule, {"tenant": "acme"}, {"tenant": "acme"}, {}, 200, None, id="allow"),
        pytest.param(tenant_rule, {"tenant": "other"}, {"tenant": "acme"}, {}, 403, None, id="RS-43 deny"),
        pytest.param(
            tenant_rule, {"tenant": "other"}, {}, {"mcp-param-tenantid": "acme"}, 403, None, id="RS-194 a header"
        ),
        pytest.param(needs, {}, {}, {}, 403, chs("mcp:read extra"), id="RS-111 scopes of a hook"),
        pytest.param(needs, {"scope": "mcp:read extra"}, {}, {}, 403, None, id="RS-43 no loop"),
        pytest.param(fails, {}, {}, {}, 503, None, id="RS-9 a failing hook"),
        pytest.param(says_true, {}, {}, {}, 503, None, id="RS-9 a wrong answer"),
    ],
)
async def test_hook(  # noqa: PLR0917
    issuer: Issuer, hook: Any, changes: Any, arguments: Any, fields: Any, status: int, challenge: str | None
) -> None:
    body = rpc("tools/call", name="x", arguments=arguments)
    answer = await post(
        guarded(issuer, options={"authorize": hook}), token(issuer, **changes), body, LEGACY, *fields.items()
    )
    assert (answer.status, answer.challenge) == (status, challenge)


async def test_observers_see_the_operation(issuer: Issuer) -> None:
    seen: list[Decision] = []
    app = guarded(issuer, options={"on_decision": [seen.append]})
    await post(app, token(issuer), call_tool("x"))
    await post(app, token(issuer), call_tool("delete_file"))
    assert [str(operation) for operation in seen[0].operations] == ["tools/call x"]
    assert seen[1].refusal is not None
    assert seen[1].refusal.details()["operation"] == "tools/call delete_file"


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        pytest.param({"tools": {"a*c": [], "ab*": []}}, "tools", id="RS-191 a tie"),
        pytest.param({"tools": {"": []}}, "tools", id="no name"),
        pytest.param({"resources": {"x://{+a}/{b}": []}}, "resources", id="a template that cannot be matched"),
        pytest.param({"tools": {"a": ["é"]}}, "tools['a']", id="RS-117 no scope"),
        pytest.param({"tools": {"a": {"max_age": -1}}}, "tools['a'].max_age", id="RS-122 a negative age"),
        pytest.param({"tools": {"a": {"scope": []}}}, "tools['a']", id="an unknown field"),
        pytest.param({"unlisted": "allow"}, "unlisted", id="no such value"),
        pytest.param({"public_methods": ["tools/call"]}, "public_methods", id="RS-196 a target cannot be public"),
        pytest.param({"non_mcp_paths": ["upload"]}, "non_mcp_paths", id="no path"),
        pytest.param({"annotate_lists": ["required_scopes"]}, "annotate_lists", id="without filter_lists"),
        pytest.param({"filter_lists": True, "annotate_lists": {"x"}}, "annotate_lists", id="no such annotation"),
        pytest.param({"filter_lists": True, "headers_only": True}, "filter_lists", id="RS-214 lists of headers_only"),
        pytest.param({"resources": {"c://a": ["a"], "c://a/": ["b"]}}, "resources", id="RS-192 one resource twice"),
        pytest.param({"tools": {"a": {"max_age": 10**400}}}, "tools['a'].max_age", id="RS-122 too long an age"),
        pytest.param({"proxies": {"a*b": {"x": "tool"}}}, "proxies['a*b']", id="no tool"),
        pytest.param({"proxies": {"a": {"x": ["tool"]}}}, "proxies['a']['x']", id="a list of kinds"),
        pytest.param({"proxies": {"a": {"x": "url"}}}, "proxies['a']['x']", id="no kind of target"),
        pytest.param({"proxies": {"a": {"x[": "tool"}}}, "proxies['a']", id="no argument"),
    ],
)
def test_configuration(issuer: Issuer, policy: Any, where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        guarded(issuer, **policy)
    assert [problem.where for problem in caught.value.problems] == [f"protected_resources[0].policy.{where}"]


# Whatever the SDK would run as tool X was authorized as tool X.

NAMES = st.sampled_from(["x", "delete_file", "tools/call", "tools/list", "1"]) | st.text(max_size=3)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["name", "Name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def bodies(draw: Callable[[Any], Any]) -> bytes:
    members = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "Method", "x"])
    valid: list[tuple[str, Any]] = [("jsonrpc", "2.0"), ("id", 1), ("method", draw(NAMES))]
    valid.append(("params", draw(st.fixed_dictionaries({"name": NAMES}) | VALUES)))
    pairs = valid + draw(st.lists(st.tuples(members, VALUES), max_size=2))
    pairs = draw(st.permutations([pair for pair in pairs if draw(st.integers(0, 9)) or pair[0] == "x"]))
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()


def runs(value: object) -> list[tuple[str, str | None]]:
    """The methods, and the tools, that the SDK would run for one JSON value; ValueError where it refuses it."""
    message = jsonrpc_message_adapter.validate_python(value, by_name=False)
    if not isinstance(message, (JSONRPCRequest, JSONRPCNotification)):
        return []
    return [(message.method, (message.params or {})["name"] if message.method == "tools/call" else None)]


@settings(max_examples=500, deadline=None)
@given(bodies() | st.binary(max_size=40))
def test_what_the_sdk_runs_is_what_was_checked(body: bytes) -> None:
    try:
        messages, batch = read_messages(parse(body))
        checked = [operations(one, {})[0] for one in asks_of(messages)]
    except MessageRefused:
        return
    assert not batch
    try:
        run = runs(pydantic_core.from_json(body))
    except ValueError:
        return  # it runs nothing
    assert [(operation.method, operation.tool) for operation in checked] == run


@settings(max_examples=300, deadline=None)
@given(st.lists(bodies(), max_size=4))
def test_of_a_batch_everything_was_checked(elements: list[bytes]) -> None:
    body = b"[" + b",".join(elements) + b"]"
    try:
        messages, batch = read_messages(parse(body))
        checked = [operations(one, {})[0] for one in asks_of(messages)]
    except MessageRefused:
        return
    assert batch
    run: list[tuple[str, str | None]] = []
    for value in pydantic_core.from_json(body):  # SDKs that knew batches took the elements one by one
        with contextlib.suppress(ValueError):
            run += runs(value)
    assert not Counter(run) - Counter((operation.method, operation.tool) for operation in checked)


META: dict[str, Any] = {VERSION: MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


@st.composite
def modern_posts(draw: Callable[[Any], Any]) -> tuple[bytes, dict[str, str]]:
    """A body of 2026-07-28 and the fields that describe it; one thing or another may be wrong."""

    def often(right: Any, wrong: Any) -> Any:
        return right if draw(st.integers(0, 7)) else draw(wrong)

    method, name = draw(st.sampled_from(["tools/call", "tools/list", "x"])), draw(NAMES)
    params = {"name": name, "_meta": often(META, VALUES), **often({}, st.dictionaries(NAMES, VALUES, max_size=1))}
    body = {"jsonrpc": "2.0", "id": often(1, VALUES), "method": method, "params": often(params, VALUES)}
    odd = st.sampled_from(["delete_file", "=?base64?eA==?=", "=?base64?eA=?=", "TOOLS/CALL", "tools/list", ""])
    literal = name if name.isascii() and name.isprintable() and name.strip() == name else "x"
    fields = {"mcp-protocol-version": often(MODERN, st.sampled_from([LEGACY, "9999-01-01"]))}
    fields |= {"mcp-method": often(method, odd), "mcp-name": often(literal, odd)}
    return json.dumps(often(body, st.just([body]))).encode(), fields


@settings(max_examples=500, deadline=None)
@given(modern_posts())
def test_what_the_modern_sdk_runs_is_what_was_checked(sent: tuple[bytes, dict[str, str]]) -> None:
    body, given_fields = sent
    fields = fields_of((name.encode(), value.encode()) for name, value in given_fields.items())
    try:
        checked = [operations(one, {})[0] for one in asks(body, fields)]
    except MessageRefused:
        event("refused")
        return
    decoded = json.loads(body)
    try:
        request = JSONRPCRequest.model_validate(decoded)
    except ValueError:
        return  # a notification, a batch, or nothing: it runs nothing
    if isinstance(classify_inbound_request(decoded, headers=given_fields), InboundLadderRejection):
        return
    event("run")
    assert [operation.method for operation in checked] == [request.method]
    if request.method == "tools/call":
        assert checked[0].tool == (request.params or {})["name"]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        pytest.param({}, {"mcp-method": "tools/list"}, id="another method in its field"),
        pytest.param({}, {"mcp-name": "purge"}, id="another name in its field"),
        pytest.param({}, {"mcp-name": "=?base64?cHVyZ2U=?="}, id="another name in its field, encoded"),
        pytest.param({}, {"mcp-method": None}, id="a name without a method"),
        pytest.param({}, {"mcp-name": None}, id="a method without a name"),
        pytest.param({}, {"mcp-protocol-version": LEGACY}, id="another revision in its field"),
        pytest.param({"jsonrpc": "1.0"}, {}, id="no jsonrpc 2.0"),
        pytest.param({"id": True}, {}, id="no id"),
        pytest.param({"result": {}}, {}, id="a response at once"),
        pytest.param({"params": {"name": "add", "Name": "purge"}}, {}, id="a look-alike"),
    ],
)
def test_a_call_that_its_fields_contradict_is_refused(message: dict[str, Any], fields: dict[str, str | None]) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "_meta": META}}
    described = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "add", **fields}
    lines = [(name.encode(), line.encode()) for name, line in described.items() if line is not None]
    with pytest.raises(MessageRefused):
        asks(json.dumps(request | message).encode(), fields_of(lines))


def test_a_name_alone_is_compared_with_the_body() -> None:
    """MCP up to 2025-11-25: a field that the revision does not require has to agree with the body all the same."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add"}}
    with pytest.raises(MessageRefused):
        asks(json.dumps(request).encode(), fields_of([(b"mcp-name", b"purge")]))


@pytest.mark.parametrize(
    ("lines", "repeated"),
    [
        pytest.param([(b"mcp-name", b"add")] * 20_000, "Mcp-Name", id="RS-245 one of ours"),
        pytest.param([(b"mcp-name", b""), (b"mcp-method", b"")] * 10_000, "Mcp-Name", id="RS-245 two of ours"),
        pytest.param([(b"cookie", b"")] * 20_000, None, id="RS-245 another"),
    ],
)
def test_many_lines_of_a_field_are_read_in_one_pass(lines: list[tuple[bytes, bytes]], repeated: str | None) -> None:
    """Some servers bound no number of fields: what 20 000 lines cost is linear (5 ms, not 5 s)."""
    began = time.process_time()
    assert fields_of(lines).repeated == repeated
    assert time.process_time() - began < 1.0


@pytest.mark.requirement("RS-245")
async def test_what_is_remembered_of_rules_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the names that rules are found for."""
    monkeypatch.setattr("asgi_mcp_auth._asgi.authorizer.MAX_KNOWN", 3)
    protected: Any = guarded(issuer)
    (authorizer,) = protected._authorizers
    names = ["add", "delete_file", *map(str, range(7)), "y" * 1000, "add", "delete_file"]
    for _ in range(2):
        for name in names:
            answer = await post(protected, token(issuer), call_tool(name), LEGACY)
            assert answer.status == (403 if name == "delete_file" else 200)
            assert len(authorizer._known) <= 3
    assert ("tools/call", "tool", "delete_file") in authorizer._known
