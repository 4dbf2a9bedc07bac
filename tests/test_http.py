"""One bounded exchange, against a real server on loopback that misbehaves in every way it can."""

from __future__ import annotations

import gzip
import socket
import socketserver
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator
from typing import Any, cast

import anyio
import httpx
import pytest
from processes import free_port

from asgi_mcp_auth import __version__
from asgi_mcp_auth._keys import http as remote
from asgi_mcp_auth._keys.http import Fetched, Fetcher
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth.errors import DiscoveryError

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


Write = Callable[[bytes], None]


class Server(socketserver.ThreadingTCPServer):
    """Answers each path with raw bytes, written by a function; remembers what was asked and how much was written."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours: dict[str, Callable[[Write], None]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.written: dict[str, int] = {}
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast("Server", self.server)
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake, and this is no TLS
            return
        first = self.rfile.readline().decode("latin-1").split(" ")
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        path = first[1]
        server.requests.append((path, headers))
        server.written[path] = 0

        def write(data: bytes) -> None:
            self.wfile.write(data)
            server.written[path] += len(data)

        try:
            server.behaviours[path](write)
        except OSError:  # the client has hung up
            return


@pytest.fixture
def server() -> Generator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.ending.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def fetcher(monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    """The default client. Made here, outside the event loop, as configurations are."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return Fetcher()


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Callable[[Write], None]:
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return lambda write: write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


def raw(data: bytes) -> Callable[[Write], None]:
    return lambda write: write(data)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        pytest.param(answer(b'{"a": [1]}'), Fetched({"a": [1]}, None), id="DC-3 JSON"),
        pytest.param(answer(b"{}"), Fetched({}, None), id="DC-3 empty object"),
        pytest.param(
            answer(b'{"keys": []}', content_type="application/jwk-set+json"),
            Fetched({"keys": []}, None),
            id="DC-3 jwk-set+json",
        ),
        pytest.param(
            answer(b"{}", cache_control="max-age=60, public", age="7"),
            Fetched({}, 53.0),
            id="DC-8 lifetime headers",
        ),
        pytest.param(answer(b"{}", content_encoding="identity"), Fetched({}, None), id="DC-7 identity"),
        pytest.param(answer(b"{}", content_encoding="Identity"), Fetched({}, None), id="DC-7 identity in another case"),
        pytest.param(answer(b"{}", content_encoding=""), Fetched({}, None), id="DC-7 an empty coding"),
        pytest.param(answer(b"{}", content_encoding=" , "), Fetched({}, None), id="DC-7 an empty list of codings"),
        pytest.param(
            answer(gzip.compress(b'{"a":1}'), content_encoding="GZip"), Fetched({"a": 1}, None), id="DC-7 gzip"
        ),
        pytest.param(
            answer(gzip.compress(b'{"a":1}'), content_encoding="x-gzip"), Fetched({"a": 1}, None), id="DC-7 x-gzip"
        ),
        pytest.param(
            answer(gzip.compress(b'{"a":1}'), content_encoding="identity, gzip"),
            Fetched({"a": 1}, None),
            id="DC-7 gzip after identity",
        ),
        pytest.param(
            answer(zlib.compress(b'{"a":1}'), content_encoding="deflate"), Fetched({"a": 1}, None), id="DC-7 deflate"
        ),
        pytest.param(
            answer(zlib.compress(b'{"a":1}')[2:-4], content_encoding="deflate"),
            Fetched({"a": 1}, None),
            id="DC-7 deflate without the zlib header",
        ),
        pytest.param(answer(b"\xef\xbb\xbf{}"), Fetched({}, None), id="DC-3 a byte order mark"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            Fetched({}, None),
            id="chunked",
        ),
        pytest.param(raw(b"HTTP/1.0 200 OK\r\n\r\n{}"), Fetched({}, None), id="until the connection ends"),
        pytest.param(
            answer(b'{"a":"' + b"x" * (512 * 1024 - 8) + b'"}'),
            Fetched({"a": "x" * (512 * 1024 - 8)}, None),
            id="DC-3 exactly 512 KiB",
        ),
    ],
)
async def test_good_answers(
    behaviour: Callable[[Write], None], expected: Fetched, server: Server, fetcher: Fetcher
) -> None:
    server.behaviours["/x"] = behaviour
    assert await fetcher.fetch_json(f"{server.url}/x") == expected
    assert [path for path, _ in server.requests] == ["/x"]


