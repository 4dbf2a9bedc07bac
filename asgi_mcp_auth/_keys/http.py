"""Bounded HTTP exchanges, most often GET of a JSON document (OAuth 2.1 section 1.5, RFC 9728 section 7.7).

An exchange has one time limit and one size limit. Redirects are not followed, and neither cookies nor credentials are
sent. No message and no log record of an exchange has the query of its URL.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
import socket
import ssl
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import anyio
import anyio.lowlevel

from asgi_mcp_auth._keys.addresses import is_public
from asgi_mcp_auth._oauth.grammar import JSON_TYPE
from asgi_mcp_auth._oauth.http_cache import stated_lifetime
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object, load_tolerant
from asgi_mcp_auth._oauth.urls import is_loopback
from asgi_mcp_auth._policy.problems import show_url
from asgi_mcp_auth._version import __version__
from asgi_mcp_auth.errors import DiscoveryError, printable

if TYPE_CHECKING:
    import httpx

__all__ = (
    "MAX_BYTES",
    "BodyRefusedError",
    "ClientFactory",
    "Fetched",
    "Fetcher",
    "HTTPClient",
    "RequestOptions",
    "UntrustedLimits",
    "read_body",
    "read_decoded_body",
)

logger = logging.getLogger("asgi_mcp_auth.http")


T = TypeVar("T")


class HTTPClient(AbstractAsyncContextManager[Any], Protocol):
    """The part of `httpx.AsyncClient` that is used."""

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request as `httpx.AsyncClient.stream` does."""
        ...


ClientFactory = Callable[[], HTTPClient]

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
MAX_BYTES = 512 * 1024
MAX_ADDRESSES = 4
MAX_CAUSE = 512  # characters; a TLS error with a host name takes more than 128
NOTHING: Mapping[str, str] = MappingProxyType({})
USER_AGENT = f"asgi-mcp-auth/{__version__}"

OK = 200
TRY_AGAIN = (408, 429)
SERVER_ERROR = 500

# RFC 9110 section 8.4.1. Some servers send deflate without the zlib header, against section 8.4.1.2.
GZIP, ZLIB, DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
CODINGS: Mapping[str, tuple[int, ...]] = {"gzip": (GZIP,), "x-gzip": (GZIP,), "deflate": (ZLIB, DEFLATE)}


class Fetched(NamedTuple):
    """A JSON object, and the seconds that its server says the object is fresh.

    The object may have the faults that `load_tolerant` confines, unless the exchange had `UntrustedLimits`.
    """

    document: JSONObject
    lifetime: float | None


class RequestOptions(TypedDict, total=False):
    """What a request may contain; default: GET, accepting JSON."""

    method: str
    headers: Mapping[str, str]
    content: bytes
    extensions: Mapping[str, str]


class UntrustedLimits(NamedTuple):
    """Limits for documents whose URLs come from unauthenticated clients. The media type must be JSON too.

    Attributes:
        max_bytes: The most bytes that a document may have.
        seconds: The most time that the exchange may take.
        loopback: Whether loopback addresses are allowed, of all addresses that are not public.
    """

    max_bytes: int
    seconds: float
    loopback: bool = False


class BodyRefusedError(ValueError):
    """A body that is too large or cannot be decoded. The message completes "answered with …"."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the process's TLS context: loading the certificate store takes tens of milliseconds."""
    import httpx  # noqa: PLC0415 - only constructing a Fetcher loads it

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


_shown_url: ContextVar[str | None] = ContextVar("shown_url", default=None)


