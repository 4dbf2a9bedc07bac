"""gunicorn as a process, with `load_app` in its configuration: preload, reload, and failing to start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import pytest
from processes import AsgiServer, ProcessError, free_port, running

from asgi_mcp_auth.testing import Issuer

APP = """\
import json, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    seen = {"pid": os.getpid(), "sub": scope["state"]["claims"]["sub"], "root_path": scope["root_path"]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})

def make():
    return app
"""
WORKERS = ["asgi", "uvicorn_worker.UvicornWorker"]
SETTINGS = """\
resource = "https://mcp.example.com/mcp"
authorization_servers = [{{issuer = "https://auth.example.com", jwks = {{from_file = "keys.json"}}}}]
required_scopes = ["{scope}"]
"""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://auth.example.com")


@pytest.fixture
def site(tmp_path: Path, issuer: Issuer) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "keys.json").write_text(json.dumps(issuer.jwks()))
    (tmp_path / "mcp-auth.toml").write_text(SETTINGS.format(scope="mcp:read"))
    return tmp_path


@contextlib.contextmanager
def gunicorn(site: Path, worker: str, app: str = "shop:app", *, preload: bool = False) -> Generator[AsgiServer]:
    """Run gunicorn with the configuration file from the README."""
    port = free_port()
    (site / "gunicorn.conf.py").write_text(
        f'bind = "127.0.0.1:{port}"\nworkers = 2\nworker_class = "{worker}"\npreload_app = {preload}\n'
        f"wsgi_app = \"asgi_mcp_auth:load_app('{app}', config='mcp-auth.toml')\"\ncontrol_socket_disable = True\n"
        'pidfile = "gunicorn.pid"\n'
    )
    # The program, not `python -m gunicorn`: USR2 runs it again, which then finds gunicorn's own `http` for Python's.
    with running(
        [str(Path(sys.executable).parent / "gunicorn")], ready_url=f"http://127.0.0.1:{port}/mcp", cwd=site
    ) as process:
        yield AsgiServer(f"http://127.0.0.1:{port}", port, process)


def get(server: AsgiServer, raw: str | None = None) -> httpx.Response:
    headers = {} if raw is None else {"authorization": f"Bearer {raw}"}
    return httpx.get(f"{server.url}/mcp", headers=headers, trust_env=False)


def token(issuer: Issuer, scope: str = "mcp:read") -> str:
    return issuer.mint("https://mcp.example.com/mcp", scope=scope)


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("worker", "preload"),
    [
        pytest.param(WORKERS[0], False, id="asgi, each worker loads"),
        pytest.param(WORKERS[0], True, id="asgi, preload", marks=pytest.mark.full),
        pytest.param(WORKERS[1], False, id="uvicorn, each worker loads", marks=pytest.mark.full),
        pytest.param(WORKERS[1], True, id="uvicorn, preload", marks=pytest.mark.full),
    ],
)
def test_workers_protect_the_app(worker: str, preload: bool, site: Path, issuer: Issuer) -> None:
    with gunicorn(site, worker, preload=preload, app="shop:make()" if preload else "shop:app") as server:
        assert get(server).status_code == 401
        assert get(server, token(issuer, scope="other")).status_code == 403
        pids: set[int] = set()

        def both_answered() -> bool:
            answer = get(server, token(issuer))
            assert (answer.status_code, answer.json()["sub"]) == (200, "alice")
            pids.add(answer.json()["pid"])
            return len(pids) == 2

        assert until(both_answered)


@pytest.mark.parametrize(
    "preload",
    [pytest.param(False, id="each worker loads", marks=pytest.mark.full), pytest.param(True, id="preload")],
)
def test_reload_takes_up_a_changed_file_without_preload(preload: bool, site: Path, issuer: Issuer) -> None:
    with gunicorn(site, "asgi", preload=preload) as server:
        raw = token(issuer)
        old: set[int] = set()

        def both_answered() -> bool:
            """A worker that is still starting may have read the old file, and outlives the reload."""
            old.update(get(server, raw).json()["pid"] for _ in range(20))
            return len(old) == 2

        assert until(both_answered)
        (site / "mcp-auth.toml").write_text(SETTINGS.format(scope="mcp:write"))
        os.kill(server.process.pid, signal.SIGHUP)
        if preload:  # new workers, with the object that the old master loaded

            def only_new() -> bool:
                return not old & {get(server, raw).json()["pid"] for _ in range(20)}

            assert until(only_new)
        else:
            assert until(lambda: {get(server, raw).status_code for _ in range(20)} == {403})


@pytest.mark.full
@pytest.mark.parametrize("worker", WORKERS)
def test_reload_with_a_broken_file_stops_gunicorn(worker: str, site: Path) -> None:
    """gunicorn logs the problem, and no unprotected app keeps running."""
    with gunicorn(site, worker) as server:
        (site / "mcp-auth.toml").write_text("resourc = 3")
        os.kill(server.process.pid, signal.SIGHUP)
        assert server.process.wait() != 0
        assert "mcp-auth.toml:1: resourc: Unknown key." in server.process.output

        def gone() -> bool:
            """A worker outlives its master for a moment and serves the old configuration until then."""
            try:
                assert get(server).status_code == 401
            except httpx.TransportError:
                return True
            return False

        assert until(gone)


@pytest.mark.full
@pytest.mark.parametrize("worker", WORKERS)
def test_usr2_takes_up_a_changed_file_with_preload(worker: str, site: Path, issuer: Issuer) -> None:
    """As in the README: USR2 starts a second master; TERM then stops the first master only."""
    with gunicorn(site, worker, preload=True) as server:
        raw = token(issuer)
        assert get(server, raw).status_code == 200
        (site / "mcp-auth.toml").write_text(SETTINGS.format(scope="mcp:write"))
        old = int((site / "gunicorn.pid").read_text())
        assert old == server.process.pid
        os.kill(old, signal.SIGUSR2)
        second = site / "gunicorn.pid.2"

        def both_answer() -> bool:
            return second.exists() and {get(server, raw).status_code for _ in range(20)} == {200, 403}

        assert until(both_answer), server.process.output
        new = int(second.read_text())
        os.kill(old, signal.SIGTERM)
        assert server.process.wait() == 0
        pidfile = site / "gunicorn.pid"
        assert until(lambda: pidfile.exists() and pidfile.read_text() == f"{new}\n")
        assert {get(server, raw).status_code for _ in range(20)} == {403}
        assert get(server, token(issuer, scope="mcp:write")).json()["sub"] == "alice"
        os.kill(new, signal.SIGTERM)
        assert until(lambda: not pidfile.exists())


@pytest.mark.full
def test_usr2_with_a_broken_file_leaves_the_old_master_in_charge(site: Path, issuer: Issuer) -> None:
    with gunicorn(site, "asgi", preload=True) as server:
        (site / "mcp-auth.toml").write_text("resourc = 3")
        os.kill(server.process.pid, signal.SIGUSR2)
        message = "mcp-auth.toml:1: resourc: Unknown key."
        assert until(lambda: message in server.process.output)
        assert {get(server, token(issuer)).status_code for _ in range(20)} == {200}
        assert server.process.returncode is None


@pytest.mark.parametrize(
    "preload", [pytest.param(False, id="each worker loads"), pytest.param(True, id="preload", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("worker", [WORKERS[0], pytest.param(WORKERS[1], marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("app", "settings", "message"),
    [
        pytest.param("shopp:app", None, "app: 'shopp:app': there is no module 'shopp'.", id="import string"),
        pytest.param("shop:app", "resourc = 3", "mcp-auth.toml:1: resourc: Unknown key.", id="file"),
    ],
)
def test_a_failed_start_is_one_message_without_a_traceback(  # noqa: PLR0917
    app: str, settings: str | None, message: str, worker: str, preload: bool, site: Path
) -> None:
    if settings is not None:
        (site / "mcp-auth.toml").write_text(settings)
    with pytest.raises(ProcessError) as raised, gunicorn(site, worker, app, preload=preload):
        pass
    assert "exited with status" in str(raised.value)
    assert message in str(raised.value)
    assert "asgi_mcp_auth/" not in str(raised.value)  # no traceback of ours; gunicorn may print one of its own halt
