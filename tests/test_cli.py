"""The command line: help, versions, usage errors, completion, folding, and the message without the extra."""

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

import asgi_mcp_auth
from asgi_mcp_auth import config
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth._settings.reader import Field, Kind, Shape
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.cli._check_config import text_of
from asgi_mcp_auth.cli._terminal import fold, shell_lines, unbroken

COMMANDS = (
    "api-key",
    "check-config",
    "completion",
    "config-schema",
    "demo",
    "dev-server",
    "doctor",
    "explain",
    "recipe",
)


def too_wide(shown: str, width: int = 80) -> list[str]:
    """The lines that are wider than a terminal, unless they have one word only, such as a URL."""
    lines = (line.removesuffix(" \\") for line in shown.splitlines())
    return [line for line in lines if cell_len(line) > width and len(line.split()) > 1]


def run(*arguments: str, code: str = "", cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """The console script, as a process: without the working directory in `sys.path`."""
    program = f"import sys\nsys.path.remove('')\n{code}\nfrom asgi_mcp_auth.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "PYTHONUTF8": "1"},
    )


def test_the_console_script_is_the_program() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="asgi-mcp-auth")
    assert script.load() is main


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()] == list(
        COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_and_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: asgi-mcp-auth {command}")
    assert re.search(rf"^ *Examples:\n(?: .*\n)*? .*asgi-mcp-auth {command}", shown, re.MULTILINE) is not None
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"asgi-mcp-auth {importlib.metadata.version('asgi-mcp-auth')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["demos"], "No such command 'demos'.", id="no such command"),
        pytest.param(["demo", "--served"], "No such option", id="no such option"),
        pytest.param(["check-config", "a", "b"], "unexpected extra argument (b)", id="one argument too many"),
        pytest.param(["completion"], "Choose from: bash, zsh, fish. See", id="no shell"),
        pytest.param(["completion", "csh"], "'csh' is not one of", id="an unknown shell"),
    ],
)
def test_a_usage_error_is_one_paragraph_with_the_next_step(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert "--help'." in shown.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: asgi-mcp-auth" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    done = run("check-config", code=f"sys.modules[{missing!r}] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"asgi-mcp-auth needs {missing}. In a clone, run: pip install '.[cli]'\n"


def test_every_install_command_works_in_a_clone() -> None:
    """The package is not published: `pip install asgi-mcp-auth` finds nothing."""
    sources = sorted(Path(str(asgi_mcp_auth.__file__)).parent.rglob("*.py"))
    commands = {
        command for path in sources for command in re.findall(r"pip install ([^\s\"]+)", path.read_text("utf-8"))
    }
    assert commands == {"'.[cli]'", "'.[demo]'.", "'.[demo]'", "'.[otel]'", "'.[redis]'"}


# --- folding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "hanging", "lines"),
    [
        pytest.param("one two three", 0, ["one two", "three"], id="between words"),
        pytest.param("  one two three", 4, ["  one two", "    three"], id="with a hanging indentation"),
        pytest.param("a https://a.example/long b", 2, ["a", "  https://a.example/long", "  b"], id="a URL alone"),
        pytest.param("https://a.example/long b", 0, ["https://a.example/long", "b"], id="a URL first"),
        pytest.param(unbroken("a GET /x"), 0, ["a GET /x"], id="fits"),
        pytest.param(f"ab cd {unbroken('GET /x')}", 0, ["ab cd", "GET /x"], id="not within what belongs together"),
        pytest.param("→ 一二三 四", 0, ["→ 一二三", "四"], id="by columns, not characters"),
        pytest.param("", 4, [""], id="an empty line"),
    ],
)
def test_a_line_is_folded_between_words(line: str, hanging: int, lines: list[str]) -> None:
    assert [part.plain for part in fold(Text(line), 10, hanging)] == lines


@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]) | st.just(" ")), hanging=st.integers(0, 8)
)
def test_folding_breaks_no_word_and_keeps_within_the_width(text: str, hanging: int) -> None:
    parts = [part.plain for part in fold(Text(text), 20, hanging)]
    assert " ".join(parts).split() == text.split()
    assert too_wide("\n".join(parts), 20) == []


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        pytest.param("curl -i http://a", ["curl -i http://a"], id="short"),
        pytest.param("curl -s http://a -d x=y", ["curl -s http://a \\", "  -d x=y"], id="an option with its value"),
        pytest.param("T=$(a 'b  c' | d)", ["T=$(a 'b  c' | d)"], id="quoted"),
        pytest.param(
            """a -H "B: $T" -d '{"c": 1}'""", ['a -H "B: $T" \\', """  -d '{"c": 1}'"""], id="quotes of both kinds"
        ),
        pytest.param(
            "a aaaaaaaaaaaaaaaaaaaaaaaaaaaaa b", ["a \\", "  aaaaaaaaaaaaaaaaaaaaaaaaaaaaa \\", "  b"], id="a long word"
        ),
    ],
)
def test_a_command_is_folded_by_backslashes(command: str, lines: list[str]) -> None:
    assert shell_lines(command, 20) == lines
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


