"""`python -m asgi_mcp_auth demo`, as a user runs it: a process, its output and its exit status."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import clients
import httpx
import processes
import pytest
from harness import http_scope, send_scope
from npm_clients import User, inspector
from proxies import require_program
from test_cli import too_wide

from asgi_mcp_auth.cli.demo import _client, _run, _servers, run_demo
from asgi_mcp_auth.dev import DevServer

DEMO = [sys.executable, "-m", "asgi_mcp_auth", "demo"]
PRM = "/.well-known/oauth-protected-resource/mcp"
DISCOVERY = "/.well-known/oauth-authorization-server"

STEPS: tuple[tuple[str, tuple[tuple[str, int, str], ...]], ...] = (
    # The exchanges that each step has to show, in this order, perhaps with others between: request, status, detail.
    ("The servers start", ((f"GET {DISCOVERY}", 200, "jwks_uri http"), ("GET /jwks", 200, "RS256 rs256-"))),
    (
        "A client that knows only the URL http://127.0.0.1:",
        (
            ("POST /mcp  server/discover", 401, 'WWW-Authenticate: Bearer scope="notes:read", resource_metadata="'),
            (f"GET {PRM}", 200, "authorization_servers http://127.0.0.1:"),
            (f"GET {DISCOVERY}", 200, "registration_endpoint http"),
            ("POST /register", 201, "client_id dcr_"),
            ("GET /authorize", 302, "scope notes:read offline_access"),
            ("GET /callback", 200, "code ac_"),
            ("POST /token", 200, ", for 600 s\n         aud http://127.0.0.1:"),
            ("POST /mcp  tools/call list_notes", 200, "its scopes suffice"),
        ),
    ),
    (
        "The client calls add_note",
        (
            ("POST /mcp  tools/call add_note", 403, 'error="insufficient_scope", scope="notes:read notes:write"'),
            ("GET /authorize", 302, "scope notes:read offline_access notes:write"),
            ("GET /callback", 200, "iss http://127.0.0.1:"),
            ("POST /token", 200, "scope notes:read notes:write\n"),
            ("POST /mcp  tools/call add_note", 200, "its scopes suffice"),
        ),
    ),
    (
        "An hour later the client calls list_notes",
        (
            ("POST /token", 200, "which replaces the one that was sent"),
            ("POST /mcp  tools/call list_notes", 200, "its scopes suffice"),
        ),
    ),
    (
        "Another client sends the expired token",
        (("POST /mcp  tools/list", 401, 'error_description="The access token expired"'),),
    ),
    (
        "Another client sends a token of the same issuer",
        (("POST /mcp  tools/list", 401, 'error_description="The access token is invalid"'),),
    ),
)
RESULTS = ("Ready", "list_notes: Water the plants", "add_note: 2 notes", "list_notes: Water the plants, Buy bread")


def run(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    # The output is read as UTF-8, so it has to be written as that, whatever the locale.
    whole = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "1000", **env}
    return subprocess.run(argv, capture_output=True, timeout=45, check=False, encoding="utf-8", env=whole)


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", code])


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    return run(DEMO)


def test_it_succeeds(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert shown.stdout.endswith("\nEvery step succeeded.\n")
    assert "✗" not in shown.stdout
    assert "\x1b" not in shown.stdout  # colours are for terminals
    assert re.findall(r"^   ✓ (.*)$", shown.stdout, re.MULTILINE) == [
        *RESULTS,
        *["Rejected with 401"] * 2,
    ]


def test_exchanges_are_numbered(shown: subprocess.CompletedProcess[str]) -> None:
    numbers = re.findall(r"^   \[(\d+)\] ", shown.stdout, re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(len(numbers))]


@pytest.mark.parametrize("number", range(1, len(STEPS) + 1), ids=[title for title, _ in STEPS])
def test_step(shown: subprocess.CompletedProcess[str], number: int) -> None:
    title, exchanges = STEPS[number - 1]
    step = re.split(r"^\d+\. ", shown.stdout, flags=re.MULTILINE)[number]
    assert step.startswith(title)
    blocks = re.split(r"^   \[\d+\] ", step, flags=re.MULTILINE)[1:]
    at = iter(blocks)
    for request, status, detail in exchanges:
        for block in at:
            line, _, rest = block.partition("\n")
            found = re.fullmatch(r"[\w ]+ → [\w ]+: (\w+) http://127\.0\.0\.1:\d+(\S+(?:  .+?)?)  (\d+)", line)
            assert found is not None, line
            if f"{found[1]} {found[2]}" == request and int(found[3]) == status:
                assert detail in rest
                break
        else:
            pytest.fail(f"no {request} with {status} in this order:\n{step}")


@pytest.mark.full
def test_the_demo_fits_a_terminal_of_80_columns() -> None:
    shown = run(DEMO, COLUMNS="80")
    assert shown.returncode == 0
    assert too_wide(shown.stdout) == []
    assert len(shown.stdout.splitlines()) > 130


def test_no_whole_token_or_code_is_shown(shown: subprocess.CompletedProcess[str]) -> None:
    begins = re.findall(r"(?:eyJ|ac_|rt_|dcr_)[\w.-]*…?", shown.stdout)
    assert len(begins) > 8
    assert all(begin.endswith("…") and len(begin) <= 11 for begin in begins)
    assert re.search(r"[\w-]{30,}", shown.stdout.replace("oauth-authorization-server", ""), re.ASCII) is None


@pytest.mark.full
def test_colours_on_a_terminal_only() -> None:
    forced = run(DEMO, FORCE_COLOR="1", TERM="xterm-256color")
    assert forced.returncode == 0, forced.stdout
    assert re.search(r"\x1b\[[\d;]*3\dm", forced.stdout) is not None


# --serve


@pytest.fixture(scope="module")
def serving() -> Iterator[processes.Process]:
    """The demo with --serve, on a terminal of 80 columns; its output is read as it grows."""
    env = {"PYTHONUTF8": "1", "COLUMNS": "80"}
    with processes.running([*DEMO, "--serve"], ready_line="Ctrl-C stops.", env=env, timeout=45) as up:
        yield up


def after(process: processes.Process, mark: int, *wanted: str) -> str:
    """What it printed after a mark, unfolded, once that has all that is wanted."""
    process.wait_until(lambda: all(text in " ".join(process.output[mark:].split()) for text in wanted), 10)
    return " ".join(process.output[mark:].split())


def served_resource(process: processes.Process) -> str:
    (resource,) = re.findall(r"^MCP server +(\S+)$", process.output, re.MULTILINE)
    return str(resource)


@pytest.mark.full
def test_what_to_paste_fits_a_terminal_of_80_columns(serving: processes.Process) -> None:
    pasted = serving.output[serving.output.index("\nMCP server ") :]
    assert too_wide(pasted) == []


def test_the_lines_for_curl_work(serving: processes.Process) -> None:
    require_program("curl", "curl")
    mark = len(serving.output)
    lines = re.findall(r"^(?:curl -|TOKEN=)(?:.*\\\n)*.*$", serving.output, re.MULTILINE)
    assert len(lines) == 3
    script = "\n".join(lines).replace("curl -", "curl --silent --noproxy '*' -")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    refused, _, answered = done.stdout.partition("HTTP/1.1 200 OK")
    assert refused.startswith("HTTP/1.1 401 Unauthorized")
    assert '"text":"Water the plants"' in answered
    shown = after(serving, mark, "tools/call list_notes")
    assert "No token: the challenge names" in shown
    assert "client_credentials" not in shown  # the summary says it in words
    assert re.search(r"eyJ[\w-]{10,}", shown) is None


def test_the_lines_for_other_clients(serving: processes.Process) -> None:
    resource = served_resource(serving)
    output = serving.output
    output = output.replace(" \\\n ", "")
    assert f"\nnpx @modelcontextprotocol/inspector {resource} --transport http\n" in output
    assert f"\nclaude mcp add --transport http notes {resource}\n" in output
    found = re.search(r"^VS Code: \.vscode/mcp\.json\n(\{.*?^\})$", output, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == {"servers": {"notes": {"type": "http", "url": resource}}}


def test_the_exchanges_of_any_client_are_shown_as_they_happen(serving: processes.Process) -> None:
    mark = len(serving.output)
    with clients.sdk_client("python", served_resource(serving), mode="legacy") as client:
        assert client.do("connect") == "2025-11-25"
        assert client.do("list") == ["list_notes", "add_note"]
    shown = after(serving, mark, "responds to tools/list", "The consent page", "Allowed: the browser")
    assert "client_name Python" in shown
    assert "✗" not in shown


@pytest.mark.full
def test_the_inspector_as_it_is_pasted(serving: processes.Process, tmp_path: Path) -> None:
    assert inspector(served_resource(serving), "list_notes", tmp_path, User()) == (0, "Water the plants")


def test_ctrl_c_ends_it(serving: processes.Process) -> None:
    """The last test of this process."""
    assert serving.returncode is None
    os.kill(serving.pid, signal.SIGINT)
    assert serving.wait() == 0
    assert "Traceback" not in serving.output


@pytest.mark.full
def test_ports_that_are_taken() -> None:
    """Free ports are used instead, and printed."""
    with contextlib.ExitStack() as stack:
        for port in (8765, 8766):
            with contextlib.suppress(OSError):  # in use already
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        process = stack.enter_context(processes.running([*DEMO, "--serve"], ready_line="Ctrl-C stops.", timeout=45))
        resource = served_resource(process)
        assert ":8765/" not in resource
        assert httpx.get(resource, trust_env=False).status_code == 401


# --browser


@contextlib.contextmanager
def with_browser(directory: Path) -> Generator[tuple[processes.Process, Callable[[], str]]]:
    """The demo with a browser that writes the URL into a file; and a function that waits for the next URL."""
    browser, opened = directory / "browser", directory / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n', encoding="ascii")
    browser.chmod(0o755)
    env = {"BROWSER": f"{browser} %s", "PYTHONUTF8": "1", "COLUMNS": "1000"}
    with processes.running([*DEMO, "--browser"], ready_line="Waiting for you", env=env, timeout=45) as process:

        def url() -> str:
            process.wait_until(opened.exists, 20)
            found = opened.read_text(encoding="ascii").strip()
            opened.unlink()
            assert f"If it does not: {found}\n" in process.output
            return found

        yield process, url


@pytest.mark.full
def test_a_user_allows_in_the_browser(tmp_path: Path) -> None:
    with with_browser(tmp_path) as (process, url):
        for _ in range(2):  # for reading, and for writing
            page = httpx.get(clients.allow(url()), trust_env=False)
            assert "Allowed. You can close this window." in page.text
        assert process.wait(20) == 0
        assert process.output.endswith("\nEvery step succeeded.\n")
        assert process.output.count("The consent page: it names the client") == 2


@pytest.mark.full
def test_a_user_denies_in_the_browser(tmp_path: Path) -> None:
    with with_browser(tmp_path) as (process, url):
        page = httpx.get(clients.deny(url()), trust_env=False)
        assert "Not allowed: access_denied." in page.text
        assert process.wait(20) == 1
        assert "✗ The request was denied: access_denied." in process.output
        assert process.output.endswith("\nA step failed.\n")
        assert "Traceback" not in process.output


@pytest.mark.full
def test_ctrl_c_while_the_demo_waits_for_consent(tmp_path: Path) -> None:
    with with_browser(tmp_path) as (process, url):
        url()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert "Traceback" not in process.output


# What can go wrong


@pytest.mark.parametrize("name", ["uvicorn", "mcp"])
def test_without_an_extra(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; from asgi_mcp_auth.cli import main; sys.exit(main(['demo']))"
    result = run_code(code)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"The demo needs {name}. In a clone, run: pip install '.[demo]'\n"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, blocking_calls: None) -> Iterator[pytest.MonkeyPatch]:
    """For a demo in the process of the tests: restores the levels of its loggers, and allows printing in event loops."""
    loggers = [logging.getLogger(name) for name in ("asgi_mcp_auth", "mcp")]
    levels = [logger.level for logger in loggers]
    monkeypatch.setenv("COLUMNS", "1000")
    yield monkeypatch
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_in_this_process(in_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same scenario by the function; with `serve` the lines to paste follow."""
    in_process.setattr(_run, "_wait_for_ctrl_c", lambda: None)
    assert run_demo(serve=True) == 0
    shown = capsys.readouterr().out
    assert "\nEvery step succeeded.\n" in shown
    assert shown.endswith("The exchanges of your clients are shown here. Ctrl-C stops.\n")


