"""One bounded exchange, most often: GET a JSON object (OAuth 2.1 section 1.5, RFC 9728 section 7.7).

Bounded in time and in bytes, no redirects, no cookies, no credentials, and no content coding, so that
a small answer cannot unpack into a large one.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from asgi_mcp_auth._keys.addresses import is_public
from asgi_mcp_auth._oauth.http_cache import stated_lifetime
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth.errors import DiscoveryError, printable

__all__ = ("MAX_BYTES", "ClientFactory", "Fetched", "Fetcher", "HTTPClient", "UntrustedLimits", "read_body")

logger = logging.getLogger("asgi_mcp_auth.http")


T = TypeVar("T")


class HTTPClient(Protocol):
    """What is used of httpx's `AsyncClient`: it opens, streams one answer, and closes."""

    async def __aenter__(self) -> Any:
        """Give the client."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Close it."""
        ...

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        """As `httpx.AsyncClient.stream`."""
        ...


ClientFactory = Callable[[], HTTPClient]

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
MAX_BYTES = 512 * 1024
MAX_ADDRESSES = 4
NOTHING: Mapping[str, str] = MappingProxyType({})

OK = 200
JSON_TYPE = r"(?i)application/(?:[a-z0-9.+-]+\+)?json[ \t]*(?:;|\Z)"  # compiled when a stranger's document comes
TRY_AGAIN = (408, 429)
SERVER_ERROR = 500


class Fetched(NamedTuple):
    """A JSON object, and for how many seconds its server says that it is fresh."""

    document: dict[str, Any]
    lifetime: float | None


