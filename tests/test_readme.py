"""The README: every Python snippet runs, and its tables say what the code says."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from harness import RecordingApp, bearer, call
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from test_servers import write_shop
from test_stacks import SERVERS

from asgi_mcp_auth import AuthServerConfig, MCPAuth, Reason
from asgi_mcp_auth.cli._dev_options import dev_server
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.dev import DevServer, Switch
from asgi_mcp_auth.status import Event
from asgi_mcp_auth.testing import Issuer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


async def internet(scope: Any, receive: Any, send: Any) -> None:
    """The issuers that the snippets name: any host has metadata at the usual places, and at /meta.json."""
    host = dict(scope["headers"])[b"host"].decode()
    path = re.sub(r"/\.well-known/[a-z-]+|/meta\.json", "", scope["path"])
    issuer = f"https://{host}{path}"
    body = json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/jwks", "response_types_supported": ["token"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    """The package `shop` of the examples, to import from the working directory."""
    write_shop(tmp_path, Issuer("https://auth.example.com", algorithms=("ES256",)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.usefixtures("shop")
def test_every_snippet_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = httpx.AsyncClient

    def client(transport: httpx.AsyncBaseTransport | None = None, **_: Any) -> httpx.AsyncClient:
        return real(transport=transport or httpx.ASGITransport(app=internet))

    monkeypatch.setattr(httpx, "AsyncClient", client)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(ROOT / "README.md")
    document.namespace |= {"__name__": __name__, "app": RecordingApp()}  # Litestar asks for the module of a handler

    class Notes(ModuleType):
        """What was defined so far, as a module; tests/test_testing_fixtures.py makes a file of it."""

        def __getattr__(self, name: str) -> Any:
            if name not in document.namespace:
                raise AttributeError(name)
            return document.namespace[name]

    monkeypatch.setitem(sys.modules, "notes", Notes("notes"))
    django: Any = import_module("django.conf")
    django.settings.configure(SECRET_KEY="of nobody", ROOT_URLCONF="django.contrib.staticfiles.urls")
    examples = list(document.examples())
    assert len(examples) == README.count("```python")
    for example in examples:
        example.evaluate()
    names = document.namespace
    assert names["now"].metadata.issuer == "https://auth.example.com/oidc"
    assert names["from_a_url"].issuer == "https://auth.example.com"
    assert names["transpiled"].metadata.response_types_supported == ["code"]
    protected = names["protected"] = names["protected"].auth.wrap(RecordingApp())
    names["test_only_with_a_token"]()
    names["test_an_outage"]()

    async def use() -> list[int]:
        return [(await call(protected, headers=bearer(names[name]))).status for name in ("token", "expired")]

    assert anyio.run(use) == [200, 401]
    assert anyio.run(names["registered"])["client_id"].startswith("dcr_")


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"\b(?:TODO|TBD|FIXME|[A-Z]+_TABLE)\b", README) == []


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the tables below a heading, by what stands in their first cell between backticks."""
    section = re.split(r"^## ", README, flags=re.MULTILINE)
    body = next(part for part in section if part.startswith(heading))
    found: dict[str, list[str]] = {}
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for name in re.findall(r"`([^`]+)`", cells[0]) if line.startswith("| `") else ():
            found[name] = cells[1:]
    return found


def test_the_table_of_options_is_complete() -> None:
    parameters = dict(inspect.signature(MCPAuth.__init__).parameters)
    del parameters["self"], parameters["protected_resources"]
    assert {name: row[0] for name, row in rows("Configuration").items()} == {
        name: "`time.time`" if name == "clock" else f"`{parameter.default!r}`".replace("10000", "10_000")
        for name, parameter in parameters.items()
    }


def test_the_table_of_authorization_server_fields_is_complete() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(AuthServerConfig)}
    documented = {name: row[0] for name, row in rows("Authorization servers").items()}
    written = {name: f"`{value!r}`".replace("'", '"') for name, value in defaults.items()}
    special = {"issuer": "required", "algorithms": "all asymmetric", "jwks_cache": "`JWKSCacheSettings()`"}
    assert documented == written | special


def test_the_tables_of_clocks_and_of_events_are_complete() -> None:
    clocks = {field.name: f"`{field.default!r}`" for field in dataclasses.fields(JWKSCacheSettings)}
    documented = rows("Key sets")
    assert set(documented) == set(clocks) | set(Event)
    assert {name: documented[name][0] for name in clocks} == clocks


def test_the_table_of_reason_codes_is_complete() -> None:
    assert set(rows("Errors and reason codes")) == {reason.value for reason in Reason}


def test_the_tables_of_the_development_server_are_complete() -> None:
    documented = rows("A development authorization server")
    for switch in Switch:
        assert documented.pop(switch.value) == [switch.meaning]
    parameters = dict(inspect.signature(DevServer.__init__).parameters)
    del parameters["self"]
    shown: dict[str, object] = {name: parameter.default for name, parameter in parameters.items()}
    shown["clock"] = "time.time"
    assert {name: row[1] for name, row in documented.items()} == {name: f"`{value}`" for name, value in shown.items()}
    flags = {flag for row in documented.values() for flag in re.findall(r"--[\w-]+", row[0])}
    assert flags == {param.opts[0] for param in dev_server.params}


def test_the_table_of_stacks_is_what_is_run() -> None:
    documented = {
        name: (row[1], row[2].removesuffix(" |").split(", ")) for name, row in rows("Frameworks and servers").items()
    }
    assert documented == {
        name: (str(how.refusal), [*how.apps.split(), *how.mcp_servers.split()]) for name, how in SERVERS.items()
    }


def test_the_test_command_is_what_ci_runs() -> None:
    command = "pip install '.[test]' && pytest"
    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").replace("--quiet ", "")
