"""The name that is checked is the name that runs: app addresses, proxy tools and the forms of a URI."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any

import pytest
from harness import chs, token
from operations import LEGACY, MODERN, EchoApp, call_tool, guarded, modern, post, rpc

from asgi_mcp_auth import Allow, AuthInfo, Deny, Operation, RequestInfo, ScopeRule
from asgi_mcp_auth._compat.servers import MODULES
from asgi_mcp_auth._mcp.operations import MAX_HOOKED, MAX_UNUSUAL_URIS
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

RULES: dict[str, Any] = {
    "scope_strategy": "minimal",
    "tools": {"purge": ["admin"], "math_purge": ["math"], "save": []},
    "resources": {"db://{table}/rows": ["rows"], "db://secret": ["secret"], "db://math/secret": ["inner"]},
    "prompts": {"boss": ["boss"]},
}
EVERYTHING = "mcp:read admin math rows secret inner boss"
CODE_MODE = "fastmcp.experimental.transforms.code_mode"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Make `sys.modules` hold exactly these modules of server packages: all, where the test does not say."""
    wanted = getattr(request, "param", MODULES)
    for module in MODULES:
        if module in wanted:
            monkeypatch.setitem(sys.modules, module, sys.modules.get(module, ModuleType(module)))
        else:
            monkeypatch.delitem(sys.modules, module, raising=False)


def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", name=tool, arguments=arguments)


async def needed(issuer: Issuer, body: Any, granted: str = "mcp:read", **policy: Any) -> str | int:
    """The scopes that the challenge names, or the status where there is none."""
    app = EchoApp()
    answer = await post(guarded(issuer, app, **(RULES | policy)), token(issuer, scope=granted), body)
    assert app.calls == (answer.status == 200)
    challenge = answer.challenge or ""
    for scope in [challenge.partition('scope="')[2].partition('"')[0]]:
        if scope:
            assert (answer.status, challenge) == (403, chs(scope))
            return scope
    return answer.status


ADDRESS = "__75b8676e2c53_"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(f"{ADDRESS}purge", "mcp:read math admin", id="RS-191 the tool, and the one of a namespace"),
        pytest.param(f"{ADDRESS}math_purge", "mcp:read math", id="RS-191 the tool of a namespace"),
        pytest.param(f"{ADDRESS}save", 200, id="RS-191 a listed tool without scopes"),
        pytest.param(f"{ADDRESS}wipe", "mcp:read admin math", id="RS-191 a tool that may be listed under another name"),
        pytest.param(f"{ADDRESS}{ADDRESS}purge", "mcp:read admin math", id="RS-191 an address in an address"),
        pytest.param("__75B8676E2C53_other", 200, id="RS-191 no address: upper case"),
        pytest.param("__75b8676e2c5_other", 200, id="RS-191 no address: eleven digits"),
        pytest.param(ADDRESS, 200, id="RS-191 no address: no tool"),
    ],
)
async def test_the_address_of_an_app_tool_needs_the_scopes_of_the_tool(
    issuer: Issuer, name: str, expected: str | int
) -> None:
    assert await needed(issuer, call_tool(name)) == expected


async def test_the_rules_of_an_address_and_of_its_tool_add_up(issuer: Issuer) -> None:
    tools = {f"{ADDRESS}purge": ["address"], "purge": ["admin"]}
    assert await needed(issuer, call_tool(f"{ADDRESS}purge"), tools=tools) == "mcp:read address admin"
    assert await needed(issuer, call_tool(f"{ADDRESS}purge"), "mcp:read address admin", tools=tools) == 200


def bulk(*names: object) -> dict[str, Any]:
    return call("call_tools_bulk", tool_calls=[{"tool": name, "arguments": {}} for name in names])


