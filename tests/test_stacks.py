"""Servers and frameworks: each pair is a real server process that runs the app, tested over HTTP and websockets.

`pytest` runs a third of the pairs, `pytest --full` all of them.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from processes import AsgiServer, free_port, importing_from, running, uvicorn
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asgi_mcp_auth.testing import Issuer

COUNTERPARTS = Path(__file__).parent / "counterparts"
ORIGIN = "https://page.example.com"
BASE = "https://mcp.example.com"
LONGEST = 15_500


class Server(NamedTuple):
    """The command and the features of a server."""

    arguments: str
    apps: str
    """The first is run by default, the others with `--full`."""
    refusal: int = 401
    """The status of a refused handshake: 403 if the server does not support `websocket.http.response`."""
    lifespan: bool = True
    http2: bool = False
    longest_token: int = LONGEST
    """The longest token in bytes; the middleware allows 16 KiB."""
    mcp_servers: str = "sdk-wrap fastmcp-wrap"
    """The MCP servers of test_mcp_stacks.py. They need a lifespan, and the SDK's DELETE hangs on uvicorn's own HTTP/2."""


FEW = "starlette-native raw-wrap"
SERVERS = {
    "uvicorn": Server(
        "uvicorn stack_apps:app --port {port}",
        "starlette-wrap fastapi-native quart-native litestar-wrap django-wrap mount-native "
        "raw-wrap raw-native starlette-native fastapi-wrap quart-wrap litestar-native mount-wrap",
        mcp_servers="sdk-wrap sdk-native sdk-own fastmcp-wrap fastmcp-native fastmcp-own",
    ),
    "uvicorn-h2": Server("uvicorn stack_apps:app --port {port} --http zttp --http2", FEW, http2=True, mcp_servers=""),
    "hypercorn": Server("hypercorn stack_apps:app --bind 127.0.0.1:{port}", FEW),
    "hypercorn-trio": Server("hypercorn stack_apps:app --bind 127.0.0.1:{port} --worker-class trio", FEW),
    "hypercorn-h2": Server("hypercorn stack_apps:app --bind 127.0.0.1:{port}", FEW, http2=True),
    "granian": Server("granian --interface asgi --port {port} stack_apps:app", FEW),
    "granian-h2": Server("granian --interface asgi --port {port} stack_apps:app", FEW, http2=True),
    "daphne": Server(
        "daphne --port {port} stack_apps:app", f"{FEW} django-wrap", refusal=403, lifespan=False, mcp_servers=""
    ),
    "gunicorn": Server(
        "gunicorn --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket stack_apps:app",
        FEW,
        refusal=403,
        longest_token=8_000,
    ),
    "gunicorn-h2": Server(
        "gunicorn --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket --http-protocols h2,h1 "
        "--http2-cleartext both stack_apps:app",
        FEW,
        refusal=403,
        http2=True,
        longest_token=8_000,
    ),
    "uvicorn-worker": Server(
        "gunicorn --worker-class uvicorn_worker.UvicornWorker --bind 127.0.0.1:{port} --no-control-socket stack_apps:app",
        FEW,
    ),
}
BY_DEFAULT = {
    *(("uvicorn", f"{name}") for name in SERVERS["uvicorn"].apps.split()[:6]),
    ("hypercorn-trio", "starlette-native"),
    ("granian", "starlette-native"),
    ("daphne", "django-wrap"),
}
PAIRS = [(server, app) for server, how in SERVERS.items() for app in how.apps.split()]
MARKED = [
    pytest.param(pair, id="-on-".join(reversed(pair)), marks=[] if pair in BY_DEFAULT else [pytest.mark.full])
    for pair in PAIRS
]


class Stack:
    """One app on a running server, or behind a proxy."""

    def __init__(  # noqa: PLR0917
        self,
        root: str,
        how: Server,
        name: str,
        issuer: Issuer,
        base: str = BASE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.how = how
        self.name = name
        self.root = root
        self.url = f"{root}/{name}"
        self.resource = f"{base}/{name}"
        self.document = f"/.well-known/oauth-protected-resource{urlsplit(self.resource).path}"
        self.issuer = issuer
        self.tls = tls
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        verify: ssl.SSLContext | bool = self.tls or True
        return httpx.Client(http1=not self.how.http2, http2=self.how.http2, trust_env=False, timeout=10, verify=verify)

    def websocket(self, headers: dict[str, str] | None = None) -> Any:
        url = f"{self.url}/ws".replace("http", "ws", 1)
        return connect(url, additional_headers=headers, proxy=None, ssl=self.tls)

    def bearer(self, scope: str = "mcp:read") -> dict[str, str]:
        return {"authorization": f"Bearer {self.issuer.mint(self.resource, scope=scope)}"}

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"{self.url}/{path}", headers=self.bearer() | headers)

    def get_document(self, **headers: str) -> httpx.Response:
        return self.client.get(urljoin(self.root, self.document), headers=headers)

    def control(self, query: str = "") -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get(f"{self.root}/control/{self.name}?{query}").json()
        return answer


class Running:
    """The server processes; each is started on first use and serves both HTTP/1.1 and HTTP/2."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = list(pairs)
        self.issuer = Issuer("https://auth.example.com")
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, AsgiServer] = {}

    def __call__(self, server: str) -> AsgiServer:
        arguments = SERVERS[server].arguments
        if arguments not in self._servers:
            wanted = {app: None for name, app in self.pairs if SERVERS[name].arguments == arguments}
            self._servers[arguments] = self._stack.enter_context(serving(server, list(wanted), self.issuer))
        return self._servers[arguments]

    @contextlib.contextmanager
    def stack(self, server: str, app: str) -> Generator[Stack]:
        made = Stack(self(server).url, SERVERS[server], app, self.issuer)
        with made.client:
            yield made

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def serving(
    server: str, apps: Sequence[str], issuer: Issuer, more: Sequence[str] = (), base: str = BASE
) -> Generator[AsgiServer]:
    """Run the apps on a server with more arguments."""
    port = free_port()
    argv = [sys.executable, "-m", *SERVERS[server].arguments.format(port=port).split(), *more]
    settings = {"STACK_APPS": " ".join(apps), "STACK_KEYS": json.dumps(issuer.jwks()), "STACK_BASE": base}
    env = importing_from(COUNTERPARTS, settings)
    # Not in the repository, where gunicorn, or a framework, might find a file of its own.
    url = f"http://127.0.0.1:{port}"
    with running(argv, ready_url=f"{url}/control/{apps[0]}", env=env, cwd=COUNTERPARTS) as process:
        yield AsgiServer(url, port, process)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://auth.example.com")


