"""The shape of the package is a promise: who may import whom, how long a module is, what importing it costs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import anyio
import pytest
from harness import ISS, R, RecordingApp, bearer, call, token

import asgi_mcp_auth
from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS
from asgi_mcp_auth.testing import Issuer

NAME = "asgi_mcp_auth"
ROOT = Path(str(asgi_mcp_auth.__file__)).parent


def module_name(path: Path) -> str:
    parts = [NAME, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py")) if path.parent.name != "recipes"}  # data
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}
MODULES = [pytest.param(name, id=name.removeprefix(f"{NAME}.")) for name in SOURCES]

LAYERS = (
    (
        "_oauth.grammar",
        "_oauth.json_types",
        "context",
        "errors",
        "decisions",
        "_credential_settings",
        "config",
        "authorization",
        "_request",
        "status",
        "_version",
        "stores",
        "providers",
    ),
    ("_oauth", "_mcp", "_compat.servers", "_compat"),
    ("_policy",),
    ("_settings", "_keys", "stores._shared", "stores.redis", "stores._redis_py", "stores._coredis"),
    ("_verify", "_signals", "_upstream"),
    ("_asgi", "_telemetry"),
    ("_option_checks", "_options", "_protection", "middleware"),
    ("_compat.mcpauth",),
    ("auth",),
    ("loading", "exceptions", "types", "utils", ""),
    ("testing",),
    ("dev", "doctor"),
    ("cli", "__main__"),
)
"""Dependencies point to the same layer or to an earlier one. A module belongs to the most specific name."""

FACADE = (f"{NAME}.config", f"{NAME}._keys.discovery")
"""The one exception: mcpauth documents `from mcpauth.config import fetch_server_config_by_well_known_url`."""

PURE_ROOMS = ("_oauth", "_mcp", "_policy", "_compat.servers")
PURE = [
    pytest.param(name, id=name.removeprefix(f"{NAME}."))
    for name in SOURCES
    if name.removeprefix(f"{NAME}.").startswith(PURE_ROOMS)
]
CORE = [
    name for name in SOURCES if name.split(".")[1:2] not in (["cli"], ["dev"], ["doctor"], ["testing"], ["providers"])
]


def layer(name: str) -> int:
    """Return the index of a module's layer: that of the longest name in `LAYERS` that is the module or a parent."""
    inner = name.removeprefix(NAME).removeprefix(".")
    matching = [
        (len(listed), index)
        for index, names in enumerate(LAYERS)
        for listed in names
        if inner == listed or (listed and inner.startswith(f"{listed}."))
    ]
    assert matching, f"{name} belongs to no layer"
    return max(matching)[1]


