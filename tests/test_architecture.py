"""The shape of the package is a promise: who may import whom, how long a module is, what importing it costs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
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
PURE = [pytest.param(name, id=name.removeprefix(f"{NAME}.")) for name in SOURCES if f"{NAME}._protocol" in name]


def imported(nodes: Iterator[ast.AST], package: str) -> Iterator[str]:
    """The modules that import statements name; `from package import module` gives the module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {package}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else str(node.module)


def at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything that runs on import: not inside functions, not under `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


# --- _protocol is pure ----------------------------------------------------------------------------------------------

IMPURE = {
    *("anyio", "asyncio", "trio", "sniffio", "threading", "concurrent", "multiprocessing", "subprocess", "queue"),
    *("httpx", "socket", "ssl", "urllib.request", "http", "requests", "select", "starlette", "mcp", "asgiref"),
    *("time", "datetime", "os", "sys", "random", "secrets", "logging", "contextvars", "pathlib", "io"),
    *(f"{NAME}._remote", f"{NAME}._asgi", f"{NAME}.auth", f"{NAME}.middleware"),
    *(f"{NAME}.testing", f"{NAME}.dev", f"{NAME}.cli"),
}


@pytest.mark.parametrize("name", PURE)
def test_protocol_imports_nothing_impure(name: str) -> None:
    found = set(imported(ast.walk(TREES[name]), name))
    impure = {module for module in found for bad in IMPURE if module == bad or module.startswith(f"{bad}.")}
    assert impure == set()


@pytest.mark.parametrize("name", PURE)
def test_protocol_never_waits(name: str) -> None:
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert [node for node in ast.walk(TREES[name]) if isinstance(node, waiting)] == []
    calls = [
        node.func.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"open", "print", "input", "__import__", "exec", "eval"} & set(calls)


# --- dependencies point one way -------------------------------------------------------------------------------------

FOUNDATION = {
    *("_values", "reasons", "errors", "message_errors", "metadata", "config", "context", "authorization"),
    *("events", "status"),
}
BELOW_AUTH = FOUNDATION | {"decisions", "_protocol", "_remote"}
ALLOWED: dict[str, set[str]] = {
    "_values": set(),
    "events": set(),
    "status": {"_values", "events"},
    "reasons": set(),
    "errors": {"reasons"},
    "message_errors": {"errors", "reasons"},
    "authorization": {"_values"},
    "metadata": {"errors"},
    "config": {"_values", "errors", "metadata"},
    "context": {"_values", "errors"},
    "exceptions": {"errors"},
    "providers": {"providers"},
    "decisions": {"authorization", "context", "errors"},
    "stores": {"context", "errors"},
    "_protocol": FOUNDATION | {"_protocol"},
    "_remote": FOUNDATION | {"decisions", "stores", "_protocol", "_remote"},
    "auth": BELOW_AUTH | {"stores"},
    "_asgi": BELOW_AUTH | {"stores", "exceptions", "auth", "middleware", "_asgi"},
    "middleware": BELOW_AUTH | {"stores", "auth", "_asgi"},
    "types": BELOW_AUTH,
    "utils": BELOW_AUTH,
    "": BELOW_AUTH | {"stores", "auth", "_asgi", "middleware", "exceptions"},
    "testing": BELOW_AUTH | {"stores", "auth", "_asgi", "middleware", "testing"},
    "doctor": BELOW_AUTH | {"providers", "stores", "auth", "_asgi", "doctor"},
    "dev": BELOW_AUTH | {"providers", "_asgi", "testing", "dev"},
    "cli": BELOW_AUTH | {"", "providers", "doctor", "stores", "auth", "_asgi", "middleware", "testing", "dev", "cli"},
    "__main__": {"cli"},
}


def layer(name: str) -> str:
    return name.removeprefix(NAME).removeprefix(".").split(".")[0]


def ours(name: str) -> set[str]:
    return {module for module in imported(at_module_level(TREES[name]), name) if module.split(".")[0] == NAME}


def test_every_module_has_its_place() -> None:
    assert {layer(name) for name in SOURCES} == set(ALLOWED)


@pytest.mark.parametrize("name", MODULES)
def test_dependencies_point_one_way(name: str) -> None:
    assert {layer(module) for module in ours(name)} - ALLOWED[layer(name)] == set()


def test_no_module_depends_on_itself() -> None:
    graph = {name: ours(name) - {name} for name in SOURCES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(SOURCES) <= set(order)


# --- modules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_long(name: str) -> None:
    assert len(SOURCES[name].read_text("utf-8").splitlines()) <= 300


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
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith(NAME)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


PACKAGES = {f"{NAME}._protocol", f"{NAME}._remote", f"{NAME}._asgi", f"{NAME}.__main__"}
REEXPORTING = {
    NAME,
    *(f"{NAME}.{name}" for name in ("types", "utils", "testing", "dev", "providers", "doctor")),
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
    unwanted = ["asyncio", "httpx", "starlette", "mcp", "trio", "uvicorn", "fastmcp", "redis"]
    unwanted += [f"{NAME}.{layer}" for layer in ("testing", "dev", "cli", "providers", "doctor")]
    program = f"import sys, json, {name}; print(json.dumps([m for m in {unwanted!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


NOT_AT_IMPORT = (
    # Loaded when an `MCPAuth` is constructed, never in a request.
    *("httpx", "anyio", "asyncio"),
    # Loaded by what few servers use: the synchronous `fetch_server_config`, settings in a file or the environment.
    *("concurrent.futures", "pathlib", "tomllib", "difflib"),
    *(f"{NAME}._remote.{name}" for name in ("settings", "imports")),
    *(f"{NAME}._protocol.{name}" for name in ("mapping", "shapes", "toml", "config_schema")),
    # `MCPAuth.status()`; rules for resources; challenges read back; apps beside the middleware; session binding.
    *(f"{NAME}.status", f"{NAME}._protocol.resource_uris", f"{NAME}._protocol.challenge_reading"),
    *(f"{NAME}._asgi.{name}" for name in ("bearer", "readiness", "token_verifier", "wellknown")),
)
"""What importing the package costs is held by this list, not by a time: each of these is half a millisecond or more."""


def test_importing_loads_nothing_that_can_wait() -> None:
    program = (
        f"import sys, json, jwt; before = set(sys.modules); from {NAME} import MCPAuth, MCPAuthMiddleware; "
        f"print(json.dumps([m for m in {NOT_AT_IMPORT!r} if m in set(sys.modules) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_what_can_wait_is_there() -> None:
    """A name that is misspelt, or of a module that has gone, would hold nothing."""
    for name in NOT_AT_IMPORT:
        importlib.import_module(name)


MAKING_IN_REQUESTS = {"authorization"}
"""Modules with standard dataclasses: of values that requests make, where half a microsecond counts."""


def test_no_other_class_is_compiled_at_import() -> None:
    """As `dataclasses.dataclass` does with the methods of one: most of the cost of importing it."""
    program = f"import sys, json, {NAME}; print(json.dumps([m for m in sys.modules if m.split('.')[0] == {NAME!r}]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    compiling = {
        name
        for name in json.loads(done.stdout)
        for node in TREES[name].body
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        if any(alias.name == "dataclass" for alias in node.names)
    }
    assert compiling == {f"{NAME}.{name}" for name in MAKING_IN_REQUESTS}


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


def test_importing_the_testing_kit_loads_neither_httpx_nor_pytest() -> None:
    program = f"import sys, {NAME}.testing; print([m for m in ('httpx', 'pytest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


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
