"""Mixed authentication: public and protected operations on one URL, requirements MX-1 to MX-11."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from harness import PRM, R, bearer, http_scope, send_scope, token
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import LEGACY, MODERN, EchoApp, Replies, call_tool, guarded, modern, post, reply, rpc

from asgi_mcp_auth import (
    ConfigurationError,
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
)
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.doctor import explain
from asgi_mcp_auth.stores import MemoryStore
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

FIXTURE: dict[str, Any] = {
    "default": [],
    "tools": {"get_me": ["mcp:read"], "find": ["mcp:read"], "admin_ping": ["admin"]},
    "resources": {"file:///secret/*": ["files:secret"]},
    "prompts": {"boss": ["boss"]},
    "rpc_methods": {},
    "public_tools": ["ping", "find"],
    "public_resources": ["file:///public/*"],
    "public_prompts": ["hello"],
}
CHALLENGE = f'Bearer scope="mcp:read", resource_metadata="{PRM}"'
CHATGPT = ("user-agent", "openai-mcp/1.0")


def mixed(issuer: Issuer, app: Any = None, options: dict[str, Any] | None = None, **policy: Any) -> Any:
    return guarded(issuer, app, options, **(FIXTURE | policy))


@pytest.mark.requirement("MX-1")
async def test_the_shorthand_has_public_tools(issuer: Issuer) -> None:
    guard = MCPAuthMiddleware(
        EchoApp(),
        resource=R,
        authorization_servers=[issuer.url],
        http_client=issuer.http_client,
        tools={"get_me": ["mcp:read"]},
        public_tools=["ping"],
    )
    assert [(await post(guard, None, call_tool(name))).status for name in ("ping", "get_me")] == [200, 401]


def read_resource(uri: str, method: str = "resources/read") -> dict[str, Any]:
    return rpc(method, uri=uri)


@pytest.mark.requirement("MX-1", "MX-3")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (call_tool("ping"), 200),
        (call_tool("find"), 200),
        (call_tool("get_me"), 401),
        (call_tool("other"), 401),
        (call_tool("Ping"), 401),
        (call_tool("ping "), 401),
        (read_resource("file:///public/a"), 200),
        (read_resource("file:///public/../secret/a"), 401),
        (read_resource("file:///public/%2e%2e/secret/a"), 401),
        (read_resource("file:///secret/a"), 401),
        (read_resource("file:///public/a", "resources/subscribe"), 200),
        (rpc("prompts/get", name="hello"), 200),
        (rpc("prompts/get", name="boss"), 401),
        (rpc("completion/complete", ref={"type": "ref/prompt", "name": "hello"}), 200),
        (rpc("completion/complete", ref={"type": "ref/resource", "uri": "file:///public/{x}"}), 401),
        (rpc("initialize"), 200),
        (rpc("notifications/initialized", None), 200),
        (rpc("server/discover"), 200),
        (rpc("ping"), 200),
        (rpc("tools/list"), 200),
        (rpc("resources/list"), 200),
        (rpc("resources/templates/list"), 200),
        (rpc("prompts/list"), 200),
        (rpc("logging/setLevel"), 401),
        (rpc("subscriptions/listen", notifications={}), 401),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, 401),
        (b"{", 401),
    ],
    ids=str,
)
async def test_what_passes_without_a_token(issuer: Issuer, body: Any, status: int) -> None:
    app = EchoApp()
    answer = await post(mixed(issuer, app), None, body)
    assert (answer.status, app.calls) == (status, int(status == 200))
    assert "mcp_auth" not in (app.scopes or [{}])[0].get("state", {})


@pytest.mark.requirement("MX-1")
@pytest.mark.parametrize(
    ("policy", "tool", "status"),
    [
        pytest.param({"public_tools": ["*"]}, "get_me", 401, id="an exact rule is more specific than a pattern"),
        pytest.param({"public_tools": ["get_*"], "tools": {"g*": ["a"]}}, "get_me", 200, id="the longer pattern wins"),
        pytest.param({"public_tools": ["g*"], "tools": {"get_*": ["a"]}}, "get_me", 401, id="the longer rule wins"),
        pytest.param({"public_tools": ["g*e"], "tools": {"*me": ["a"]}}, "get_me", 401, id="a tie is protected"),
        pytest.param({"public_tools": ["get_*"], "tools": {"get_*": ["a"]}}, "get_me", 200, id="the same text"),
        pytest.param({"public_tools": ["a*", "*b"]}, "axb", 200, id="two listings that tie"),
        pytest.param({"public_tools": ["*"]}, "__0123456789ab_ping", 401, id="an app address is never public"),
        pytest.param({"public_tools": ["*"], "proxies": {"run": {"*": "any"}}}, "run", 401, id="a tool that runs any"),
        pytest.param({"unlisted": "deny"}, "ping", 200, id="a listing is a rule"),
        pytest.param({"rpc_methods": {"tools/call": ["x"]}}, "ping", 200, id="the target decides, not the method"),
        pytest.param({"paths": {"/mcp": ["x"]}}, "ping", 401, id="a path with a rule has no public operations"),
    ],
)
async def test_the_more_specific_entry_decides(issuer: Issuer, policy: Any, tool: str, status: int) -> None:
    assert (await post(mixed(issuer, **policy), None, call_tool(tool))).status == status


@pytest.mark.requirement("MX-1")
async def test_a_public_proxy_opens_public_targets_only(issuer: Issuer) -> None:
    guard = mixed(issuer, public_tools=["ping", "call_tool"], proxies={"call_tool": {"name": "tool"}})
    statuses = [
        (await post(guard, None, rpc("tools/call", name="call_tool", arguments={"name": name}))).status
        for name in ("ping", "get_me", "call_tool")
    ]
    assert statuses == [200, 401, 401]


@pytest.mark.requirement("MX-7")
@pytest.mark.requirement("MX-3")
async def test_a_rule_for_an_opening_method_stays(issuer: Issuer) -> None:
    guard = mixed(issuer, rpc_methods={"initialize": ["mcp:read"]}, challenge_style="auto")
    answer = await post(guard, None, rpc("initialize"), LEGACY, CHATGPT)
    assert (answer.status, answer.challenge) == (401, CHALLENGE)  # only tools/call has another style


@pytest.mark.requirement("MX-2")
async def test_the_challenge_names_the_scopes_of_the_operation(issuer: Issuer) -> None:
    answer = await post(mixed(issuer), None, call_tool("get_me"))
    assert (answer.status, answer.challenge) == (401, CHALLENGE)
    answer = await post(mixed(issuer, default=["base"]), None, call_tool("get_me"))
    assert answer.challenge == f'Bearer scope="base mcp:read", resource_metadata="{PRM}"'


@pytest.mark.requirement("MX-4")
@pytest.mark.parametrize("credential", ["Basic YTpi", "Bearer", "Bearer x", "Digest a=b", "=x", '"x"'])
async def test_a_credential_that_is_present_is_verified(issuer: Issuer, credential: str) -> None:
    app = EchoApp()
    guard = mixed(issuer, app)
    assert (await post(guard, token(issuer, exp=0), call_tool("ping"))).status == 401
    answer = await post(guard, None, call_tool("ping"), LEGACY, ("authorization", credential))
    assert (answer.status in (400, 401), app.calls) == (True, 0)


@pytest.mark.requirement("MX-5")
@pytest.mark.parametrize(
    ("tool", "granted", "status"),
    [("find", "other", 403), ("find", "mcp:read", 200), ("ping", "other", 200), ("get_me", "mcp:read", 403)],
)
async def test_a_signed_in_caller_has_to_meet_the_own_rule(
    issuer: Issuer, tool: str, granted: str, status: int
) -> None:
    guard = mixed(issuer, default=["base"])
    assert (await post(guard, token(issuer, scope=granted), call_tool(tool))).status == status
    assert (await post(guard, None, call_tool("find"))).status == 200


@pytest.mark.requirement("MX-6")
async def test_the_body_decides_in_every_element_of_a_batch(issuer: Issuer) -> None:
    app = EchoApp()
    guard = mixed(issuer, app)
    fields = [("mcp-method", "tools/call"), ("mcp-name", "ping")]
    answer = await post(guard, None, modern(call_tool("get_me")), MODERN, *fields)
    assert (answer.status, answer.json()["error"]["code"]) == (400, -32020)
    batches: list[list[Any]] = [
        [call_tool("ping"), call_tool("get_me")],
        [call_tool("get_me"), call_tool("ping")],
        [call_tool("ping"), rpc("tools/call", None, name="get_me")],
        [call_tool("ping"), {"jsonrpc": "2.0", "id": 1, "result": {}}],
    ]
    assert [(await post(guard, None, batch, "2025-03-26")).status for batch in batches] == [401] * 4
    assert app.calls == 0
    assert (await post(guard, None, [call_tool("ping")] * 2, "2025-03-26")).status == 200


def in_band(challenge: str) -> dict[str, Any]:
    content = [{"type": "text", "text": "Authentication required"}]
    result = {"isError": True, "content": content, "_meta": {"mcp/www_authenticate": [challenge]}}
    return {"jsonrpc": "2.0", "id": 1, "result": result}


@pytest.mark.requirement("MX-7")
async def test_the_style_of_the_challenge(issuer: Issuer) -> None:
    automatic, always, http = (mixed(issuer, challenge_style=style) for style in ("auto", "tool_result", "http"))
    start = f'Bearer error="insufficient_scope", scope="mcp:read", resource_metadata="{PRM}", error_description='
    missing, lacking = in_band(start + '"Authentication required"'), in_band(start + '"Additional scope required"')
    for guard, agent in ((automatic, "openai-mcp/1.0"), (automatic, "Mozilla ChatGPT-User"), (always, "claude")):
        answer = await post(guard, None, call_tool("get_me"), LEGACY, ("user-agent", agent))
        assert (answer.status, answer.challenge, answer.json()) == (200, None, missing)
        expired = await post(guard, token(issuer, exp=0), call_tool("get_me"), LEGACY, ("user-agent", agent))
        assert (expired.status, "invalid_token" in str(expired.challenge)) == (401, True)
        weak = await post(guard, token(issuer, scope="x"), call_tool("get_me"), LEGACY, ("user-agent", agent))
        assert (weak.status, weak.json()) == (200, lacking)
        for body in (rpc("prompts/get", name="boss"), rpc("logging/setLevel")):
            assert (await post(guard, None, body, LEGACY, ("user-agent", agent))).status == 401
        batch = [call_tool("get_me"), call_tool("ping")]
        assert (await post(guard, None, batch, "2025-03-26", ("user-agent", agent))).status == 401
    for guard, agent in ((automatic, "claude"), (http, "openai-mcp/1.0")):
        answer = await post(guard, None, call_tool("get_me"), LEGACY, ("user-agent", agent))
        assert (answer.status, answer.challenge) == (401, CHALLENGE)


LISTED: dict[str, list[dict[str, Any]]] = {
    "tools": [{"name": "ping"}, {"name": "find"}, {"name": "get_me"}, {"name": "x", "securitySchemes": []}]
}


@pytest.mark.requirement("MX-8")
@pytest.mark.parametrize("signed_in", [True, False])
async def test_lists_have_security_schemes(issuer: Issuer, signed_in: bool) -> None:
    app = Replies(reply(LISTED))
    guard = mixed(issuer, app, default=["base"], annotate_lists={"security_schemes"})
    answer = await post(guard, token(issuer, scope="y") if signed_in else None, rpc("tools/list"))
    tools = answer.json()["result"]["tools"]
    noauth, both = [{"type": "noauth"}], [{"type": "noauth"}, {"type": "oauth2", "scopes": ["mcp:read"]}]
    assert [tool["securitySchemes"] for tool in tools] == [
        noauth,
        both,
        [{"type": "oauth2", "scopes": ["base", "mcp:read"]}],
        [],  # the app's own
    ]
    assert [tool["_meta"]["securitySchemes"] for tool in tools[:2]] == [noauth, both]
    assert "cacheScope" not in answer.json()["result"]


@pytest.mark.requirement("MX-9")
async def test_a_filtered_list_keeps_what_signing_in_may_open(issuer: Issuer) -> None:
    guard = mixed(issuer, Replies(reply(LISTED)), filter_lists=True)
    fields = [("mcp-method", "tools/list")]
    names = {}
    for caller, raw in (("anonymous", None), ("weak", token(issuer, scope="z"))):
        answer = await post(guard, raw, modern(rpc("tools/list")), MODERN, *fields)
        result = answer.json()["result"]
        assert result["cacheScope"] == "private"
        names[caller] = [tool["name"] for tool in result["tools"]]
    assert names == {"anonymous": ["ping", "find", "get_me", "x"], "weak": ["ping", "x"]}


@pytest.mark.requirement("MX-10")
async def test_an_anonymous_session_binds_to_the_first_principal(issuer: Issuer) -> None:
    app = Replies(b"{}", mcp_session_id=b"s1")
    guard = mixed(issuer, app, {"store": MemoryStore(), "session_binding": True})
    alice, bob, session = token(issuer), token(issuer, sub="bob"), ("mcp-session-id", "s1")

    async def ping(raw: str | None, name: tuple[str, str] = session) -> int:
        return (await post(guard, raw, call_tool("ping"), LEGACY, name)).status

    assert (await post(guard, None, rpc("initialize"))).status == 200
    assert [await ping(raw) for raw in (None, alice, alice, bob, None, alice)] == [200, 200, 200, 404, 404, 200]
    assert await ping(None, ("mcp-session-id", "unknown")) == 404


@pytest.mark.requirement("MX-10")
async def test_parallel_principals_cannot_share_an_anonymous_session(issuer: Issuer) -> None:
    guard = mixed(issuer, Replies(b"{}", mcp_session_id=b"s1"), {"store": MemoryStore(), "session_binding": True})
    assert (await post(guard, None, rpc("initialize"))).status == 200
    statuses: dict[str, list[int]] = {}

    async def call(name: str) -> None:
        answer = await post(guard, token(issuer, sub=name), call_tool("ping"), LEGACY, ("mcp-session-id", "s1"))
        statuses.setdefault(name, []).append(answer.status)

    async with anyio.create_task_group() as group:
        for name in ["a", "b", "c"] * 3:
            group.start_soon(call, name)
    assert sorted(map(tuple, map(sorted, statuses.values()))) == [(200,) * 3, (404,) * 3, (404,) * 3]


@pytest.mark.requirement("MX-11")
def test_what_is_public_is_shown(
    issuer: Issuer, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mcp-auth.toml"
    file.write_text(
        f'resource = "{R}"\nauthorization_servers = ["{issuer.url}"]\n'
        '[policy]\npublic_tools = ["ping"]\npublic_resources = ["x://{a}"]\n'
    )
    assert main(["check-config", str(file)]) == 0
    assert "tool ping, resource x://{a}, method initialize" in " ".join(capsys.readouterr().out.split())
    with caplog.at_level(logging.INFO):
        auth = MCPAuth.from_toml(file, http_client=issuer.http_client)
    (line,) = [record.getMessage() for record in caplog.records if "Without a token" in record.getMessage()]
    assert line.startswith(f"Without a token: {R}: tool ping, resource x://{{a}}, method ")
    explanation = anyio.run(explain, auth, token(issuer))
    assert explanation.public[0] == "tool ping"


@pytest.mark.requirement("MX-11")
@pytest.mark.parametrize(
    ("granted", "status"),
    [("notes:write", 200), ("notes:admin", 200), ("super", 200), ("other", 403), ("a", 403), ("a b", 200)],
)
async def test_any_of_several_sets_of_scopes(issuer: Issuer, granted: str, status: int) -> None:
    rule = ScopeRule(any_of=[["notes:write"], ["notes:admin"], ["a", "b"]])
    policy: dict[str, Any] = {
        "default": [],
        "tools": {"x": rule},
        "implies": {"super": ["notes:admin"]},
        "scope_strategy": "minimal",
    }
    answer = await post(guarded(issuer, **policy), token(issuer, scope=granted), call_tool("x"))
    assert answer.status == status
    assert status == 200 or 'scope="notes:write", ' in str(answer.challenge)


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        pytest.param({"public_tools": ["run"], "proxies": {"run": {"*": "any"}}}, "public_tools", id="runs any tool"),
        pytest.param({"public_tools": ["__0123456789ab_x"]}, "public_tools", id="an address"),
        pytest.param({"public_tools": "ping"}, "public_tools", id="no list"),
        pytest.param({"public_prompts": ["a"], "headers_only": True}, "public_prompts", id="headers_only"),
        pytest.param({"challenge_style": "html"}, "challenge_style", id="no such style"),
        pytest.param({"tools": {"a": ScopeRule(any_of=[[]])}}, "tools['a'].any_of", id="an empty alternative"),
        pytest.param({"tools": {"a": {"any_of": ["x"]}}}, "tools['a'].any_of", id="alternatives that are no lists"),
    ],
)
def test_configuration(issuer: Issuer, policy: Any, where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        guarded(issuer, **policy)
    assert [problem.where for problem in caught.value.problems] == [f"protected_resources[0].policy.{where}"]


@pytest.mark.requirement("MX-1")
@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("DELETE", 405), ("PUT", 401), ("HEAD", 401)])
async def test_streams_need_a_token(issuer: Issuer, method: str, status: int) -> None:
    """Clients open a GET stream after `initialize`: a 401 would make them sign in before the first protected call."""
    app = EchoApp()
    answer = await send_scope(mixed(issuer, app), http_scope(method, "/mcp"))
    assert (answer.status, app.calls) == (status, 0)
    answer = await send_scope(mixed(issuer, app), http_scope(method, "/mcp", bearer("x")))
    assert answer.status == 401


@pytest.mark.requirement("MX-4")
@pytest.mark.parametrize(
    ("options", "credential", "status", "identified"),
    [
        pytest.param({}, "good", 200, False, id="untouched by default"),
        pytest.param({}, "expired", 200, False, id="a bad token is untouched too"),
        pytest.param({"identify_public": True}, None, 200, False, id="no token"),
        pytest.param({"identify_public": True}, "good", 200, True, id="a token"),
        pytest.param({"identify_public": True}, "expired", 401, False, id="a token that is present is verified"),
    ],
)
async def test_public_paths_identify_their_callers(
    issuer: Issuer, options: dict[str, Any], credential: str | None, status: int, identified: bool
) -> None:
    app = EchoApp()
    tokens = {"good": token(issuer), "expired": token(issuer, exp=0)}
    headers = [] if credential is None else bearer(tokens[credential])
    guard = mixed(issuer, app, {"public_paths": ["/open/*"], **options})
    assert (await send_scope(guard, http_scope("GET", "/open/x", headers))).status == status
    assert [("mcp_auth" in scope.get("state", {})) for scope in app.scopes] == [identified] * (status == 200)
    assert (
        not app.scopes or identified or dict(app.scopes[0]["headers"]) == dict(http_scope(headers=headers)["headers"])
    )


NAMES = ["ping", "find", "get_me", "call_tool", "__0123456789ab_ping", "ns_call_tool", "a_ping", "x"]
PATTERNS = [*NAMES[:4], "*", "p*", "*_ping", "get_*", "*e*"]
CALLS = st.recursive(
    st.sampled_from(NAMES).map(call_tool),
    lambda inner: st.tuples(st.sampled_from(["call_tool", "ns_call_tool"]), inner).map(
        lambda pair: rpc("tools/call", name=pair[0], arguments=pair[1]["params"])
    ),
    max_leaves=3,
)


def reached(body: dict[str, Any]) -> list[str]:
    """Return the names of the tools that a call runs, as this test's server understands it."""
    name, arguments = body["params"]["name"], body["params"]["arguments"]
    is_proxy = name.endswith("call_tool") and isinstance(arguments, dict) and "name" in arguments
    inner: dict[str, Any] | None = body["params"]["arguments"] if is_proxy else None
    return [name, *(reached({"params": {"arguments": {}, **inner}}) if inner else [])]


