"""Requests that a server might run as something else than was checked: each is checked so, or refused."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from harness import chs, http_scope, send_scope, token
from operations import LEGACY, MODERN, EchoApp, call_tool, guarded, modern, post, rpc

from asgi_mcp_auth import Allow, AuthInfo, ConfigurationError, Deny, Operation, RequestInfo
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "method", ["post", "PUT", "PATCH", "QUERY", "TRACE", "get", "LINK", ""], ids="RS-180 {}".format
)
async def test_any_method_with_a_body_is_checked(issuer: Issuer, method: str) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app), token(issuer), call_tool("delete_file"), method=method)
    assert (answer.status, app.calls) == (403, 0)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"], ids="RS-180 {}".format)
@pytest.mark.parametrize("field", ["x-http-method-override", "x-http-method", "x-method-override"])
async def test_an_overridden_method_brings_no_body(issuer: Issuer, method: str, field: str) -> None:
    answer = await post(
        guarded(issuer), token(issuer), call_tool("delete_file"), LEGACY, (field, "POST"), method=method
    )
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", "text/plain"),
        ("content-type", "application/json"),
        ("content-encoding", "identity"),
        ("mcp-name", "x"),
        ("mcp-method", "tools/call"),
        ("mcp-protocol-version", MODERN),
    ],
    ids="RS-181 two lines of {}".format,
)
@pytest.mark.parametrize("options", [{}, {"headers_only": True}], ids=["body", "headers_only"])
async def test_two_lines_of_a_field(issuer: Issuer, name: str, value: str, options: Any) -> None:
    app = EchoApp()
    fields = [("content-encoding", "identity"), ("mcp-method", "tools/call"), ("mcp-name", "x")]
    body = modern(call_tool("x"))
    twice = [("mcp-name", "delete_file"), ("content-type", "application/json"), (name, value)]
    answer = await post(guarded(issuer, app, **options), token(issuer), body, MODERN, *fields, *twice)
    assert (answer.status, app.calls) == (400, 0)


@pytest.mark.parametrize(
    "uri",
    [
        "file:/secret/a",
        "file:secret/a",
        "file:///x/%2e%2e/secret/a",
        "file:\\\\\\secret\\a",
        "file:///SECRET/../secret/a",
        "File:///secret/a",
        "file://localhost/secret/a",
        "file:///secret%2fa",
        "file:///secret//../secret/a",
    ],
    ids="RS-192 {}".format,
)
@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
async def test_odd_uris(issuer: Issuer, uri: str, method: str) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app), token(issuer), rpc(method, uri=uri))
    assert (answer.status, app.calls) == (400, 0)
    assert answer.json()["error"] == {"code": -32602, "message": "Ambiguous resource URI"}


@pytest.mark.parametrize(
    "uri",
    [
        "file:///{dir}/{name}",
        "FILE:///{dir}/{name}",
        "file:/{dir}/{name}",
        "file:///%7Bdir%7D/a",
        "file:///x/../{dir}/a",
        "{+uri}",
    ],
    ids="RS-192 {}".format,
)
async def test_completions_of_odd_templates(issuer: Issuer, uri: str) -> None:
    body = rpc("completion/complete", ref={"type": "ref/resource", "uri": uri}, argument={"name": "dir", "value": "s"})
    answer = await post(guarded(issuer, scope_strategy="minimal"), token(issuer), body)
    assert (answer.status, answer.challenge) == (403, chs("mcp:read files:secret"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(rpc("completion/complete", ref={"type": "ref/tool", "name": "delete_file"}), id="RS-192 a tool"),
        pytest.param(rpc("completion/complete", ref={"type": "REF/PROMPT", "name": "boss"}), id="RS-192 case"),
        pytest.param(rpc("completion/complete"), id="RS-192 no reference"),
        pytest.param(rpc("completion/complete", Ref={"type": "ref/prompt", "name": "boss"}), id="RS-192 look-alike"),
        pytest.param(rpc("tools/call", name=None), id="RS-188 null"),
        pytest.param(rpc("tools/call", name=""), id="RS-188 empty"),
        pytest.param(rpc("tools/call", NAME="delete_file", name="x"), id="RS-187 look-alike"),
        pytest.param({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": None}, id="RS-188 params null"),
        pytest.param({"jsonrpc": "2.0", "id": None, "method": "ping"}, id="RS-188 id null"),
        pytest.param({"jsonrpc": "2.0", "id": 1.0, "method": "ping"}, id="RS-188 id 1.0"),
        pytest.param([], id="RS-189 empty"),
        pytest.param([[call_tool("x")]], id="RS-189 nested"),
        pytest.param([rpc("ping"), 1], id="RS-189 no message"),
        pytest.param([rpc("ping")] * 101, id="RS-189 too many"),
        pytest.param([rpc("ping"), modern(rpc("ping"))], id="RS-189 a modern one within"),
    ],
)
async def test_nothing_that_is_read_in_two_ways(issuer: Issuer, body: Any) -> None:
    app = EchoApp()
    answer = await post(guarded(issuer, app), token(issuer), body, "2025-03-26")
    assert (answer.status, app.calls) == (400, 0)


async def test_notifications_in_a_batch_are_checked(issuer: Issuer) -> None:
    body = [rpc("notifications/initialized", None), rpc("tools/call", None, name="delete_file")]
    answer = await post(guarded(issuer, scope_strategy="minimal"), token(issuer), body, "2025-03-26")
    assert (answer.status, answer.challenge) == (403, chs("mcp:read files:write"))


async def test_many_templates_take_little_time(issuer: Issuer) -> None:
    reference = {"type": "ref/resource", "uri": "x" * 500 + "{a}"}
    batch = [rpc("completion/complete", ref=reference)] * 100
    rules: dict[str, list[str]] = {"x*1" + "0" * number + "*": ["a"] for number in range(40)}
    with anyio.fail_after(5):
        answer = await post(guarded(issuer, resources=rules), token(issuer), batch, "2025-03-26")
    assert answer.status == 403


@pytest.mark.requirement("RS-193")
async def test_unsubscribing_is_in_the_body_only(issuer: Issuer) -> None:
    body = modern(rpc("resources/unsubscribe", uri="file:///secret/a"))
    fields = [("mcp-method", "resources/unsubscribe"), ("mcp-name", "x://y")]
    answer = await post(guarded(issuer, headers_only=True), token(issuer), body, MODERN, *fields)
    assert answer.status == 403


@pytest.mark.requirement("RS-196")
@pytest.mark.parametrize("method", ["subscriptions/listen", "resources/subscribe", "resources/unsubscribe"])
def test_what_names_targets_cannot_be_public(issuer: Issuer, method: str) -> None:
    with pytest.raises(ConfigurationError):
        guarded(issuer, public_methods=[method])


@pytest.mark.parametrize(
    "credential",
    [b"Bearer", b"Bearer ", b"Bearer x", b"Bearer a b", b"bearer\tx"],
    ids="RS-196 {}".format,
)
async def test_a_public_method_with_a_bad_credential(issuer: Issuer, credential: bytes) -> None:
    app = EchoApp()
    headers: list[tuple[str, str | bytes]] = [("authorization", credential), ("content-type", "application/json")]
    scope = http_scope(headers=headers)
    answer = await send_scope(guarded(issuer, app, public_methods=["ping"]), scope, json.dumps(rpc("ping")).encode())
    assert (answer.status in (400, 401), app.calls) == (True, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/mcp/upload/../x",
        "/mcp/upload//../x",
        "/mcp//upload/x",
        "/mcp/./upload/x",
        "/mcp/upload/%2e%2e/x",
        "/mcp/uploads",
    ],
    ids="RS-180 {}".format,
)
async def test_a_path_that_is_not_plain(issuer: Issuer, path: str) -> None:
    app = EchoApp()
    answer = await post(
        guarded(issuer, app, non_mcp_paths=["/mcp/upload/*"]), token(issuer), call_tool("delete_file"), path=path
    )
    assert (answer.status in (400, 403), app.calls) == (True, 0)


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        pytest.param("admin", None, id="RS-110 the top"),
        pytest.param("mcp:read files:write", None, id="RS-110 itself"),
        pytest.param("files:write", None, id="RS-110 what it implies covers the baseline"),
        pytest.param("mcp:read", "mcp:read files:write", id="RS-112 the required one, not those above it"),
        pytest.param("other", "mcp:read files:write", id="RS-112 not those below it"),
        pytest.param("mcp:read admin:x", "mcp:read files:write", id="RS-110 no prefix"),
    ],
)
async def test_hierarchy(issuer: Issuer, granted: str, expected: str | None) -> None:
    implies = {"admin": ["files:write"], "files:write": ["mcp:read"]}
    app = guarded(issuer, implies=implies, scope_strategy="minimal")
    answer = await post(app, token(issuer, scope=granted), call_tool("delete_file"))
    assert (answer.status, answer.challenge) == ((200, None) if expected is None else (403, chs(expected)))


@pytest.mark.requirement("RS-114", "RS-116")
async def test_challenges_and_published_scopes(issuer: Issuer) -> None:
    app = guarded(issuer, scope_strategy="minimal")
    document = await post(app, None, b"", path="/.well-known/oauth-protected-resource/mcp", method="GET")
    assert "files:write" not in document.json()["scopes_supported"]
    answer = await post(app, token(issuer), call_tool("delete_file"))
    assert answer.challenge == chs("mcp:read files:write")  # asked for all the same
    for method in ("initialize", "server/discover", "tools/list", "resources/list", "prompts/list"):
        first = await post(app, None, rpc(method))
        assert first.status == 401
        assert first.challenge is not None
        assert 'scope="mcp:read"' in first.challenge
        assert (await post(app, token(issuer), rpc(method))).status == 200  # but sufficient


@pytest.mark.requirement("RS-194")
async def test_a_parameter_field_grants_nothing(issuer: Issuer) -> None:
    fields = [("mcp-param-scope", "files:write"), ("mcp-param-name", "x"), ("mcp-param-tenantid", "acme")]
    answer = await post(
        guarded(issuer, scope_strategy="minimal"), token(issuer), call_tool("delete_file"), LEGACY, *fields
    )
    assert answer.challenge == chs("mcp:read files:write")


@pytest.mark.requirement("RS-216")
async def test_the_principal_outlives_a_token(issuer: Issuer) -> None:
    keys: list[str] = []

    def remember(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow | Deny:
        keys.append(info.principal.key)
        return Allow()

    app = guarded(issuer, options={"authorize": remember})
    for changes in ({}, {"jti": "another"}, {"scope": "mcp:read files:write"}, {"sub": "bob"}):
        await post(app, token(issuer, **changes), call_tool("x"))
    assert keys[0] == keys[1] == keys[2] != keys[3]
