"""Authorizing what a JSON-RPC body asks for, through the whole middleware."""

from __future__ import annotations

from typing import Any

import pytest
from harness import PRM, chs, token
from operations import LEGACY, LIST, MODERN, EchoApp, call_tool, guarded, modern, post, rpc

from asgi_mcp_auth import (
    Allow,
    AuthInfo,
    ConfigurationError,
    Decision,
    Deny,
    NeedScopes,
    Operation,
    RequestInfo,
    ScopeRule,
)
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


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
