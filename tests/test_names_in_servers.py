"""Real servers in this process: a protected function runs under no name that the low token may use.

Every provider and transform that fastmcp ships is in `SERVERS` or, with a reason, in `WITHOUT_NAMES`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastmcp import Client, FastMCP, FastMCPApp
from fastmcp.contrib.bulk_tool_caller import BulkToolCaller  # pyright: ignore[reportMissingTypeStubs]
from fastmcp.contrib.mcp_mixin import MCPMixin, mcp_tool  # pyright: ignore[reportMissingTypeStubs]
from fastmcp.experimental.transforms.code_mode import CodeMode, GetSchemas, GetTags, ListTools, Search
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.server.providers import FileSystemProvider, Provider
from fastmcp.server.providers.addressing import hashed_backend_name
from fastmcp.server.providers.proxy import ProxyProvider
from fastmcp.server.providers.skills import SkillProvider
from fastmcp.server.transforms import (
    Namespace,
    PromptsAsTools,
    ResourcesAsTools,
    ToolTransform,
    Transform,
    VersionFilter,
    Visibility,
)
from fastmcp.server.transforms.search import BM25SearchTransform, RegexSearchTransform
from fastmcp.tools import Tool
from fastmcp.tools.tool_transform import ToolTransformConfig
from harness import R, token
from mcp.server.mcpserver import MCPServer

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

RAN: list[str] = []
RETURNED = ("purged", "hidden text")  # by functions that are not in this module
ADMIN = ["admin"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # fastmcp's own


def purge() -> str:
    RAN.append("purge")
    return "purged"


def secret() -> str:
    RAN.append("secret")
    return "secret"


def rows(table: str) -> str:
    RAN.append(f"rows of {table}")
    return table


def boss() -> str:
    RAN.append("boss")
    return "boss"


def harmless() -> str:
    return "harmless"


def filled(server: Any) -> Any:
    for function in (purge, harmless):
        server.tool()(function)
    server.resource("db://secret")(secret)
    server.resource("db://{table}/rows")(rows)
    server.prompt("boss")(boss)
    return server


def fast(*transforms: Callable[[FastMCP], Any]) -> FastMCP:
    server: FastMCP = filled(FastMCP("fast"))
    for transform in transforms:
        server.add_transform(transform(server))
    return server


def above(inner: FastMCP, namespace: str | None = None) -> FastMCP:
    outer: FastMCP = FastMCP("outer")
    outer.mount(inner, namespace=namespace)
    return outer


def shop(*transforms: Transform, namespace: str | None = None) -> FastMCP:
    app = FastMCPApp("shop")
    app.tool(purge)
    inner: FastMCP = FastMCP("inner")
    inner.add_provider(app)
    for transform in transforms:
        inner.add_transform(transform)
    return above(inner, namespace)


def bulk(prefix: str | None = None) -> FastMCP:
    server = fast()
    BulkToolCaller().register_tools(server, prefix=prefix)
    return server


class Sandbox:
    """Runs "code" that is the name of a tool."""

    async def run(self, code: str, *, inputs: Any = None, external_functions: Any = None) -> Any:
        return await external_functions["call_tool"](code, {})


def code_mode(server: FastMCP) -> CodeMode:
    return CodeMode(sandbox_provider=Sandbox(), discovery_tools=[Search(), GetSchemas(), GetTags(), ListTools()])


class Mixin(MCPMixin):
    @mcp_tool()
    def purge(self) -> str:
        return purge()


def mixed() -> FastMCP:
    server: FastMCP = FastMCP("mixed")
    Mixin().register_tools(server, prefix="my")
    return server


def injected() -> FastMCP:
    server: FastMCP = FastMCP("injected")
    server.add_middleware(ToolInjectionMiddleware([Tool.from_function(purge)]))
    return server


def from_files(tmp_path: Path) -> FastMCP:
    code = "from fastmcp.tools import tool\n@tool\ndef purge() -> str:\n    return 'purged'\n"
    (tmp_path / "made.py").write_text(code)
    server: FastMCP = FastMCP("files")
    server.add_provider(FileSystemProvider(tmp_path))
    return server


def skills(tmp_path: Path) -> FastMCP:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "SKILL.md").write_text("---\ndescription: a skill\n---\nhidden text")
    server: FastMCP = FastMCP("skills")
    server.add_provider(SkillProvider(tmp_path / "hidden"))
    server.add_transform(ResourcesAsTools(server))
    return server


def proxied() -> FastMCP:
    server: FastMCP = FastMCP("proxied")
    server.add_provider(ProxyProvider(lambda: Client(fast())))
    return server


class Served(NamedTuple):
    """A server, the rules that protect its functions, and the calls that run one of them."""

    make: Callable[[], Any] | Callable[[Path], Any]
    calls: list[tuple[str, dict[str, Any]]]
    rules: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


READS = [("resources/read", {"uri": uri}) for uri in ("db://secret", "db://users/rows", "db://users/rows?x=1#f")]
DIRECT: list[tuple[str, dict[str, Any]]] = [("purge", {}), *READS, ("prompts/get", {"name": "boss"})]
HASHED: tuple[str, dict[str, Any]] = (hashed_backend_name("shop", "purge"), {})
RENAME = {"purge": ToolTransformConfig(name="erase")}
INNER = {"tools": {"math_purge": ADMIN}, "resources": {"db://math/secret": ADMIN}, "prompts": {"math_boss": ADMIN}}
SERVERS: dict[str, Served] = {
    "mcp 2": Served(lambda: filled(MCPServer("sdk")), [call for call in DIRECT if "?" not in str(call)]),
    "LocalProvider": Served(fast, DIRECT),
    "FastMCPProvider": Served(lambda: above(fast()), DIRECT),
    "ProxyProvider": Served(proxied, [("purge", {}), ("resources/read", {"uri": "db://secret"})]),
    "FileSystemProvider": Served(from_files, [("purge", {})]),
    "MCPMixin": Served(mixed, [("my_purge", {})], {"tools": {"my_purge": ADMIN}}),
    "ToolInjectionMiddleware": Served(injected, [("purge", {})]),
    "VersionFilter": Served(lambda: fast(lambda _: VersionFilter(version_lt="9")), DIRECT),
    "Visibility": Served(lambda: fast(lambda _: Visibility(True, match_all=True)), DIRECT),
    "Namespace": Served(
        lambda: above(fast(), "math"),
        [("math_purge", {}), ("resources/read", {"uri": "db://math/secret"}), ("prompts/get", {"name": "math_boss"})],
        INNER,
    ),
    "ToolTransform": Served(lambda: fast(lambda _: ToolTransform(RENAME)), [("erase", {})], {"tools": {"erase": ADMIN}}),
    "FastMCPApp": Served(shop, [("purge", {}), HASHED]),
    "FastMCPApp in a namespace": Served(lambda: shop(namespace="math"), [("math_purge", {}), HASHED], INNER),
    "FastMCPApp and Namespace": Served(lambda: shop(Namespace("math")), [("math_purge", {}), HASHED], INNER),
    "FastMCPApp renamed": Served(
        lambda: shop(ToolTransform(RENAME)), [("erase", {}), HASHED], {"tools": {"erase": ADMIN}}
    ),
    "PromptsAsTools": Served(lambda: fast(PromptsAsTools), [*DIRECT, ("get_prompt", {"name": "boss"})]),
    "ResourcesAsTools": Served(
        lambda: fast(ResourcesAsTools),
        [*DIRECT, *[("read_resource", {"uri": uri}) for uri in ("db://secret", "db://users/rows?x=1")]],
    ),
    "SkillProvider": Served(
        skills, [("read_resource", {"uri": "skill://hidden/SKILL.md"})], {"resources": {"skill://hidden/*": ADMIN}}
    ),
    "BM25SearchTransform": Served(lambda: fast(lambda _: BM25SearchTransform()), [("call_tool", {"name": "purge"})]),
    "RegexSearchTransform": Served(lambda: fast(lambda _: RegexSearchTransform()), [("call_tool", {"name": "purge"})]),
    "a search over PromptsAsTools": Served(
        lambda: fast(PromptsAsTools, ResourcesAsTools, lambda _: BM25SearchTransform()),
        [
            ("call_tool", {"name": "get_prompt", "arguments": {"name": "boss"}}),
            ("call_tool", {"name": "read_resource", "arguments": {"uri": "db://secret"}}),
        ],
    ),
    "a search in a namespace": Served(
        lambda: above(fast(PromptsAsTools, ResourcesAsTools, lambda _: BM25SearchTransform()), "math"),
        [
            ("math_call_tool", {"name": "purge"}),
            ("math_call_tool", {"name": "read_resource", "arguments": {"uri": "db://secret"}}),
            ("math_read_resource", {"uri": "db://secret"}),
            ("math_get_prompt", {"name": "boss"}),
        ],
        INNER,
    ),
    "a search in two namespaces": Served(
        lambda: above(above(fast(ResourcesAsTools, lambda _: BM25SearchTransform()), "in"), "out"),
        [("out_in_call_tool", {"name": "purge"}), ("out_in_read_resource", {"uri": "db://secret"})],
        {"tools": {"out_in_purge": ADMIN}, "resources": {"db://out/in/secret": ADMIN}},
    ),
    "a search of another name": Served(
        lambda: fast(lambda _: BM25SearchTransform(call_tool_name="run")),
        [("run", {"name": "purge"})],
        options={"proxies": {"run": {"name": "tool"}}},
    ),
    "CodeMode": Served(lambda: fast(code_mode), [("execute", {"code": "purge"})]),
    "CodeMode in a namespace": Served(lambda: above(fast(code_mode), "math"), [("math_execute", {"code": "purge"})], INNER),
    "BulkToolCaller": Served(
        bulk,
        [
            ("call_tool_bulk", {"tool": "purge", "tool_arguments": [{}]}),
            ("call_tools_bulk", {"tool_calls": [{"tool": "harmless", "arguments": {}}, {"tool": "purge", "arguments": {}}]}),
        ],
    ),
    "BulkToolCaller with a prefix": Served(
        lambda: bulk("many"), [("many_call_tools_bulk", {"tool_calls": [{"tool": "purge", "arguments": {}}]})]
    ),
}  # fmt: skip
WITHOUT_NAMES = {
    "Transform": "abstract",
    "CatalogTransform": "abstract",
    "BaseSearchTransform": "abstract",
    "JevSearchTransform": "a search over a model's probabilities, with the tools of BaseSearchTransform",
    "Provider": "abstract",
    "AggregateProvider": "abstract: FastMCP",
    "_WrappedProvider": "Namespace and the like",
    "_SchemaCacheLocalProvider": "FastMCP's own",
    "FastMCP": "every server here",
    "FastMCPProxy": "a FastMCP with a ProxyProvider",
    "OpenAPIProvider": "makes tools and resources under the names that it lists",
    "SessionProvider": "makes tools that give out state handles",
    **dict.fromkeys(
        [
            *("ClaudeSkillsProvider", "SkillsDirectoryProvider", "CodexSkillsProvider", "CopilotSkillsProvider"),
            *("CursorSkillsProvider", "GeminiSkillsProvider", "GooseSkillsProvider", "OpenCodeSkillsProvider"),
            "VSCodeSkillsProvider",
        ],
        "SkillProvider for several directories",
    ),
}


def subclasses(of: type[Any]) -> Iterator[str]:
    for one in of.__subclasses__():
        if one.__module__.startswith("fastmcp."):
            yield one.__name__
        yield from subclasses(one)


def test_every_provider_and_transform_of_fastmcp_is_here() -> None:
    for package in ("fastmcp.server", "fastmcp.experimental.transforms", "fastmcp.apps", "fastmcp.contrib"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith(("example", "__main__")):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    assert {*subclasses(Transform), *subclasses(Provider)} <= {*SERVERS, *WITHOUT_NAMES}


Send = Callable[..., Any]


@contextlib.asynccontextmanager
async def serving(issuer: Issuer, served: Served, tmp_path: Path) -> AsyncGenerator[Send]:
    server = served.make(tmp_path) if served.make in (from_files, skills) else served.make()  # type: ignore[call-arg]
    if isinstance(server, FastMCP):
        app: Any = server.http_app(path="/mcp", stateless_http=True, json_response=True)
    else:
        app = server.streamable_http_app(stateless_http=True, json_response=True, host="mcp.example.com")
    rules: dict[str, Any] = {"tools": {"purge": ADMIN}, "prompts": {"boss": ADMIN}}
    rules["resources"] = {"db://secret": ADMIN, "db://{table}/rows": ADMIN}
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    policy = ScopePolicy(default=["mcp:read"], scope_strategy="minimal", **(rules | {**served.rules, **served.options}))
    auth = MCPAuth(
        ResourceServerConfig(metadata=metadata, policy=policy), http_client=issuer.http_client, clock=issuer.clock
    )
    transport = httpx.ASGITransport(auth.wrap(app))

    async def send(name: str, arguments: Mapping[str, Any], scope: str) -> httpx.Response:
        method, params = (name, arguments) if "/" in name else ("tools/call", {"name": name, "arguments": arguments})
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        headers["authorization"] = f"Bearer {token(issuer, scope=scope)}"
        return await client.post(R, json=message, headers=headers)

    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        yield send


@pytest.mark.parametrize("served", SERVERS.values(), ids=[f"RS-191 {name}" for name in SERVERS])
async def test_the_low_token_runs_a_protected_function_under_no_name(
    issuer: Issuer, served: Served, tmp_path: Path
) -> None:
    async with serving(issuer, served, tmp_path) as send:
        for name, arguments in served.calls:
            RAN.clear()
            refused = await send(name, arguments, "mcp:read")
            assert (refused.status_code, RAN) == (403, []), (name, arguments, refused.text)
            assert 'scope="mcp:read admin"' in refused.headers["www-authenticate"]
            answer = await send(name, arguments, "mcp:read admin")
            assert answer.status_code == 200, answer.text
            assert RAN or any(text in answer.text for text in RETURNED), (name, answer.text)  # a way to the function
        listed = (await send("tools/list", {}, "mcp:read")).json()["result"]["tools"]
        RAN.clear()
        for tool in listed:
            for target in ("purge", "db://secret", "boss", "math_purge", HASHED[0]):
                values: dict[str, Any] = {"string": target, "array": [target], "object": {}}
                properties = tool["inputSchema"].get("properties", {})
                arguments = {key: values.get(of.get("type"), target) for key, of in properties.items()}
                answer = await send(tool["name"], arguments, "mcp:read")
                assert not any(text in answer.text for text in RETURNED)
        assert not RAN, [tool["name"] for tool in listed]


async def test_the_low_token_runs_what_is_not_protected(issuer: Issuer, tmp_path: Path) -> None:
    async with serving(issuer, SERVERS["BM25SearchTransform"], tmp_path) as send:
        for name, arguments in (("harmless", {}), ("call_tool", {"name": "harmless"})):
            assert "harmless" in (await send(name, arguments, "mcp:read")).json()["result"]["content"][0]["text"]


# What servers of earlier versions make of a URI.

STACKS = {"mcp1": "mcp>=1.20,<2", "fastmcp2": "fastmcp>=2.14,<3", "fastmcp3": "fastmcp>=3,<4"}
RULED: tuple[str, ...] = ("config://app", "https://example.com", "file:///secret/a", "db://{table}/rows")
PROBED = [
    *("config://app", "config://app/", "config://app/.", "config://app?x=1", "config://app#f", "CONFIG://app"),
    *("db://users/rows", "db://users/rows?x=1", "db://users/rows#f", "db://users/rows/", "db://x/../users/rows"),
    *("db://%75sers/rows", "db://users/x/../rows", "db://users/./rows", "db://users//rows", "db://USERS/rows"),
    *("https://example.com", "https://example.com/", "https://example.com/.", "https://example.com/x/../"),
    *("HTTPS://EXAMPLE.com:443", "https:example.com", "https://example.com?x", "file:///secret/a", "file:/secret/a"),
    *("file://localhost/secret/a", "file:///x/../secret/a", "file:///secret%2Fa", "file:///%73ecret/a", "FILE:///secret/a"),
    *("file:///secret/a?x", "file:///x/%2e%2e/secret/a", "db://users:0080/rows", "db://users/rows%20", "db://users\t/rows"),
]  # fmt: skip
PROBE = """
import asyncio, json, sys
ran = []
def build(server):
    for uri in ("config://app", "https://example.com", "file:///secret/a"):
        def read(uri=uri):
            ran.append(uri)
            return "x"
        server.resource(uri, name=uri)(eval("lambda: read()", {"read": read}))
    def rows(table: str) -> str:
        ran.append("db://{table}/rows")
        return "x"
    server.resource("db://{table}/rows")(rows)
    return server
