"""Back-channel logout of a certified authorization server reaches four gunicorn workers that share real Redis."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import httpx
import pytest
from processes import authorization_server, free_port, require_authorization_server, running
from redis_servers import redis

RESOURCE = "https://mcp.example.com/mcp"
APP = """\
import asyncio, json, os

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from asgi_mcp_auth import MCPAuth

auth = MCPAuth.from_toml("mcp-auth.toml")


async def endpoint(request):
    return JSONResponse({"pid": os.getpid(), "sub": request.state.claims["sub"]})


async def ticks():
    while True:
        yield "data: tick\\n\\n"
        await asyncio.sleep(0.05)


async def stream(request):
    return StreamingResponse(ticks(), media_type="text/event-stream")


app = auth.wrap(
    Starlette(
        routes=[
            Route("/mcp", endpoint),
            Route("/mcp/stream", stream),
            Route("/events", auth.events_app(), methods=["POST"]),
            Route("/readyz", auth.readiness_app()),
        ]
    )
)
"""
SETTINGS = """\
resource = "{resource}"
authorization_servers = ["{issuer}"]
required_scopes = ["mcp:read"]
public_paths = ["/events", "/readyz"]
revocation = true
store = "{redis}"

[[event_transmitters]]
issuer = "{issuer}"
client_ids = ["native"]
"""


@pytest.mark.full
@pytest.mark.requirement("RV-2", "RV-3", "RV-7")
def test_a_logout_at_the_authorization_server_reaches_every_worker(tmp_path: Path) -> None:
    require_authorization_server()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with authorization_server(alg="ES256", logout=f"{url}/events") as server, redis(tmp_path) as store:
        settings = SETTINGS.format(resource=RESOURCE, issuer=server.issuer, redis=store.url)
        (tmp_path / "mcp-auth.toml").write_text(settings)
        (tmp_path / "shop.py").write_text(APP)
        program = [str(Path(sys.executable).parent / "gunicorn"), "shop:app", "-b", f"127.0.0.1:{port}", "-w", "4"]
        program += ["-k", "uvicorn_worker.UvicornWorker", "--no-control-socket"]
        with running(program, ready_url=f"{url}/readyz", cwd=tmp_path):
            raw = server.authorization_code(resource=RESOURCE)["access_token"]
            headers = {"authorization": f"Bearer {raw}"}

            def ask() -> httpx.Response:
                return httpx.get(f"{url}/mcp", headers=headers, trust_env=False)

            workers: set[int] = set()
            deadline = time.monotonic() + 10
            while len(workers) < 4:
                assert time.monotonic() < deadline, f"only {len(workers)} workers answered"
                answer = ask()
                if answer.status_code == 200:
                    workers.add(answer.json()["pid"])
            time.sleep(1.0)  # `iat` has whole seconds
            with httpx.stream("GET", f"{url}/mcp/stream", headers=headers, trust_env=False, timeout=5) as stream:
                lines = stream.iter_lines()
                assert next(lines) == "data: tick"
                server.log_out("alice")
                at = time.monotonic()
                statuses = [ask().status_code for _ in range(40)]
                for _ in lines:
                    assert time.monotonic() - at < 2.0
            assert statuses == [401] * 40
            time.sleep(1.0)
            again = server.authorization_code(resource=RESOURCE)["access_token"]
            answer = httpx.get(f"{url}/mcp", headers={"authorization": f"Bearer {again}"}, trust_env=False)
            assert (answer.status_code, answer.json()["sub"]) == (200, "alice")
