"""What the middleware adds to one request, in process: `python benchmarks/in_process.py`.

Measured region: `await app(scope, receive, send)` around a trivial ASGI app, a fresh scope each time, on one
asyncio loop. Not measured: the server, the network, fetching keys (they are warm), the client. The control is the
bare app; every figure is the case minus the control of the same round. The bare signature checks call
`cryptography` directly, with nothing around them. Rounds of all cases are interleaved, so that whatever else the
machine does touches all of them alike; the table gives medians over the rounds, and the spread between quartiles.
Each case checks its answers before it is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from asgi_mcp_auth import MCPAuthMiddleware
from asgi_mcp_auth.testing import Issuer, SigningKey

RESOURCE = "https://mcp.example.com/mcp"
METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"

Exchange = Callable[[], Awaitable[int]]


class Case(NamedTuple):
    """A named exchange; `prepare` renews what one round uses up, outside the measured region."""

    name: str
    exchange: Callable[[], Awaitable[Any]]
    expected: int | None
    control: str | None
    prepare: Callable[[], None] = lambda: None


async def trivial_app(_scope: Any, _receive: Any, send: Any) -> None:
    """The control."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def make_scope(path: str, token: str | None) -> dict[str, Any]:
    """The scope of an MCP client's request, as uvicorn makes it."""
    headers = [
        (b"host", b"mcp.example.com"),
        (b"user-agent", b"python-httpx/0.28.1"),
        (b"accept", b"application/json, text/event-stream"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/json"),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", b"add"),
        (b"content-length", b"180"),
    ]
    if token is not None:
        headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET" if path == METADATA_PATH else "POST",
        "root_path": "",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


class Tokens:
    """Tokens that the middleware has not seen, minted in advance for each round."""

    def __init__(self, issuer: Issuer, key: SigningKey, count: int) -> None:
        self._issuer, self._key, self._count = issuer, key, count
        self._ready: list[str] = []

    def prepare(self) -> None:
        while len(self._ready) < self._count:
            self._ready.append(self._issuer.mint(RESOURCE, scope="mcp:read", key=self._key))

    def next(self) -> str:
        return self._ready.pop()


def exchange_with(app: Any, path: str, token: Callable[[], str] | str | None) -> Callable[[], Awaitable[int]]:
    """One exchange with an app; gives the status."""
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    async def exchange() -> int:
        await app(make_scope(path, token() if callable(token) else token), receive, send)
        return status

    return exchange


def protected(issuer: Issuer) -> MCPAuthMiddleware:
    """The middleware, over an issuer in process."""
    return MCPAuthMiddleware(
        trivial_app,
        resource=RESOURCE,
        authorization_servers=[issuer.url],
        required_scopes=["mcp:read"],
        http_client=issuer.http_client,
    )


def bare_checks(issuer: Issuer) -> dict[str, Callable[[], None]]:
    """The signature check alone, by algorithm."""
    checks: dict[str, Callable[[], None]] = {}
    for key in issuer.keys:
        signing_input, _, encoded = issuer.mint(RESOURCE, scope="mcp:read", key=key).rpartition(".")
        message, signature = signing_input.encode("ascii"), base64.urlsafe_b64decode(encoded + "==")
        public = key.private.public_key()
        if key.alg == "RS256":

            def check(public: Any = public, signature: bytes = signature, message: bytes = message) -> None:
                public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())

        elif key.alg == "ES256":
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
            der = encode_dss_signature(r, s)

            def check(public: Any = public, signature: bytes = der, message: bytes = message) -> None:
                public.verify(signature, message, ec.ECDSA(hashes.SHA256()))

        else:

            def check(public: Any = public, signature: bytes = signature, message: bytes = message) -> None:
                public.verify(signature, message)

        checks[key.alg] = check
    return checks


def build_cases(issuer: Issuer, per_round: int) -> list[Case]:
    """All cases; those with the SDK bridge are left out where the `mcp` package is not installed."""
    app = protected(issuer)
    known = issuer.mint(RESOURCE, scope="mcp:read")
    cases = [
        Case("control: the bare app", exchange_with(trivial_app, "/mcp", known), 200, None),
        Case("known token", exchange_with(app, "/mcp", known), 200, "control: the bare app"),
        Case("no token: 401", exchange_with(app, "/mcp", None), 401, "control: the bare app"),
        Case("metadata document", exchange_with(app, METADATA_PATH, None), 200, "control: the bare app"),
    ]
    for key in issuer.keys:
        tokens = Tokens(issuer, key, per_round)
        new = exchange_with(app, "/mcp", tokens.next)
        cases.append(Case(f"new {key.alg} token", new, 200, "control: the bare app", tokens.prepare))
    for alg, check in bare_checks(issuer).items():

        async def bare(check: Callable[[], None] = check) -> None:
            check()

        cases.append(Case(f"bare {alg} check", bare, None, None))
    try:
        import mcp.server.auth.middleware.auth_context  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        print("The MCP SDK is not installed: its bridge is not measured.")
    else:
        bridged = exchange_with(protected(issuer), "/mcp", known)
        cases.append(Case("known token, MCP SDK bridge", bridged, 200, "control: the bare app"))
    return cases


async def measure(cases: list[Case], rounds: int, per_round: int) -> dict[str, list[float]]:
    """Microseconds per exchange of each case in each round."""
    for case in cases:
        case.prepare()
        if case.expected is not None and (status := await case.exchange()) != case.expected:
            msg = f"{case.name}: answered {status}, not {case.expected}"
            raise RuntimeError(msg)
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            case.prepare()
            started = time.perf_counter()
            for _ in range(per_round):
                await case.exchange()
            times[case.name].append((time.perf_counter() - started) / per_round * 1e6)
    return times


def report(cases: list[Case], times: dict[str, list[float]]) -> None:
    """Print the table: medians, and the added cost."""
    print(f"{'case':<32}{'median µs':>12}{'added µs':>12}{'quartiles of the added':>26}")
    for case in cases:
        own = times[case.name]
        control = times[case.control] if case.control else None
        line = f"{case.name:<32}{statistics.median(own):>12.2f}"
        if control is not None:
            added = [mine - base for mine, base in zip(own, control, strict=True)]
            low, middle, high = statistics.quantiles(added, n=4) if len(added) > 1 else (added[0],) * 3
            line += f"{middle:>12.2f}{f'{low:.2f} … {high:.2f}':>26}"
        print(line)
    costs = {
        name: statistics.median(times[f"new {name} token"]) - statistics.median(times["control: the bare app"])
        for name in ("RS256", "ES256", "Ed25519")
    }
    for name, cost in costs.items():
        bare = statistics.median(times[f"bare {name} check"])
        print(f"new {name} token: {cost / bare:.2f} times the bare check, {cost - bare:+.1f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the middleware adds to one request, in process.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--per-round", type=int, default=500)
    parser.add_argument("--smoke", action="store_true", help="a few requests, to see that it runs")
    arguments = parser.parse_args()
    rounds, per_round = (2, 5) if arguments.smoke else (arguments.rounds, arguments.per_round)
    issuer = Issuer(algorithms=("RS256", "ES256", "Ed25519"))
    cases = build_cases(issuer, per_round)
    report(cases, asyncio.run(measure(cases, rounds, per_round)))


if __name__ == "__main__":
    main()