@pytest.mark.requirement("MX-1", "MX-6")
@settings(max_examples=150, deadline=None)
@given(
    public=st.lists(st.sampled_from(PATTERNS), unique=True, max_size=4),
    ruled=st.lists(st.sampled_from(NAMES[:4]), unique=True, max_size=3),
    calls=st.lists(CALLS, min_size=1, max_size=3),
    header=st.sampled_from([None, *NAMES]),
    version=st.sampled_from(["2025-03-26", LEGACY, MODERN, None]),
    credential=st.sampled_from([None, "Basic YQ", "Bearer", "Bearer x.y.z"]),
)
def test_no_protected_operation_reaches_the_app_without_a_token(  # noqa: PLR0917 - what hypothesis generates
    public: list[str],
    ruled: list[str],
    calls: list[dict[str, Any]],
    header: str | None,
    version: str | None,
    credential: str | None,
) -> None:
    app, one = EchoApp(), Issuer()
    rules = {name: ["s"] for name in ruled}
    proxies = {"call_tool": {"name": "tool"}, "*_call_tool": {"name": "tool"}}
    guard = mixed(one, app, tools=rules, public_tools=public, proxies=proxies, allow_batches=True)
    fields = [("mcp-name", header), ("mcp-method", "tools/call")] if header else []
    fields += [("authorization", credential)] if credential else []
    body = calls if len(calls) > 1 else calls[0]
    answer = anyio.run(lambda: post(guard, None, body, version, *fields))
    names = [name for call in calls for name in reached(call)]

    def is_public(name: str) -> bool:
        if name.startswith("__"):
            return False
        return name in public or (name not in rules and any(_fits(pattern, name) for pattern in public))

    if app.calls:
        assert credential is None
        assert all(map(is_public, names)), (names, json.dumps(body))
    else:
        assert answer.status in (400, 401)


def _fits(pattern: str, name: str) -> bool:
    first, *rest = pattern.split("*")
    return (not rest and name == first) or (
        bool(rest) and name.startswith(first) and name.endswith(rest[-1]) and all(part in name for part in rest)
    )


def test_the_policy_is_a_value() -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=["https://auth.example.com"])
    policy = ScopePolicy(public_tools=["ping"], challenge_style="auto", annotate_lists={"security_schemes"})
    assert MCPAuth(ResourceServerConfig(metadata=metadata, policy=policy)).warnings == ()
