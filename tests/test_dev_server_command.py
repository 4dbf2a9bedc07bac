"""`asgi-mcp-auth dev-server`, as a user runs it: a process under uvicorn, and a protected app in another process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import processes
import pytest
from click.testing import CliRunner
from dev import CALLBACK, CHALLENGE, INSPECTOR, VERIFIER, Form, answer_of, claims_of
from test_cli import too_wide

from asgi_mcp_auth.cli import main
from asgi_mcp_auth.cli._dev_options import dev_server
from asgi_mcp_auth.cli._dev_server import exchange_line
from asgi_mcp_auth.dev import DIALECTS, Exchange, Switch

COUNTERPARTS = Path(__file__).parent / "counterparts"
COMMAND = [sys.executable, "-m", "asgi_mcp_auth", "dev-server", "--port", "0"]


@contextlib.contextmanager
def serving(*options: str, columns: int | None = None) -> Generator[tuple[str, processes.Process]]:
    """Run the command, and yield its issuer and its process."""
    env = {"PYTHONUTF8": "1"} if columns is None else {"PYTHONUTF8": "1", "COLUMNS": str(columns)}
    with processes.running([*COMMAND, *options], ready_line="Press Ctrl-C", env=env) as process:
        found = re.search(r"^Issuer +(\S+)$", process.output, re.MULTILINE)
        assert found is not None
        yield found[1], process


@pytest.fixture(scope="module")
def app_port() -> int:
    return processes.free_port()


@pytest.fixture(scope="module")
def running(app_port: int) -> Iterator[tuple[str, processes.Process]]:
    resource = f"http://127.0.0.1:{app_port}/mcp"
    with serving("--path", "t1", "--resource", resource, "--scope", "mcp:read=Read", "--scope", "mcp:admin") as found:
        yield found


@pytest.fixture(scope="module")
def protected(running: tuple[str, processes.Process], app_port: int) -> Iterator[str]:
    resource = f"http://127.0.0.1:{app_port}/mcp"
    env = {"RESOURCE": resource, "ISSUERS": running[0]}
    with processes.uvicorn("apps:app", app_dir=COUNTERPARTS, port=app_port, env=env):
        yield resource


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10.0) as client:
        yield client


@pytest.mark.requirement("AS-34")
def test_the_whole_flow_works_over_http(
    running: tuple[str, processes.Process], protected: str, browser: httpx.Client
) -> None:
    """Follow the responses from the 401 to the app's answer, with consent on the page."""
    challenge = browser.post(protected).headers["www-authenticate"]
    found = re.search(r'resource_metadata="([^"]+)"', challenge)
    assert found is not None
    metadata = browser.get(found[1]).json()
    (issuer,) = metadata["authorization_servers"]
    assert issuer == running[0]
    origin = issuer.removesuffix("/t1")
    server = browser.get(f"{origin}/.well-known/oauth-authorization-server/t1").json()
    client = browser.post(server["registration_endpoint"], json=INSPECTOR).json()
    params = {
        "response_type": "code",
        "client_id": client["client_id"],
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "redirect_uri": CALLBACK,
        "state": "s",
        "scope": "mcp:read offline_access",
        "resource": metadata["resource"],
    }
    page = browser.get(server["authorization_endpoint"], params=params)
    form = Form(page.text)
    answer = answer_of(browser.post(f"{origin}{form.action}", data=form.fields | {"decision": "allow", "user": "bob"}))
    assert answer["iss"] == issuer
    exchange = {
        "grant_type": "authorization_code",
        "client_id": client["client_id"],
        "code": answer["code"],
        "code_verifier": VERIFIER,
        "redirect_uri": CALLBACK,
        "resource": metadata["resource"],
    }
    tokens = browser.post(server["token_endpoint"], data=exchange).json()
    used = browser.post(protected, headers={"authorization": f"Bearer {tokens['access_token']}"})
    assert used.status_code == 200
    assert used.json()["subject"] == "bob"
    admin = browser.post(f"{protected}/admin", headers={"authorization": f"Bearer {tokens['access_token']}"})
    assert admin.status_code == 403

    shown = running[1].output
    for line in (
        *(
            r"201  POST /t1/register",
            r"200  GET /t1/authorize",
            r"303  POST /t1/consent .*→ localhost:6274 .*user=bob",
        ),
        r"200  POST /t1/token .*authorization_code client=dcr_\S+ scope=mcp:read",
    ):
        assert re.search(rf"^\d\d:\d\d:\d\d  {line}", shown, re.MULTILINE), line
    secrets = (answer["code"], tokens["access_token"], tokens["refresh_token"], form.fields["csrf"], VERIFIER)
    assert not [secret for secret in secrets if secret in shown]
    assert "\x1b[" not in shown, "no colours where there is no terminal"


