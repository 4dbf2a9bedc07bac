"""Which addresses are fetched from if a token or a document named the host, and that they are the checked ones."""

from __future__ import annotations

import ipaddress
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from certificates import Authority
from harness import Clock, RecordingApp, bearer, call, protect, token
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import AuthServerConfig, Decision
from asgi_mcp_auth._keys import http
from asgi_mcp_auth._keys.addresses import is_public
from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth.errors import DiscoveryError
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("address", "public"),
    [
        pytest.param("8.8.8.8", True, id="DC-6 an ordinary address"),
        pytest.param("1.1.1.1", True, id="DC-6 another"),
        pytest.param("172.15.255.255", True, id="DC-6 before the private ones"),
        pytest.param("172.32.0.0", True, id="DC-6 after the private ones"),
        pytest.param("100.63.255.255", True, id="DC-6 before the shared ones"),
        pytest.param("223.255.255.255", True, id="DC-6 before multicast"),
        pytest.param("2606:4700:4700::1111", True, id="DC-6 an ordinary IPv6 address"),
        pytest.param("2A00:1450:4001:0:0:0:0:200E", True, id="DC-6 written at length"),
        pytest.param("::ffff:8.8.8.8", True, id="DC-6 mapped, public"),
        pytest.param("64:ff9b::8.8.8.8", True, id="DC-6 NAT64, public"),
        pytest.param("2002:808:808::1", True, id="DC-6 6to4, public"),
        pytest.param("0.0.0.0", False, id="DC-6 this host"),
        pytest.param("0.1.2.3", False, id="DC-6 this network"),
        pytest.param("10.0.0.1", False, id="DC-6 private 10"),
        pytest.param("172.16.0.1", False, id="DC-6 private 172.16"),
        pytest.param("172.31.255.255", False, id="DC-6 private 172.31"),
        pytest.param("192.168.1.1", False, id="DC-6 private 192.168"),
        pytest.param("100.64.0.1", False, id="DC-6 shared"),
        pytest.param("100.127.255.255", False, id="DC-6 shared, the last"),
        pytest.param("127.0.0.1", False, id="DC-6 loopback"),
        pytest.param("127.255.255.255", False, id="DC-6 loopback, the last"),
        pytest.param("169.254.169.254", False, id="DC-6 link-local: the metadata of a cloud"),
        pytest.param("192.0.0.1", False, id="DC-6 protocol assignments"),
        pytest.param("192.0.0.170", False, id="DC-6 NAT64 discovery"),
        pytest.param("192.0.2.1", False, id="DC-6 documentation 1"),
        pytest.param("198.51.100.1", False, id="DC-6 documentation 2"),
        pytest.param("203.0.113.1", False, id="DC-6 documentation 3"),
        pytest.param("198.18.0.1", False, id="DC-6 benchmarking"),
        pytest.param("224.0.0.1", False, id="DC-6 multicast"),
        pytest.param("239.255.255.255", False, id="DC-6 multicast, the last"),
        pytest.param("240.0.0.1", False, id="DC-6 reserved"),
        pytest.param("255.255.255.255", False, id="DC-6 broadcast"),
        pytest.param("::", False, id="DC-6 unspecified"),
        pytest.param("::1", False, id="DC-6 IPv6 loopback"),
        pytest.param("fe80::1", False, id="DC-6 IPv6 link-local"),
        pytest.param("fe80::1%eth0", False, id="DC-6 with a zone"),
        pytest.param("2606:4700:4700::1111%eth0", False, id="DC-6 a public one with a zone"),
        pytest.param("::ffff:8.8.8.8%eth0", False, id="DC-6 mapped, with a zone"),
        pytest.param("fc00::1", False, id="DC-6 unique local fc00"),
        pytest.param("fd12:3456:789a::1", False, id="DC-6 unique local fd00"),
        pytest.param("fec0::1", False, id="DC-6 site-local"),
        pytest.param("ff02::1", False, id="DC-6 IPv6 multicast"),
        pytest.param("ff0e::1", False, id="DC-6 IPv6 multicast, global"),
        pytest.param("2001:db8::1", False, id="DC-6 IPv6 documentation"),
        pytest.param("100::1", False, id="DC-6 discard"),
        pytest.param("2001:2::1", False, id="DC-6 IPv6 benchmarking"),
        pytest.param("64:ff9b:1::1", False, id="DC-6 NAT64, local use"),
        pytest.param("::ffff:127.0.0.1", False, id="DC-6 mapped loopback"),
        pytest.param("::ffff:7f00:1", False, id="DC-6 mapped loopback, in hexadecimal"),
        pytest.param("::ffff:169.254.169.254", False, id="DC-6 mapped link-local"),
        pytest.param("::ffff:0:127.0.0.1", False, id="DC-6 translated loopback"),
        pytest.param("::127.0.0.1", False, id="DC-6 IPv4-compatible loopback"),
        pytest.param("::10.0.0.1", False, id="DC-6 IPv4-compatible private"),
        pytest.param("64:ff9b::10.0.0.1", False, id="DC-6 NAT64 private"),
        pytest.param("64:ff9b::7f00:1", False, id="DC-6 NAT64 loopback"),
        pytest.param("2002:7f00:1::", False, id="DC-6 6to4 loopback"),
        pytest.param("2002:a00:1::1", False, id="DC-6 6to4 private"),
        pytest.param("2001:0:4136:e378:8000:63bf:3fff:fdd2", False, id="DC-6 Teredo"),
        pytest.param("4000::1", False, id="DC-6 not given out"),
        pytest.param("192.0.0.8", False, id="DC-6 IPv4 dummy address"),
        pytest.param("192.0.0.9", False, id="DC-6 port control anycast"),
        pytest.param("192.0.0.192", False, id="DC-6 metadata of a cloud, in protocol assignments"),
        pytest.param("192.0.1.0", True, id="DC-6 after the protocol assignments"),
        pytest.param("192.88.99.1", False, id="DC-6 6to4 relay anycast"),
        pytest.param("192.88.98.255", True, id="DC-6 before the 6to4 relay anycast"),
        pytest.param("192.31.196.1", False, id="DC-6 AS112"),
        pytest.param("192.175.48.1", False, id="DC-6 AS112 direct delegation"),
        pytest.param("192.52.193.1", False, id="DC-6 AMT"),
        pytest.param("168.63.129.16", False, id="DC-6 host of an Azure machine"),
        pytest.param("168.63.129.17", True, id="DC-6 after the host of an Azure machine"),
        pytest.param("3fff::1", False, id="DC-6 IPv6 documentation, RFC 9637"),
        pytest.param("3fff:fff:ffff::1", False, id="DC-6 IPv6 documentation, RFC 9637, the last"),
        pytest.param("3fff:1000::1", True, id="DC-6 after the IPv6 documentation block"),
        pytest.param("5f00::1", False, id="DC-6 SRv6 segment identifiers"),
        pytest.param("100:0:0:1::1", False, id="DC-6 dummy IPv6 prefix"),
        pytest.param("2001:4:112::1", False, id="DC-6 AS112 over IPv6"),
        pytest.param("2001:3::1", False, id="DC-6 AMT over IPv6"),
        pytest.param("2001:20::1", False, id="DC-6 ORCHIDv2"),
        pytest.param("2001:200::1", True, id="DC-6 after the IPv6 protocol assignments"),
        pytest.param("2620:4f:8000::1", False, id="DC-6 AS112 direct delegation over IPv6"),
        pytest.param("2606:4700::5efe:7f00:1", False, id="DC-6 ISATAP loopback"),
        pytest.param("2606:4700::200:5efe:7f00:1", False, id="DC-6 ISATAP loopback, universal bit"),
        pytest.param("2606:4700::5efe:192.0.0.8", False, id="DC-6 ISATAP special purpose"),
        pytest.param("2606:4700::5efe:8.8.8.8", True, id="DC-6 ISATAP public"),
        pytest.param("2002:808:808::5efe:a00:1", False, id="DC-6 6to4 public, ISATAP private"),
        pytest.param("2002:a00:1::5efe:808:808", False, id="DC-6 6to4 private, ISATAP public"),
        pytest.param("2002:c058:6301::", False, id="DC-6 6to4 relay anycast in 6to4"),
        pytest.param("::ffff:192.88.99.1", False, id="DC-6 mapped special purpose"),
        pytest.param("64:ff9b::192.0.0.8", False, id="DC-6 NAT64 special purpose"),
        pytest.param("", False, id="empty"),
        pytest.param("localhost", False, id="a name"),
        pytest.param("8.8.8", False, id="too short"),
        pytest.param("8.8.8.8.8", False, id="too long"),
        pytest.param("08.8.8.8", False, id="octal, perhaps"),
        pytest.param("0x08.8.8.8", False, id="hexadecimal"),
        pytest.param("134744072", False, id="one number"),
        pytest.param("8.8.8.8/32", False, id="a network"),
        pytest.param(" 8.8.8.8", False, id="a space"),
        pytest.param("[2606:4700:4700::1111]", False, id="brackets"),
        pytest.param("\u0668.8.8.8", False, id="a digit of another script"),
        pytest.param(":::", False, id="junk"),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_no_text_breaks_it(text: str) -> None:
    assert is_public(text) in (True, False)


PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
)
private = st.one_of(*(st.ip_addresses(v=4, network=network) for network in (*PRIVATE, "224.0.0.0/4", "240.0.0.0/4")))


