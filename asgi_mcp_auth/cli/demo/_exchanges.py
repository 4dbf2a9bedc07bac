"""Recording the HTTP exchanges of an ASGI app.

An exchange is reported when its response is complete, just before the last part is sent, so that exchanges are reported
in the order in which a client acts. An event stream, which may never end, is reported when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object

__all__ = ("HTTPExchange", "record_exchanges")

MAX_BODY = 64 * 1024
FAILED = 500  # the status that servers send for an app that raises
EVENT_STREAM = "text/event-stream"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPExchange:
    """One request and its response. It holds tokens and codes, which its repr does not show: never print it whole.

    Attributes:
        server: The name of the server.
        method: The request method.
        path: The decoded path.
        query: The query parameters; the last value of a repeated one.
        status: The status of the response.
        request_fields: The request's header fields by lower-case name; the last value of a repeated one.
        response_fields: The response's header fields, likewise.
        request_body: The first 64 KiB of the request body.
        response_body: The first 64 KiB of the response body; empty for an event stream.
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
        """Return the request's form, empty if it has none."""
        if not self.request_fields.get("content-type", "").startswith(FORM):
            return {}
        return dict(parse_qsl(self.request_body.decode("latin-1")))

    @property
    def request_object(self) -> Mapping[str, Any]:
        """Return the request's JSON object (a JSON-RPC message, a registration), empty if it has none."""
        return _object(self.request_body)

    @property
    def response_object(self) -> Mapping[str, Any]:
        """Return the response's JSON object, empty if it has none."""
        return _object(self.response_body)

    @property
    def operation(self) -> str | None:
        """Return the JSON-RPC method of the request, with the name of a called tool; None if the request names none."""
        method, params = self.request_object.get("method"), self.request_object.get("params")
        name = cast("dict[str, Any]", params).get("name") if isinstance(params, dict) else None
        if not isinstance(method, str):  # the body of a rejected request is not read; newer clients send fields too
            method, name = self.request_fields.get("mcp-method"), self.request_fields.get("mcp-name")
        return f"{method} {name}" if method == "tools/call" else method

    @property
    def redirect(self) -> tuple[str, Mapping[str, str]] | None:
        """Return the target of a redirect, as the URL without its query, and the query; None for other responses."""
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


class _Recording:
    """One exchange in progress: the `receive` and the `send` that record it."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_body = bytearray()
        self._response_body = bytearray()
        self._start: dict[str, Any] = {}
        self._start_pending = False

    async def receive(self) -> Any:
        """Return the next part of the request."""
        message = await self._receive()
        self._request_body.extend(message.get("body", b"")[: MAX_BODY - len(self._request_body)])
        return message

    async def send(self, message: Any, report: Callable[[], None]) -> None:
        """Send a part of the response; call `report` before the last part, or before an event stream."""
        if message["type"] == "http.response.start":
            self._start.update(message)
            self._start_pending = True
            if not _fields(message.get("headers", ())).get("content-type", "").startswith(EVENT_STREAM):
                return  # until there is a body: with a Content-Length of 0, the start alone completes the response
            report()
        elif message["type"] == "http.response.body":
            self._response_body.extend(message.get("body", b"")[: MAX_BODY - len(self._response_body)])
            if not message.get("more_body"):
                report()
        if self._start_pending:
            self._start_pending = False
            await self._send(self._start)
        if message["type"] != "http.response.start":
            await self._send(message)

    def exchange(self, server: str) -> HTTPExchange:
        """Return the exchange as far as it is recorded."""
        return HTTPExchange(
            server=server,
            method=self._scope["method"],
            path=self._scope["path"],
            query=dict(parse_qsl(self._scope["query_string"].decode("latin-1"))),
            status=self._start.get("status", FAILED),
            request_fields=_fields(self._scope["headers"]),
            response_fields=_fields(self._start.get("headers", ())),
            request_body=bytes(self._request_body),
            response_body=bytes(self._response_body),
        )


def record_exchanges(app: Any, server: str, on_exchange: Callable[[HTTPExchange], None]) -> Any:
    """Return the app with `on_exchange` called for each HTTP exchange, in the event loop: it must not block."""

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        recording = _Recording(scope, receive, send)
        reported = False

        def report() -> None:
            nonlocal reported
            if not reported:
                reported = True
                on_exchange(recording.exchange(server))

        async def record_and_send(message: Any) -> None:
            await recording.send(message, report)

        try:
            await app(scope, recording.receive, record_and_send)
        finally:
            report()  # also if the app raises: the server then responds for it

    return recorded
