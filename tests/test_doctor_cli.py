"""`asgi-mcp-auth doctor` and `explain` at the command line: exit status, JSON, folding, and that no token is shown."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clinic import Clinic, answering
from test_cli import too_wide

from asgi_mcp_auth.cli import main


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MCP_AUTH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "1000")


Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str, token: str | None = None) -> tuple[int, str, str]:
    """Status, output and errors; the token is on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((token or "").encode())))
        status = main(list(arguments))
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def mint(clinic: Clinic, **changes: Any) -> str:
    claims: dict[str, Any] = {"scope": "mcp:read", **changes}
    return clinic.issuer.mint(claims.pop("aud", clinic.resource), **claims)


def hold(text: str, *shown: str) -> None:
    """Neither the token nor its signature is there."""
    for output in shown:
        assert text not in output
        assert text.rpartition(".")[2] not in output


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_a_healthy_resource(clinic: Clinic, capsys: Captured) -> None:
    status, out, err = run(capsys, "doctor", "--strict", clinic.resource)
    assert (status, err) == (0, "")
    assert out.startswith(f"{clinic.resource} (resource)\n  info     resource_parameter_unknown: ")
    assert "\n  ok       protected: " in out
    assert out.endswith("0 errors, 0 warnings.\n")
    assert "\x1b" not in out


def test_json_for_scripts(clinic: Clinic, capsys: Captured) -> None:
    status, out, err = run(capsys, "doctor", "--json", clinic.resource, clinic.issuer.url)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert set(content) == {"version", "errors", "warnings", "reports"}
    assert (content["version"], content["errors"], content["warnings"]) == (1, 0, 0)
    assert [(report["target"], report["kind"]) for report in content["reports"]] == [
        (clinic.resource, "resource"),
        (clinic.issuer.url, "issuer"),
    ]
    for report in content["reports"]:
        assert set(report) == {"target", "kind", "counts", "findings"}
        assert set(report["counts"]) == {"error", "warning", "info", "ok"}
        for finding in report["findings"]:
            assert set(finding) == {"code", "severity", "checked", "means", "evidence", "fix", "reference"}


@pytest.mark.parametrize(("option", "status"), [((), 0), (("--strict",), 1)])
def test_a_warning(clinic: Clinic, capsys: Captured, option: tuple[str, ...], status: int) -> None:
    clinic.issuer.cache_control = "max-age=2592000"
    result = run(capsys, "doctor", *option, clinic.issuer.url)
    assert (result[0], result[1].splitlines()[-1]) == (status, "0 errors, 1 warning.")


def test_an_error(clinic: Clinic, capsys: Captured) -> None:
    clinic.server.app = answering(200)
    status, out, _ = run(capsys, "doctor", "--as", "resource", clinic.resource)
    assert status == 1
    assert "  error    not_protected: " in out
    assert "\n           fix: Wrap the whole app in the middleware" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["doctor"], "Missing argument", id="no target"),
        pytest.param(["doctor", "--as", "server", "https://a.example"], "'server' is not one of", id="no such kind"),
        pytest.param(["explain"], "There is no configuration to verify", id="against nothing"),
        pytest.param(
            ["explain", "--issuer", "https://a.example"],
            "The resource is missing. Pass --resource URL.",
            id="no resource",
        ),
        pytest.param(
            ["explain", "--config", "x.toml", "--issuer", "https://a.example"],
            "cannot be combined with --config",
            id="both",
        ),
        pytest.param(
            ["doctor", "--token", "-", "a.toml", "b.toml"],
            "more than one configuration file. Pass one.",
            id="two files",
        ),
        pytest.param(
            ["doctor", "--token", "-", "--as", "issuer", "https://a.example"],
            "A token is explained for one resource.",
            id="an issuer only",
        ),
    ],
)
def test_a_wrong_command(capsys: Captured, arguments: list[str], message: str) -> None:
    status, out, err = run(capsys, *arguments, token="eyJ.a.b")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_everything_is_folded_at_80_columns(clinic: Clinic, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clinic.issuer.cache_control = "max-age=2592000"
    clinic.server.app = answering(200)
    rejected = mint(clinic, aud="https://other.example.com/mcp", note="word " * 30)
    for arguments, token in (
        (["doctor", clinic.issuer.url], None),
        (["doctor", "--as", "resource", clinic.resource], None),
        (["explain", "--resource", clinic.resource, "--issuer", clinic.issuer.url], rejected),
        (["explain", "--issuer", clinic.issuer.url], rejected),
        (["explain", rejected], rejected),
        (["doctor", "--token", "-", "a.toml"], rejected),
    ):
        _, out, err = run(capsys, *arguments, token=token)
        assert too_wide(out + err) == []
        assert (out + err).count("\n") > 1


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "{token}"],
        ["explain", "--resource", "https://a.example", "{token}"],
        ["doctor", "--token", "{token}", "https://a.example"],
        ["doctor", "--token={token}", "https://a.example"],
        ["doctor", "--send-token", "{token}", "https://a.example"],
    ],
)
def test_a_token_is_never_an_argument(clinic: Clinic, capsys: Captured, arguments: list[str]) -> None:
    text = mint(clinic)
    status, out, err = run(capsys, *(argument.format(token=text) for argument in arguments))
    assert (status, out) == (2, "")
    assert "never from an argument" in err
    assert text[:20] not in err