NESTED = {"name": "get_prompt", "arguments": {"name": "boss"}}


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(call("call_tool", name="purge"), "mcp:read admin", id="RS-191 a tool"),
        pytest.param(call("call_tool", name="other"), 200, id="RS-191 a tool without a rule"),
        pytest.param(call("call_tool", name=f"{ADDRESS}math_purge"), "mcp:read math", id="RS-191 an address"),
        pytest.param(call("read_resource", uri="db://secret"), "mcp:read secret", id="RS-192 a resource"),
        pytest.param(call("read_resource", uri="db://users/rows?x"), "mcp:read rows", id="RS-192 a template"),
        pytest.param(call("read_resource", uri="DB://secret"), 400, id="RS-192 an ambiguous URI"),
        pytest.param(call("get_prompt", name="boss"), "mcp:read boss", id="RS-191 a prompt"),
        pytest.param(call("call_tool", **NESTED), "mcp:read boss", id="RS-191 one proxy through another"),
        pytest.param(call("call_tool_bulk", tool="purge", tool_arguments=[{}]), "mcp:read admin", id="RS-191 bulk"),
        pytest.param(bulk("other", "purge"), "mcp:read admin", id="RS-191 one of several"),
        pytest.param(bulk("other", "save"), 200, id="RS-191 several without scopes"),
        pytest.param(call("math_call_tool", name="purge"), "mcp:read admin math", id="RS-191 in a namespace"),
        pytest.param(
            call("math_read_resource", uri="db://secret"), "mcp:read secret inner", id="RS-192 in a namespace"
        ),
        pytest.param(call("my_get_prompt", topic="x"), 200, id="RS-191 another tool with such an end"),
        pytest.param(call("execute", code="…"), EVERYTHING, id="RS-191 code"),
        pytest.param(call("math_execute", code="…"), EVERYTHING, id="RS-191 code in a namespace"),
        pytest.param(call("search_tools", query="x"), EVERYTHING, id="RS-191 a search transform"),
        pytest.param(call("get_schema", tools=["purge"]), EVERYTHING, id="RS-191 a schema of code mode"),
        pytest.param(call("a_b_c_d_e_call_tool", name="x"), EVERYTHING, id="RS-191 too many namespaces"),
        pytest.param(call("call_tool"), 400, id="RS-191 no target"),
        pytest.param(rpc("tools/call", name="call_tool"), 400, id="RS-191 no arguments"),
        pytest.param(rpc("tools/call", name="call_tool", arguments='{"name":"purge"}'), 400, id="RS-191 text"),
        pytest.param(call("call_tool", name=["purge"]), 400, id="RS-191 a list"),
        pytest.param(call("call_tool", name=""), 400, id="RS-191 an empty name"),
        pytest.param(call("call_tool", Name="purge"), 400, id="RS-191 a look-alike"),
        pytest.param(call("my_get_prompt", name=5), 400, id="RS-191 a number below a namespace"),
        pytest.param(bulk(), 400, id="RS-191 no calls"),
        pytest.param(bulk("other", None), 400, id="RS-191 a call without a tool"),
        pytest.param(call("call_tools_bulk", tool_calls='[{"tool":"purge"}]'), 400, id="RS-191 calls as text"),
        pytest.param(call("call_tool", name="call_tool"), 400, id="RS-191 a nested proxy without a target"),
        pytest.param(bulk(*["other"] * 1001), 400, id="RS-191 too many"),
    ],
)
async def test_a_proxy_tool_needs_the_scopes_of_its_targets(issuer: Issuer, body: Any, expected: str | int) -> None:
    assert await needed(issuer, body) == expected
    if isinstance(expected, str):
        assert await needed(issuer, body, expected) == 200


@pytest.mark.usefixtures("loaded")
async def test_a_proxy_of_a_proxy_is_followed_to_a_bound(issuer: Issuer) -> None:
    inner: dict[str, Any] = {"name": "purge"}
    depths: list[str | int] = []
    for _ in range(6):
        depths.append(await needed(issuer, call("call_tool", **inner)))
        inner = {"name": "call_tool", "arguments": inner}
    assert depths == ["mcp:read admin"] * 3 + [400] * 3