@given(private, st.integers(0, 2**80 - 1))
def test_a_private_address_is_private_in_every_disguise(address: ipaddress.IPv4Address, rest: int) -> None:
    number = int(address)
    disguises = (
        *(number, 0xFFFF << 32 | number, 0xFFFF << 48 | number, 0x64_FF9B << 96 | number),
        0x2002 << 112 | number << 80 | rest,
        *(0x2606_4700 << 96 | (rest & 0xFFFF_FFFF) << 64 | isatap << 32 | number for isatap in (0x5EFE, 0x0200_5EFE)),
    )
    assert not is_public(str(address))
    for disguise in disguises:
        assert not is_public(str(ipaddress.IPv6Address(disguise))), ipaddress.IPv6Address(disguise)


@given(st.ip_addresses())
def test_a_public_address_is_not_private_for_python(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour):
        return  # only the embedded address counts
    assert not (address.is_private and is_public(str(address)))


@given(st.ip_addresses(v=6))
def test_only_what_is_given_out_is_public(address: ipaddress.IPv6Address) -> None:
    given_out = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("64:ff9b::/96")
    if is_public(str(address)) and address.ipv4_mapped is None:
        assert any(address in network for network in given_out)


# --- The guard, with names that resolve as we like ---


class Names:
    """What names resolve to, several answers in turn, the last one for good; it counts."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name[0].isdigit() or ":" in name:  # an address is no question
            return [self._info(name, int(port or 0))]
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        turns = self.answers[name]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        return [self._info(address, int(port or 0)) for address in addresses for _ in range(2)]

    @staticmethod
    def _info(address: str, port: int) -> Any:
        if ":" in address:
            return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """In place of the system's resolver, for the library and for its HTTP client."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the HTTP client connects to."""
    connected: list[str] = []
    real = {name: getattr(backend, "connect_tcp") for name, backend in backends().items()}  # noqa: B009 - any type
    for name, backend in backends().items():

        async def connect(self: Any, host: str, *args: Any, _real: Any = real[name], **options: Any) -> Any:
            connected.append(host)
            return await _real(self, host, *args, **options)

        monkeypatch.setattr(backend, "connect_tcp", connect)
    return connected


