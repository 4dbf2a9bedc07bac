"""The READMEs: their Python snippets run, their tables match the declarations, their links lead somewhere."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Generator, Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner
from harness import RecordingApp
from readme_tables import DEV_FLAGS, PACKAGE, TABLES, arguments, filled
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from test_servers import write_shop
from test_stacks import SERVERS

import asgi_mcp_auth
from asgi_mcp_auth import Reason
from asgi_mcp_auth.cli._commands import commands
from asgi_mcp_auth.cli._dev_options import dev_server
from asgi_mcp_auth.status import Event
from asgi_mcp_auth.testing import Issuer

ROOT = Path(__file__).parent.parent
FOLDERS = ("", "recipes", "providers", "dev", "doctor", "testing", "cli")
DOCUMENTS = {
    "README.md": ROOT / "README.md",
    "tests/README.md": ROOT / "tests" / "README.md",
    "benchmarks/README.md": ROOT / "benchmarks" / "README.md",
    "CHANGELOG.md": PACKAGE / "CHANGELOG.md",
} | {f"{folder or 'asgi_mcp_auth'}/README.md": PACKAGE / folder / "README.md" for folder in FOLDERS}
EACH = [pytest.param(path, id=name) for name, path in DOCUMENTS.items()]
REFERENCE = (PACKAGE / "README.md").read_text("utf-8")


# --- snippets -------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, shop: None) -> Callable[[Path], Mapping[str, Any]]:
    """Run every snippet of a document in order, and return what they define."""
    real = httpx.AsyncClient

    def client(transport: httpx.AsyncBaseTransport | None = None, **_: Any) -> httpx.AsyncClient:
        return real(transport=transport or httpx.ASGITransport(app=internet))

    def evaluate(path: Path) -> Mapping[str, Any]:
        monkeypatch.setattr(httpx, "AsyncClient", client)
        document = Sybil(parsers=[PythonCodeBlockParser()]).parse(path)
        # Litestar asks for the module of a handler.
        document.namespace |= {"__name__": __name__, "app": RecordingApp()}
        django: Any = import_module("django.conf")
        if not django.settings.configured:
            django.settings.configure(SECRET_KEY="of no site", ROOT_URLCONF="django.contrib.staticfiles.urls")
        examples = list(document.examples())
        assert len(examples) == path.read_text("utf-8").count("```python")
        for example in examples:
            example.evaluate()
        return document.namespace

    return evaluate


def test_snippets_of_the_readme(run: Callable[[Path], Mapping[str, Any]]) -> None:
    names = run(ROOT / "README.md")
    names["test_my_app"]()


def test_snippets_of_the_reference(run: Callable[[Path], Mapping[str, Any]]) -> None:
    names = run(PACKAGE / "README.md")
    assert names["now"].metadata.issuer == "https://auth.example.com/oidc"
    assert names["from_a_url"].issuer == "https://auth.example.com"
    assert names["transpiled"].metadata.response_types_supported == ["code"]


def test_snippets_of_the_development_server(run: Callable[[Path], Mapping[str, Any]]) -> None:
    names = run(PACKAGE / "dev" / "README.md")
    assert anyio.run(names["registered"])["client_id"].startswith("dcr_")


def test_every_python_block_is_run_by_a_test() -> None:
    """tests/test_testing_fixtures.py runs those of the testing kit; the doctor's is a signature."""
    with_python = {name for name, path in DOCUMENTS.items() if "```python" in path.read_text("utf-8")}
    assert with_python == {
        *("README.md", "asgi_mcp_auth/README.md", "dev/README.md", "testing/README.md", "doctor/README.md"),
    }


# --- what every document must be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EACH)
def test_nothing_is_left_to_fill_in(path: Path) -> None:
    assert re.findall(r"\b(?:TODO|TBD|FIXME|[A-Z]+_TABLE)\b", path.read_text("utf-8")) == []


