"""What the doctor asks over HTTP: one bounded exchange at a time, redirects reported and not followed.

It sends no credential but a made-up one, and remembers what was answered, so that a document of two targets is asked
for once. A host that others named is asked only at public addresses; what the user named, anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import httpx

from asgi_mcp_auth._keys.http import Fetcher, read_body
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import parse_url, same_place
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth.errors import DiscoveryError

__all__ = ("BROWSER", "Answer", "Web")

BROWSER = "https://client.invalid"
"""The origin of a web page that nobody has heard of."""
NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)
MAX_FAILURES = 3


class Answer(NamedTuple):
    """What came back for one request; `failure` says why nothing did."""

    url: str
    status: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """None for one that is too large or encoded."""
    failure: str | None = None
    withheld: bool = False
    """Whether it was not asked, because of where it is."""

    def field(self, name: str) -> str | None:
        """The value of a header field; several lines joined, as clients see them."""
        lines = self.lines(name)
        return ", ".join(lines) if lines else None

    def lines(self, name: str) -> list[str]:
        """Each line of a header field."""
        return [value for known, value in self.fields if known == name]


async def _read(url: str, response: Any) -> Answer:
    fields = tuple((name.lower(), value) for name, value in response.headers.multi_items())
    coded = response.headers.get("content-encoding", "identity") != "identity"
    if response.headers.get("content-type", "").startswith("text/event-stream"):  # it need not end
        return Answer(url, response.status_code, fields, b"")
    return Answer(url, response.status_code, fields, None if coded else await read_body(response))


class Web:
    """Asks, for one run of the doctor.

    Args:
        fetcher: Makes the exchanges.
        named: URLs that the user named: their hosts may be anywhere.
        progress: Told of each URL before it is asked; of one that a configuration refers to, where it stands.
    """

    def __init__(
        self, fetcher: Fetcher, named: Iterable[str] = (), *, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self._fetcher = fetcher
        self._named = list(named)
        self._progress = progress
        self._known: dict[tuple[Any, ...], Answer] = {}
        self._dead: dict[str, str] = {}
        self._failures: Counter[str] = Counter()

    def name(self, url: str) -> None:
        """Let the host of `url` be anywhere too: a configuration names it."""
        self._named.append(url)

    async def ask(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """One exchange; never an exception for what a server does."""
        fields = {"origin": BROWSER} if headers is None else dict(headers)
        key = (url, method, tuple(fields.items()), content)
        if key not in self._known:
            self._known[key] = await self._ask(url, method, fields, content)
        return self._known[key]

    async def _ask(self, url: str, method: str, headers: dict[str, str], content: bytes | None) -> Answer:
        if insecure_url(url, allow_http=False) == "is not an absolute URL":
            return Answer(url, failure="It is not an absolute URL.")
        parsed = parse_url(url)
        origin = url if parsed is None else parsed.origin
        if origin in self._dead:
            return Answer(url, failure=self._dead[origin])
        self._progress(f"({url.origin})" if isinstance(url, Referenced) else url)
        public_only = not any(same_place(url, named) for named in self._named)
        request: dict[str, Any] = {"method": method, "headers": headers}
        if content is not None:
            request["content"] = content

        async def read(response: Any) -> Answer:
            return await _read(url, response)

        try:
            return await self._fetcher.exchange(url, read, public_only=public_only, **request)
        except DiscoveryError as error:
            self._failures[origin] += error.transient
            # So would its other places; and a server that lets each of them wait is not waited for again and again.
            if isinstance(error.cause, NO_CONNECTION) or self._failures[origin] >= MAX_FAILURES:
                self._dead[origin] = error.message
            return Answer(url, failure=error.message, withheld=not error.transient)