@functools.cache
def _redact_httpx_records() -> None:
    """Take the secrets out of the URLs in httpx's own records of the requests that this module makes."""
    import httpx  # noqa: PLC0415

    def redact(record: logging.LogRecord) -> bool:
        shown = _shown_url.get()
        if shown is not None and isinstance(record.args, tuple):
            record.args = tuple(shown if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True

    logging.getLogger("httpx").addFilter(redact)


def _describe(error: BaseException) -> str:
    """Return the type and the text of an exception; on trio, only the cause of a TLS error has a text."""
    below: BaseException | None = error
    while below is not None and not str(below):
        below = below.__cause__ or below.__context__
    return f"{type(error).__name__} {printable(str(below or ''), MAX_CAUSE)}".rstrip()


def _is_loopback(address: str) -> bool:
    return is_loopback(f"[{address}]" if ":" in address else address)


async def _public_addresses(host: str, shown: str, untrusted_limits: UntrustedLimits | None) -> list[str]:
    """Resolve a host name; raise `DiscoveryError` unless all its addresses are public, or loopback where allowed."""
    loopback = untrusted_limits is not None and untrusted_limits.loopback
    found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    private = [a for a in addresses if not (is_public(a) or (loopback and _is_loopback(a)))]
    if private or not addresses:
        msg = f"{shown} was not fetched: its host has the address {printable(' '.join(private))}, which is not public"
        if untrusted_limits is None:
            msg += ", and the configuration does not name it. "
            msg += "If it is to be trusted, set jwks_uri= or metadata_url= of the issuer"
        raise DiscoveryError(f"{msg}.", transient=False)
    return addresses[:MAX_ADDRESSES]


class Fetcher:
    """Fetches JSON objects. The constructor loads what requests need, so that no request waits for an import.

    Args:
        new_client: Makes the client of one exchange. Default: an `httpx.AsyncClient` with the process's TLS context,
            for one exchange only, because a client belongs to one event loop.
    """

    def __init__(self, new_client: ClientFactory | None = None) -> None:
        import httpx  # noqa: PLC0415

        _import_client()
        _ = anyio.CancelScope, anyio.Event, anyio.lowlevel  # anyio imports the modules of its names on first use
        self._is_ours = new_client is None
        self._new_client = new_client or functools.partial(
            httpx.AsyncClient, verify=_tls_context(), headers={"user-agent": USER_AGENT}
        )
        self._timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._URL = httpx.URL
        self._connect_failures = (httpx.ConnectError, httpx.ConnectTimeout)
        # TimeoutError is an OSError; IDNA raises UnicodeError for some host names.
        self._failures = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError)
        _redact_httpx_records()

    async def fetch_json(
        self, url: str, *, public_only: bool = False, untrusted_limits: UntrustedLimits | None = None
    ) -> Fetched:
        """GET a JSON object from `url`; the parameters and exceptions are those of `exchange`."""
        read = functools.partial(_read_json, show_url(url), untrusted_limits)
        return await self.exchange(url, read, public_only=public_only, untrusted_limits=untrusted_limits)

    async def exchange(
        self,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        *,
        public_only: bool = False,
        untrusted_limits: UntrustedLimits | None = None,
        **request: Unpack[RequestOptions],
    ) -> T:
        """Send a request to `url` and return what `read` makes of the response. Redirects are not followed.

        Args:
            url: The URL. Its query is not shown in messages.
            read: Reads httpx's `Response`, whose body is unread; raises `DiscoveryError` to refuse the response.
            public_only: Whether to refuse hosts that have an address that is not public, and to connect to a checked
                address. A client of the user's own resolves names itself and is not guarded.
            untrusted_limits: Limits for a URL from an unauthenticated client; None for configured and discovered URLs.
            request: The method, the header fields and the content.

        Raises:
            DiscoveryError: For every failure; `transient` for time-outs, refused connections and 5xx.
        """
        shown = show_url(url)
        token = _shown_url.set(shown)
        try:
            with anyio.fail_after(TOTAL_SECONDS if untrusted_limits is None else untrusted_limits.seconds):
                async with self._make_client(shown) as client:
                    if not (public_only and self._is_ours):
                        return await self._exchange(client, url, read, **request)
                    return await self._exchange_guarded(client, url, read, untrusted_limits, **request)
        except DiscoveryError:
            raise
        except self._failures as error:
            msg = f"{shown} could not be fetched: {_describe(error)}."
            raise DiscoveryError(msg, transient=True, cause=error) from error
        except Exception as error:  # a client of the user's own may raise anything
            logger.exception("The client that http_client made failed")
            msg = f"{shown} could not be fetched: the http_client failed with {type(error).__name__}."
            raise DiscoveryError(msg, transient=True, cause=error) from error
        finally:
            _shown_url.reset(token)

    def _make_client(self, shown: str) -> HTTPClient:
        """Return a client; httpx reads the proxy settings of the environment each time."""
        try:
            return self._new_client()
        except Exception as error:
            if not self._is_ours:
                raise
            msg = (
                f"{shown} could not be fetched: httpx refuses the proxy in ALL_PROXY, HTTPS_PROXY or HTTP_PROXY: "
                f"{_describe(error)} Fix or unset the environment variable, or pass http_client=."
            )
            raise DiscoveryError(msg, transient=True, cause=error) from error

    async def _exchange_guarded(
        self,
        client: HTTPClient,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        untrusted_limits: UntrustedLimits | None,
        **request: Unpack[RequestOptions],
    ) -> T:
        """Connect to a checked address; the certificate is still verified for the host name (RFC 9110 4.3.4)."""
        named = self._URL(url)
        name, addresses = named.host, await _public_addresses(named.host, show_url(url), untrusted_limits)
        request["headers"] = {"host": named.netloc.decode("ascii"), **request.get("headers", NOTHING)}
        request["extensions"] = {"sni_hostname": name}
        for number, address in enumerate(addresses, 1):
            try:
                return await self._exchange(client, str(named.copy_with(host=address)), read, **request)
            except self._connect_failures:
                if number == len(addresses):
                    raise
        raise AssertionError  # pragma: no cover - there is at least one address

    async def _exchange(
        self,
        client: HTTPClient,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        **request: Unpack[RequestOptions],
    ) -> T:
        headers = {"accept": "application/json", "accept-encoding": "identity", **request.get("headers", NOTHING)}
        options = {**request, "headers": headers, "follow_redirects": False, "timeout": self._timeout}
        async with client.stream(str(options.pop("method", "GET")), url, **options) as response:
            return await read(response)


