"""One bounded exchange: GET a JSON object (OAuth 2.1 section 1.5, RFC 9728 section 7.7).

Bounded in time and in bytes, no redirects, no cookies, no credentials, and no content coding, so that
a small answer cannot unpack into a large one.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import anyio

from asgi_mcp_auth._protocol.strict_json import JSONRefused, load_object
from asgi_mcp_auth.errors import DiscoveryError, printable

__all__ = ("ClientFactory", "Fetched", "Fetcher", "HTTPClient")

logger = logging.getLogger("asgi_mcp_auth.http")


class HTTPClient(Protocol):
    """What is used of httpx's `AsyncClient`: it opens, streams one GET, and closes."""

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

OK = 200
TRY_AGAIN = (408, 429)
SERVER_ERROR = 500


class Fetched(NamedTuple):
    """A JSON object and the headers that say how long it lives."""

    document: dict[str, Any]
    cache_control: str | None
    age: str | None


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One for the process: loading the certificate store takes tens of milliseconds."""
    import httpx  # noqa: PLC0415 - only whoever constructs a Fetcher pays for it

    return httpx.create_ssl_context()


class Fetcher:
    """Fetches JSON objects. Constructing one loads httpx, so that no request has to.

    Args:
        new_client: Makes the client of one fetch. Default: a short-lived `httpx.AsyncClient` over one TLS context,
            so that nothing is bound to an event loop.
    """

    def __init__(self, new_client: ClientFactory | None = None) -> None:
        import httpx  # noqa: PLC0415 - importing the package is to stay cheap

        self._new_client = new_client or functools.partial(httpx.AsyncClient, verify=_tls_context())
        self._timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._failures = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)  # TimeoutError is an OSError

    async def fetch_json(self, url: str) -> Fetched:
        """GET a JSON object from `url`.

        Raises:
            DiscoveryError: For all that can go wrong; `transient` for time-outs, refused connections and 5xx.
        """
        try:
            with anyio.fail_after(TOTAL_SECONDS):
                async with self._new_client() as client:
                    return await self._exchange(client, url)
        except DiscoveryError:
            raise
        except self._failures as error:
            msg = f"{url} could not be fetched: {type(error).__name__} {printable(str(error))}".rstrip() + "."
            raise DiscoveryError(msg, transient=True, cause=error) from error
        except Exception as error:  # a client of the user's own
            logger.exception("The client that http_client made failed")
            msg = f"{url} could not be fetched: the http_client failed with {type(error).__name__}."
            raise DiscoveryError(msg, transient=True, cause=error) from error

    async def _exchange(self, client: HTTPClient, url: str) -> Fetched:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        options: dict[str, Any] = {"headers": headers, "follow_redirects": False, "timeout": self._timeout}
        async with client.stream("GET", url, **options) as response:
            status, coding = response.status_code, response.headers.get("content-encoding", "identity")
            if status != OK:  # RFC 8414 section 3.2; a redirect is not followed
                msg = f"{url} answered {status}."
                raise DiscoveryError(msg, transient=status >= SERVER_ERROR or status in TRY_AGAIN)
            if coding != "identity":
                msg = f"{url} answered with the content coding {printable(coding)}, which was not asked for."
                raise DiscoveryError(msg, transient=False)
            body = bytearray()
            async for chunk in response.aiter_bytes():  # nothing to decode: see above
                body += chunk
                if len(body) > MAX_BYTES:
                    msg = f"{url} answered with more than {MAX_BYTES} bytes."
                    raise DiscoveryError(msg, transient=False)
            try:
                document = load_object(bytes(body))
            except JSONRefused as error:
                msg = f"{url} did not answer with a JSON object: {error}."
                raise DiscoveryError(msg, transient=False) from None
            return Fetched(document, response.headers.get("cache-control"), response.headers.get("age"))