# --- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "mark"), [("zsh", "#compdef asgi-mcp-auth"), ("fish", "complete "), ("bash", "complete ")]
)
def test_completion(shell: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert mark in capsys.readouterr().out


def test_completion_completes() -> None:
    code = "import os; os.environ |= {'_ASGI_MCP_AUTH_COMPLETE': 'zsh_complete', 'COMP_WORDS': 'asgi-mcp-auth de', 'COMP_CWORD': '1'}"
    assert "demo" in run(code=code).stdout.split("\n")


# --- check-config ---------------------------------------------------------------------------------------------------

RESOURCE = "https://api.example.com/mcp"
ISSUER = "https://auth.example.com"
TEXT = Referenced("s3cret", 'from_env = "X"')
SHORT = f'resource = "{RESOURCE}"\nauthorization_servers = ["{ISSUER}"]\n'


def checked(text: str, directory: Path, **variables: str) -> str:
    """What check-config shows for a file, with every fold undone."""
    file = directory / "mcp-auth.toml"
    file.write_text(text, "utf-8")
    done = run("check-config", "mcp-auth.toml", code=f"import os; os.environ |= {variables}", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert too_wide(done.stdout) == []
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        pytest.param('public_paths = ["/health", "/docs/*"]', 'public_paths = ["/health", "/docs/*"]', id="public paths"),
        pytest.param('allowed_origins = ["https://app.example.com"]', 'allowed_origins = ["https://app.example.com"]', id="origins"),
        pytest.param("expose_token = true", "expose_token = true", id="the raw token"),
        pytest.param("dangerously_allow_http = true", "dangerously_allow_http = true", id="http"),
        pytest.param("dangerously_allow_private_addresses = true", "dangerously_allow_private_addresses = true", id="addresses"),
        pytest.param("token_cache_size = 5", "token_cache_size = 5", id="a number"),
        pytest.param('public_paths = {from_env = "PATHS"}', 'public_paths = ["/a", "/b"]', id="referred to"),
    ],
)  # fmt: skip
def test_check_config_shows_every_option_that_differs_from_its_default(
    setting: str, shown: str, tmp_path: Path
) -> None:
    assert f"option {shown} " in checked(SHORT + setting, tmp_path, PATHS="/a /b")


def test_check_config_shows_a_store_without_its_password(tmp_path: Path) -> None:
    shown = checked(f'{SHORT}session_binding = true\nstore = "redis://:s3cret@cache/1"', tmp_path)
    assert "option store = asgi_mcp_auth.stores.redis:RedisStore " in shown
    assert "s3cret" not in shown


SECRETS_IN_A_FILE = """revocation = true
store = "asgi_mcp_auth:MemoryStore()"
[[token_exchange]]
client_id = "api"
client_secret = "s3cret"
[[event_transmitters]]
issuer = "https://auth.example.com"
audiences = ["https://events.example.com"]
authorization = "Bearer s3cret"
poll_endpoint = "https://auth.example.com/poll"
poll_token = "s3cret"
verification_state = "s3cret"
"""


def test_check_config_shows_no_secret_that_is_written_in_the_file(tmp_path: Path) -> None:
    shown = checked(SHORT + SECRETS_IN_A_FILE, tmp_path)
    assert '"client_id": "api", "client_secret": "…", "private_key": null' in shown
    assert '"authorization": "…", "verification_state": "…", "poll_endpoint": "https://auth.example.com/poll"' in shown
    assert "s3cret" not in shown


def test_the_repr_of_a_configuration_value_leaves_its_secrets_out() -> None:
    secret = re.compile(r"secret|private_key|pepper|(?<!requested_)token$|^authorization$|_state$")
    values = [value for value in vars(config).values() if isinstance(value, type) and is_dataclass(value)]
    found = {field.name: field.repr for value in values for field in fields(value) if secret.search(field.name)}
    assert {"client_secret", "private_key", "pepper", "poll_token", "authorization"} <= set(found)
    assert {name for name, is_shown in found.items() if is_shown} == set()


def test_check_config_shows_no_option_that_has_its_default(tmp_path: Path) -> None:
    assert "option" not in checked(SHORT + "expose_token = false\ntoken_cache_size = 10000", tmp_path)


def test_check_config_imports_modules_of_the_working_directory(tmp_path: Path) -> None:
    """As uvicorn and gunicorn do; an object is shown by its name, since its repr may hold a secret."""
    hooks = "class Check:\n    secret = 's3cret'\n    async def __call__(self, token): return False\n"
    (tmp_path / "my_hooks.py").write_text(f"{hooks}def authorize(operation, auth): ...\ncheck = Check()\n", "utf-8")
    shown = checked(f'{SHORT}is_revoked = "my_hooks:check"\nauthorize = "my_hooks:authorize"', tmp_path)
    assert "option is_revoked = my_hooks:Check option authorize = my_hooks:authorize " in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        pytest.param("issuer", TEXT, '"s3cret"', id="a public setting"),
        pytest.param("client_secret", TEXT, '"(from_env = \\"X\\")"', id="a setting that is not known to be public"),
        pytest.param("keys", {"issuer": [TEXT]}, '{"issuer": ["(from_env = \\"X\\")"]}', id="nested in one"),
        pytest.param("jwks_uri", Referenced(f"{ISSUER}/keys?key=s3cret", "X"), f'"{ISSUER}/keys?…"', id="a query"),
        pytest.param("keys", [Text("s3cret")], '["rich.text:Text"]', id="an object of another module"),
        pytest.param("shared_secret", "s3cret", "…", id="a secret in the file"),
    ],
)
def test_check_config_masks_texts_that_may_be_secrets(name: str, value: object, shown: str) -> None:
    field = Field(name, (Shape(Kind.STRING),), required=False, default=None, meaning="")
    assert text_of(value, field) == shown


def test_the_errors_of_check_config_are_folded(tmp_path: Path) -> None:
    (tmp_path / "mcp-auth.toml").write_text(f"{SHORT}requird_scopes = []\nexpose_token = 1", "utf-8")
    done = run("check-config", "mcp-auth.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("2 configuration problems\n  - ")
    assert too_wide(done.stderr) == []