@pytest.mark.parametrize(
    ("loaded", "name", "expected"),
    [
        pytest.param(frozenset[str](), "call_tool", 200, id="RS-191 no fastmcp"),
        pytest.param(frozenset[str](), "execute", 200, id="RS-191 code without fastmcp"),
        pytest.param({"fastmcp"}, "call_tool", "mcp:read admin", id="RS-191 fastmcp"),
        pytest.param({"fastmcp"}, "execute", EVERYTHING, id="RS-191 code"),
        pytest.param({"fastmcp"}, "search", 200, id="RS-191 a common name without code mode"),
        pytest.param({"fastmcp"}, "sql_execute", 200, id="RS-191 a common end without code mode"),
        pytest.param({"fastmcp", CODE_MODE}, "search", EVERYTHING, id="RS-191 code mode"),
    ],
    indirect=["loaded"],
)
async def test_the_proxies_of_loaded_packages_are_known(
    issuer: Issuer, loaded: None, name: str, expected: str | int
) -> None:
    assert await needed(issuer, call(name, name="purge")) == expected


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("proxies", "tools", "body", "expected"),
    [
        pytest.param(
            {"run": {"calls[].of.tool": "tool", "uri": "resource"}},
            {},
            call("run", calls=[{"of": {"tool": "purge"}}], uri="db://secret"),
            "mcp:read admin secret",
            id="RS-191 paths and several arguments",
        ),
        pytest.param(
            {"run": {"tools[]": "tool"}}, {}, call("run", tools=["x", "purge"]), "mcp:read admin", id="RS-191 a list"
        ),
        pytest.param({"run": {"code": "any"}}, {}, call("run"), EVERYTHING, id="RS-191 anything"),
        pytest.param({"*_run": {"t": "tool"}}, {}, call("math_run", t="purge"), "mcp:read admin math", id="RS-191 *"),
        pytest.param({"call_tool": {}}, {}, call("call_tool"), 200, id="RS-191 a tool that is no proxy"),
        pytest.param({"get_prompt": {}}, {}, call("get_prompt", topic="x"), 200, id="RS-191 another such tool"),
        pytest.param({}, {"execute": ["code"]}, call("execute"), "mcp:read code", id="RS-191 listed: its own scopes"),
        pytest.param({}, {"exec*": ["code"]}, call("execute"), "mcp:read code admin math rows secret inner boss",
            id="RS-191 a pattern lists nothing",
        ),
    ],
)  # fmt: skip
async def test_proxies_of_the_policy(issuer: Issuer, proxies: Any, tools: Any, body: Any, expected: str | int) -> None:
    assert await needed(issuer, body, proxies=proxies, tools=RULES["tools"] | tools) == expected


@pytest.mark.usefixtures("loaded")
async def test_with_headers_only_a_proxy_needs_everything(issuer: Issuer) -> None:
    for name in ("call_tool", "execute", f"{ADDRESS}wipe"):
        fields = [("mcp-method", "tools/call"), ("mcp-name", name)]
        app = guarded(issuer, headers_only=True, **(RULES | {"tools": {"purge": ["admin"], "call_tool": []}}))
        answer = await post(app, token(issuer), modern(call(name, name="purge")), MODERN, *fields)
        assert answer.status == 403
        assert "admin" in (answer.challenge or "")


@pytest.mark.usefixtures("loaded")
async def test_the_hook_is_asked_about_what_runs(issuer: Issuer) -> None:
    seen: list[str] = []

    def hook(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow | Deny:
        seen.append(f"{operation} {dict(operation.arguments)}")
        return Deny() if operation.tool == "purge" else Allow()

    app = guarded(issuer, options={"authorize": hook}, tools={}, resources={}, prompts={}, rpc_methods={})
    answer = await post(app, token(issuer), call("call_tool", name="purge", arguments={"a": 1}))
    assert (answer.status, answer.challenge) == (403, None)
    assert seen[1] == "tools/call purge {'a': 1}"


# Resources


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("db://users/rows", "mcp:read rows", id="RS-192 the template"),
        pytest.param("db://users/rows?x=1", "mcp:read rows", id="RS-192 a query"),
        pytest.param("db://users/rows#f", "mcp:read rows", id="RS-192 a fragment"),
        pytest.param("db://users/rows?x/y#f?g", "mcp:read rows", id="RS-192 both"),
        pytest.param("db://users/rows%3Fx", 400, id="RS-192 an encoded query"),
        pytest.param("db://%75sers/rows", "mcp:read rows", id="RS-192 an encoded letter"),
        pytest.param("db://secret", "mcp:read secret", id="RS-192 no path"),
        pytest.param("db://secret/", "mcp:read secret", id="RS-192 an empty path"),
        pytest.param("db://secret?x", "mcp:read secret", id="RS-192 a query after no path"),
        pytest.param("db://users/rows/..", 200, id="RS-192 dots to what has no rule"),
        pytest.param("db://users/x/../rows", 400, id="RS-192 dots"),
    ],
)
async def test_a_resource_is_found_in_every_form(issuer: Issuer, uri: str, expected: str | int) -> None:
    assert await needed(issuer, rpc("resources/read", uri=uri)) == expected
    if isinstance(expected, str):
        assert await needed(issuer, rpc("resources/read", uri=uri), expected) == 200