@pytest.fixture(scope="module")
def started(pytestconfig: pytest.Config) -> Generator[Running]:
    with contextlib.closing(Running(PAIRS if pytestconfig.getoption("full") else BY_DEFAULT)) as servers:
        yield servers


@pytest.fixture
def stack(request: pytest.FixtureRequest, started: Running) -> Generator[Stack]:
    with started.stack(*request.param) as made:
        yield made


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def metadata(stack: Stack) -> None:
    """The metadata document is at its public path, and contains the configured URL, not the requested one."""
    answer = stack.get_document()
    assert answer.status_code == 200
    assert answer.json()["resource"] == stack.resource
    assert answer.http_version == ("HTTP/2" if stack.how.http2 else "HTTP/1.1")


def unauthenticated(stack: Stack) -> None:
    answer = stack.client.get(f"{stack.url}/whoami")
    assert answer.status_code == 401
    url = urljoin(stack.resource, stack.document)
    assert answer.headers.get_list("www-authenticate") == [f'Bearer scope="mcp:read", resource_metadata="{url}"']
    forged = Issuer("https://auth.example.com", algorithms=("ES256",)).mint(stack.resource)
    refused = stack.client.get(f"{stack.url}/whoami", headers={"authorization": f"Bearer {forged}"})
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def refused_post(stack: Stack) -> None:
    """An unread body does not close the connection, which other requests share over HTTP/2."""
    with stack.client.stream(
        "GET", f"{stack.url}/stream", headers=stack.bearer() | {"accept-encoding": "identity"}
    ) as other:
        chunks = other.iter_raw()
        assert next(chunks) == b"first\n"
        expected = 405 if stack.name == "litestar-native" else 401  # no such route, which is what Litestar sees first
        for _ in range(5):
            assert stack.client.post(f"{stack.url}/whoami", json={"a": "b" * 5000}).status_code == expected
        stack.control("release")
        assert b"".join(chunks) == b"second\n"