@pytest.mark.parametrize(
    ("behaviour", "said", "transient"),
    [
        pytest.param(answer(b"<html>", content_type="text/html"), "not JSON", False, id="DC-3 HTML"),
        pytest.param(answer(b""), "not JSON", False, id="DC-3 nothing"),
        pytest.param(answer(b"[]"), "not a JSON object", False, id="DC-3 array"),
        pytest.param(answer(b'{"a":\xff}'), "not JSON", False, id="DC-3 not UTF-8 outside a string"),
        pytest.param(answer(b"\xff\xfe{\x00}\x00"), "not JSON", False, id="DC-3 UTF-16"),
        pytest.param(answer(b"{}{}"), "not JSON", False, id="DC-3 two objects"),
        pytest.param(answer(b'{"a":' + b"[1]," * 90_000 + b"1}"), "too many values", False, id="DC-3 many values"),
        pytest.param(answer(b'{"a":' * 5000 + b"1" + b"}" * 5000), "nested too deeply", False, id="DC-3 deep"),
        pytest.param(answer(b"{}", "201 Created"), "answered 201", False, id="DC-3 201"),
        pytest.param(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204", False, id="DC-3 204"),
        pytest.param(answer(b"{}", "206 Partial Content"), "answered 206", False, id="DC-3 206"),
        pytest.param(answer(b"{}", "400 Bad Request"), "answered 400", False, id="DC-3 400"),
        pytest.param(answer(b"{}", "401 Unauthorized"), "answered 401", False, id="DC-3 401"),
        pytest.param(answer(b"{}", "404 Not Found"), "answered 404", False, id="DC-3 404"),
        pytest.param(answer(b"{}", "408 Request Timeout"), "answered 408", True, id="DC-3 408"),
        pytest.param(answer(b"{}", "429 Too Many"), "answered 429", True, id="DC-3 429"),
        pytest.param(answer(b"{}", "500 Oops"), "answered 500", True, id="DC-3 500"),
        pytest.param(answer(b"{}", "503 Oops"), "answered 503", True, id="DC-3 503"),
        pytest.param(answer(b"{}", "599 Oops"), "answered 599", True, id="DC-3 599"),
        pytest.param(raw(b""), "could not be fetched: RemoteProtocolError", True, id="closed at once"),
        pytest.param(raw(b"hello\r\n\r\n"), "could not be fetched: RemoteProtocolError", True, id="not HTTP"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}"),
            "could not be fetched: RemoteProtocolError",
            True,
            id="closed early",
        ),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
            "could not be fetched: RemoteProtocolError",
            True,
            id="bad chunks",
        ),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\n" + b"x-header: " + b"a" * 200_000 + b"\r\n\r\n{}"),
            "could not be fetched: RemoteProtocolError",
            True,
            id="endless headers",
        ),
        pytest.param(
            answer(gzip.compress(b'{"a":"' + b" " * 50 * MIB + b'"}'), content_encoding="gzip"),
            "answered with more than 524288 bytes",
            False,
            id="DC-7 gzip bomb",
        ),
        pytest.param(
            answer(zlib.compress(b'{"a":"' + b" " * 50 * MIB + b'"}'), content_encoding="deflate"),
            "answered with more than 524288 bytes",
            False,
            id="DC-7 deflate bomb",
        ),
        pytest.param(
            answer(b"{}", content_encoding="br"), "content coding br, which was not requested", False, id="DC-7 br"
        ),
        pytest.param(
            answer(gzip.compress(gzip.compress(b"{}")), content_encoding="gzip, gzip"),
            "content coding gzip, gzip, which was not requested",
            False,
            id="DC-7 two codings",
        ),
        pytest.param(answer(b"{}", content_encoding="gzip"), "a body that is not gzip", False, id="DC-7 not gzip"),
        pytest.param(answer(b"{}", content_encoding="deflate"), "that is not deflate", False, id="DC-7 not deflate"),
        pytest.param(
            answer(gzip.compress(b"{}")[:-1], content_encoding="gzip"), "that is not gzip", False, id="DC-7 cut gzip"
        ),
        pytest.param(
            answer(gzip.compress(b"{}") + b"x", content_encoding="gzip"),
            "that is not gzip",
            False,
            id="DC-7 gzip and more",
        ),
        pytest.param(
            answer(gzip.compress(b"{") + gzip.compress(b"}"), content_encoding="gzip"),
            "that is not gzip",
            False,
            id="DC-7 two gzip members",
        ),
    ],
)
async def test_bad_answers(
    behaviour: Callable[[Write], None], said: str, transient: bool, server: Server, fetcher: Fetcher
) -> None:
    server.behaviours["/x"] = behaviour
    with pytest.raises(DiscoveryError) as caught:
        await fetcher.fetch_json(f"{server.url}/x")
    assert caught.value.message.startswith(f"{server.url}/x ")
    assert said in caught.value.message
    assert caught.value.transient is transient
    assert [path for path, _ in server.requests] == ["/x"]