# URIs of the MCP Python SDK's and fastmcp's documentation, and the forms that a rule must not make unusable.
@pytest.mark.parametrize(
    ("rule", "uri"),
    [
        pytest.param("config://app", "config://app", id="RS-192 no path"),
        pytest.param("config://app-settings", "config://app-settings/", id="RS-192 an empty path"),
        pytest.param("greeting://{name}", "greeting://World", id="RS-192 a template without a path"),
        pytest.param("data://config", "data://config", id="RS-192 data"),
        pytest.param("resource://greeting", "resource://greeting", id="RS-192 resource"),
        pytest.param("weather://{city}/current", "weather://london/current", id="RS-192 weather"),
        pytest.param("weather://{city}/current", "weather://new%20york/current", id="RS-192 an encoded space"),
        pytest.param("repos://{owner}/{repo}/info", "repos://a/b/info", id="RS-192 repos"),
        pytest.param("path://{filepath*}", "path://docs/server/resources.mdx", id="RS-192 a wildcard"),
        pytest.param("repo://{owner}/{path*}/template.py", "repo://a/b/template.py", id="RS-192 a wildcard inside"),
        pytest.param("db://localhost:5432/x", "db://localhost:5432/x", id="RS-192 a port"),
        pytest.param("db://localhost:5432", "db://localhost:5432", id="RS-192 a port without a path"),
        pytest.param("db://Users/rows", "db://Users/rows", id="RS-192 a host in upper case"),
        pytest.param("https://Example.com/a", "https://Example.com/a", id="RS-192 one of a special scheme"),
        pytest.param("https://example.com", "https://example.com", id="RS-192 a special scheme without a path"),
        pytest.param("db://h/a%20b", "db://h/a%20b", id="RS-192 an encoded space in the rule"),
        pytest.param("db://h/a b", "db://h/a%20b", id="RS-192 a space in the rule"),
        pytest.param("db://h/%7Ebob", "db://h/~bob", id="RS-192 an encoded tilde"),
        pytest.param("db://h/~bob", "db://h/%7Ebob", id="RS-192 an encoded tilde in the request"),
        pytest.param("DB://h/a", "DB://h/a", id="RS-192 a scheme in upper case"),
        pytest.param("file:/x/y", "file:/x/y", id="RS-192 a file without slashes"),
        pytest.param("db://h/a/../b", "db://h/a/../b", id="RS-192 dots"),
        pytest.param("https://Example.com/*", "https://example.com", id="RS-192 below a host"),
        pytest.param("*://config", "x://config", id="RS-192 any scheme"),
        pytest.param("notes://caf\u00e9/*", "notes://caf%C3%A9/x", id="RS-192 not ASCII"),
    ],
)
async def test_a_rule_applies_to_its_resource_and_leaves_it_usable(issuer: Issuer, rule: str, uri: str) -> None:
    if rule == "repo://{owner}/{path*}/template.py":
        rule = "repo://*/template.py"  # such templates are written as patterns
    for method in ("resources/read", "resources/subscribe"):
        body = rpc(method, uri=uri)
        assert await needed(issuer, body, resources={rule: ["r"]}) == "mcp:read r"
        assert await needed(issuer, body, "mcp:read r", resources={rule: ["r"]}) == 200


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param({"db://h/*": ["r"], "db://h/b": ["r"]}, "mcp:read r", id="RS-192 two rules, one requirement"),
        pytest.param({"db://h/*": [], "db://h/b": []}, 200, id="RS-192 two rules without scopes"),
        pytest.param({"db://h/*": [], "db://h/b": ["r"]}, 400, id="RS-192 two requirements"),
        pytest.param({"db://h/*": ["r"], "db://h/b": ScopeRule(scopes=["r"], max_age=5)}, 400, id="RS-192 two ages"),
    ],
)
async def test_requirements_are_compared_not_rules(issuer: Issuer, rules: Any, expected: str | int) -> None:
    assert await needed(issuer, rpc("resources/read", uri="db://h/a/../b"), resources=rules) == expected


async def test_a_denied_resource_is_not_reached_by_a_query(issuer: Issuer) -> None:
    for uri, expected in (("db://a/rows", "mcp:read rows"), ("db://a/rows?x", 403), ("db://other/", 403)):
        assert await needed(issuer, rpc("resources/read", uri=uri), unlisted="deny") == expected