def anchors(path: Path) -> set[str]:
    """The fragments that GitHub gives to the headings of a document."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", EACH)
def test_links_lead_somewhere(path: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)):
        if link.startswith("https://"):
            continue
        file, _, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert set(DOCUMENTS.values()) - {ROOT / link for link in links} == {ROOT / "README.md"}
    folders = {path.parent for path in PACKAGE.rglob("README.md")}
    assert folders <= {path.parent for path in DOCUMENTS.values()}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*")) if path.suffix == ".md" or path.parent.name == "recipes"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_installed_package_has_its_documents_and_recipes(path: Path) -> None:
    if path.is_file():
        installed = Path(str(asgi_mcp_auth.__file__)).parent / path.relative_to(PACKAGE)
        assert installed.read_text("utf-8") == path.read_text("utf-8")


@pytest.mark.parametrize("path", EACH)
def test_every_section_opens_with_a_line_of_prose(path: Path) -> None:
    """Which says when a reader needs the section. Sections of a changelog have none."""
    if path.name == "CHANGELOG.md":
        return
    sections = re.findall(r"^##? .+\n\n(.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
    assert [line for line in sections if not re.match(r"[A-Z*`\[]", line)] == []


def test_the_readme_has_at_most_350_lines() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 350


def test_the_test_command_is_what_ci_runs() -> None:
    command = "pip install '.[test]' && pytest"
    assert command in (ROOT / "README.md").read_text("utf-8")
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").replace("--quiet ", "")


# --- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_a_generated_table_is_current(name: str) -> None:
    path, make = TABLES[name]
    text = path.read_text("utf-8")
    assert filled(text, name, make()) == text, "run: python tests/readme_tables.py"


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the tables below a heading of the reference, by the names in their first cell."""
    section = re.split(r"^##+ ", REFERENCE, flags=re.MULTILINE)
    body = next(part for part in section if part.startswith(f"{heading}\n"))
    found: dict[str, list[str]] = {}
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for name in re.findall(r"`([^`]+)`", cells[0]) if line.startswith("| `") else ():
            found[name] = cells[1:]
    return found


def test_the_table_of_events_is_complete() -> None:
    assert set(rows("Events")) == set(Event)


def test_the_table_of_reason_codes_is_complete() -> None:
    assert set(rows("Reason codes")) == {reason.value for reason in Reason}


def test_the_frequent_reasons_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("| `reason` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE)) <= {reason.value for reason in Reason}


def test_the_table_of_stacks_is_what_is_run() -> None:
    documented = {name: (row[1], row[2].removesuffix(" |").split(", ")) for name, row in rows("What was run").items()}
    assert documented == {
        name: (str(how.refusal), [*how.apps.split(), *how.mcp_servers.split()]) for name, how in SERVERS.items()
    }


def test_the_table_of_the_development_server_names_every_flag() -> None:
    flags = {flag for cell in DEV_FLAGS.values() for flag in re.findall(r"--[\w-]+", cell)}
    assert flags == {param.opts[0] for param in dev_server.params}


def test_the_table_of_commands_is_complete() -> None:
    documented = re.findall(
        r"^\| `asgi-mcp-auth ([\w-]+)`", DOCUMENTS["cli/README.md"].read_text("utf-8"), re.MULTILINE
    )
    assert sorted(documented) == sorted(commands.commands)


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(commands.commands))
def test_the_help_of_a_command_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(commands, [command, "--help"]).output
    assert re.search(r"Examples:\n(?:  #.*\n)?  .*asgi-mcp-auth", shown)


def public_classes() -> dict[str, type[Any]]:
    """The classes that a module without an underscore in its name exports."""
    found: dict[str, type[Any]] = {}
    for info in pkgutil.walk_packages(asgi_mcp_auth.__path__, "asgi_mcp_auth."):
        # pytest rewrites the assertions of the fixtures, so no test imports them before.
        if any(part.startswith("_") or part in ("recipes", "fixtures") for part in info.name.split(".")):
            continue
        module: ModuleType = import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("asgi_mcp_auth"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_help_explains_every_parameter(name: str) -> None:
    """In the docstring of the class or of a base: in a section, or by its name in the text."""
    documented = public_classes()[name]
    assert documented.__doc__
    if issubclass(documented, Enum):  # its members are its documentation
        return
    docstrings = [base.__doc__ or "" for base in documented.__mro__ if base.__module__.startswith("asgi_mcp_auth")]
    docstring = "\n".join(docstrings)
    explained = {name for text in docstrings for part in ("Args", "Attributes") for name in arguments(text, part)}
    try:
        parameters = inspect.signature(documented).parameters
    except ValueError:
        return
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        parameter.name
        for parameter in parameters.values()
        if parameter.kind not in kinds and parameter.name not in explained and f"`{parameter.name}`" not in docstring
    ]
    assert missing == []


def test_help_of_the_middleware_explains_the_shorthand() -> None:
    explained = arguments(asgi_mcp_auth.MCPAuthMiddleware.__doc__)
    assert {"app", "auth", "resource", "authorization_servers", "required_scopes", "public_paths"} <= set(explained)