def claims(stack: Stack) -> None:
    answer = stack.get("whoami")
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["sub"], seen["scopes"]) == ("alice", ["mcp:read"])


def long_token(stack: Stack) -> None:
    """A token of the largest length passes, except on servers with a lower limit of header fields."""

    def padded(length: int) -> str:
        plain = len(stack.issuer.mint(stack.resource, scope="mcp:read", pad=""))
        return stack.issuer.mint(stack.resource, scope="mcp:read", pad="x" * ((length - plain) * 3 // 4))

    longest = stack.how.longest_token
    assert stack.get("whoami", authorization=f"Bearer {padded(longest)}").json()["sub"] == "alice"
    if longest < LONGEST:
        with stack.new_client() as client:
            try:
                status = client.get(
                    f"{stack.url}/whoami", headers={"authorization": f"Bearer {padded(9_000)}"}
                ).status_code
            except httpx.RemoteProtocolError:
                assert stack.how.http2
            else:
                assert status == 431


def insufficient(stack: Stack) -> None:
    refused = stack.get("admin")
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    allowed = stack.get("admin", **stack.bearer("mcp:read mcp:admin"))
    assert allowed.status_code == 200


def websocket_refused(stack: Stack) -> None:
    with pytest.raises(InvalidStatus) as raised, stack.websocket():
        pass
    assert raised.value.response.status_code == stack.how.refusal
    if stack.how.refusal == 401:
        assert "resource_metadata=" in raised.value.response.headers["www-authenticate"]


def websocket_accepted(stack: Stack) -> None:
    with stack.websocket(stack.bearer()) as websocket:
        assert websocket.recv(5) == "alice"
        websocket.send("hello")
        assert websocket.recv(5) == "hello"


def streaming(stack: Stack) -> None:
    """The first chunk arrives while the app still waits for the signal to continue."""
    before = stack.control()["finished"]
    headers = stack.bearer() | {"accept-encoding": "identity"}
    with stack.client.stream("GET", f"{stack.url}/stream", headers=headers) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"first\n"
        assert stack.control()["finished"] == before
        stack.control("release")
        assert b"".join(chunks) == b"second\n"
    assert eventually(lambda: stack.control()["finished"] == before + 1)


def disconnect(stack: Stack) -> None:
    """The app's stream ends when the client leaves."""
    before = stack.control()
    headers = stack.bearer() | {"accept-encoding": "identity"}
    with (
        stack.new_client() as client,
        client.stream("GET", f"{stack.url}/stream", headers=headers) as answer,
    ):
        chunks = answer.iter_raw()
        assert next(chunks) == b"first\n"
        assert stack.control()["ended"] == before["ended"]
    assert eventually(lambda: stack.control()["ended"] == before["ended"] + 1)
    assert stack.control()["finished"] == before["finished"]


def start_up(stack: Stack) -> None:
    seen = stack.get("whoami").json()
    assert seen["started"] is (stack.how.lifespan and "django" not in stack.name)
    assert seen.get("begun", stack.how.lifespan) is stack.how.lifespan  # state that the start-up left for requests


def stamps(stack: Stack) -> None:
    """The outer middleware sees every response, the inner middleware only those of the app."""
    refused, allowed = stack.client.get(f"{stack.url}/whoami"), stack.get("whoami")
    assert [refused.headers.get_list(name) for name in ("x-outer", "x-inner")] == [["1"], []]
    assert [allowed.headers.get_list(name) for name in ("x-outer", "x-inner")] == [["1"], ["1"]]


def gzip(stack: Stack) -> None:
    answer = stack.get("big", **{"accept-encoding": "gzip"})
    assert answer.headers.get_list("content-encoding") == ["gzip"]
    assert answer.text == "x" * 10_000


def cors(stack: Stack) -> None:
    """With a CORS middleware of the app, preflights are answered and no header field is sent twice."""
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization",
    }
    preflight = stack.client.options(f"{stack.url}/whoami", headers=asked)
    assert preflight.status_code in (200, 204)
    answers = [preflight, stack.get("whoami", origin=ORIGIN)]
    assert [answer.headers.get_list("access-control-allow-origin") for answer in answers] == [[ORIGIN], [ORIGIN]]
    assert answers[1].status_code == 200


def session(stack: Stack) -> None:
    stack.client.cookies.clear()
    assert [stack.get("visits").text for _ in range(3)] == ["1", "2", "3"]


def failure(stack: Stack) -> None:
    """An exception of the app is its 500 and the server keeps running; some servers close the connection silently."""
    url, headers = f"{stack.url}/boom", stack.bearer() | {"connection": "close"}
    assert httpx.get(url, headers=headers, trust_env=False, verify=stack.tls or True).status_code == 500
    assert stack.get("whoami").status_code == 200


PROBES = [
    *(
        metadata,
        unauthenticated,
        refused_post,
        claims,
        long_token,
        insufficient,
        websocket_refused,
        websocket_accepted,
        streaming,
        disconnect,
    ),
    *(start_up, stamps, gzip, cors, session, failure),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("stack", MARKED, indirect=True)
def test_stack(stack: Stack, probe: Callable[[Stack], None]) -> None:
    if probe is websocket_accepted and stack.name.startswith("django"):
        pytest.skip("Django has no websockets")
    if probe is disconnect and stack.how is SERVERS["gunicorn-h2"] and stack.name.startswith("starlette"):
        pytest.skip("Over HTTP/2 gunicorn reports a disconnect only when the app receives or sends")
    probe(stack)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(name, marks=[] if name == "uvicorn" else [pytest.mark.full])
        for name, how in SERVERS.items()
        if how.lifespan and not how.http2
    ],
)
def test_shutdown_reaches_the_app(server: str, issuer: Issuer) -> None:
    apps = [app for app in SERVERS[server].apps.split() if not app.startswith("django")]
    with serving(server, apps, issuer) as running_server:
        running_server.process.stop()
        assert all(f"shutdown of {app}" in running_server.process.output for app in apps)