def test_an_empty_standard_input_is_a_usage_error(clinic: Clinic, capsys: Captured) -> None:
    status, _, err = run(capsys, "explain", "--resource", clinic.resource, token=" \n")
    assert (status, "There is no token on standard input." in err) == (2, True)


def against(clinic: Clinic, tmp_path: Path) -> list[list[str]]:
    """Every way to name what the token is verified for."""
    file = tmp_path / "mcp-auth.toml"
    file.write_text(
        f'resource = "{clinic.resource}"\nauthorization_servers = ["{clinic.issuer.url}"]\nrequired_scopes = ["mcp:read"]\n'
    )
    return [
        ["explain", "--config", str(file)],
        ["explain", "--resource", clinic.resource],
        ["explain", "--resource", clinic.resource, "--issuer", clinic.issuer.url, "--scope", "mcp:read"],
        ["doctor", "--token", "-", str(file)],
        ["doctor", "--token", "-", clinic.resource],
        ["doctor", "--token", "-", clinic.resource, clinic.issuer.url],
    ]


def test_an_accepted_token(clinic: Clinic, capsys: Captured, tmp_path: Path) -> None:
    text = mint(clinic)
    for arguments in against(clinic, tmp_path):
        status, out, err = run(capsys, *arguments, token=f"Bearer {text}\n")
        assert (status, err) == (0, ""), arguments
        assert out.endswith("\nThe token is accepted.\n")
        assert '\n  sub: "alice"\n' in out
        assert "\n  pass        signature" in out
        hold(text, out)


def test_a_rejected_token(clinic: Clinic, capsys: Captured, tmp_path: Path) -> None:
    text = mint(clinic, aud="https://other.example.com/mcp")
    for arguments in against(clinic, tmp_path):
        status, out, err = run(capsys, *arguments, token=text)
        assert (status, err) == (1, ""), arguments
        assert "\n  fail        audience        wrong_audience; expected" in out
        assert "\n  not reached allowed clients" in out
        assert re.search(r"\nThe token is rejected: 401 wrong_audience\.\n\w", out) is not None
        hold(text, out)


# response of the app, status, line of the output
SENT = [
    pytest.param(200, 0, "  ok       app_reached: ", id="C4 the app answers"),
    pytest.param(404, 1, "  error    app_not_found: ", id="C4 the app answers 404"),
]


@pytest.mark.parametrize(("response", "status", "line"), SENT)
def test_a_token_is_sent_to_the_resource_on_request(
    clinic: Clinic, capsys: Captured, response: int, status: int, line: str
) -> None:
    clinic.server.app = clinic.auth().wrap(answering(response))
    text = mint(clinic)
    result, out, err = run(capsys, "doctor", "--send-token", "-", clinic.resource, token=text)
    assert (result, err) == (status, "")
    assert f"\n{line}" in out
    hold(text, out)


@pytest.mark.parametrize(
    ("arguments", "token", "message"),
    [
        pytest.param(["--token", "-", "--send-token", "-"], "eyJ.a.b", "cannot be combined", id="both"),
        pytest.param(["--send-token", "-"], "a b", "The text is not an access token.", id="not a token"),
    ],
)
def test_a_token_that_cannot_be_sent_is_a_usage_error(
    capsys: Captured, arguments: list[str], token: str, message: str
) -> None:
    status, out, err = run(capsys, "doctor", *arguments, "https://a.example", token=token)
    assert (status, out) == (2, "")
    assert message in err
    assert token not in err


