"""What reaches an authorization server, counted by a real HTTP server, and what its faults do to us.

The issuer of `asgi_mcp_auth.testing` runs under uvicorn in a thread; the protected app is called in process and
fetches over real sockets with its own client. Its clock is moved by hand.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from harness import Clock, R, RecordingApp, bearer, call
from starlette.testclient import TestClient
from upstream import Upstream

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth._keys import background as tasks
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
COLD = {OAUTH: 1, "/jwks": 1}
REFILL = 31.0  # seconds until an empty bucket for unknown kids allows a fetch, and one more
BACK_OFF = 40.0  # longer than any pause after a failure
STALE = 700.0  # a key set without Cache-Control is fresh for ten minutes
SOON = 0.15  # seconds, for a fetch as a whole


@pytest.fixture(scope="module")
def _server() -> Generator[Upstream]:
    server = Upstream()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def _key() -> SigningKey:
    return SigningKey("Ed25519", "the-good-one")


@pytest.fixture
def upstream(_server: Upstream, _key: SigningKey, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Generator[Upstream]:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.random.random", lambda: 0.0)
    issuer = Issuer(_server.url, algorithms=(), clock=clock)
    issuer.keys, issuer.cache_control = [_key], None
    _server.issuer = issuer
    _server.start()
    yield _server
    issuer.heal()


@pytest.fixture
def hasty() -> Generator[pytest.MonkeyPatch]:
    """Fetches have little time, until it is undone."""
    haste = pytest.MonkeyPatch()
    haste.setattr("asgi_mcp_auth._keys.http.TOTAL_SECONDS", SOON)
    haste.setattr("asgi_mcp_auth._keys.cached_document.TOTAL_SECONDS", 3 * SOON)
    yield haste
    haste.undo()


class CompiledConfig:
    """A protected app, called in process."""

    def __init__(self, issuer: Issuer, clock: Clock, **options: Any) -> None:
        metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
        config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
        self.clock = clock
        self.auth = MCPAuth(config, clock=clock, **options)
        self.app = self.auth.wrap(RecordingApp())

    async def ask(self, token: str) -> int:
        """The status; a 503 has to say when to try again, a 401 has to have a challenge."""
        answer = await call(self.app, headers=bearer(token))
        assert (answer.status == 503) == (answer.header("retry-after") is not None)
        assert (answer.status == 401) == (answer.challenge is not None)
        return answer.status

    async def settle(self) -> None:
        """Let background fetches end."""
        with anyio.fail_after(10):
            while any(  # noqa: ASYNC110 - nothing to wait for
                document._flight._flights
                for keys in self.auth._protection.key_sets._named
                for document in (keys._metadata, keys.document)
            ):
                await anyio.sleep(0.005)

    @property
    def keys(self) -> Any:
        (issuer,) = self.auth.status().issuers
        return issuer.key_set


@pytest.fixture
def site(upstream: Upstream, clock: Clock) -> CompiledConfig:
    return CompiledConfig(upstream.issuer, clock)


def good(upstream: Upstream, sub: str | None = None, **changes: Any) -> str:
    claims: dict[str, Any] = {"scope": "mcp:read", "sub": sub or secrets.token_hex(8)} | changes
    return upstream.issuer.mint(R, **claims)


def encode(value: object) -> str:
    data = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(issuer: Issuer, **changes: Any) -> Callable[[str], str]:
    """Makes tokens that are good but for their kid and their signature."""
    payload, signature = encode(issuer.claims(R, scope="mcp:read") | changes), "A" * 86
    return lambda kid: f"{encode({'alg': 'Ed25519', 'typ': 'at+jwt', 'kid': kid})}.{payload}.{signature}"


# --- How much reaches the server ---


@pytest.mark.requirement("DC-7")
async def test_500_cold_requests_cost_one_fetch(upstream: Upstream, site: CompiledConfig) -> None:
    upstream.issuer.stall("/jwks", seconds=0.1)
    tokens = [good(upstream) for _ in range(500)]
    statuses: Counter[int] = Counter()

    async def one(token: str) -> None:
        statuses[await site.ask(token)] += 1

    async with anyio.create_task_group() as group:
        for token in tokens:
            group.start_soon(one, token)
    assert statuses == {200: 500}
    assert upstream.issuer.requests == COLD


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a budget, whatever the loop
@pytest.mark.parametrize(
    ("issued", "inside"),
    [
        pytest.param(-200.0, {401}, id="DC-10 RS-77 kids from before the fetch"),
        pytest.param(REFILL, {503}, id="DC-10 RS-77 kids that may be new"),
    ],
)
async def test_10000_random_kids(
    upstream: Upstream, site: CompiledConfig, clock: Clock, issued: float, inside: set[int]
) -> None:
    assert await site.ask(good(upstream)) == 200
    assert upstream.issuer.requests == COLD
    clock.now += REFILL
    make = unsigned(upstream.issuer, iat=int(clock.now + issued - REFILL))
    # The first two cost a fetch each, which says that their keys do not exist.
    assert [await site.ask(make(f"the-{n}")) for n in range(2)] == [401, 401]
    statuses: Counter[int] = Counter()
    for n in range(10_000):
        statuses[await site.ask(make(secrets.token_urlsafe(9)))] += 1
        if n % 1000 == 0:
            assert await site.ask(good(upstream)) == 200
    assert set(statuses) == inside
    assert upstream.issuer.requests == {OAUTH: 1, "/jwks": 3}
    (issuer,) = site.auth.status().issuers
    assert issuer.unknown_kids <= 1000


@pytest.mark.requirement("DC-10")
async def test_random_kids_cost_two_fetches_a_minute(upstream: Upstream, site: CompiledConfig, clock: Clock) -> None:
    assert await site.ask(good(upstream)) == 200
    make = unsigned(upstream.issuer, iat=int(clock.now) - 200)
    for _ in range(500):  # 250 seconds
        clock.now += 0.5
        assert await site.ask(make(secrets.token_urlsafe(9))) == 401
    assert upstream.issuer.requests["/jwks"] == 1 + 2 + 250 // 30


@pytest.mark.requirement("DC-7")
async def test_10000_unknown_issuers_cost_nothing(upstream: Upstream, site: CompiledConfig) -> None:
    for n in range(10_000):
        iss = f"{upstream.url}/{n}" if n % 2 else f"https://{secrets.token_hex(6)}.example.com"
        assert await site.ask(unsigned(upstream.issuer, iss=iss)("the-good-one")) == 401
    assert upstream.issuer.requests == {}
    assert await site.ask(good(upstream)) == 200


# --- Faults, and getting well again ---

BIG = 100 * 1024 * 1024


def fault(put: Callable[[Issuer], object], *, id: str) -> Any:  # noqa: A002 - as pytest.param
    return pytest.param(put, id=id)


def many_keys(count: int) -> bytes:
    entry = b'{"kty":"OKP","crv":"Ed25519","alg":"Ed25519","x":"' + b"A" * 43 + b'","kid":"k%d"}'
    return b'{"keys":[' + b",".join(entry % n for n in range(count)) + b"]}"


MANY = many_keys(100_000)


def elsewhere(issuer: Issuer) -> None:
    """A redirect to a URL with good keys of another issuer."""
    issuer.answer("/elsewhere", {"keys": [SigningKey("Ed25519", "the-good-one").jwk]})
    issuer.answer("/jwks", b"", status=302, headers={"location": f"{issuer.url}/elsewhere"})


def answers(body: object, **how: Any) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.answer("/jwks", body, **how)


KEY_SET_FAULTS = [
    fault(lambda issuer: issuer.fail("/jwks"), id="DC-3 RS-6 500"),
    fault(lambda issuer: issuer.fail("/jwks", status=404), id="DC-3 RS-6 404"),
    fault(lambda issuer: issuer.fail(), id="DC-3 RS-6 500 for everything"),
    fault(lambda issuer: issuer.cut("/jwks"), id="DC-3 RS-6 cut short"),
    fault(answers(b"<html>Down for maintenance</html>", content_type="text/html"), id="DC-3 HTML"),
    fault(answers({}), id="DC-3 {}"),
    fault(answers({"keys": []}), id="DC-11 no keys"),
    fault(answers({"keys": [{"kty": "oct", "k": "AAAA", "kid": "the-good-one"}]}), id="DC-11 no usable key"),
    fault(answers({"keys": {}}), id="DC-11 keys as an object"),
    fault(answers([]), id="DC-3 an array"),
    fault(answers(b""), id="DC-3 nothing"),
    fault(answers(b'{"keys":[{"kty":"OKP","crv":"Ed25519","x'), id="DC-3 half of it"),
    fault(answers(b"[" * 100_000), id="DC-3 deep"),
    fault(lambda issuer: issuer.answer("/jwks", b" " * BIG), id="DC-7 100 MB"),
    fault(answers(MANY), id="DC-7 100,000 keys"),
    fault(answers(many_keys(2000)), id="DC-7 2,000 keys, within the limit of bytes"),
    fault(answers(gzip.compress(b" " * BIG), headers={"content-encoding": "gzip"}), id="DC-7 a gzip bomb"),
    fault(elsewhere, id="DC-5 a redirect"),
]
LATE_FAULTS = [
    fault(lambda issuer: issuer.stall("/jwks"), id="DC-7 hanging"),
    fault(lambda issuer: issuer.stall(), id="DC-7 hanging everywhere"),
    fault(lambda issuer: issuer.trickle("/jwks", seconds=0.02), id="DC-7 trickling"),
]
METADATA_FAULTS = [
    fault(lambda issuer: issuer.fail("*/.well-known/*"), id="DC-3 metadata 500"),
    fault(lambda issuer: issuer.metadata.update(issuer="https://other.example.com"), id="DC-2 wrong issuer"),
    fault(lambda issuer: issuer.metadata.update(issuer=f"{issuer.url}/"), id="DC-2 issuer with a slash more"),
    fault(lambda issuer: issuer.metadata.pop("jwks_uri"), id="DC-13 no jwks_uri"),
    fault(
        lambda issuer: issuer.metadata.update(jwks_uri="http://keys.example.com/jwks"), id="DC-4 jwks_uri without TLS"
    ),
    fault(lambda issuer: issuer.answer("*/.well-known/*", b"<p>", content_type="text/html"), id="DC-3 metadata HTML"),
    fault(
        lambda issuer: issuer.answer("*/.well-known/*", b"", status=302, headers={"location": "/x"}),
        id="DC-5 metadata redirect",
    ),
]


def heal(issuer: Issuer, haste: pytest.MonkeyPatch | None = None) -> None:
    if haste is not None:
        haste.undo()
    issuer.heal()
    issuer.metadata |= {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}


async def outage_when_cold(
    upstream: Upstream,
    site: CompiledConfig,
    break_it: Callable[[Issuer], object],
    haste: pytest.MonkeyPatch | None = None,
) -> None:
    """Good tokens get 503, with one attempt per back-off, and pass again as soon as it is over."""
    break_it(upstream.issuer)
    tokens = [good(upstream) for _ in range(20)]
    assert await site.ask(tokens[0]) == 503
    asked = upstream.issuer.requests.total()
    assert [await site.ask(token) for token in tokens] == [503] * 20
    assert upstream.issuer.requests.total() == asked
    assert upstream.issuer.requests["/elsewhere"] == 0
    assert (site.keys.state, site.keys.failures) == ("empty", 1)
    assert site.keys.last_error
    heal(upstream.issuer, haste)
    assert await site.ask(tokens[0]) == 503  # the back-off is not over
    assert upstream.issuer.requests.total() == asked
    site.clock.now += BACK_OFF
    assert await site.ask(tokens[0]) == 200
    assert (site.keys.state, site.keys.failures, site.keys.last_error) == ("fresh", 0, None)


async def outage_when_warm(
    upstream: Upstream,
    site: CompiledConfig,
    break_it: Callable[[Issuer], object],
    haste: pytest.MonkeyPatch | None = None,
) -> None:
    """Good tokens, new ones and known ones, keep passing with the keys from before."""
    known = good(upstream, exp=int(site.clock.now) + 3600)
    assert await site.ask(known) == 200
    break_it(upstream.issuer)
    site.clock.now += STALE
    for _ in range(3):
        assert await site.ask(known) == 200
        assert await site.ask(good(upstream)) == 200
        await site.settle()
        assert (site.keys.state, site.keys.failures) == ("stale", 1)
    assert site.keys.last_error
    # A kid that is new just now cannot be looked for: that is 503, and no good token suffers.
    assert await site.ask(unsigned(upstream.issuer)("new")) == 503
    assert await site.ask(good(upstream)) == 200
    heal(upstream.issuer, haste)
    site.clock.now += BACK_OFF
    assert await site.ask(good(upstream)) == 200
    await site.settle()
    assert (site.keys.state, site.keys.failures, site.keys.last_error) == ("fresh", 0, None)
    assert await site.ask(good(upstream)) == 200
    assert upstream.issuer.requests["/elsewhere"] == 0


@pytest.mark.parametrize("break_it", [*KEY_SET_FAULTS, *METADATA_FAULTS])
async def test_an_outage_when_cold(
    upstream: Upstream, site: CompiledConfig, break_it: Callable[[Issuer], object]
) -> None:
    await outage_when_cold(upstream, site, break_it)


@pytest.mark.parametrize("break_it", KEY_SET_FAULTS)
async def test_an_outage_when_warm(
    upstream: Upstream, site: CompiledConfig, break_it: Callable[[Issuer], object]
) -> None:
    await outage_when_warm(upstream, site, break_it)


@pytest.mark.parametrize("break_it", LATE_FAULTS)
async def test_an_outage_when_cold_that_takes_time(
    upstream: Upstream, hasty: pytest.MonkeyPatch, site: CompiledConfig, break_it: Callable[[Issuer], object]
) -> None:
    await outage_when_cold(upstream, site, break_it, hasty)


@pytest.mark.parametrize("break_it", LATE_FAULTS)
async def test_an_outage_when_warm_that_takes_time(
    upstream: Upstream, hasty: pytest.MonkeyPatch, site: CompiledConfig, break_it: Callable[[Issuer], object]
) -> None:
    await outage_when_warm(upstream, site, break_it, hasty)


@pytest.mark.parametrize(
    "outage", [pytest.param(outage_when_cold, id="DC-3 RS-6 cold"), pytest.param(outage_when_warm, id="DC-3 RS-6 warm")]
)
async def test_a_server_that_is_down(upstream: Upstream, site: CompiledConfig, outage: Any) -> None:
    """The port of the server is closed, and then open again."""
    heal_it = upstream.issuer.heal

    def start_again(path: str = "*") -> None:
        heal_it(path)
        upstream.start()

    def down(issuer: Issuer) -> None:
        upstream.stop()

    upstream.issuer.heal = start_again  # type: ignore[method-assign]
    await outage(upstream, site, down)


@pytest.mark.parametrize("break_it", METADATA_FAULTS)
async def test_metadata_that_breaks_when_warm_touches_no_key(
    upstream: Upstream, site: CompiledConfig, clock: Clock, break_it: Callable[[Issuer], object]
) -> None:
    """Also when both are long stale: good tokens pass throughout, and a rotated key is found when it is over."""
    assert await site.ask(good(upstream)) == 200
    break_it(upstream.issuer)
    clock.now += 5000  # metadata is fresh for an hour
    for _ in range(3):
        assert await site.ask(good(upstream)) == 200
        await site.settle()
        clock.now += BACK_OFF
    heal(upstream.issuer)
    upstream.issuer.keys = [SigningKey("Ed25519")]
    assert await site.ask(good(upstream)) == 200
    assert (site.keys.state, site.keys.failures) == ("fresh", 0)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/octet-stream", "application/jwk-set+json", "text/html", ""]
)
async def test_any_label_for_what_is_json(upstream: Upstream, site: CompiledConfig, kind: str) -> None:
    """The document counts, not its label; HTML is no JSON (RFC 7517 section 8.5 has a type that few servers send)."""
    upstream.issuer.answer("/jwks", upstream.issuer.jwks(), content_type=kind)
    upstream.issuer.answer(OAUTH, upstream.issuer.metadata, content_type=kind)
    assert await site.ask(good(upstream)) == 200


@pytest.mark.requirement("DC-8", "RS-6")
async def test_an_outage_that_lasts(upstream: Upstream, site: CompiledConfig, clock: Clock) -> None:
    """For a day the keys from before serve, at one attempt in 30 s; then no token can be verified: 503, not 401."""
    assert await site.ask(good(upstream)) == 200
    upstream.issuer.requests.clear()
    upstream.issuer.fail()
    clock.now += STALE
    start = clock.now
    while clock.now < start + 1200:
        assert await site.ask(good(upstream)) == 200
        await site.settle()
        clock.now += 6
    assert 30 <= upstream.issuer.requests["/jwks"] <= 1200 / 30 + 6
    clock.now += 86_400
    assert await site.ask(good(upstream)) == 503
    assert not site.auth.status().ready
    upstream.issuer.heal()
    clock.now += BACK_OFF
    assert await site.ask(good(upstream)) == 200
    assert site.auth.status().ready


# --- What raw sockets do ---


@contextlib.contextmanager
def raw_server(port: int, behave: Callable[[socket.socket], None]) -> Generator[Counter[str]]:
    """Accepts connections and does with each what no ASGI server would."""
    counts: Counter[str] = Counter()
    listener = socket.create_server(("127.0.0.1", port))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            counts["connections"] += 1
            connections.append(connection)
            with contextlib.suppress(OSError):
                behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield counts
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for connection in connections:
            connection.close()


def close(connection: socket.socket) -> None:
    connection.close()


def garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(secrets.token_bytes(4096))
    connection.close()


def endless_headers(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for n in range(100_000):
        connection.sendall(b"x-%d: y\r\n" % n)
    connection.close()


def short(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"issuer":')
    connection.close()


def mute(connection: socket.socket) -> None:
    """Take the request and never answer."""


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(close, id="DC-3 RS-6 hangs up"),
        pytest.param(garbage, id="DC-3 RS-6 garbage"),
        pytest.param(endless_headers, id="DC-3 RS-6 endless headers"),
        pytest.param(short, id="DC-3 RS-6 less than it said"),
        pytest.param(mute, id="DC-7 never answers"),
    ],
)
async def test_a_server_that_does_not_speak_http(
    upstream: Upstream, hasty: pytest.MonkeyPatch, site: CompiledConfig, behave: Callable[[socket.socket], None]
) -> None:
    upstream.stop()
    with raw_server(upstream.port, behave) as counts:
        assert await site.ask(good(upstream)) == 503
        asked = counts["connections"]
        assert asked <= 2  # metadata has two places
        assert [await site.ask(good(upstream)) for _ in range(10)] == [503] * 10
        assert counts["connections"] == asked
    hasty.undo()
    upstream.start()
    site.clock.now += BACK_OFF
    assert await site.ask(good(upstream)) == 200


# --- Event loops that come and go ---


def flights(site: CompiledConfig) -> list[Any]:
    """What is under way, in whatever event loop."""
    (keys,) = site.auth._protection.key_sets._named
    running = [task for loop in tasks._loops for task in loop.running]
    return [*running, *keys.document._flight._flights, *keys._metadata._flight._flights]


@pytest.mark.parametrize("backend", [pytest.param(name, id=f"DC-7 {name}") for name in ("asyncio", "trio")])
def test_100_event_loops_leave_nothing_behind(
    upstream: Upstream, site: CompiledConfig, clock: Clock, backend: Literal["asyncio", "trio"]
) -> None:
    """Each request of the test client has a loop of its own; every second one has to fetch."""
    client = TestClient(site.app, base_url="https://mcp.example.com", backend=backend)
    counts: list[tuple[int, int]] = []
    for n in range(100):
        clock.now += (STALE + 86_400) * (n % 2)
        assert client.post("/mcp", headers={"authorization": f"Bearer {good(upstream)}"}).status_code == 200
        assert flights(site) == []
        counts.append((threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))))
    assert upstream.issuer.requests["/jwks"] == 51
    threads, descriptors = zip(*counts, strict=True)
    assert max(threads[50:]) <= max(threads[:50])
    assert max(descriptors[50:]) <= max(descriptors[:50]) + 2  # the server closes its ends in its own time


@pytest.mark.parametrize("backend", [pytest.param(name, id=f"DC-7 {name}") for name in ("asyncio", "trio")])
def test_100_event_loops_that_end_amid_a_refresh(
    upstream: Upstream, clock: Clock, backend: Literal["asyncio", "trio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In process, since a loop that ends while anyio connects warns of a coroutine of anyio's own."""
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.MAX_FOREGROUND_SECONDS", 0.01)
    site = CompiledConfig(upstream.issuer, clock, http_client=upstream.issuer.http_client)
    client = TestClient(site.app, base_url="https://mcp.example.com", backend=backend)
    assert client.post("/mcp", headers={"authorization": f"Bearer {good(upstream)}"}).status_code == 200
    upstream.issuer.stall()
    clock.now += STALE
    for _ in range(100):
        clock.now += BACK_OFF
        assert client.post("/mcp", headers={"authorization": f"Bearer {good(upstream)}"}).status_code == 200
        assert not any(loop.running for loop in tasks._loops)
    assert len(flights(site)) <= 1  # of a closed asyncio loop, forgotten with the next
    assert upstream.issuer.requests["/jwks"] + upstream.issuer.requests[OAUTH] >= 50
    upstream.issuer.heal()
    clock.now += 86_400
    assert client.post("/mcp", headers={"authorization": f"Bearer {good(upstream)}"}).status_code == 200
    assert flights(site) == []