def faulty(name: str) -> Callable[..., DevServer]:
    """A development authorization server with a fault."""

    def make(**options: Any) -> DevServer:
        return DevServer(**options, faults=[name])

    return make


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("broken")


FAULTS = [
    pytest.param(
        ("SCOPES", {"notes:read": "Read"}), "✗ The client gave up: ", id="the authorization server grants too little"
    ),
    pytest.param(
        ("DevServer", faulty("no-pkce")),
        "✗ This exchange deviates from the specification: code_challenge_methods_supported is None, not ['S256'].",
        id="metadata without PKCE",
    ),
    pytest.param(
        ("DevServer", faulty("unknown-kid")),
        "✗ The client gave up: ",
        id="tokens of an unknown key",
        marks=pytest.mark.full,
    ),
    pytest.param(
        ("DevServer", faulty("jwks-error")),
        "✗ This exchange deviates from the specification: status is 503, not 200.",
        id="no keys",
    ),
    pytest.param(
        ("mcp_server", lambda: broken),
        "✗ This exchange deviates from the specification: the status is 500.",
        id="an app that fails altogether",
    ),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_a_step_that_fails_is_marked_and_ends_it(
    in_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: tuple[str, Any], message: str
) -> None:
    """The demo is a check too: it can fail, and then does not serve."""
    in_process.setattr(_servers, *fault)
    assert run_demo(serve=True) == 1
    shown = capsys.readouterr().out
    assert message in shown
    assert shown.endswith("\nA step failed.\n")
    assert "curl" not in shown


def test_the_browser_does_not_return(in_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    in_process.setattr(webbrowser, "open", opened.append)
    in_process.setattr(_client, "USER_SECONDS", 0.2)
    assert run_demo(browser=True) == 1
    shown = capsys.readouterr().out
    assert "✗ The browser did not return within 0 s." in shown
    (url,) = opened
    assert f"If it does not: {url}\n" in shown


@pytest.mark.anyio
async def test_only_the_last_authorization_responses_are_kept() -> None:
    """A page of any site can send a browser to the callback as often as it likes."""
    callback = _servers.CallbackApp()
    for number in range(_servers.MAX_CALLBACKS + 1):
        scope = http_scope("GET", "/callback", query=f"state={number}&code=c".encode())
        assert (await send_scope(callback, scope)).status == 200
    assert callback.take("0") is None
    assert callback.take("1") == {"state": "1", "code": "c"}
    assert callback.take("1") is None