def test_explained_with_a_dpop_proof(clinic: Clinic, capsys: Captured) -> None:
    issuer = clinic.issuer
    text = mint(clinic, cnf={"jkt": issuer.proof_key.thumbprint})
    arguments = ("explain", "--resource", clinic.resource, "--issuer", issuer.url, "--json")
    for method, accepted in (("GET", True), ("POST", False)):
        proof = issuer.prove("GET", clinic.resource, text)
        _, out, err = run(capsys, *arguments, "--proof", proof, "--method", method, token=f"DPoP {text}")
        assert (json.loads(out)["accepted"], err) == (accepted, "")


def test_explained_as_json(clinic: Clinic, capsys: Captured, tmp_path: Path) -> None:
    text = mint(clinic, exp=0)
    for arguments in against(clinic, tmp_path):
        status, out, err = run(capsys, *arguments, "--json", token=text)
        assert (status, err) == (1, "")
        content = json.loads(out)
        assert set(content) == {
            *(
                "version",
                "resource",
                "accepted",
                "status",
                "reason",
                "public",
                "looks_like",
                "header",
                "claims",
                "steps",
                "hint",
            ),
        }
        assert (content["accepted"], content["status"], content["reason"]) == (False, 401, "token_expired")
        assert {name for step in content["steps"] for name in step} == {
            "name",
            "outcome",
            "reason",
            "expected",
            "found",
        }
        hold(text, out)


def test_the_environment(clinic: Clinic, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_AUTH_RESOURCE", clinic.resource)
    monkeypatch.setenv("MCP_AUTH_AUTHORIZATION_SERVERS", clinic.issuer.url)
    assert run(capsys, "explain", token=mint(clinic))[0] == 0
    monkeypatch.setenv("MCP_AUTH_RESOURCE", "nowhere")
    status, out, err = run(capsys, "explain", token=mint(clinic))
    assert (status, out) == (2, "")
    assert "MCP_AUTH_RESOURCE" in err


def test_a_resource_that_names_no_issuer(clinic: Clinic, capsys: Captured) -> None:
    clinic.server.app = answering(404)
    status, _, err = run(capsys, "explain", "--resource", clinic.resource, token=mint(clinic))
    assert status == 2
    assert "names no issuer, or does not respond. Pass --issuer URL." in err


def test_claims_cannot_move_the_cursor(clinic: Clinic, capsys: Captured) -> None:
    text = mint(clinic, note="\x1b[2J\u202e", **{"\x1b": [1] * 500})
    _, out, _ = run(capsys, "explain", "--resource", clinic.resource, token=text)
    assert out.replace("\n", "").isprintable()
    assert all(len(line) < 320 for line in out.splitlines())


# --- as a program ---------------------------------------------------------------------------------------------------


COLOUR = re.compile(r"\x1b\[(?:\d+;)?3\dm")


def on_a_terminal(arguments: list[str], *, typed: str = "", after: str = "", **env: str) -> tuple[int, str]:
    """The program's status and what a terminal shows of it; `typed` is typed after it has shown `after`."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_mcp_auth", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", **env},
    )
    os.close(its)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(65536)
            except OSError:  # Linux, when the other end is closed
                break
            if not piece:
                break
            shown += piece
            if typed and after.encode() in shown:
                os.write(ours, typed.encode())
                typed = ""
    return process.wait(30), shown.decode()


def test_colours_and_progress_are_for_terminals(clinic: Clinic) -> None:
    clinic.issuer.stall("/jwks", seconds=1.5)
    status, shown = on_a_terminal(["doctor", clinic.issuer.url])
    assert status == 0
    assert COLOUR.search(shown)
    assert f"asking {clinic.issuer.url}/jwks" in shown
    clinic.issuer.heal()
    status, plain = on_a_terminal(["doctor", clinic.issuer.url], NO_COLOR="1")
    assert status == 0
    assert not COLOUR.search(plain)


def test_a_token_that_is_typed_is_not_shown(clinic: Clinic) -> None:
    text = mint(clinic)
    status, shown = on_a_terminal(["explain", "--resource", clinic.resource], typed=f"{text}\n", after="Token: ")
    assert status == 0
    assert "The token is accepted." in shown
    hold(text, shown)


def test_the_token_is_in_no_output_of_the_program(clinic: Clinic) -> None:
    text = mint(clinic)
    done = subprocess.run(
        [sys.executable, "-m", "asgi_mcp_auth", "explain", "--resource", clinic.resource],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    hold(text, done.stdout, done.stderr)
    assert done.stderr == ""
