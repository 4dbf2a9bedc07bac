"""HTTP exchanges as a server sees them: an ASGI app goes in, the same app comes out, and each exchange is told.

An exchange is told once its answer is whole, just before the last of it is sent, so that the order told is the order
in which a client acts. An event stream, which may never end, is told when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object

__all__ = ("Exchange", "observed")

KEPT = 64 * 1024
FAILED = 500  # what servers answer for an app that raises
EVENT_STREAM = "text/event-stream"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer. It holds tokens and codes: its repr shows none, and nobody should print it whole.

    Attributes:
        server: The name that the app was given.
        method: The request method.
        path: The decoded path.
        query: The query parameters; of repeated ones the last.
        status: The status of the answer.
        request_fields: The request's header fields by lower-case name; of repeated ones the last.
        response_fields: The same of the answer.
        request_body: Its first 64 KiB.
        response_body: The same of the answer; empty for an event stream.
    """

    server: str
    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    status: int
    request_fields: Mapping[str, str] = field(repr=False)
    response_fields: Mapping[str, str] = field(repr=False)
    request_body: bytes = field(repr=False)
    response_body: bytes = field(repr=False)

    @property
    def form(self) -> Mapping[str, str]:
        """The request's form, empty where it has none."""
        if not self.request_fields.get("content-type", "").startswith(FORM):
            return {}
        return dict(parse_qsl(self.request_body.decode("latin-1")))

    @property
    def message(self) -> Mapping[str, Any]:
        """The request's JSON object (a JSON-RPC message, a registration), empty where it has none."""
        return _object(self.request_body)

    @property
    def answer(self) -> Mapping[str, Any]:
        """The answer's JSON object, empty where it has none."""
        return _object(self.response_body)

    @property
    def operation(self) -> str | None:
        """The JSON-RPC method of the request, with the tool that it calls; None where nobody read or said it."""
        method, params = self.message.get("method"), self.message.get("params")
        name = cast("dict[str, Any]", params).get("name") if isinstance(params, dict) else None
        if not isinstance(method, str):  # a refused request's body is not read, but newer clients repeat it in fields
            method, name = self.request_fields.get("mcp-method"), self.request_fields.get("mcp-name")
        return f"{method} {name}" if method == "tools/call" else method

    @property
    def sent_to(self) -> tuple[str, Mapping[str, str]] | None:
        """Where the answer redirects to, as the URL without its query, and the query."""
        location = self.response_fields.get("location")
        if location is None:
            return None
        parts = urlsplit(location)
        return parts._replace(query="", fragment="").geturl(), dict(parse_qsl(parts.query))


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        return load_object(body)
    except JSONRefused:
        return {}


def _fields(headers: Any) -> dict[str, str]:
    return {bytes(name).lower().decode("latin-1"): bytes(value).decode("latin-1") for name, value in headers}


class _Observation:
    """One exchange while it goes on: its `receive` and its `send`."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._asked = bytearray()
        self._answered = bytearray()
        self._start: dict[str, Any] = {}
        self._held_back = False

    async def receive(self) -> Any:
        """The next part of the request."""
        message = await self._receive()
        self._asked.extend(message.get("body", b"")[: KEPT - len(self._asked)])
        return message

    async def send(self, message: Any, tell: Callable[[], None]) -> None:
        """Send a part of the answer; `tell` is called before the last one, or before an event stream."""
        if message["type"] == "http.response.start":
            self._start.update(message)
            self._held_back = True
            if not _fields(message.get("headers", ())).get("content-type", "").startswith(EVENT_STREAM):
                return  # until there is a body: with a Content-Length of 0, this alone would be the whole answer
            tell()
        elif message["type"] == "http.response.body":
            self._answered.extend(message.get("body", b"")[: KEPT - len(self._answered)])
            if not message.get("more_body"):
                tell()
        if self._held_back:
            self._held_back = False
            await self._send(self._start)
        if message["type"] != "http.response.start":
            await self._send(message)

    def exchange(self, server: str) -> Exchange:
        """What is known of it by now."""
        return Exchange(
            server=server,
            method=self._scope["method"],
            path=self._scope["path"],
            query=dict(parse_qsl(self._scope["query_string"].decode("latin-1"))),
            status=self._start.get("status", FAILED),
            request_fields=_fields(self._scope["headers"]),
            response_fields=_fields(self._start.get("headers", ())),
            request_body=bytes(self._asked),
            response_body=bytes(self._answered),
        )


def observed(app: Any, server: str, tell: Callable[[Exchange], None]) -> Any:
    """The app, telling each of its HTTP exchanges; `tell` is called in the server's event loop and must not block."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        observation = _Observation(scope, receive, send)
        told = False

        def tell_once() -> None:
            nonlocal told
            if not told:
                told = True
                tell(observation.exchange(server))

        async def speak(message: Any) -> None:
            await observation.send(message, tell_once)

        try:
            await app(scope, observation.receive, speak)
        finally:
            tell_once()  # also where the app raised, and the server answers for it

    return outer
