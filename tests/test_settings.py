"""Configuration from mappings, TOML files and the environment: same settings, all problems at once, no secret shown."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from harness import ISS, R, RecordingApp, bearer, call, token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from asgi_mcp_auth import (
    AuthServerConfig,
    AuthServerType,
    ConfigurationError,
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    load_app,
)
from asgi_mcp_auth._options import MCPAuthOptions, Settings
from asgi_mcp_auth._policy.problems import as_list, as_mapping
from asgi_mcp_auth._settings.loader import settings_of
from asgi_mcp_auth._settings.reader import fields_of
from asgi_mcp_auth._settings.schema import config_schema
from asgi_mcp_auth._settings.shorthand import SHORTHAND
from asgi_mcp_auth._settings.toml_lines import line_of, statement_lines
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.testing import Issuer

WHOLE = """\
public_paths = ["/healthz"]
websockets = false
token_cache_size = 5

[[protected_resources]]

[protected_resources.metadata]
resource = "https://mcp.example.com/mcp"
authorization_servers = [
  "https://auth.example.com",
  {issuer = "https://b.example.com", type = "oidc", leeway = 5, scope_claims = ["roles"]},
]
resource_name = {"" = "Notes", it = "Note"}

[protected_resources.policy]
default = ["mcp:read"]
implies = {"mcp:admin" = ["mcp:read"]}

[protected_resources.policy.paths]
"/mcp/admin" = ["mcp:admin"]
"""
CONFIG = ResourceServerConfig(
    metadata=ResourceServerMetadata(
        resource=R,
        authorization_servers=[
            ISS,
            AuthServerConfig(
                issuer="https://b.example.com", type=AuthServerType.OIDC, leeway=5, scope_claims=["roles"]
            ),
        ],
        resource_name={"": "Notes", "it": "Note"},
    ),
    policy=ScopePolicy(default=["mcp:read"], implies={"mcp:admin": ["mcp:read"]}, paths={"/mcp/admin": ["mcp:admin"]}),
)
NOTHING: dict[str, Any] = {}
NO_METADATA: dict[str, Any] = {"protected_resources": [{}]}
SHORT: dict[str, Any] = {"resource": R, "authorization_servers": [ISS], "required_scopes": ["mcp:read"]}
BOTH: dict[str, Any] = SHORT | {"protected_resources": []}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MCP_AUTH_"):
            monkeypatch.delenv(name)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mcp-auth.toml"
    file.write_text(text, "utf-8")
    return file


def problems_of(raised: pytest.ExceptionInfo[ConfigurationError]) -> dict[str, str]:
    return {problem.where: problem.what for problem in raised.value.problems}


# --- the same configuration from every source -------------------------------------------------------------------------


def test_a_file_and_a_mapping_give_the_same_configuration_as_python(tmp_path: Path) -> None:
    auth = MCPAuth.from_toml(written(tmp_path, WHOLE))
    assert auth.configs == (CONFIG,)
    options = auth._builder.options
    assert (options["websockets"], options["token_cache_size"]) == (False, 5)
    assert MCPAuth.from_mapping(tomllib.loads(WHOLE)).configs == (CONFIG,)


def short_file(folder: Path) -> MCPAuth:
    text = f'resource = "{R}"\nauthorization_servers = ["{ISS}"]\nrequired_scopes = ["mcp:read"]'
    return MCPAuth.from_toml(written(folder, text))


def short_variables(folder: Path) -> MCPAuth:
    return MCPAuth.from_env(
        {"MCP_AUTH_RESOURCE": R, "MCP_AUTH_AUTHORIZATION_SERVERS": ISS, "MCP_AUTH_REQUIRED_SCOPES": "mcp:read"}
    )


def json_variable(folder: Path) -> MCPAuth:
    one = {"metadata": {"resource": R, "authorization_servers": [ISS]}, "policy": {"default": ["mcp:read"]}}
    return MCPAuth.from_env({"MCP_AUTH_PROTECTED_RESOURCES": json.dumps(one)})


def short_mapping(folder: Path) -> MCPAuth:
    return MCPAuth.from_mapping(SHORT)


@pytest.mark.parametrize("read", [short_mapping, short_file, short_variables, json_variable])
def test_the_shorthand_works_in_every_source(read: Callable[[Path], MCPAuth], tmp_path: Path) -> None:
    (config,) = read(tmp_path).configs
    assert (config.metadata.resource, list(config.metadata.authorization_servers)) == (R, [ISS])
    assert list(config.policy.default) == ["mcp:read"]


def test_the_environment_can_name_a_file_and_nothing_else_then(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert MCPAuth.from_env({"MCP_AUTH_CONFIG": str(file), "PATH": "x"}).configs == (CONFIG,)
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_env({"MCP_AUTH_CONFIG": str(file), "MCP_AUTH_WEBSOCKETS": "false"})
    assert problems_of(raised) == {
        "MCP_AUTH_CONFIG": "MCP_AUTH_WEBSOCKETS would be ignored: the file is the only source of settings."
    }


async def test_hooks_are_import_strings_or_passed_in_code(issuer: Issuer, anyio_backend: str) -> None:
    auth = MCPAuth.from_mapping(
        SHORT | {"is_revoked": "test_settings_hooks:is_revoked"}, http_client=issuer.http_client, clock=issuer.clock
    )
    app = RecordingApp()
    assert (await call(auth.wrap(app), headers=bearer(token(issuer)))).status == 200
    assert (await call(auth.wrap(app))).status == 401
    with pytest.raises(ConfigurationError, match="websockets: The setting is also passed in code"):
        MCPAuth.from_mapping(SHORT | {"websockets": False}, websockets=False)


@pytest.fixture(autouse=True)
def _hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "importable"
    folder.mkdir()
    (folder / "test_settings_hooks.py").write_text(
        "def is_revoked(info): return False\n"
        "def make(): return application\n"
        "async def application(scope, receive, send): ...\n"
        "number = 3\n"
    )
    (folder / "test_settings_broken.py").write_text("import there_is_no_such_module_at_all\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    importlib.invalidate_caches()
    for name in ("test_settings_hooks", "test_settings_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# --- all problems at once, each with its location ---------------------------------------------------------------------


def test_every_problem_of_a_file_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2 is secret")
    file = written(
        tmp_path,
        """\
