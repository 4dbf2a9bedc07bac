"""The command line: help, versions, mistakes, completion, and what is said without the extra."""

import importlib.metadata
import subprocess
import sys

import pytest

from asgi_mcp_auth.cli import main

COMMANDS = ("check-config", "completion", "config-schema", "demo", "dev-server", "doctor", "explain")


def run(*arguments: str, code: str = "") -> "subprocess.CompletedProcess[str]":
    """The program, as a process of its own."""
    program = f"import sys\n{code}\nfrom asgi_mcp_auth.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_console_script_is_the_program() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="asgi-mcp-auth")
    assert script.load() is main


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Usage: asgi-mcp-auth {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"asgi-mcp-auth {importlib.metadata.version('asgi-mcp-auth')}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["demos"], "No such command 'demos'.", id="no such command"),
        pytest.param(["demo", "--served"], "No such option", id="no such option"),
        pytest.param(["check-config", "a", "b"], "unexpected extra argument (b)", id="one argument too many"),
        pytest.param(["completion"], "Choose from: bash, zsh, fish. See", id="no shell"),
        pytest.param(["completion", "csh"], "'csh' is not one of", id="an unknown shell"),
    ],
)
def test_a_mistake_is_one_line_with_the_next_step(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert "--help'." in shown.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: asgi-mcp-auth" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    done = run("check-config", code=f"sys.modules[{missing!r}] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"asgi-mcp-auth needs {missing}: pip install 'asgi-mcp-auth[cli]'\n"


@pytest.mark.parametrize(
    ("shell", "mark"), [("zsh", "#compdef asgi-mcp-auth"), ("fish", "complete "), ("bash", "complete ")]
)
def test_completion(shell: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert mark in capsys.readouterr().out


def test_completion_completes() -> None:
    code = "import os; os.environ |= {'_ASGI_MCP_AUTH_COMPLETE': 'zsh_complete', 'COMP_WORDS': 'asgi-mcp-auth de', 'COMP_CWORD': '1'}"
    assert "demo" in run(code=code).stdout.split("\n")
