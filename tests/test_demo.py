"""`python -m asgi_mcp_auth demo`, as a user runs it: a process, its output and its exit status."""

import os
import re
import shlex
import signal
import subprocess
import sys

import httpx
import jwt
import processes
import pytest

DEMO = [sys.executable, "-m", "asgi_mcp_auth", "demo"]

STEPS = (  # the request that each step makes, the answer it gets, and what is worth reading in it
    ("GET /notes", "401 Unauthorized", 'Bearer scope="notes:read", resource_metadata="'),
    ("GET /.well-known/oauth-protected-resource/notes", "200 OK", '"authorization_servers": ['),
    ("GET /.well-known/oauth-authorization-server", "200 OK", '"token_endpoint": "'),
    ("POST /token", "200 OK", '"token_type": "Bearer"'),
    ("GET /notes", "200 OK", '"subject": "demo"'),
    ("GET /notes/export", "403 Forbidden", 'error="insufficient_scope", scope="notes:read notes:export"'),
    ("GET /notes", "401 Unauthorized", 'error_description="The access token expired"'),
    ("GET /notes", "401 Unauthorized", 'error_description="The access token is invalid"'),
)
WITH_TOKEN = (5, 6, 7, 8)


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    # The output is read as UTF-8, so it has to be written as that, whatever the locale.
    return subprocess.run(
        argv, capture_output=True, timeout=30, check=False, encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1"}
    )


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", code])


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    return run(DEMO)


def test_it_succeeds(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert shown.stdout.endswith("\nEvery step did what it should.\n")
    assert "✗" not in shown.stdout


def test_every_step_is_shown_once_and_in_order(shown: subprocess.CompletedProcess[str]) -> None:
    assert re.findall(r"^(\d+)\. ", shown.stdout, re.MULTILINE) == [str(n + 1) for n in range(len(STEPS))]


@pytest.mark.parametrize("number", range(1, len(STEPS) + 1))
def test_step(shown: subprocess.CompletedProcess[str], number: int) -> None:
    request, answer, detail = STEPS[number - 1]
    section = re.split(r"^\d+\. ", shown.stdout, flags=re.MULTILINE)[number]
    method, path = request.split()
    sent = re.search(r"→ (\w+) http://127\.0\.0\.1:\d+(\S+)(.*)", section)
    assert sent is not None
    assert (sent[1], sent[2]) == (method, path)
    assert sent[3] == ("  Authorization: Bearer …" if number in WITH_TOKEN else "")
    assert f"← {answer}\n" in section
    assert detail in section


def test_no_whole_token_is_shown(shown: subprocess.CompletedProcess[str]) -> None:
    begins = re.findall(r"eyJ[\w.-]*…?", shown.stdout)
    assert len(begins) == 1  # that of the token response
    assert begins[0].endswith("…")
    assert len(begins[0]) < 20
    assert re.search(r"[\w-]{40,}", shown.stdout, re.ASCII) is None  # nor a part of one


def test_serve() -> None:
    # A shell may have started us with SIGINT ignored, which is inherited.
    begin = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv({sys.executable!r}, {DEMO!r} + "
    argv = [sys.executable, "-c", begin + "['--serve'])"]
    with processes.running(argv, ready_line="Press Ctrl-C to stop.", env={"PYTHONUTF8": "1"}) as process:
        (line,) = re.findall(r"^curl .*$", process.output, re.MULTILINE)
        command, *options, header, url = shlex.split(line)
        assert (command, options) == ("curl", ["-i", "-H"])
        name, _, value = header.partition(": ")
        assert f"Protected resource   {url}\n" in process.output

        with httpx.Client(trust_env=False) as client:
            response = client.get(url, headers={name: value})
            assert response.status_code == 200
            token = value.removeprefix("Bearer ")
            claims = jwt.decode(token, options={"verify_signature": False})
            assert response.json()["claims"] == claims
            assert claims["aud"] == url
            assert claims["exp"] - claims["iat"] == 3600
            assert client.get(f"{url}/export", headers={name: value}).status_code == 200
            refused = client.get(url)
            assert refused.status_code == 401
            (metadata,) = re.findall(r"^Its metadata +(\S+)$", process.output, re.MULTILINE)
            assert f'resource_metadata="{metadata}"' in refused.headers["www-authenticate"]
            (issuer,) = re.findall(r"^Issuer +(\S+)$", process.output, re.MULTILINE)
            assert client.get(metadata).json()["authorization_servers"] == [issuer]
        assert process.output.count(token) == 1  # the curl line; no log repeats it

        assert process.returncode is None
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 0
        assert "Traceback" not in process.output


def test_without_uvicorn() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from asgi_mcp_auth.cli import main; sys.exit(main(['demo']))"
    result = run_code(code)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "The demo needs uvicorn: pip install 'asgi-mcp-auth[demo]'\n"


def test_a_step_that_fails_is_marked_and_counted() -> None:
    """The demo is a check too: it must be able to fail."""
    code = """
import json, sys
import asgi_mcp_auth.cli.demo as demo

async def liar(scope, receive, send):
    assert scope["type"] == "http"
    body = json.dumps({"claims": {"aud": "https://elsewhere.example.com"}}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})

demo.notes_app = liar
sys.exit(demo.run_demo(serve=True))  # and does not serve then
"""
    result = run_code(code)
    assert result.returncode == 1, result.stderr
    assert result.stdout.count("✗ this is not what it should be") == 1
    assert result.stdout.endswith("\n1 step(s) failed.\n")
    assert "curl" not in result.stdout


def test_an_app_that_fails_altogether() -> None:
    code = """
import sys
import asgi_mcp_auth.cli.demo as demo

async def broken(scope, receive, send):
    raise RuntimeError("broken")

demo.notes_app = broken
sys.exit(demo.run_demo())
"""
    result = run_code(code)
    assert result.returncode == 1
    assert "← 500 Internal Server Error" in result.stdout  # in plain text, from uvicorn
    assert result.stdout.endswith("\n1 step(s) failed.\n")
    assert "Traceback" not in result.stderr