async def main():
    found = {}
    import mcp.types as types
    if sys.argv[1] == "mcp1":
        from mcp.server.fastmcp import FastMCP
    else:
        from fastmcp import FastMCP
    server = build(FastMCP("old"))
    low = server._mcp_server
    handler = low.request_handlers[types.ReadResourceRequest]
    if sys.argv[1] != "mcp1":
        from fastmcp import Client
        async with Client(server) as client:
            for uri in json.load(sys.stdin):
                ran.clear()
                try:
                    await client.session.send_request(types.ClientRequest(types.ReadResourceRequest(
                        method="resources/read", params=types.ReadResourceRequestParams(uri=uri))), types.ReadResourceResult)
                except Exception:
                    pass
                found[uri] = list(ran)
    else:
        for uri in json.load(sys.stdin):
            ran.clear()
            try:
                await handler(types.ReadResourceRequest(method="resources/read", params={"uri": uri}))
            except Exception:
                pass
            found[uri] = list(ran)
    print(json.dumps(found))
asyncio.run(main())
"""


def installed(stack: str, cache: Path) -> Path:
    """The packages of one version beside those of this environment: there is one of each name in it."""
    target = cache / f"{stack}-{sys.version_info[0]}.{sys.version_info[1]}"
    if not (target / "done").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), STACKS[stack]]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
        (target / "done").touch()
    return target


def probe(stack: str, cache: Path) -> dict[str, list[str]]:
    """What a server of an earlier version runs for each of `PROBED`."""
    environment = {"PYTHONPATH": str(installed(stack, cache)), "PATH": "/usr/bin"}
    command = [sys.executable, "-W", "ignore", "-c", PROBE, stack]
    done = subprocess.run(
        command, input=json.dumps(PROBED), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ran: dict[str, list[str]] = json.loads(done.stdout)
    return ran


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("stack", [*STACKS, "mcp2", "fastmcp4"], ids="RS-192 {}".format)
async def test_every_uri_that_a_server_executes_was_protected(
    issuer: Issuer, pytestconfig: pytest.Config, stack: str
) -> None:
    """The low token is refused whatever URI some version would take for a protected resource."""
    if stack in STACKS:
        ran = probe(stack, Path(pytestconfig.cache.mkdir("stacks")))
    else:
        ran = await executed(FastMCP("new") if stack == "fastmcp4" else MCPServer("new"))
    assert ran["config://app"] == ["config://app"]
    assert ran["db://users/rows"] == ["db://{table}/rows"]
    rules: dict[str, Any] = dict.fromkeys(RULED, ADMIN)
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"], resources=rules))
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock)
    transport = httpx.ASGITransport(auth.wrap(answers_ok))
    async with httpx.AsyncClient(transport=transport) as client:
        for uri in PROBED:
            message = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}
            for scope, refused in (("mcp:read", bool(ran[uri])), ("mcp:read admin", False)):
                headers = {"authorization": f"Bearer {token(issuer, scope=scope)}"}
                answer = await client.post(R, json=message, headers=headers)
                if refused:
                    assert answer.status_code in (400, 403), (uri, ran[uri])
                elif scope == "mcp:read admin" and uri in USABLE:
                    assert answer.status_code == 200, uri


USABLE = {
    "config://app",
    "config://app/",
    "db://users/rows",
    "https://example.com",
    "https://example.com/",
    "file:///secret/a",
}


async def answers_ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def executed(server: Any) -> dict[str, list[str]]:
    """What the servers of this environment run for each of `PROBED`."""
    ran: list[str] = []
    for uri in ("config://app", "https://example.com", "file:///secret/a"):

        def read(uri: str = uri) -> str:
            ran.append(uri)
            return "x"

        server.resource(uri, name=uri)(eval("lambda: read()", {"read": read}))

    def table_rows(table: str) -> str:
        ran.append("db://{table}/rows")
        return "x"

    server.resource("db://{table}/rows")(table_rows)
    found: dict[str, list[str]] = {}
    for uri in PROBED:
        ran.clear()
        with contextlib.suppress(Exception):
            await server.read_resource(uri)
        found[uri] = list(ran)
    return found
