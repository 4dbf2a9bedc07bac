"""Configuration from mappings, TOML files and the environment: read alike, refused together, secrets never shown."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
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
from asgi_mcp_auth._settings.loader import line_of, settings_of
from asgi_mcp_auth._settings.reader import fields_of
from asgi_mcp_auth._settings.schema import config_schema
from asgi_mcp_auth._settings.shorthand import SHORTHAND
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


# --- the same configuration, however it is written ------------------------------------------------------------------


def test_a_file_says_what_python_says(tmp_path: Path) -> None:
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
def test_the_shorthand(read: Callable[[Path], MCPAuth], tmp_path: Path) -> None:
    (config,) = read(tmp_path).configs
    assert (config.metadata.resource, list(config.metadata.authorization_servers)) == (R, [ISS])
    assert list(config.policy.default) == ["mcp:read"]


def test_an_environment_names_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert MCPAuth.from_env({"MCP_AUTH_CONFIG": str(file), "PATH": "x"}).configs == (CONFIG,)
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_env({"MCP_AUTH_CONFIG": str(file), "MCP_AUTH_WEBSOCKETS": "false"})
    assert problems_of(raised) == {
        "MCP_AUTH_CONFIG": "MCP_AUTH_WEBSOCKETS: beside MCP_AUTH_CONFIG, nothing else is read."
    }


async def test_hooks_by_import_string_and_in_code(issuer: Issuer, anyio_backend: str) -> None:
    auth = MCPAuth.from_mapping(
        SHORT | {"is_revoked": "test_settings_hooks:nobody_is"}, http_client=issuer.http_client, clock=issuer.clock
    )
    app = RecordingApp()
    assert (await call(auth.wrap(app), headers=bearer(token(issuer)))).status == 200
    assert (await call(auth.wrap(app))).status == 401
    with pytest.raises(ConfigurationError, match="The setting is given in the code too"):
        MCPAuth.from_mapping(SHORT | {"websockets": False}, websockets=False)


@pytest.fixture(autouse=True)
def _hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "importable"
    folder.mkdir()
    (folder / "test_settings_hooks.py").write_text(
        "def nobody_is(info): return False\n"
        "def make(): return application\n"
        "async def application(scope, receive, send): ...\n"
        "number = 3\n"
    )
    (folder / "test_settings_broken.py").write_text("import there_is_no_such_module_at_all\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    importlib.invalidate_caches()
    for name in ("test_settings_hooks", "test_settings_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# --- everything wrong at once, with its place -----------------------------------------------------------------------


def test_every_problem_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_problems(settings: dict[str, Any], problems: Collection[str]) -> None:
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
def test_problems_of_variables(variables: dict[str, str], problems: set[str]) -> None:
    good = {"MCP_AUTH_RESOURCE": R, "MCP_AUTH_AUTHORIZATION_SERVERS": ISS}
    with pytest.raises(ConfigurationError) as raised:
        MCPAuth.from_env(good | {f"MCP_AUTH_{name}": text for name, text in variables.items()})
    assert sorted(problem.where for problem in raised.value.problems) == sorted(problems)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(b"= 3", "It is not TOML", id="no TOML"),
        pytest.param(b"a = '\xff'", "is not UTF-8", id="no UTF-8"),
        pytest.param(b"#" * 1_048_577, "is larger than 1 MiB", id="too large"),
        pytest.param(None, "cannot be read", id="no file"),
    ],
)
def test_no_file_to_read(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=what):
        MCPAuth.from_toml(file)


# --- references -----------------------------------------------------------------------------------------------------


def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- every setting there is -----------------------------------------------------------------------------------------


def test_every_setting_is_known() -> None:
    """Settings that are added later are known too: all of them come from the declarations."""
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


def test_the_schema_knows_a_good_file() -> None:
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
        told = len(MCPAuth.from_mapping(mapping)._protection.config.resources)
    except ConfigurationError as error:
        told = len(error.problems)
    assert told > 0


@given(st.lists(st.sampled_from(["[a]", "[[b]]", "x = 1", 'y = """', '"""', "z = [", "]", "# c", ""]), max_size=9))
def test_a_line_is_where_the_key_is_written(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    if (line := line_of(text, "x")) is not None:
        assert lines[line - 1] == "x = 1"


# --- load_app and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["test_settings_hooks:application", "test_settings_hooks:make()"])
def test_load_app(app: str, tmp_path: Path) -> None:
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
def test_load_app_refuses(app: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=what):
        load_app(app, config=written(tmp_path, WHOLE))


def test_what_the_apps_module_raises_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module_at_all"):
        load_app("test_settings_broken:app", config=written(tmp_path, WHOLE))


def test_load_app_without_any_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"There is no MCP_AUTH_… variable.*MCP_AUTH_CONFIG"):
        load_app("test_settings_hooks:application")


def test_what_is_wrong_with_an_issuer_for_a_list() -> None:
    with pytest.raises(ConfigurationError, match=rf"Write \['{ISS}'\]\."):
        MCPAuth.from_mapping(SHORT | {"authorization_servers": ISS})


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["check-config", str(written(tmp_path, WHOLE))]) == 0
    shown = capsys.readouterr().out
    for part in (R, "/.well-known/oauth-protected-resource/mcp", ISS, 'type = "oidc"', "mcp:admin", "is good"):
        assert part in shown
    assert main(["check-config", str(written(tmp_path, "x = 1"))]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "mcp-auth.toml:1: x: Unknown key." in told.err


def test_the_command_prints_the_schema() -> None:
    command = [sys.executable, "-m", "asgi_mcp_auth", "config-schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == config_schema(settings_of(Settings), SHORTHAND)


def test_the_readmes_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parent.parent / "asgi_mcp_auth" / "README.md").read_text("utf-8")
    text = readme.partition("```toml\n")[2].partition("```")[0]
    monkeypatch.setenv("LOGIN_ISSUER", "https://login.example.com")
    auth = MCPAuth.from_toml(written(tmp_path, text))
    assert [resource.identifier for resource in auth._protection.config.resources] == ["https://api.example.com/notes"]
    assert schema().is_valid(tomllib.loads(text))


def test_check_config_shows_what_is_nested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    """What is published, or sent with every token, is no secret."""
    public = "https://public.example.com/mcp"
    monkeypatch.setenv("X", public)
    monkeypatch.setenv("J", json.dumps({"a-public": "b-public"}))
    (tmp_path / "x").write_text(public)
    assert main(["check-config", str(written(tmp_path, text))]) == 0
    shown_text = capsys.readouterr().out
    assert shown_text.count("public") >= shown
    assert "(from_" not in shown_text