@pytest.mark.requirement("DC-5")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(status: str, server: Server, fetcher: Fetcher) -> None:
    server.behaviours["/x"] = answer(b"{}", status, location="/canary")
    server.behaviours["/canary"] = answer(b"{}")
    with pytest.raises(DiscoveryError, match=f"answered {status[:3]}") as caught:
        await fetcher.fetch_json(f"{server.url}/x")
    assert caught.value.transient is False
    assert [path for path, _ in server.requests] == ["/x"]


@pytest.mark.requirement("DC-4")
async def test_what_is_sent(server: Server, fetcher: Fetcher) -> None:
    server.behaviours["/x"] = answer(b"{}", set_cookie="session=1; Path=/")
    for _ in range(2):
        await fetcher.fetch_json(f"{server.url}/x")
    for _, headers in server.requests:
        agent = headers.pop("user-agent")
        assert agent == f"asgi-mcp-auth/{__version__}"
        assert headers == {
            "host": server.url.removeprefix("http://"),
            "accept": "application/json",
            "accept-encoding": "identity",
            "connection": "keep-alive",
        }
    assert len(server.requests) == 2


def endless(write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    block = b" " * 64 * 1024
    for _ in range(100 * MIB // len(block)):
        write(b"%x\r\n%s\r\n" % (len(block), block))


def announced(write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (100 * MIB))
    for _ in range(100 * 16):
        write(b" " * 64 * 1024)


@pytest.mark.every_loop
# On trio httpx leaves its own generators to the garbage collector, which trio remarks on.
@pytest.mark.filterwarnings("ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "behaviour", [pytest.param(endless, id="DC-7 chunked"), pytest.param(announced, id="DC-7 announced")]
)
async def test_100_megabytes_are_not_read(behaviour: Callable[[Write], None], server: Server, fetcher: Fetcher) -> None:
    server.behaviours["/x"] = behaviour
    with pytest.raises(DiscoveryError, match="answered with more than 524288 bytes") as caught:
        await fetcher.fetch_json(f"{server.url}/x")
    assert caught.value.transient is False
    before = server.written["/x"]
    await anyio.sleep(0.05)
    assert before < 30 * MIB  # what fits into the sockets' buffers
    assert server.written["/x"] - before < 30 * MIB


def trickle(server: Server) -> Callable[[Write], None]:
    def write_slowly(write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not server.ending.wait(0.02):
            write(b" ")

    return write_slowly


def trickling_headers(server: Server) -> Callable[[Write], None]:
    def write_slowly(write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\n")
        while not server.ending.wait(0.02):
            write(b"x: y\r\n")

    return write_slowly


def hang(server: Server) -> Callable[[Write], None]:
    def say_nothing(write: Write) -> None:
        server.ending.wait(20)

    return say_nothing


@pytest.mark.every_loop
@pytest.mark.filterwarnings("ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(trickle, id="DC-7 trickling body"),
        pytest.param(trickling_headers, id="DC-7 trickling headers"),
        pytest.param(hang, id="DC-7 hanging"),
    ],
)
async def test_the_whole_exchange_has_one_time_limit(
    behaviour: Callable[[Server], Callable[[Write], None]],
    server: Server,
    fetcher: Fetcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "TOTAL_SECONDS", 0.3)
    server.behaviours["/x"] = behaviour(server)
    started = time.monotonic()
    with pytest.raises(DiscoveryError, match="could not be fetched: TimeoutError") as caught:
        await fetcher.fetch_json(f"{server.url}/x")
    assert 0.25 < time.monotonic() - started < 3
    assert caught.value.transient is True


@pytest.mark.requirement("DC-7")
def test_the_limits() -> None:
    assert (remote.CONNECT_SECONDS, remote.TOTAL_SECONDS, remote.MAX_BYTES) == (3.0, 10.0, 512 * 1024)


@pytest.mark.every_loop
async def test_a_refused_connection(fetcher: Fetcher) -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    with pytest.raises(DiscoveryError, match="could not be fetched: ConnectError") as caught:
        await fetcher.fetch_json(url)
    assert caught.value.transient is True


@pytest.mark.requirement("DC-4")
@pytest.mark.every_loop
async def test_tls_that_is_none(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(DiscoveryError, match="could not be fetched: ConnectError") as caught:
        await fetcher.fetch_json(server.url.replace("http:", "https:") + "/x")
    assert caught.value.transient is True
    assert server.requests == []


@pytest.mark.every_loop
async def test_a_cancellation_is_no_failure(server: Server, fetcher: Fetcher) -> None:
    server.behaviours["/x"] = hang(server)
    with anyio.move_on_after(0.1) as scope:
        await fetcher.fetch_json(f"{server.url}/x")
    assert scope.cancelled_caught


class Broken(httpx.AsyncBaseTransport):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise self.error


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("error", "said", "logged"),
    [
        pytest.param(httpx.ConnectTimeout("slow"), "ConnectTimeout slow", 0, id="a time-out"),
        pytest.param(httpx.PoolTimeout(""), "PoolTimeout", 0, id="without a text"),
        pytest.param(OSError(5, "io"), "OSError [Errno 5] io", 0, id="the system"),
        pytest.param(RuntimeError("bug"), "the http_client failed with RuntimeError", 1, id="a bug in it"),
        pytest.param(
            ExceptionGroup("many", [KeyError()]), "the http_client failed with ExceptionGroup", 1, id="a group"
        ),
    ],
)
async def test_a_client_of_the_users_own_that_fails(
    error: Exception, said: str, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    fetcher = Fetcher(lambda: httpx.AsyncClient(transport=Broken(error)))
    with pytest.raises(DiscoveryError) as caught:
        await fetcher.fetch_json("https://auth.example.com/x")
    assert caught.value.message == f"https://auth.example.com/x could not be fetched: {said}."
    assert caught.value.transient is True
    assert caught.value.cause is error
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert messages == ["The client that http_client made failed"] * logged


async def test_a_factory_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def factory() -> Any:
        raise RuntimeError("no client today")

    with pytest.raises(DiscoveryError, match="the http_client failed with RuntimeError") as caught:
        await Fetcher(factory).fetch_json("https://auth.example.com/x")
    assert caught.value.transient is True
    assert "no client today" in caplog.text


@pytest.mark.every_loop
async def test_each_fetch_has_a_client_of_its_own_and_closes_it() -> None:
    clients: list[httpx.AsyncClient] = []

    def factory() -> httpx.AsyncClient:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
        clients.append(httpx.AsyncClient(transport=transport))
        return clients[-1]

    fetcher = Fetcher(factory)
    assert clients == []
    for _ in range(2):
        await fetcher.fetch_json("https://auth.example.com/x")
    assert [client.is_closed for client in clients] == [True, True]


SECRET = "s3cret"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        pytest.param(f"/x?code={SECRET}", "{origin}/x?...", id="DC-6 the query of a URL"),
        pytest.param(Referenced(f"/{SECRET}/x", "from_env = 'JWKS'"), "(from_env = 'JWKS')", id="a referenced URL"),
    ],
)
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(answer(b"{}"), id="answered"),
        pytest.param(answer(b"{}", "500 Oops"), id="an error status"),
        pytest.param(answer(b"[]"), id="not an object"),
        pytest.param(answer(b"{}", content_encoding="br"), id="another coding"),
        pytest.param(raw(b"hello"), id="not HTTP"),
    ],
)
async def test_no_record_and_no_message_has_the_secrets_of_a_url(
    path: str, shown: str, behaviour: Callable[[Write], None], server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fetcher = Fetcher(lambda: httpx.AsyncClient(trust_env=False))
    server.behaviours[str(path)] = behaviour
    url = Referenced(server.url + path, path.origin) if isinstance(path, Referenced) else server.url + path
    said = ""
    try:
        await fetcher.fetch_json(url)
    except DiscoveryError as error:
        said = error.message
        assert said.startswith(shown.format(origin=server.url) + " ")
    assert SECRET not in said + caplog.text
    assert [path for path, _ in server.requests] == [path]


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        pytest.param(
            "socks5://user:s3cret@127.0.0.1:1", "ImportError Using SOCKS proxy, but the 'socksio'", id="SOCKS"
        ),
        pytest.param("ftp://user:s3cret@127.0.0.1:1", "ValueError Unknown scheme for proxy URL", id="unknown scheme"),
    ],
)
async def test_a_proxy_that_httpx_refuses_is_reported_as_the_cause(
    proxy: str, said: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(DiscoveryError, match="refuses the proxy in ALL_PROXY, HTTPS_PROXY or HTTP_PROXY") as caught:
        await fetcher.fetch_json("https://auth.example.com/x")
    assert said in caught.value.message
    assert "http_client=" in caught.value.message
    assert SECRET not in caught.value.message
    assert caplog.text == ""


async def test_the_cause_of_a_failure_is_not_cut_off(fetcher: Fetcher) -> None:
    cause = (
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, certificate is not valid for "
    )
    cause += "'login.a-long-name.identity.internal.example.com'. (_ssl.c:1028)"
    broken = Fetcher(lambda: httpx.AsyncClient(transport=Broken(httpx.ConnectError(cause))))
    with pytest.raises(DiscoveryError) as caught:
        await broken.fetch_json("https://auth.example.com/x")
    assert caught.value.message.endswith(f"ConnectError {cause}.")
