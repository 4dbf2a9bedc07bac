"""`asgi_mcp_auth.testing.call_tool`: a tool of an MCP server, in process, with the MCP SDK and with fastmcp."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastmcp import FastMCP
from harness import ISS, R, RecordingApp, protect
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy, current_auth
from asgi_mcp_auth.testing import Issuer, assert_challenge, call_tool, running

pytestmark = pytest.mark.anyio

LOOPBACK = "http://127.0.0.1:8000/mcp"


def add(a: int, b: int) -> str:
    return str(a + b)


def caller() -> str:
    info = current_auth()
    assert info is not None
    return info.subject


def purge() -> str:
    raise ZeroDivisionError


def sdk(**options: Any) -> Any:
    server = MCPServer("notes")
    for tool in (add, caller, purge):
        server.add_tool(tool)
    security = TransportSecuritySettings(allowed_hosts=["mcp.example.com", "127.0.0.1:*"])
    return server.streamable_http_app(transport_security=security, **options)


def fastmcp(**options: Any) -> Any:
    server: Any = FastMCP("notes")
    for tool in (add, caller, purge):
        server.tool(tool)
    return server.http_app(**options)


def with_rules(issuer: Issuer, app: Any, resource: str = R) -> Any:
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=[issuer.url])
    policy = ScopePolicy(default=["mcp:read"], tools={"purge": ["mcp:write"]})
    config = ResourceServerConfig(metadata=metadata, policy=policy)
    return MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock).wrap(app)


SERVERS = [pytest.param(sdk, id="MCP SDK"), pytest.param(fastmcp, id="fastmcp")]
OPTIONS = [
    pytest.param({}, id="sessions and event streams"),
    pytest.param({"json_response": True}, id="sessions and JSON"),
    pytest.param({"stateless_http": True}, id="no sessions"),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("make", SERVERS)
@pytest.mark.parametrize("resource", [R, LOOPBACK], ids=["https", "loopback"])
async def test_a_tool_is_called_with_the_caller_of_the_token(
    issuer: Issuer, make: Callable[..., Any], options: dict[str, Any], resource: str
) -> None:
    app = with_rules(issuer, make(**options), resource)
    token = issuer.mint(resource, scope="mcp:read", sub="bob")
    async with running(app) as started:
        call = await call_tool(started, resource, "caller", token=token)
        assert (call.status_code, call.text, call.result["isError"]) == (200, "bob", False)
        assert (await call_tool(started, resource, "add", {"a": 1, "b": 2}, token=token)).text == "3"


@pytest.mark.parametrize("make", SERVERS)
async def test_challenges_and_tool_errors_are_returned(issuer: Issuer, make: Callable[..., Any]) -> None:
    low, high = (issuer.mint(R, scope=scope) for scope in ("mcp:read", "mcp:read mcp:write"))
    async with running(with_rules(issuer, make())) as app:
        assert_challenge(await call_tool(app, R, "add"), 401, error=None, scopes="mcp:read")
        refused = await call_tool(app, R, "purge", token=low)
        assert_challenge(refused, 403, error="insufficient_scope", scopes="mcp:read mcp:write")
        with pytest.raises(AssertionError, match="the response 403 has no result of a tool"):
            _ = refused.result
        failed = await call_tool(app, R, "purge", token=high)
        assert failed.result["isError"]
        assert "purge" in failed.text


async def test_the_lifespan_is_left_to_the_test_if_asked(issuer: Issuer) -> None:
    server = MCPServer("notes")
    server.add_tool(add)
    app = with_rules(issuer, server.streamable_http_app(host="127.0.0.1"), LOOPBACK)
    token = issuer.mint(LOOPBACK, scope="mcp:read")
    async with server.session_manager.run():
        call = await call_tool(app, LOOPBACK, "add", {"a": 1, "b": 2}, token=token, lifespan=False)
    assert call.text == "3"


def replying(status: int, body: bytes, kind: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        pytest.param(b'{"id": 1, "error": {"code": -32601}}', "application/json", {"id": 1, "error": {"code": -32601}}, id="a JSON-RPC error"),
        pytest.param(b'data: x\r\n\r\ndata: {"id": 1, "error": {}}\r\n\r\n', "text/event-stream", {"id": 1, "error": {}}, id="an event stream"),
        pytest.param(b'{"id": 7, "result": {}}', "application/json; charset=utf-8", None, id="another id"),
        pytest.param(b"[1]", "application/json", None, id="no object"),
        pytest.param(b"{", "application/json", None, id="no JSON"),
        pytest.param(b'{"id": 1, "result": {}}', "text/html", None, id="another type"),
    ],
)  # fmt: skip
async def test_a_failed_handshake_is_the_outcome(body: bytes, kind: str, message: Any) -> None:
    call = await call_tool(replying(200, body, kind), R, "add")
    assert (call.message, call.status_code) == (message, 200)
    with pytest.raises(AssertionError, match="has no result"):
        _ = call.text


@pytest.mark.parametrize("make", SERVERS)
async def test_the_example_of_the_docstring_runs(issuer: Issuer, make: Callable[..., Any]) -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[ISS])
    policy = ScopePolicy(default=["notes:read"], tools={"purge": ["notes:purge"]})
    config = ResourceServerConfig(metadata=metadata, policy=policy)
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock)
    example = re.search(r"(?:^ {4}.*\n)+", str(inspect.getdoc(call_tool)), flags=re.MULTILINE)
    assert example is not None
    async with running(auth.wrap(make())) as app:
        names = {name: globals()[name] for name in ("call_tool", "assert_challenge")}
        names |= {"app": app, "url": R, "token": issuer.mint(R, scope="notes:read")}
        exec(f"async def example():\n{example[0]}", names)
        await names["example"]()


async def test_header_fields_are_sent(issuer: Issuer) -> None:
    app = RecordingApp()
    await call_tool(protect(issuer, app), R, "add", headers={"x-tenant": "a"}, token=issuer.mint(R, scope="mcp:read"))
    headers = dict(app.scopes[0]["headers"])
    assert (headers[b"host"], headers[b"x-tenant"]) == (b"mcp.example.com", b"a")
    assert ISS not in str(headers)


async def test_a_relative_url_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="'/mcp' is not an absolute URL"):
        await call_tool(RecordingApp(), "/mcp", "add")