def backends() -> dict[str, Any]:
    from httpcore._backends import anyio as anyio_backend
    from httpcore._backends import trio as trio_backend

    return {"asyncio": anyio_backend.AnyIOBackend, "trio": trio_backend.TrioBackend}


@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        pytest.param(["10.0.0.1"], "10.0.0.1", id="DC-6 private"),
        pytest.param(["127.0.0.1"], "127.0.0.1", id="DC-6 loopback"),
        pytest.param(["169.254.169.254"], "169.254.169.254", id="DC-6 link-local"),
        pytest.param(["fd00::1"], "fd00::1", id="DC-6 unique local"),
        pytest.param(["::ffff:10.0.0.1"], "::ffff:10.0.0.1", id="DC-6 mapped"),
        pytest.param(["8.8.8.8", "10.0.0.1"], "10.0.0.1", id="DC-6 one among several"),
        pytest.param(["10.0.0.1", "8.8.8.8", "::1"], "10.0.0.1 ::1", id="DC-6 two among several"),
        pytest.param(["8.8.8.8"] + ["1.1.1.1"] * 8 + ["10.0.0.1"], "10.0.0.1", id="DC-6 the last of many"),
    ],
)
async def test_a_private_address_is_refused(
    addresses: list[str], shown: str, names: Names, connections: list[str]
) -> None:
    names.answers["keys.test"] = [addresses]
    with pytest.raises(DiscoveryError) as caught:
        await Fetcher().fetch_json("https://keys.test/jwks", public_only=True)
    assert caught.value.message == (
        f"https://keys.test/jwks was not fetched: its host has the address {shown}, which is not public, and the "
        "configuration does not name it. If it is to be trusted, set jwks_uri= or metadata_url= of the issuer."
    )
    assert caught.value.transient is False
    assert connections == []


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://10.0.0.1/jwks", id="DC-6 IPv4"),
        pytest.param("https://[::1]/jwks", id="DC-6 IPv6"),
        pytest.param("https://[fd00::1]:8443/jwks", id="DC-6 IPv6 with a port"),
        pytest.param("https://[::ffff:127.0.0.1]/jwks", id="DC-6 mapped"),
        pytest.param("https://localhost/jwks", id="DC-6 localhost"),
        pytest.param("https://0x7f000001/jwks", id="DC-6 one hexadecimal number"),
        pytest.param("https://0x7f.1/jwks", id="DC-6 a short one"),
        pytest.param("https://2130706433/jwks", id="DC-6 one number"),
        pytest.param("http://127.0.0.1/jwks", id="DC-6 http"),
    ],
)
async def test_a_private_address_in_the_url_is_refused(url: str, connections: list[str]) -> None:
    with pytest.raises(DiscoveryError, match="which is not public"):
        await Fetcher().fetch_json(url, public_only=True)
    assert connections == []


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop resolves names itself
async def test_a_name_that_cannot_be_resolved(names: Names, connections: list[str]) -> None:
    with pytest.raises(DiscoveryError, match=r"keys\.test.*gaierror") as caught:
        await Fetcher().fetch_json("https://keys.test/jwks", public_only=True)
    assert caught.value.transient is True
    assert connections == []