async def read_body(response: httpx.Response, limit: int) -> bytes | None:
    """Return the body of a response as sent, or None if the body has more than `limit` bytes."""
    # A transport that answers from memory has read and decoded the body (httpx.MockTransport).
    chunks = response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()
    body = bytearray()
    # Left by cancellation: trio warns of the generators inside if an exception leaves them.
    with anyio.CancelScope() as reading:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                reading.cancel()
    return bytes(body) if len(body) <= limit else None


async def read_decoded_body(
    response: httpx.Response, limit: int = MAX_BYTES, known: Mapping[str, tuple[int, ...]] = CODINGS
) -> bytes:
    """Return the body of a response without its content coding.

    gzip and deflate are decoded although identity was requested: some servers and proxies ignore `Accept-Encoding`.

    Raises:
        BodyRefusedError: The body, as sent or decoded, has more than `limit` bytes, or its content coding is another
            one or malformed.
    """
    fields = "" if response.is_stream_consumed else response.headers.get("content-encoding", "")
    codings = [coding for coding in map(str.strip, fields.lower().split(",")) if coding not in ("", "identity")]
    if codings and (len(codings) > 1 or codings[0] not in known):
        raise BodyRefusedError(f"the content coding {printable(', '.join(codings))}, which was not requested")
    body = await read_body(response, limit)
    if body is not None and codings:
        body = _decompress(body, codings[0], limit)
    if body is None or len(body) > limit:
        raise BodyRefusedError(f"more than {limit} bytes", too_large=True)
    return body


def _decompress(body: bytes, coding: str, limit: int) -> bytes:
    """Decode a body; the output ends after `limit` + 1 bytes.

    A second gzip member (RFC 1952 section 2.2) is refused: reading many empty members takes quadratic time.
    """
    for window_bits in CODINGS[coding]:
        decoder = zlib.decompressobj(window_bits)
        try:
            decoded = decoder.decompress(body, limit + 1)
        except zlib.error:
            continue
        if len(decoded) > limit or (decoder.eof and not decoder.unused_data):
            return decoded
    raise BodyRefusedError(f"a body that is not {coding}, its content coding")


async def _read_json(shown: str, untrusted_limits: UntrustedLimits | None, response: httpx.Response) -> Fetched:
    status = response.status_code
    if status != OK:  # RFC 8414 section 3.2; a redirect is not followed
        raise DiscoveryError(f"{shown} answered {status}.", transient=status >= SERVER_ERROR or status in TRY_AGAIN)
    if untrusted_limits is not None and not re.match(JSON_TYPE, response.headers.get("content-type", "")):
        msg = f"{shown} answered with {printable(response.headers.get('content-type'))}, not application/json."
        raise DiscoveryError(msg, transient=False)
    try:
        if untrusted_limits is None:
            document = load_tolerant(await read_decoded_body(response))
        else:
            document = load_object(await read_decoded_body(response, untrusted_limits.max_bytes, known={}))
    except BodyRefusedError as error:
        raise DiscoveryError(f"{shown} answered with {error}.", transient=False) from None
    except JSONRefused as error:
        raise DiscoveryError(f"{shown} did not answer with a JSON object: {error}.", transient=False) from None
    named = (response.headers.get(name) for name in ("cache-control", "age", "expires", "date"))
    return Fetched(document, stated_lifetime(*named))