async def test_a_hook_gets_uris_as_servers_read_them(issuer: Issuer) -> None:
    seen: list[str | None] = []

    def hook(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow:
        seen.append(operation.resource)
        return Allow()

    app = guarded(issuer, options={"authorize": hook}, tools={}, resources={}, prompts={}, rpc_methods={})
    for uri in ("db://sec%72et/cells", "db://secret/cells?x#y", "db://h/a%20b"):
        assert (await post(app, token(issuer), rpc("resources/read", uri=uri))).status == 200
    assert seen[:2] == ["db://secret/cells", "db://secret/cells?x#y"]
    assert set(seen[2:4]) == {"db://secret/cells?x", "db://secret/cells"}
    assert seen[4:] == ["db://h/a b"]
    for uri in ("db://secret%2Fcells", "DB://secret/cells", "db://x/../secret/cells", "file:/etc/passwd", "db://a\n"):
        answer = await post(app, token(issuer), rpc("resources/read", uri=uri))
        assert (answer.status, answer.json()["error"]["message"]) == (400, "Ambiguous resource URI")
    assert len(seen) == 5


# What one message may cost

SLOW = "HTTP://User.x@LOCALHOST:080///'/%5C/7#{}'"


def listen(*uris: str) -> dict[str, Any]:
    return rpc("subscriptions/listen", notifications={"resourceSubscriptions": list(uris)})


@pytest.mark.parametrize(
    ("uris", "status"),
    [
        pytest.param([SLOW.format(n) for n in range(MAX_UNUSUAL_URIS)], 200, id="RS-192 as many as allowed"),
        pytest.param([SLOW.format(n) for n in range(1000)], 400, id="RS-192 more"),
        pytest.param([SLOW.format(0)] * 1000, 200, id="RS-192 one, a thousand times"),
        pytest.param([f"db://h/{n}" for n in range(1000)], 200, id="RS-192 a thousand in canonical form"),
        pytest.param(["X://h/" + "a" * 507], 400, id="RS-192 a long one"),
        pytest.param(["x://h/" + "a" * 8000], 200, id="RS-192 a long one in canonical form"),
    ],
)
async def test_uris_in_unusual_forms_are_bounded(issuer: Issuer, uris: list[str], status: int) -> None:
    app = guarded(issuer, **RULES)
    await post(app, token(issuer), listen("x://y"))
    began = time.process_time()
    answer = await post(app, token(issuer), listen(*uris))
    assert answer.status == status
    assert time.process_time() - began < 0.25  # it was 0.9 s


@pytest.mark.parametrize(
    ("uris", "status", "asked"),
    [
        pytest.param(["x://y"] * 1000, 200, 1, id="RS-194 one, a thousand times"),
        pytest.param([f"x://y/{n}" for n in range(MAX_HOOKED)], 200, MAX_HOOKED, id="RS-194 as many as allowed"),
        pytest.param([f"x://y/{n}" for n in range(MAX_HOOKED + 1)], 400, 0, id="RS-194 more"),
        pytest.param([f"x://y/{n}?q#f" for n in range(40)], 400, 0, id="RS-194 more with their queries"),
    ],
)
async def test_the_calls_of_a_hook_are_bounded(issuer: Issuer, uris: list[str], status: int, asked: int) -> None:
    seen: list[Operation] = []

    def hook(info: AuthInfo, operation: Operation, request: RequestInfo) -> Allow:
        seen.append(operation)
        return Allow()

    answer = await post(guarded(issuer, options={"authorize": hook}), token(issuer), listen(*uris))
    assert (answer.status, len(seen)) == (status, asked)


# Methods that a revision or a server does not have


@pytest.mark.parametrize(
    ("version", "method", "status"),
    [
        pytest.param(MODERN, "resources/subscribe", 200, id="RS-195 subscribe of another revision"),
        pytest.param(MODERN, "resources/unsubscribe", 200, id="RS-195 unsubscribe of another revision"),
        pytest.param(MODERN, "completion/complete", 200, id="RS-195 completions of a server without them"),
        pytest.param(LEGACY, "subscriptions/listen", 200, id="RS-195 listen of another revision"),
        pytest.param(MODERN, "subscriptions/listen", 400, id="RS-195 listen of its own revision"),
        pytest.param(LEGACY, "resources/subscribe", 400, id="RS-195 subscribe of its own revision"),
        pytest.param(MODERN, "tools/call", 400, id="RS-195 a call"),
    ],
)
async def test_methods_that_a_revision_lacks_are_answered_by_the_app(
    issuer: Issuer, version: str, method: str, status: int
) -> None:
    body = modern(rpc(method)) if version == MODERN else rpc(method)
    fields = [("mcp-method", method)] if version == MODERN else []
    app = guarded(issuer)
    assert (await post(app, token(issuer), body, version, *fields)).status == status
    assert status == 400 or (await post(app, token(issuer, scope="other"), body, version, *fields)).status == 403


async def test_a_target_of_a_method_that_a_revision_lacks_is_protected(issuer: Issuer) -> None:
    body = modern(rpc("resources/subscribe", uri="file:///secret/a"))
    answer = await post(guarded(issuer), token(issuer), body, MODERN, ("mcp-method", "resources/subscribe"))
    assert (answer.status, answer.challenge) == (403, chs("mcp:read files:secret"))
