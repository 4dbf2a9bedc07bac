"""The doctor's HTTP requests: bounded exchanges, one at a time; redirects are reported and not followed.

`Web` caches the responses of one run, so that a document of two targets is fetched once. URLs that other servers named
are requested only at public addresses; URLs that the user named, at any address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import httpx

from asgi_mcp_auth._keys.http import BodyRefusedError, Fetcher, read_decoded_body
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import parse_url, same_place
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth.errors import DiscoveryError

__all__ = ("BROWSER", "Answer", "Web")

BROWSER = "https://client.invalid"
"""The origin of a web page that no server knows."""
NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)
MAX_FAILURES = 3


class Answer(NamedTuple):
    """The response to one request, or in `failure` why there is none."""

    url: str
    status: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """The decoded body; None if the body is too large or cannot be decoded."""
    decoded: bool = True
    """False if the content coding is unknown or the body is not in that coding."""
    failure: str | None = None
    withheld: bool = False
    """True if no request was made, because the address is not public."""

    def field(self, name: str) -> str | None:
        """Return the value of a header field, or None; several lines are joined, as clients join them."""
        lines = self.lines(name)
        return ", ".join(lines) if lines else None

    def lines(self, name: str) -> list[str]:
        """Return each line of a header field."""
        return [value for known, value in self.fields if known == name]


async def _read(url: str, response: httpx.Response) -> Answer:
    answer = Answer(url, response.status_code, tuple((n.lower(), v) for n, v in response.headers.multi_items()))
    if response.headers.get("content-type", "").startswith("text/event-stream"):  # the stream may not end
        return answer._replace(body=b"")
    try:
        return answer._replace(body=await read_decoded_body(response))
    except BodyRefusedError as error:
        return answer._replace(decoded=error.too_large)


class Web:
    """The HTTP client of one run of the doctor.

    Args:
        fetcher: Makes the exchanges.
        named: URLs that the user named; their hosts may have any address.
        progress: Called with each URL before it is requested; for a URL from a configuration's reference, with the
            reference instead.
    """

    def __init__(
        self, fetcher: Fetcher, named: Iterable[str] = (), *, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self._fetcher = fetcher
        self._named = list(named)
        self._progress = progress
        self._answers: dict[tuple[Any, ...], Answer] = {}
        self._unreachable: dict[str, str] = {}
        self._failures: Counter[str] = Counter()

    def allow_any_address(self, url: str) -> None:
        """Allow requests to the host of `url` at any address, because the user's configuration names the URL."""
        self._named.append(url)

    async def ask(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """Return the answer to one request; a server's failure is part of the answer and never raised."""
        fields = {"origin": BROWSER} if headers is None else dict(headers)
        key = (url, method, tuple(fields.items()), content)
        if key not in self._answers:
            self._answers[key] = await self._ask(url, method, fields, content)
        return self._answers[key]

    async def _ask(self, url: str, method: str, headers: dict[str, str], content: bytes | None) -> Answer:
        if insecure_url(url, allow_http=False) == "is not an absolute URL":
            return Answer(url, failure="It is not an absolute URL.")
        parsed = parse_url(url)
        origin = url if parsed is None else parsed.origin
        if origin in self._unreachable:
            return Answer(url, failure=self._unreachable[origin])
        self._progress(f"({url.origin})" if isinstance(url, Referenced) else url)
        public_only = not any(same_place(url, named) for named in self._named)
        request: dict[str, Any] = {"method": method, "headers": headers}
        if content is not None:
            request["content"] = content

        async def read(response: httpx.Response) -> Answer:
            return await _read(url, response)

        try:
            return await self._fetcher.exchange(url, read, public_only=public_only, **request)
        except DiscoveryError as error:
            self._failures[origin] += error.transient
            # The other URLs of an origin without connections fail too. After three timeouts the origin is given up.
            if isinstance(error.cause, NO_CONNECTION) or self._failures[origin] >= MAX_FAILURES:
                self._unreachable[origin] = error.message
            return Answer(url, failure=error.message, withheld=not error.transient)