class UntrustedLimits(NamedTuple):
    """Tighter bounds, for documents whose URLs come from strangers, which have to be JSON by their media type too.

    Attributes:
        max_bytes: How long a document may be.
        seconds: How long the whole exchange may take.
        loopback: Whether, of the addresses that are not public, those of this machine may be asked.
    """

    max_bytes: int
    seconds: float
    loopback: bool = False


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One for the process: loading the certificate store takes tens of milliseconds."""
    import httpx  # noqa: PLC0415 - only whoever constructs a Fetcher pays for it

    return httpx.create_ssl_context()


@functools.cache
def _import_client() -> None:
    """Import everything that a first fetch imports, so that no request waits for it: 100 ms and a subprocess of trio's.

    httpx imports httpcore when a client is made, httpcore imports trio where it is installed, and anyio imports the
    module of its backend inside the event loop. Host names are encoded with the codec `idna`.
    """
    for name in ("httpcore", "concurrent.futures.thread", "encodings.idna", "anyio._backends._asyncio"):
        importlib.import_module(name)
    if "trio" in sys.modules:
        importlib.import_module("anyio._backends._trio")
    "".encode("unicode_escape")  # imports the codec, which log records need


def _words(error: BaseException) -> str:
    """What an exception says, or else what lies below it: on trio a refused certificate stands two deeper."""
    below: BaseException | None = error
    while below is not None and not str(below):
        below = below.__cause__ or below.__context__
    return str(below or "")


def _of_this_machine(address: str) -> bool:
    return is_loopback(f"[{address}]" if ":" in address else address)


async def _public_addresses(host: str, url: str, untrusted_limits: UntrustedLimits | None) -> list[str]:
    """What a host name resolves to, every one of them a public address, or one of this machine if those may be."""
    import anyio  # noqa: PLC0415

    loopback = untrusted_limits is not None and untrusted_limits.loopback
    found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
    private = [a for a in addresses if not (is_public(a) or (loopback and _of_this_machine(a)))]
    if private or not addresses:
        msg = f"{url} was not fetched: its host has the address {printable(' '.join(private))}, which is not public"
        if untrusted_limits is None:
            msg += ", and the configuration does not name it. "
            msg += "If it is to be trusted, set jwks_uri= or metadata_url= of the issuer"
        raise DiscoveryError(f"{msg}.", transient=False)
    return addresses[:MAX_ADDRESSES]


class Fetcher:
    """Fetches JSON objects. Constructing one loads httpx and what is used of anyio, so that no request has to.

    Args:
        new_client: Makes the client of one fetch. Default: a short-lived `httpx.AsyncClient` over one TLS context,
            so that nothing is bound to an event loop.
    """

    def __init__(self, new_client: ClientFactory | None = None) -> None:
        import anyio.lowlevel  # noqa: PLC0415 - importing the package is to stay cheap, here and in all that waits
        import httpx  # noqa: PLC0415

        _import_client()
        _ = anyio.CancelScope, anyio.Event, anyio.lowlevel  # it imports the modules of its names when asked for them
        self._is_ours = new_client is None
        self._new_client = new_client or functools.partial(httpx.AsyncClient, verify=_tls_context())
        self._timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._URL = httpx.URL
        self._connect_failures = (httpx.ConnectError, httpx.ConnectTimeout)
        # TimeoutError is an OSError; a name that cannot be one is a UnicodeError.
        self._failures = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError)

    async def fetch_json(
        self, url: str, *, public_only: bool = False, untrusted_limits: UntrustedLimits | None = None
    ) -> Fetched:
        """GET a JSON object from `url`; the parameters and what is raised are those of `exchange`."""
        read = functools.partial(_read_json, url, untrusted_limits)
        return await self.exchange(url, read, public_only=public_only, untrusted_limits=untrusted_limits)

    async def exchange(
        self,
        url: str,
        read: Callable[[Any], Awaitable[T]],
        *,
        public_only: bool = False,
        untrusted_limits: UntrustedLimits | None = None,
        **request: Any,
    ) -> T:
        """Ask for `url`, and read the answer with `read`; redirects are not followed.

        Args:
            url: Where it is.
            read: Makes something of httpx's unread `Response`; raises `DiscoveryError` for what it does not want.
            public_only: Whether to refuse hosts with an address that is not public, and to connect to an address
                that was checked. A client of the user's own resolves names itself, and is not guarded.
            untrusted_limits: Tighter bounds; None for those of documents that the configuration leads to.
            request: `method`, `headers` and `content`; a GET of JSON without them.

        Raises:
            DiscoveryError: For all that can go wrong; `transient` for time-outs, refused connections and 5xx.
        """
        import anyio  # noqa: PLC0415

        try:
            with anyio.fail_after(TOTAL_SECONDS if untrusted_limits is None else untrusted_limits.seconds):
                async with self._new_client() as client:
                    if not (public_only and self._is_ours):
                        return await self._exchange(client, url, read, **request)
                    return await self._exchange_guarded(client, url, read, untrusted_limits, **request)
        except DiscoveryError:
            raise
        except self._failures as error:
            msg = f"{url} could not be fetched: {type(error).__name__} {printable(_words(error))}".rstrip() + "."
            raise DiscoveryError(msg, transient=True, cause=error) from error
        except Exception as error:  # a client of the user's own
            logger.exception("The client that http_client made failed")
            msg = f"{url} could not be fetched: the http_client failed with {type(error).__name__}."
            raise DiscoveryError(msg, transient=True, cause=error) from error

    async def _exchange_guarded(
        self,
        client: HTTPClient,
        url: str,
        read: Callable[[Any], Awaitable[T]],
        untrusted_limits: UntrustedLimits | None,
        **request: Any,
    ) -> T:
        """The exchange with an address that was checked; the certificate is still held to the name (RFC 9110 4.3.4)."""
        named = self._URL(url)
        name, addresses = named.host, await _public_addresses(named.host, url, untrusted_limits)
        headers = {"host": named.netloc.decode("ascii"), **request.pop("headers", NOTHING)}
        request |= {"headers": headers, "extensions": {"sni_hostname": name}}
        for place, address in enumerate(addresses, 1):
            try:
                return await self._exchange(client, str(named.copy_with(host=address)), read, **request)
            except self._connect_failures:
                if place == len(addresses):
                    raise
        raise AssertionError  # pragma: no cover - there is at least one address

    async def _exchange(
        self,
        client: HTTPClient,
        at: str,
        read: Callable[[Any], Awaitable[T]],
        *,
        method: str = "GET",
        headers: Mapping[str, str] = NOTHING,
        **options: Any,
    ) -> T:
        headers = {"accept": "application/json", "accept-encoding": "identity", **headers}
        options |= {"headers": headers, "follow_redirects": False, "timeout": self._timeout}
        async with client.stream(method, at, **options) as response:
            return await read(response)


async def read_body(response: Any, limit: int | None = None) -> bytes | None:
    """The body of an answer, or None if it is longer than `limit`, or than `MAX_BYTES`."""
    import anyio  # noqa: PLC0415

    limit = MAX_BYTES if limit is None else limit
    body = bytearray()
    # Left by cancellation, because trio complains of the generators inside when one is left by an exception.
    with anyio.CancelScope() as reading:
        async for chunk in response.aiter_bytes():  # nothing to decode: identity was asked for
            body += chunk
            if len(body) > limit:
                reading.cancel()
    return bytes(body) if len(body) <= limit else None


async def _read_json(url: str, untrusted_limits: UntrustedLimits | None, response: Any) -> Fetched:
    status, coding = response.status_code, response.headers.get("content-encoding", "identity")
    if status != OK:  # RFC 8414 section 3.2; a redirect is not followed
        msg = f"{url} answered {status}."
        raise DiscoveryError(msg, transient=status >= SERVER_ERROR or status in TRY_AGAIN)
    if coding != "identity":
        msg = f"{url} answered with the content coding {printable(coding)}, which was not asked for."
        raise DiscoveryError(msg, transient=False)
    if untrusted_limits is not None and not re.match(JSON_TYPE, response.headers.get("content-type", "")):
        msg = f"{url} answered with {printable(response.headers.get('content-type'))}, not application/json."
        raise DiscoveryError(msg, transient=False)
    limit = MAX_BYTES if untrusted_limits is None else untrusted_limits.max_bytes
    body = await read_body(response, limit)
    if body is None:
        msg = f"{url} answered with more than {limit} bytes."
        raise DiscoveryError(msg, transient=False)
    try:
        document = load_object(body)
    except JSONRefused as error:
        msg = f"{url} did not answer with a JSON object: {error}."
        raise DiscoveryError(msg, transient=False) from None
    named = (response.headers.get(name) for name in ("cache-control", "age", "expires", "date"))
    return Fetched(document, stated_lifetime(*named))