def imported(name: str) -> set[str]:
    """Every module that a module imports: at module level, in functions, and under `TYPE_CHECKING`."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {name}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in SOURCES else str(node.module))
    return found


GRAPH = {name: {module for module in imported(name) if module in SOURCES} - {name} for name in SOURCES}
GRAPH[FACADE[0]] = GRAPH[FACADE[0]] - {FACADE[1]}


# --- the pure rooms -------------------------------------------------------------------------------------------------

IMPURE = {
    *("anyio", "asyncio", "trio", "sniffio", "threading", "concurrent", "multiprocessing", "subprocess", "queue"),
    *("httpx", "socket", "ssl", "urllib.request", "http", "requests", "select", "starlette", "mcp", "fastmcp"),
    *("time", "datetime", "os", "sys", "random", "secrets", "logging", "contextvars", "pathlib", "io"),
}


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_import_nothing_impure(name: str) -> None:
    assert {
        module for module in imported(name) for bad in IMPURE if module == bad or module.startswith(f"{bad}.")
    } == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_never_wait(name: str) -> None:
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert [node for node in ast.walk(TREES[name]) if isinstance(node, waiting)] == []
    calls = [
        node.func.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"open", "print", "input", "__import__", "exec", "eval"} & set(calls)


# --- dependencies point one way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_dependencies_point_one_way(name: str) -> None:
    assert {module for module in GRAPH[name] if layer(module) > layer(name)} == set()


def test_the_import_graph_has_no_circle() -> None:
    assert set(TopologicalSorter(GRAPH).static_order()) >= set(SOURCES)  # raises CycleError


def test_the_facade_is_still_needed() -> None:
    assert FACADE[1] in imported(FACADE[0])


def test_no_two_core_modules_share_a_name() -> None:
    names = Counter(SOURCES[name].name for name in CORE if SOURCES[name].name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


LAZY = {
    "_asgi.identity: mcp.server.auth.middleware.auth_context": "optional, only if the process has loaded it: 580 ms",
    "_asgi.identity: mcp.server.auth.middleware.bearer_auth": "as above",
    "_asgi.identity: mcp.server.auth.provider": "as above",
    "_protection: asgi_mcp_auth._telemetry.otel": "imports an optional package",
    "_asgi.token_verifier: starlette.authentication": "optional: 10 ms",
    "auth: asgi_mcp_auth._upstream.httpx_auth": "imports httpx, as below",
    "_compat.mcpauth: starlette.routing": "optional: 15 ms",
    "_keys.http: httpx": "imported when an MCPAuth is constructed: 65 ms",
    "cli: asgi_mcp_auth.cli._commands": "an extra, whose absence is reported: 130 ms",
    "cli._commands: click.shell_completion": "for one command: 8 ms",
    "cli._dev_server: uvicorn": "an extra, whose absence is reported: 30 ms",
    "cli.demo: asgi_mcp_auth.cli.demo._run": "extras, whose absence is reported: 600 ms",
    "config: asgi_mcp_auth._keys": "the facade for mcpauth",
    "stores.redis: asgi_mcp_auth.stores._coredis": "imports an optional package",
    "stores.redis: asgi_mcp_auth.stores._redis_py": "as above",
}
"""Function-level imports, at most 15, each with its reason and what it takes in a fresh process (processor time)."""


def lazy_imports() -> set[str]:
    """Every import inside a function, as `importer: imported`."""
    return {
        f"{name.removeprefix(NAME).removeprefix('.')}: {module}"
        for name, tree in TREES.items()
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }


def test_function_level_imports_are_few_and_have_a_reason() -> None:
    assert lazy_imports() == set(LAZY)
    assert len(LAZY) <= 15


def test_no_small_module_serves_a_single_importer() -> None:
    """Such a module belongs into its importer, unless it is the entry of a room."""
    importers = {name: [other for other, modules in GRAPH.items() if name in modules] for name in SOURCES}
    small = [
        name
        for name, users in importers.items()
        if len(users) == 1
        and name in CORE
        and SOURCES[name].name != "__init__.py"
        and len(SOURCES[name].read_text("utf-8").splitlines()) < 60
    ]
    assert small == []


def test_the_code_map_names_modules_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## Code map")[2].partition("## Glossary")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    assert [path for path in named if not (ROOT / path).exists() and path != "_shared.py"] == []
    assert {f"{room}/" for room in ROOMS if (ROOT / room).is_dir()} <= set(named)


# --- modules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    docstring = ast.get_docstring(TREES[name])
    assert docstring
    assert docstring[-1] in ".`" or docstring.splitlines()[-1].startswith(" ")


def public_definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def bound(tree: ast.Module) -> set[str]:
    """Names that a module binds at its level: definitions, assignments, imports."""
    names = public_definitions(tree)
    typed = [inner for node in tree.body if isinstance(node, ast.If) for inner in node.body]  # `if TYPE_CHECKING`
    for node in (*tree.body, *typed):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def reexports(tree: ast.Module) -> set[str]:
    """Names of ours that a module imports, for a module that does nothing else."""
    typed = [inner for node in tree.body if isinstance(node, ast.If) for inner in node.body]  # `if TYPE_CHECKING`
    nodes = [
        node
        for node in (*tree.body, *typed)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{NAME}.")
    ]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


ROOMS = (
    "_oauth",
    "_mcp",
    "_policy",
    "_settings",
    "_keys",
    "_verify",
    "_signals",
    "_upstream",
    "_asgi",
    "_telemetry",
    "_compat",
    "__main__",
)
PACKAGES = {f"{NAME}.{room}" for room in ROOMS}
REEXPORTING = {
    NAME,
    *(f"{NAME}.{name}" for name in ("types", "utils", "testing", "dev", "providers", "doctor", "stores")),
}
PUBLIC = [name for name in SOURCES if name not in PACKAGES]


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in PUBLIC])
def test_all_is_a_tuple_of_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    exported: tuple[str, ...] = vars(module)["__all__"]
    assert type(exported) is tuple
    assert len(exported) == len(set(exported))
    assert set(exported) <= bound(TREES[name])
    for exported_name in exported:
        assert getattr(module, exported_name) is not None


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in PUBLIC if "._" not in name])
def test_all_is_every_public_definition(name: str) -> None:
    """Public modules only: beside definitions, `__all__` may name constants and types."""
    exported = set(importlib.import_module(name).__all__)
    if name in REEXPORTING:
        own = {"__version__"} if name == NAME else set[str]()
        assert exported == reexports(TREES[name]) | own
    else:
        assert public_definitions(TREES[name]) - exported == set()


def test_public_names_are_those_of_the_snapshot() -> None:
    """A change of public names is a decision: write it into the snapshot and into the changelog."""
    names = {name: importlib.import_module(name).__all__ for name in PUBLIC if "._" not in name}
    lines = [f"{module}.{name}" for module, exported in sorted(names.items()) for name in sorted(exported)]
    assert (Path(__file__).parent / "public_names.txt").read_text("utf-8").splitlines() == lines


def test_the_package_exports_the_contract() -> None:
    """Design, section 3."""
    promised = {
        *("AuthInfo", "AuthServerConfig", "AuthServerType", "AuthorizationServerMetadata", "MCPAuth"),
        *("MCPAuthMiddleware", "ResourceServerConfig", "ResourceServerMetadata", "ScopePolicy", "current_auth"),
        *("fetch_server_config", "fetch_server_config_async", "load_app", "validate_server_config"),
        *("fetch_server_config_by_well_known_url", "fetch_server_config_by_well_known_url_async"),
    }
    assert promised <= set(asgi_mcp_auth.__all__)


def test_default_algorithms_are_all_that_exist() -> None:
    assert tuple(ALGORITHMS) == DEFAULT_ALGORITHMS


# --- importing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(NAME, id="the package"),
        pytest.param(f"{NAME}.config", id="config"),
        pytest.param(f"{NAME}.types", id="types"),
        pytest.param(f"{NAME}.utils", id="utils"),
        pytest.param(f"{NAME}.exceptions", id="exceptions"),
    ],
)
def test_importing_loads_nothing_optional(name: str) -> None:
    unwanted = ["httpx", "starlette", "mcp", "trio", "uvicorn", "fastmcp", "redis"]
    unwanted += [f"{NAME}.{layer}" for layer in ("testing", "dev", "cli", "providers", "doctor")]
    program = (
        f"import sys, json; from {name} import *; print(json.dumps([m for m in {unwanted!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_the_package_imports_a_name_from_the_module_that_type_checkers_see() -> None:
    [typed] = [node for node in TREES[NAME].body if isinstance(node, ast.If)]
    seen = {
        alias.name: str(node.module) for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: f"{NAME}.{home}" for name, home in vars(asgi_mcp_auth)["_HOMES"].items()} == seen
    assert all(getattr(asgi_mcp_auth, name) is getattr(sys.modules[home], name) for name, home in seen.items())
    assert set(asgi_mcp_auth.__all__) <= set(dir(asgi_mcp_auth))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = asgi_mcp_auth.nothing  # pyright: ignore[reportAttributeAccessIssue]


def milliseconds(program: str) -> float:
    """Return the processor time of a program in a new process, with compiled bytecode once it has run."""
    timed = f"import time; t = time.process_time(); {program}; print((time.process_time() - t) * 1000)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", timed], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        # `import jwt` takes 80 ms on the machine where the package may take 60 more.
        pytest.param(f"import {NAME}", 60 / 80, id="the package"),
        pytest.param(f"from {NAME} import MCPAuthMiddleware", 2.2, id="what most programs use"),
    ],
)
def test_importing_takes_at_most_its_share_of_importing_jwt(program: str, limit: float) -> None:
    """The least of several rounds: other processes disturb a measurement, and only upwards."""
    base = own = milliseconds(f"import jwt, {NAME}.auth") + 1e6  # writes the bytecode
    for _ in range(4):
        base, own = min(base, milliseconds("import jwt")), min(own, milliseconds(f"import jwt; {program}"))
        if own - base <= limit * base:
            break
    assert own - base <= limit * base


NOT_AT_IMPORT = ("httpx", "httpcore", "starlette", "mcp", "trio", "redis", "coredis")
"""Loaded when an `MCPAuth` is constructed, or only by the servers that use them; never in a request."""


def test_importing_loads_nothing_that_can_wait() -> None:
    program = (
        f"import sys, json, jwt; before = set(sys.modules); from {NAME} import MCPAuth, MCPAuthMiddleware; "
        f"print(json.dumps([m for m in {NOT_AT_IMPORT!r} if m in set(sys.modules) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


REQUEST_LOADS = """
import sys
from asgi_mcp_auth import MCPAuthMiddleware
MCPAuthMiddleware(print, resource="https://api.example.com/mcp", authorization_servers=["https://auth.example.com"])
import anyio
before = set(sys.modules)
_ = anyio.CancelScope, anyio.Event, anyio.move_on_after, anyio.fail_after, anyio.sleep, anyio.create_task_group
_ = anyio.CapacityLimiter
import anyio.lowlevel
print(sorted(set(sys.modules) - before))
"""


def test_constructing_loads_what_requests_use_of_anyio() -> None:
    """It imports the modules that its names are in when it is asked for them, which is not to be in a request."""
    done = subprocess.run([sys.executable, "-c", REQUEST_LOADS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_the_testing_kit_does_not_load_pytest() -> None:
    program = f"import sys, {NAME}.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


# --- no event-loop object at construction ---------------------------------------------------------------------------


def build(issuer: Issuer, app: RecordingApp) -> MCPAuthMiddleware:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
    return MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock).wrap(app)


def test_one_object_serves_every_event_loop(issuer: Issuer) -> None:
    """Constructed outside of any loop; each loop is new and ends with its test client."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    app = RecordingApp()
    middleware = build(issuer, app)

    async def use() -> list[int]:
        good = await call(middleware, headers=bearer(token(issuer)))
        fresh = await call(middleware, headers=bearer(token(issuer, sub="bob")))
        none = await call(middleware)
        return [good.status, fresh.status, none.status]

    answers = [anyio.run(use, backend=backend) for backend in ("asyncio", "asyncio", "trio", "trio", "asyncio")]
    assert answers == [[200, 200, 401]] * 5
    assert app.calls == 10
    assert issuer.requests == {"/.well-known/oauth-authorization-server": 1, "/jwks": 1}


def test_each_loop_may_be_the_first_to_fetch(issuer: Issuer) -> None:
    """A key that is new to the process is fetched in whatever loop asks for it."""
    middleware = build(issuer, RecordingApp())
    clock: Any = issuer.clock

    async def use() -> int:
        return (await call(middleware, headers=bearer(token(issuer)))).status

    statuses: list[int] = []
    for backend in ("asyncio", "trio", "asyncio"):
        issuer.rotate()
        clock.now += 3600
        statuses.append(anyio.run(use, backend=backend))
    assert statuses == [200, 200, 200]


def test_construction_needs_no_loop_and_no_network() -> None:
    program = (
        f"import socket\n"
        f"def refuse(*args, **more): raise AssertionError('network at construction')\n"
        f"socket.socket.connect = refuse\n"
        f"import asyncio\n"
        f"asyncio.new_event_loop = refuse\n"
        f"from {NAME} import MCPAuthMiddleware\n"
        f"MCPAuthMiddleware(print, resource={R!r}, authorization_servers=[{ISS!r}])\n"
        f"print('built')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("built\n", "")