async def test_a_client_of_the_users_own_is_not_guarded(names: Names) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"host": request.url.host}))
    fetcher = Fetcher(lambda: httpx.AsyncClient(transport=transport))
    fetched = await fetcher.fetch_json("https://10.0.0.1/jwks", public_only=True)
    assert fetched.document == {"host": "10.0.0.1"}
    assert names.asked == []


# --- The guard, with a real server over TLS ---


class Server(socketserver.ThreadingTCPServer):
    """Serves documents by host and path over TLS; remembers the name in the handshake and the Host."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, address: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Handler)
        self.port: int = self.server_address[1]
        self.documents: dict[str, Any] = {}
        self.requests: list[tuple[str | None, str]] = []
        self.names: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.context = context


class Handler(socketserver.StreamRequestHandler):
    def setup(self) -> None:
        self.request = cast("Server", self.server).context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        server = cast("Server", self.server)
        path = self.rfile.readline().decode("latin-1").split(" ")[1]
        host = ""
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            host = value.strip() if name.lower() == "host" else host
        server.requests.append((server.names[-1], host))
        document = server.documents.get(f"https://{host}{path}")
        body = json.dumps(document).encode()
        status = "404 Not Found" if document is None else "200 OK"
        self.wfile.write(
            f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
        )

    def finish(self) -> None:
        super().finish()
        self.request.close()


class QuietServer(Server):
    """A client that refuses the certificate ends the handshake; that is what is tested, and no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class TLS:
    """Servers with certificates of our authority, and clients that trust it."""

    def __init__(self, authority: Authority, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.authority = authority
        self._directory = directory
        self._monkeypatch = monkeypatch
        self._running: list[tuple[Server, threading.Thread]] = []

    def serve(self, *names: str, address: str = "127.0.0.1") -> Server:
        """A server whose certificate is for these names."""
        server = QuietServer(self.authority.server_context(self._directory, *names), address)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self._running.append((server, thread))
        return server

    def fetcher(self, authority: Authority | None = None) -> Fetcher:
        """The default client, which trusts this authority."""
        self._monkeypatch.setattr(http, "_tls_context", (authority or self.authority).trust)
        return Fetcher()

    def stop(self) -> None:
        for server, thread in self._running:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def tls(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[TLS]:
    tls = TLS(authority, tmp_path, monkeypatch)
    yield tls
    tls.stop()


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the guard lets a server of the tests pass."""
    monkeypatch.setattr(http, "is_public", {"127.0.0.1", "127.0.0.2", "::1"}.__contains__)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop resolves names itself
@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize(
    ("certified", "trusted", "refusal"),
    [
        pytest.param("keys.test", True, None, id="DC-4 DC-6 the right name"),
        pytest.param("*.test", True, "Hostname mismatch", id="DC-4 DC-6 a wildcard for a whole top level"),
        pytest.param("other.test", True, "Hostname mismatch", id="DC-4 DC-6 another name"),
        pytest.param("127.0.0.1", True, "Hostname mismatch", id="DC-4 DC-6 only the address"),
        pytest.param("keys.test", False, "unable to get local issuer", id="DC-4 DC-6 an authority that is not trusted"),
    ],
)
async def test_the_certificate_is_held_to_the_name(
    certified: str, trusted: bool, refusal: str | None, tls: TLS, names: Names
) -> None:
    server: Server = tls.serve(certified)
    names.answers["keys.test"] = [["127.0.0.1"]]
    url = f"https://keys.test:{server.port}/jwks"
    server.documents[url] = {"keys": []}
    guarded = tls.fetcher(None if trusted else Authority())
    if refusal is None:
        assert (await guarded.fetch_json(url, public_only=True)).document == {"keys": []}
        assert server.requests == [("keys.test", f"keys.test:{server.port}")]
        return
    with pytest.raises(DiscoveryError, match=refusal) as caught:
        await guarded.fetch_json(url, public_only=True)
    assert caught.value.transient is True
    assert server.names == ["keys.test"]
    assert server.requests == []


@pytest.mark.requirement("DC-6")
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop resolves names itself
@pytest.mark.usefixtures("loopback_is_public")
async def test_the_connection_goes_where_was_looked(tls: TLS, names: Names, connections: list[str]) -> None:
    server: Server = tls.serve("keys.test")
    names.answers["keys.test"] = [["127.0.0.1"], ["10.66.66.66"]]  # a second look-up would lead elsewhere
    url = f"https://keys.test:{server.port}/jwks"
    server.documents[url] = {"keys": []}
    assert (await tls.fetcher().fetch_json(url, public_only=True)).document == {"keys": []}
    assert (names.asked, connections) == (["keys.test"], ["127.0.0.1"])


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop resolves names itself
@pytest.mark.usefixtures("loopback_is_public")
async def test_the_next_address_is_tried(tls: TLS, names: Names, connections: list[str]) -> None:
    server: Server = tls.serve("keys.test")
    names.answers["keys.test"] = [["127.0.0.2", "127.0.0.1"]]  # no server listens on the first
    url = f"https://keys.test:{server.port}/jwks"
    server.documents[url] = {}
    await tls.fetcher().fetch_json(url, public_only=True)
    assert connections == ["127.0.0.2", "127.0.0.1"]
    names.answers["keys.test"] = [["127.0.0.2"]]
    with pytest.raises(DiscoveryError, match="ConnectError"):
        await tls.fetcher().fetch_json(url, public_only=True)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop resolves names itself
async def test_only_so_many_addresses_are_tried(
    names: Names, connections: list[str], tls: TLS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "is_public", bool)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    names.answers["keys.test"] = [[f"127.0.0.{n}" for n in range(1, 10)]]
    with pytest.raises(DiscoveryError):
        await tls.fetcher().fetch_json(f"https://keys.test:{port}/", public_only=True)
    assert connections == ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_for_a_name(address: str, tls: TLS) -> None:
    server: Server = tls.serve(address, address=address)
    authority_part = f"[{address}]:{server.port}" if ":" in address else f"{address}:{server.port}"
    url = f"https://{authority_part}/jwks"
    server.documents[url] = {"keys": []}
    assert (await tls.fetcher().fetch_json(url, public_only=True)).document == {"keys": []}
    assert server.requests[0][1] == authority_part


# --- Whose word a place is ---


class Network:
    """An issuer, and whatever hosts it names, all on loopback over TLS."""

    def __init__(self, server: Server, names: Names, like: Issuer) -> None:
        self.server = server
        self.clock = like.clock
        self._keys = like.keys
        for name in ("auth.test", "keys.test", "meta.test", "a.id.test"):
            names.answers[name] = [["127.0.0.1"]]

    def origin(self, host: str) -> str:
        return f"https://{host}:{self.server.port}"

    def issuer(self, host: str, *, keys_at: str, metadata_at: str | None = None) -> Issuer:
        issuer = Issuer(self.origin(host), algorithms=(), clock=self.clock)
        issuer.keys = list(self._keys)
        jwks_uri = f"{self.origin(keys_at)}/jwks"
        place = f"{self.origin(metadata_at)}/meta.json" if metadata_at else None
        place = place or f"{issuer.url}/.well-known/oauth-authorization-server"
        self.server.documents[place] = issuer.metadata | {"jwks_uri": jwks_uri}
        self.server.documents[jwks_uri] = issuer.jwks()
        return issuer


@pytest.fixture
def network(tls: TLS, names: Names, issuer: Issuer) -> Network:
    tls.fetcher()
    return Network(tls.serve("auth.test", "keys.test", "meta.test", "a.id.test"), names, issuer)


async def refused_for(issuer: Issuer, clock: Clock, *servers: Any, **options: Any) -> str | None:
    """None if a token of the issuer passes; else why it gets 503."""
    seen: list[Decision] = []
    guarded = protect(
        issuer,
        RecordingApp(),
        clock=clock,
        on_decision=[seen.append],
        **({"authorization_servers": list(servers), "http_client": None} | options),
    )
    with anyio.fail_after(10):
        answer = await call(guarded, headers=bearer(token(issuer)))
    if answer.status == 200:
        return None
    assert (answer.status, seen[-1].reason) == (503, "keys_unavailable")
    assert seen[-1].refusal is not None
    return str(seen[-1].refusal.found)


@pytest.mark.requirement("DC-6")
async def test_the_operators_issuer_may_be_private(network: Network, clock: Clock) -> None:
    issuer = network.issuer("auth.test", keys_at="auth.test")
    assert await refused_for(issuer, clock, issuer.url) is None


@pytest.mark.requirement("DC-6", "DC-13")
async def test_keys_on_another_private_host(network: Network, clock: Clock) -> None:
    issuer = network.issuer("auth.test", keys_at="keys.test")
    message = await refused_for(issuer, clock, issuer.url)
    assert message is not None
    assert "127.0.0.1, which is not public" in message
    assert "set jwks_uri=" in message
    assert [host for _, host in network.server.requests] == [f"auth.test:{network.server.port}"]
    jwks_uri = f"{network.origin('keys.test')}/jwks"
    assert await refused_for(issuer, clock, AuthServerConfig(issuer=issuer.url, jwks_uri=jwks_uri)) is None
    assert await refused_for(issuer, clock, issuer.url, dangerously_allow_private_addresses=True) is None


async def test_with_an_own_client_the_guard_is_off(network: Network, authority: Authority, clock: Clock) -> None:
    issuer = network.issuer("auth.test", keys_at="keys.test")
    context = authority.trust()
    assert await refused_for(issuer, clock, issuer.url, http_client=lambda: httpx.AsyncClient(verify=context)) is None


@pytest.mark.parametrize("keys_at", ["meta.test", "auth.test"])
async def test_both_hosts_that_the_operator_wrote_are_his_word(keys_at: str, network: Network, clock: Clock) -> None:
    issuer = network.issuer("auth.test", keys_at=keys_at, metadata_at="meta.test")
    place = f"{network.origin('meta.test')}/meta.json"
    assert await refused_for(issuer, clock, AuthServerConfig(issuer=issuer.url, metadata_url=place)) is None


async def test_a_third_host_is_not(network: Network, clock: Clock) -> None:
    issuer = network.issuer("auth.test", keys_at="keys.test", metadata_at="meta.test")
    place = f"{network.origin('meta.test')}/meta.json"
    message = await refused_for(issuer, clock, AuthServerConfig(issuer=issuer.url, metadata_url=place))
    assert message is not None
    assert "which is not public" in message


@pytest.mark.requirement("DC-6")
@pytest.mark.parametrize("kind", ["pattern", "resolver"])
async def test_an_admitted_issuer_may_not_be_private(kind: str, network: Network, clock: Clock) -> None:
    named = network.issuer("auth.test", keys_at="auth.test")
    admitted = network.issuer("a.id.test", keys_at="a.id.test")
    pattern = AuthServerConfig(issuer_pattern=f"https://*.id.test:{network.server.port}")

    def resolve(issuer: str) -> AuthServerConfig:
        return AuthServerConfig(issuer=issuer)

    others = pattern if kind == "pattern" else resolve
    message = await refused_for(admitted, clock, named.url, others)
    assert message is not None
    assert "which is not public" in message
    assert network.server.requests == []
    assert await refused_for(admitted, clock, named.url, others, dangerously_allow_private_addresses=True) is None
