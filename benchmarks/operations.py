"""What judging a JSON-RPC body adds to one POST, in process: `python benchmarks/operations.py`.

Measured region and method as in `in_process.py`: a known token, a fresh scope each time, interleaved rounds. The app
reads the body in every case. The control is the same middleware without rules, so a figure is what the rules cost:
reading the body, parsing it strictly, comparing the header fields, finding the rule. Not measured: the network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

from in_process import RESOURCE, make_scope

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.testing import Issuer

SIZES = {"200 B": 200, "4 KB": 4096, "256 KB": 262_144}


def make_body(size: int) -> bytes:
    """A `tools/call` of MCP 2026-07-28 with a list of rows as its argument; 200 B is one without."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    arguments: dict[str, Any] = {"a": 1, "b": ""}
    params = {"name": "add", "arguments": arguments, "_meta": meta}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    if size > 1000:
        row = {"id": 12345, "title": "a row of a table", "price": 12.5, "tags": ["one", "two"]}
        arguments["rows"] = [row] * (size // (len(json.dumps(row)) + 2) - 3)
    arguments["b"] = "x" * (size - len(json.dumps(call)))
    return json.dumps(call).encode("ascii")


async def reading_app(_scope: Any, receive: Any, send: Any) -> None:
    """Reads its body, as an MCP server does."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def protected(issuer: Issuer, **policy: Any) -> Any:
    metadata = ResourceServerMetadata(resource=RESOURCE, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"], **policy))
    return MCPAuth(config, http_client=issuer.http_client).wrap(reading_app)


async def exchange(app: Any, token: str, body: bytes) -> int:
    """One POST; gives the status."""
    scope = make_scope("/mcp", token)
    length = (b"content-length", str(len(body)).encode("ascii"))
    scope["headers"] = [field if field[0] != b"content-length" else length for field in scope["headers"]]
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(scope, receive, send)
    return status


async def measure(rounds: int, per_round: int) -> None:
    issuer = Issuer("https://auth.example.com")
    without = protected(issuer)
    ruled = protected(issuer, tools={"add": ["mcp:read"], "delete_*": ["mcp:write"], "purge": ["mcp:admin"]})
    token = issuer.mint(RESOURCE, scope="mcp:read")
    print(f"{'body':10} {'without µs':>12} {'added µs':>10} {'quartiles of the added':>28}")
    for name, size in SIZES.items():
        body = make_body(size)
        count = max(1, per_round * 200 // size) if size > 1000 else per_round
        assert await exchange(ruled, token, body) == await exchange(without, token, body) == 200
        assert await exchange(ruled, token, body.replace(b'"add"', b'"sub"')) == 400  # unlike its header field
        times: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(rounds):
            for index, app in enumerate((without, ruled)):
                started = time.perf_counter()
                for _ in range(count):
                    await exchange(app, token, body)
                times[index].append((time.perf_counter() - started) / count * 1e6)
        added = sorted(one - none for none, one in zip(times[0], times[1], strict=True))
        low, _, high = statistics.quantiles(added, n=4)
        print(
            f"{name:10} {statistics.median(times[0]):12.1f} {statistics.median(added):10.1f} {low:14.1f} … {high:.1f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What judging a JSON-RPC body adds to one POST.")
    parser.add_argument("--smoke", action="store_true", help="only show that it runs")
    smoke = parser.parse_args().smoke
    asyncio.run(measure(*((3, 20) if smoke else (40, 500))))
