"""Event streams of real servers end with their token, between two events, and wake the app."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal

import httpx
import processes
import pytest

COUNTERPARTS = Path(__file__).parent / "counterparts"
Under = Literal["uvicorn", "hypercorn-asyncio", "hypercorn-trio"]
SERVERS = ("uvicorn", pytest.param("hypercorn-asyncio", marks=pytest.mark.full), "hypercorn-trio")


@pytest.mark.parametrize("under", SERVERS, ids="RS-212 RS-213 {}".format)
def test_a_stream_ends_with_its_token_and_the_app_wakes(under: Under) -> None:
    port = processes.free_port()
    env = {"RESOURCE": f"http://127.0.0.1:{port}/mcp"}
    if under == "uvicorn":
        run = processes.uvicorn("expiring:app", app_dir=COUNTERPARTS, port=port, env=env)
    else:
        worker: Literal["asyncio", "trio"] = "asyncio" if under == "hypercorn-asyncio" else "trio"
        run = processes.hypercorn("expiring:app", app_dir=COUNTERPARTS, port=port, env=env, worker=worker)
    with run as server, httpx.Client(base_url=server.url, trust_env=False, timeout=10.0) as client:
        headers = {"authorization": f"Bearer {client.get('/control/token').text}"}
        begun = time.monotonic()
        arrived: list[float] = []
        body = b""
        with client.stream("GET", "/mcp", headers=headers) as response:
            assert response.headers["x-accel-buffering"] == "no"
            for chunk in response.iter_raw():  # ends properly: a cut-off stream would raise
                arrived.append(time.monotonic() - begun)
                body += chunk
        assert 0.5 < arrived[-1] < 4
        assert arrived[0] < 0.5  # it was not held back
        assert len(arrived) > 5
        events = body.split(b"\n\n")
        assert events == [*(b"data: %d" % number for number in range(1, len(events))), b""]  # whole events, in order
        assert client.get("/mcp", headers=headers).status_code == 401
        until = time.monotonic() + 5
        while client.get("/control/woken").text != "1":
            assert time.monotonic() < until, server.process.output
            time.sleep(0.05)
        assert "Traceback" not in server.process.output


def test_a_stream_that_was_aborted_logs_nothing_at_the_expiry_of_its_token() -> None:
    """Granian raises when a message is sent on a connection that is closed."""
    port = processes.free_port()
    argv = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "expiring:app"]
    env = processes.importing_from(COUNTERPARTS, {"RESOURCE": f"http://127.0.0.1:{port}/mcp"})
    url = f"http://127.0.0.1:{port}"
    with (
        processes.running(argv, ready_url=f"{url}/control/woken", env=env) as process,
        httpx.Client(base_url=url, trust_env=False, timeout=10.0) as client,
    ):
        headers = {"authorization": f"Bearer {client.get('/control/token').text}"}
        with client.stream("GET", "/mcp", headers=headers) as response:
            next(response.iter_raw())
        time.sleep(3)  # the token lives for 2 s
        assert client.get("/mcp", headers=headers).status_code == 401
        assert "Traceback" not in process.output