@pytest.mark.requirement("AS-1")
def test_the_lines_to_paste_work(running: tuple[str, processes.Process], protected: str, browser: httpx.Client) -> None:
    shown = running[1].output
    assert shown.startswith("DEVELOPMENT ONLY")
    assert f'authorization_servers=["{running[0]}"]' in shown
    unfolded = shown.replace(" \\\n", "")
    lines = [shlex.split(line) for line in unfolded.splitlines() if line.startswith("curl ")]
    answers: list[Any] = []
    for argv in lines:
        given = dict(itertools.pairwise(argv))
        content = "&".join(value for flag, value in itertools.pairwise(argv) if flag == "-d")
        user, _, password = given.get("-u", "").partition(":")
        kind = "application/json" if "-H" in given else "application/x-www-form-urlencoded"
        response = browser.post(
            argv[2],
            content=content if "-H" in given else content.replace(" ", "+"),
            headers={"content-type": kind},
            auth=httpx.BasicAuth(user, password) if user else httpx.Auth(),
        )
        assert response.status_code == 200, argv
        answers.append(response.json())
        if user:
            token = answers[0]["access_token"]
            assert browser.post(protected, headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert len(answers) == 4
    assert answers[1]["faults"] == ["unknown-kid"]
    assert browser.post(f"{running[0]}/dev/faults", json={"off": ["unknown-kid"]}).json() == {"faults": []}
    metadata = re.search(r"^Metadata +(\S+)$", shown, re.MULTILINE)
    assert metadata is not None
    assert browser.get(metadata[1]).json()["issuer"] == running[0]


@pytest.mark.requirement("AS-63")
def test_options_reach_the_server_and_ctrl_c_ends_it(tmp_path: Path, browser: httpx.Client) -> None:
    clients = tmp_path / "clients.json"
    clients.write_text(json.dumps([{"client_id": "static", "redirect_uris": [CALLBACK]}]), "utf-8")
    options = ["--auto-approve", "--clients", str(clients), "--dialect", "okta", "--fault", "no-iss", "--user", "carol"]
    with serving(*options, "--no-registration", "--no-oidc", "--token-lifetime", "7") as (issuer, process):
        params = {
            "response_type": "code",
            "client_id": "static",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": "http://127.0.0.1:1/mcp",
            "scope": "x",
        }
        answer = answer_of(browser.get(f"{issuer}/authorize", params=params))
        assert set(answer) == {"code"}
        exchange = {"client_id": "static", "code": answer["code"], "code_verifier": VERIFIER}
        tokens = browser.post(f"{issuer}/token", data={"grant_type": "authorization_code"} | exchange).json()
        assert tokens["expires_in"] == 7
        claims = claims_of(tokens["access_token"])
        assert (claims["cid"], claims["scp"], claims["sub"]) == ("static", ["x"], "carol")
        assert browser.post(f"{issuer}/register", json=INSPECTOR).status_code == 403
        assert browser.get(f"{issuer}/.well-known/openid-configuration").status_code == 404
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 0
        assert "Traceback" not in process.output


def test_a_state_file_and_a_curl_secret_survive_a_restart(tmp_path: Path, browser: httpx.Client) -> None:
    """A protected app, a registered client and the printed curl line work on after a restart."""
    options = [
        "--port",
        str(processes.free_port()),
        "--state",
        str(tmp_path / "state.json"),
        "--curl-secret",
        "curl-secret-1",
    ]
    seen: list[Any] = []
    for _ in range(2):
        with serving(*options) as (issuer, process):
            assert "-u curl:curl-secret-1" in process.output
            seen.append(browser.get(f"{issuer}/jwks").json())
            form = {"grant_type": "client_credentials", "resource": "http://127.0.0.1:8000/mcp", "scope": "x"}
            response = browser.post(f"{issuer}/token", data=form, auth=("curl", "curl-secret-1"))
            assert response.status_code == 200
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--host", "0.0.0.0"], "is not an address of this machine", id="AS-1 every address"),
        pytest.param(["--host", "192.0.2.1"], "is not an address of this machine", id="AS-1 another machine"),
        pytest.param(["--host", "a" * 64, "--i-know"], "Cannot listen on aaa", id="no name of a machine"),
        pytest.param(["--issuer", "http://auth.example.com"], "is http, but not on loopback", id="AS-1 an http issuer"),
        pytest.param(["--issuer", "https://auth.example.com"], "is not on loopback", id="AS-1 another issuer"),
        pytest.param(["--fault", "gremlins"], "choose one of wrong-iss", id="an unknown fault"),
        pytest.param(["--dialect", "esperanto"], "choose one of entra-v2", id="an unknown dialect"),
        pytest.param(["--scope", 'a"b', "--algorithm", "HS256"], "algorithms: ", id="two mistakes"),
        pytest.param(["--curl-secret", "a b'; rm -rf c"], "--curl-secret has to be", id="a secret that needs quotes"),
        pytest.param(["--curl-secret", "short"], "--curl-secret has to be", id="a short secret"),
        pytest.param(["--state", "/nowhere/state.json"], "/nowhere/state.json cannot be written", id="no directory"),
        pytest.param(["--code-lifetime", "61"], "61 is not in the range", id="AS-18 more than a minute"),
    ],
)
def test_a_usage_error_is_one_paragraph(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["dev-server", "--port", "0", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert "See 'asgi-mcp-auth dev-server --help'." in shown.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "cannot be used: not JSON", id="AS-50 no JSON"),
        pytest.param("{}", "is not a JSON list", id="AS-50 no list"),
        pytest.param('[{"client_id": "a"}]', "clients[0]: redirect_uris is missing", id="AS-50 no redirect URIs"),
    ],
)
def test_a_wrong_clients_file_is_named(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    path = tmp_path / "clients.json"
    path.write_text(content, "utf-8")
    assert main(["dev-server", "--port", "0", "--clients", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_reported(
    running: tuple[str, processes.Process], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    port = running[0].rpartition(":")[2].removesuffix("/t1")
    assert main(["dev-server", "--port", port]) == 2
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.requirement("AS-1")
def test_listening_beyond_loopback_needs_an_option() -> None:
    with serving("--host", "0.0.0.0", "--i-know") as (issuer, _):
        assert issuer.startswith("http://127.0.0.1:")
        assert httpx.get(f"{issuer}/jwks", trust_env=False).status_code == 200


def test_the_help_lists_faults_dialects_and_examples() -> None:
    shown = CliRunner().invoke(dev_server, ["--help"]).output
    for word in (*Switch, *DIALECTS, "--auto-approve", "--i-know", "Examples:"):
        assert word in shown


def test_completion_knows_the_names() -> None:
    params = {param.name: param for param in dev_server.params}
    context = dev_server.make_context("dev-server", [], resilient_parsing=True)
    faults = [item.value for item in params["faults"].shell_complete(context, "no-")]
    assert faults == ["no-iss", "no-pkce", "no-scope"]
    assert [item.value for item in params["dialect"].shell_complete(context, "okta")] == ["okta", "okta-org"]


def test_the_output_fits_a_terminal_of_80_columns(browser: httpx.Client) -> None:
    scopes = [f"--scope=area-{number}:read" for number in range(12)]
    with serving(*scopes, "--resource", f"http://127.0.0.1:8000/{'a' * 30}", columns=80) as (issuer, process):
        browser.get(f"{issuer}/authorize", params={"client_id": "unknown", "response_type": "code"})
        browser.post(f"{issuer}/register", json=INSPECTOR)
        process.wait_until(lambda: "POST /register" in process.output, 10)
        assert too_wide(process.output) == []
        assert "\n            area-" in process.output


@pytest.mark.parametrize(
    ("exchange", "line"),
    [
        pytest.param(Exchange("POST", "/token", 200, 0.0014, "a client=b"), "200  POST /token  1 ms  a client=b", id="a token"),
        pytest.param(Exchange("GET", "/x", 404, 0.0, "e: \x1b[31m\n→ x"), "404  GET /x  0 ms  e: \\x1b[31m\\n\\u2192 x", id="control characters are escaped"),
        pytest.param(Exchange("GET", "/a", 302, 0.0, "→ h:1 x=y"), "302  GET /a  0 ms  → h:1 x=y", id="a redirect"),
    ],
)  # fmt: skip
def test_each_request_is_logged_on_one_line(exchange: Exchange, line: str) -> None:
    assert exchange_line(exchange, 0.0).plain.partition("  ")[2] == line
