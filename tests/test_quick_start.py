"""The README's quick start, as a user types it: its commands and its file, with free ports in place of 8000 and 9000."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from clients import sdk_client
from processes import free_port, importing_from, running
from proxies import require_program
from test_recipes import browser

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text("utf-8").partition("\n## Quick start\n")[2].partition("\n## ")[0]
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)


def shell(commands: str, directory: Path, **more: str) -> str:
    """Run commands as one script that stops at an error, and return what they print."""
    env = os.environ | importing_from(directory, {"PATH": f"{BIN}:{os.environ['PATH']}", "NO_PROXY": "*", **more})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=directory, env=env, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_quick_start(tmp_path: Path) -> None:
    require_program("curl", "curl")
    server, issuer = free_port(), free_port()
    [file] = blocks("python")
    _, services, calls, client = (
        block.replace("8000", str(server)).replace("9000", str(issuer)) for block in blocks("sh")
    )
    [challenge] = blocks("text")
    assert file.startswith("# server.py\n")
    (tmp_path / "server.py").write_text(file.replace("8000", str(server)).replace("9000", str(issuer)))
    with contextlib.ExitStack() as stack:
        for line, port in zip(services.replace("\\\n", "").splitlines(), (issuer, server), strict=True):
            program, *arguments = shlex.split(line)
            env = importing_from(tmp_path, {})
            stack.enter_context(running([str(BIN / program), *arguments], ready_port=port, cwd=tmp_path, env=env))
        answers = shell(calls, tmp_path)
        assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["401", "200"]
        assert challenge.strip().replace("8000", str(server)) in answers
        assert "curl noted: milk" in answers
        assert shell(client, tmp_path, **browser(tmp_path)).split("\n") == ["alice noted: eggs", "purged", ""]
        with sdk_client("python", f"http://127.0.0.1:{server}/mcp") as official:
            official.do("connect")
            assert official.call("purge") == "purged"
            assert len(official.asked) == 2  # signed in, and then asked for notes:admin


def test_the_quick_start_has_about_fifty_lines() -> None:
    """Of code and commands, which is what a reader types or copies."""
    code = [line for block in (*blocks("python"), *blocks("sh")) for line in block.splitlines() if line.strip()]
    assert len(code) <= 50


def test_the_installation_has_what_the_quick_start_imports() -> None:
    install = blocks("sh")[0]
    assert "pip install '.[demo]' fastmcp" in install
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith("uvicorn") for requirement in extras["demo"])