publc_paths = ["/healthz"]
token_cache_size = "many"
is_revoked = "nowhere:thing"

[[protected_resources]]
[protected_resources.metadata]
resource = {from_env = "SOME_SECRET"}
# several lines
authorization_servers = [
  "http://login.example.com",
  {issuer = "https://b.example.com", typ = "oidc", profile = "own"},
]
[protected_resources.policy]
default = ["notes read"]
""",
    )
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_toml(file)
    assert [problem.where.removeprefix(f"{file}:") for problem in raised.value.problems] == [
        "1: publc_paths",
        "2: token_cache_size",
        "3: is_revoked",
        "9: protected_resources[0].metadata.authorization_servers[1].typ",
        "9: protected_resources[0].metadata.authorization_servers[1].profile",
        "7: protected_resources[0].metadata.resource",
        "14: protected_resources[0].policy.default",
        "9: protected_resources[0].metadata.authorization_servers[0]",
    ]
    assert "hunter2" not in str(raised.value)
    assert "Did you mean public_paths?" in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        pytest.param(NOTHING, {"resource", "authorization_servers"}, id="nothing"),
        pytest.param(SHORT | {"websockets": "no"}, {"websockets"}, id="a string for a bool"),
        pytest.param(SHORT | {"websockets": 0}, {"websockets"}, id="a number for a bool"),
        pytest.param(SHORT | {"token_cache_size": True}, {"token_cache_size"}, id="a bool for a number"),
        pytest.param(SHORT | {"public_paths": "/x"}, {"public_paths"}, id="a string for a list"),
        pytest.param(SHORT | {"public_paths": ["/x", 3]}, {"public_paths[1]"}, id="an item"),
        pytest.param(SHORT | {"authorization_servers": ISS}, {"authorization_servers"}, id="an issuer for a list"),
        pytest.param(SHORT | {"resource": 3}, {"resource"}, id="a number for a string"),
        pytest.param(SHORT | {"on_decision": [3]}, {"on_decision[0]"}, id="a number for a hook"),
        pytest.param(SHORT | {"is_revoked": "os.path"}, {"is_revoked"}, id="no import string"),
        pytest.param(SHORT | {"is_revoked": "os:nothing"}, {"is_revoked"}, id="no attribute"),
        pytest.param(SHORT | {"is_revoked": "test_settings_hooks:number()"}, {"is_revoked"}, id="no factory"),
        pytest.param(SHORT | {"is_revoked": "test_settings_hooks:number"}, {"is_revoked"}, id="no hook"),
        pytest.param(BOTH, ["protected_resources"] * 2, id="both, and one of them empty"),
        pytest.param(
            NO_METADATA,
            {
                "protected_resources[0].metadata.resource",
                "protected_resources[0].metadata.authorization_servers",
            },
            id="no metadata",
        ),
        pytest.param({"protected_resources": [3]}, {"protected_resources[0]"}, id="no table"),
        pytest.param(
            SHORT | {"resource": {"from_env": "THERE_IS_NO_SUCH_VARIABLE"}}, {"resource.from_env"}, id="no variable"
        ),
        pytest.param(SHORT | {"resource": {"from_file": "/no/such/file"}}, {"resource.from_file"}, id="no file"),
        pytest.param(SHORT | {"resource": {"from_env": 3}}, {"resource.from_env"}, id="no name"),
        pytest.param(
            SHORT | {"authorization_servers": [{"issuer": ISS, "metadata": {"jwks_uri": "https://x.example.com"}}]},
            {"authorization_servers[0].metadata"},
            id="metadata without an issuer",
        ),
    ],
)
def test_a_problem_is_reported_at_its_path(settings: dict[str, Any], problems: Collection[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_mapping(settings)
    assert sorted(problem.where for problem in raised.value.problems) == sorted(problems)


@pytest.mark.parametrize(
    ("variables", "problems"),
    [
        pytest.param({"REQUIRED_SCOPE": "x"}, {"MCP_AUTH_REQUIRED_SCOPE"}, id="unknown"),
        pytest.param({"REQUIRED_SCOPES": " "}, {"MCP_AUTH_REQUIRED_SCOPES"}, id="empty"),
        pytest.param({"WEBSOCKETS": "maybe"}, {"MCP_AUTH_WEBSOCKETS"}, id="no bool"),
        pytest.param({"TOKEN_CACHE_SIZE": "1, 2"}, {"MCP_AUTH_TOKEN_CACHE_SIZE"}, id="more than a number"),
        pytest.param({"RESOURCE": "http://x.example.com"}, {"MCP_AUTH_RESOURCE"}, id="not https"),
        pytest.param(
            {"AUTHORIZATION_SERVERS": "https://a.example.com http://b"},
            {"MCP_AUTH_AUTHORIZATION_SERVERS[1]"},
            id="one of two",
        ),
    ],
)
def test_a_problem_is_reported_at_its_variable(variables: dict[str, str], problems: set[str]) -> None:
    good = {"MCP_AUTH_RESOURCE": R, "MCP_AUTH_AUTHORIZATION_SERVERS": ISS}
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_env(good | {f"MCP_AUTH_{name}": text for name, text in variables.items()})
    assert sorted(problem.where for problem in raised.value.problems) == sorted(problems)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(b"= 3", "The file is not valid TOML", id="no TOML"),
        pytest.param(b"a = '\xff'", "is not UTF-8", id="no UTF-8"),
        pytest.param(b"#" * 1_048_577, "is larger than 1 MiB", id="too large"),
        pytest.param(None, "cannot be read", id="no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=what):
        MCPAuth.from_toml(file)


# --- references -----------------------------------------------------------------------------------------------------


def test_references_are_replaced_by_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", R)
    monkeypatch.setenv("SCOPES", "mcp:read mcp:write")
    monkeypatch.setenv("SIZE", "7")
    (tmp_path / "keys.json").write_text(json.dumps(Issuer(ISS).jwks()))
    (tmp_path / "issuer").write_text(f"{ISS}\n")
    auth = MCPAuth.from_toml(
        written(
            tmp_path,
            'resource = {from_env = "WHERE"}\n'
            'required_scopes = {from_env = "SCOPES"}\n'
            'token_cache_size = {from_env = "SIZE"}\n'
            'authorization_servers = [{issuer = {from_file = "issuer"}, jwks = {from_file = "keys.json"}}]\n',
        )
    )
    (config,) = auth.configs
    assert (config.metadata.resource, list(config.policy.default)) == (R, ["mcp:read", "mcp:write"])
    assert auth._builder.options["token_cache_size"] == 7
    (server,) = config.metadata.authorization_servers
    assert isinstance(server, AuthServerConfig)
    assert (server.issuer, list(server.jwks or ())) == (ISS, ["keys"])


@pytest.mark.parametrize(
    "name", ["resource", "token_cache_size", "websockets", "allowed_origins", "protected_resources"]
)
def test_a_reference_is_never_shown(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_mapping(SHORT | {name: {"from_env": "SOME_SECRET"}})
    assert "hunter2" not in str(raised.value) + caplog.text
    assert "SOME_SECRET" in str(raised.value)


# --- all settings -----------------------------------------------------------------------------------------------------


def test_every_setting_is_known() -> None:
    """A new setting is known everywhere without a second list: all settings come from the declarations."""
    assert set(settings_of(Settings)) == {"protected_resources", *MCPAuthOptions.__annotations__, *SHORTHAND}
    undocumented = [
        field.name
        for fields in (settings_of(Settings), fields_of(AuthServerConfig), fields_of(ScopePolicy))
        for field in fields.values()
        if not field.meaning
    ]
    assert undocumented == []


def schema() -> Any:  # jsonschema's stubs are partly unknown
    document = config_schema(settings_of(Settings), SHORTHAND)
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def test_the_schema_accepts_a_good_file() -> None:
    some: dict[str, Any] = SHORT | {"resource": {"from_env": "X"}, "verifier": "a.b:C()"}
    files: list[dict[str, Any]] = [tomllib.loads(WHOLE), SHORT, some]
    for good in files:
        assert schema().is_valid(good)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(NOTHING, id="nothing"),
        pytest.param(SHORT | {"publc_paths": 3}, id="unknown key"),
        pytest.param(SHORT | {"websockets": "no"}, id="wrong type"),
        pytest.param(BOTH, id="both"),
        pytest.param(NO_METADATA, id="missing"),
        pytest.param(SHORT | {"authorization_servers": [{"type": "saml"}]}, id="choice"),
        pytest.param(SHORT | {"resource": {"from_env": "X", "from_file": "Y"}}, id="two references"),
    ],
)
def test_the_schema_refuses_a_bad_file(bad: dict[str, Any]) -> None:
    assert not schema().is_valid(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["issuer", "metadata", "policy", "default", "x", "", "from_file"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first generation waits for a busy machine
@given(st.dictionaries(st.sampled_from([*settings_of(Settings), "x"]), JSON, max_size=4))
def test_any_mapping_is_configured_or_refused(mapping: dict[str, Any]) -> None:
    try:
        resources_or_problems = len(MCPAuth.from_mapping(mapping)._protection.config.resources)
    except ConfigurationError as error:
        resources_or_problems = len(error.problems)
    assert resources_or_problems > 0


# --- the lines of a TOML file ---------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", '"c d"', "'it''s'", '"\\u00e9]"', "a.b", '"x.y".a'])
LEAVES = st.sampled_from(
    [
        "1",
        "true",
        "1979-05-27T07:32:00Z",
        '"#]"',
        "'{[#'",
        '"\\\\"',
        '"\\"["',
        '"""\n]\n\\""" \n"""',
        "'''\n['''''",
        '""""a"""""',
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n  # ] comment\n" + ",\n".join(items) + "\n]")
        | st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(st.sampled_from(["a", "b", '"c d"']), inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=5,
)
STATEMENTS = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds("{} = {}  # a ' comment [".format, KEYS, VALUES),
    st.builds("[{}]".format, KEYS),
    st.builds("[[{}]]".format, KEYS),
    st.builds("  [[ {} ]] # {{".format, KEYS),
    st.sampled_from(["", "# comment '", "  "]),
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Return a well-formed document: a statement that would make it malformed is left out."""
    text = ""
    for statement in draw(st.lists(STATEMENTS, max_size=8)):
        longer = text + statement + draw(st.sampled_from(["\n", "\r\n"]))
        try:
            tomllib.loads(longer)
        except tomllib.TOMLDecodeError:
            continue
        text = longer
    return text


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    members: list[tuple[str | int, object]] = [*(as_mapping(value) or {}).items(), *enumerate(as_list(value) or ())]
    return [path, *(inner for key, member in members for inner in paths_of(member, (*path, key)))]


def depth_of(document: Any, path: tuple[str | int, ...]) -> int:
    """Return how many steps of the path exist."""
    return max(len(known) for known in paths_of(document) if known == path[: len(known)])


def line_by_prefixes(text: str, path: tuple[str | int, ...]) -> int | None:
    """Return the line of a path by definition: the statement after which a prefix of the text has most of the path.

    No TOML statement is well-formed if it is cut, so the shortest longer prefix that parses ends with the statement.
    """
    lines = [f"{line}\n" for line in text.split("\n")]
    found: int | None = None
    deepest = parsed = 0
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        if (depth := depth_of(document, path)) > deepest:
            found, deepest = parsed + 1, depth
        parsed = count
    return found


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(documents(), st.data())
def test_the_line_of_a_value_is_the_line_on_which_its_statement_begins(text: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths_of(tomllib.loads(text)))) + data.draw(st.sampled_from([(), ("zz",), (7,)]))
    where = "".join(f"[{step!r}]" for step in path)
    assert line_of(statement_lines(text), where) == line_by_prefixes(text, path)


LINES = 'x = 1\n\n[[a]]\n"k k" = """\n\u2028"""\nb.c = [\n  {d = 2},\n]\n[[a]]\n[a.e]\n"it\'s" = 3\n'


@pytest.mark.parametrize(
    ("where", "line"),
    [
        pytest.param("x", 1, id="a key"),
        pytest.param("a", 3, id="an array of tables"),
        pytest.param("a[0]", 3, id="its first table"),
        pytest.param("a[0]['k k']", 4, id="a quoted key"),
        pytest.param("a[0].b.c", 6, id="a dotted key after a string of several lines"),
        pytest.param("a[0].b.c[0].d", 6, id="a value inside a statement of several lines"),
        pytest.param("a[1]", 9, id="the second table"),
        pytest.param('a[1].e["it\'s"]', 11, id="a quoted key in a table of an array"),
        pytest.param("a[1].e.no.such", 10, id="the nearest ancestor"),
        pytest.param("a[2]", 3, id="no such item"),
        pytest.param("no", None, id="no ancestor"),
    ],
)
def test_a_problem_is_reported_at_the_line_of_its_path_or_nearest_ancestor(where: str, line: int | None) -> None:
    assert line_of(statement_lines(LINES), where) == line


def test_the_lines_of_a_file_of_1000_lines_cost_less_than_50_ms() -> None:
    text = "".join(f"[[a]]\nname = 'x'\nlist = [\n  {{b = {n}}},\n]\n" for n in range(200))
    times: list[float] = []
    for _ in range(3):
        started = time.process_time()
        assert statement_lines(text)["a", 199, "list", 0, "b"] == 998
        times.append(time.process_time() - started)
    assert min(times) < 0.05


def test_a_value_below_the_deepest_path_has_the_line_of_its_ancestor() -> None:
    where = ".".join(["a"] * 50)
    assert line_of(statement_lines(f"\n{where} = 1\n"), where) == 2


# --- load_app and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["test_settings_hooks:application", "test_settings_hooks:make()"])
def test_load_app_protects_the_imported_app(app: str, tmp_path: Path) -> None:
    protected = load_app(app, config=written(tmp_path, WHOLE))
    assert type(protected) is MCPAuthMiddleware
    assert protected.auth.configs == (CONFIG,)


@pytest.mark.parametrize(
    ("app", "what"),
    [
        pytest.param("nowhere.at.all:app", "there is no module 'nowhere'", id="module"),
        pytest.param("test_settings_hooks:app", "has no attribute 'app'", id="attribute"),
        pytest.param("test_settings_hooks", "is not an import string", id="no colon"),
        pytest.param("test_settings_hooks:make(1)", "is not an import string", id="arguments"),
        pytest.param("test_settings_hooks:number", "is not an ASGI app", id="no app"),
    ],
)
def test_load_app_refuses_an_unusable_import_string(app: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=what):
        load_app(app, config=written(tmp_path, WHOLE))


def test_an_exception_of_the_apps_module_passes_through(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module_at_all"):
        load_app("test_settings_broken:app", config=written(tmp_path, WHOLE))


def test_load_app_without_a_configuration_is_a_problem() -> None:
    with pytest.raises(ConfigurationError, match=r"No MCP_AUTH_… variable is set.*MCP_AUTH_CONFIG"):
        load_app("test_settings_hooks:application")


def test_the_fix_for_a_string_instead_of_a_list_is_the_list() -> None:
    with pytest.raises(ConfigurationError, match=rf"Write \['{ISS}'\]\."):
        MCPAuth.from_mapping(SHORT | {"authorization_servers": ISS})


def test_check_config_prints_the_configuration_or_its_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["check-config", str(written(tmp_path, WHOLE))]) == 0
    shown = capsys.readouterr().out
    for part in (R, "/.well-known/oauth-protected-resource/mcp", ISS, 'type = "oidc"', "mcp:admin", "is good"):
        assert part in shown
    assert main(["check-config", str(written(tmp_path, "x = 1"))]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "mcp-auth.toml:1: x: Unknown key." in printed.err


def test_the_command_prints_the_schema() -> None:
    command = [sys.executable, "-m", "asgi_mcp_auth", "config-schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == config_schema(settings_of(Settings), SHORTHAND)


def test_the_file_in_the_readme_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parent.parent / "asgi_mcp_auth" / "README.md").read_text("utf-8")
    text = readme.partition("```toml\n")[2].partition("```")[0]
    monkeypatch.setenv("LOGIN_ISSUER", "https://login.example.com")
    auth = MCPAuth.from_toml(written(tmp_path, text))
    assert [resource.identifier for resource in auth._protection.config.resources] == ["https://api.example.com/notes"]
    assert schema().is_valid(tomllib.loads(text))


def test_check_config_shows_nested_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f'resource = "{R}"\nauthorization_servers = [{{issuer = "{ISS}", jwks_cache = {{lifetime = 300}}}}]'
    assert main(["check-config", str(written(tmp_path, text))]) == 0
    assert '"lifetime": 300' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param('resource = {from_env = "X"}\nauthorization_servers = ["https://a.example"]', 1, id="resource"),
        pytest.param(f'resource = "{R}"\nauthorization_servers = [{{from_env = "X"}}]', 1, id="issuer"),
        pytest.param(f'resource = "{R}"\nauthorization_servers = [{{issuer = {{from_file = "x"}}}}]', 1, id="file"),
        pytest.param(
            f'resource = "{R}"\nauthorization_servers = [{{issuer = "{ISS}", jwks_uri = {{from_env = "X"}}, '
            'extra_audiences = [{from_env = "X"}, "other"]}]',
            2,
            id="fields of an issuer",
        ),
        pytest.param(
            f'resource = "{R}"\nauthorization_servers = ["{ISS}"]\nrequired_scopes = {{from_env = "X"}}', 1, id="a list"
        ),
        pytest.param(
            f'protected_resources = [{{metadata = {{resource = "{R}", authorization_servers = ["{ISS}"]}}, '
            'policy = {request_scope_names = {from_env = "J"}}}]',
            2,
            id="a table as JSON, its keys too",
        ),
    ],
)
def test_check_config_shows_public_values_that_the_file_refers_to(
    text: str, shown: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that is published or sent with every token is not a secret."""
    public = "https://public.example.com/mcp"
    monkeypatch.setenv("X", public)
    monkeypatch.setenv("J", json.dumps({"a-public": "b-public"}))
    (tmp_path / "x").write_text(public)
    assert main(["check-config", str(written(tmp_path, text))]) == 0
    shown_text = capsys.readouterr().out
    assert shown_text.count("public") >= shown
    assert "(from_" not in shown_text