SHOP = """\
from asgi_mcp_auth import load_app

async def whoami(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["claims"]["sub"].encode()})

app = load_app("shop:whoami")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("uvicorn shop:app --port {port} --root-path /api", id="uvicorn"),
        pytest.param("hypercorn shop:app --bind 127.0.0.1:{port} --root-path /api", id="hypercorn"),
        pytest.param("daphne --port {port} --root-path /api shop:app", id="daphne", marks=pytest.mark.full),
        pytest.param(
            "granian --interface asgi --port {port} --url-path-prefix /api shop:app",
            id="granian",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "gunicorn --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket --root-path /api shop:app",
            id="gunicorn",
            marks=pytest.mark.full,
        ),
    ],
)
def test_behind_a_proxy_that_cuts_off_the_root_path(arguments: str, tmp_path: Path, issuer: Issuer) -> None:
    """The public https://mcp.example.com/api/mcp is /mcp here; the path of the metadata document is not changed."""
    (tmp_path / "shop.py").write_text(SHOP)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "MCP_AUTH_RESOURCE": "https://mcp.example.com/api/mcp",
        "MCP_AUTH_AUTHORIZATION_SERVERS": json.dumps([{"issuer": issuer.url, "jwks": issuer.jwks()}]),
    }
    argv = [sys.executable, "-m", *arguments.format(port=port).split()]
    with (
        running(argv, ready_port=port, env=importing_from(tmp_path, env), cwd=tmp_path) as process,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        document = "/.well-known/oauth-protected-resource/api/mcp"
        assert document not in process.output  # no server's lifespan scope has a root path
        answer = client.get(document)
        assert (answer.status_code, answer.json()["resource"]) == (200, "https://mcp.example.com/api/mcp")
        refused = client.get("/mcp")
        assert refused.status_code == 401
        assert f'resource_metadata="https://mcp.example.com{document}"' in refused.headers["www-authenticate"]
        bearer = {"authorization": f"Bearer {issuer.mint('https://mcp.example.com/api/mcp')}"}
        assert client.get("/mcp", headers=bearer).text == "alice"
        assert process.output.count(f"{document} of the host root has to be routed") == 1


ROOT_PATH_IN_THE_APP = """\
from fastapi import FastAPI

from asgi_mcp_auth import MCPAuth

auth = MCPAuth.from_env()
app = FastAPI(root_path="/api")
"""


@pytest.mark.parametrize(
    "protect",
    [
        pytest.param("app = auth.wrap(app)", id="RS-53 wrap"),
        pytest.param(
            "from asgi_mcp_auth import MCPAuthMiddleware\napp.add_middleware(MCPAuthMiddleware, auth=auth)",
            id="RS-53 native",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_root_path_of_the_apps_is_warned_about_at_start_up(protect: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"{ROOT_PATH_IN_THE_APP}{protect}\n")
    env = {
        "MCP_AUTH_RESOURCE": "https://mcp.example.com/api/mcp",
        "MCP_AUTH_AUTHORIZATION_SERVERS": "https://auth.example.com",
    }
    with uvicorn("shop:app", app_dir=tmp_path, env=env) as server:
        warning = (
            "Mounted below '/api': /.well-known/oauth-protected-resource/api/mcp of the host root has to be routed"
        )
        assert warning in server.process.output


CALLED = """\
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from asgi_mcp_auth import MCPAuthMiddleware

async def websocket(socket):
    await socket.accept()

app = MCPAuthMiddleware(
    Starlette(routes=[
        Route("/mcp/secret", lambda request: PlainTextResponse("secret")),
        Route("/static/logo", lambda request: PlainTextResponse("logo")),
        WebSocketRoute("/mcp/ws", websocket),
    ]),
    resource="https://mcp.example.com/mcp",
    authorization_servers=["https://auth.example.com"],
    public_paths=["/static/*"],
)
"""


@pytest.mark.requirement("RS-2")
def test_daphne_lets_no_client_choose_what_is_public(tmp_path: Path) -> None:
    """Daphne takes the root path from a header field of the client; only some frameworks cut it off the path."""
    (tmp_path / "called.py").write_text(CALLED)
    port = free_port()
    argv = [sys.executable, "-m", "daphne", "--port", str(port), "called:app"]
    url = f"http://127.0.0.1:{port}"
    with running(argv, ready_url=url, env=importing_from(tmp_path, {}), cwd=tmp_path):
        claimed = {"daphne-root-path": "/static"}

        def status(path: str, headers: dict[str, str]) -> int:
            return httpx.get(f"{url}{path}", headers=headers, trust_env=False).status_code

        assert [status(path, {}) for path in ("/static/logo", "/mcp/secret", "/static/mcp/secret")] == [200, 401, 404]
        assert [status(path, claimed) for path in ("/mcp/secret", "/static/mcp/secret")] == [400, 400]
        for path in ("/mcp/ws", "/static/mcp/ws"):
            with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}{path}", additional_headers=claimed):
                pass
