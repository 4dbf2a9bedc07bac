"""The receiver of security events as an ASGI app: Shared Signals push (RFC 8935) and OIDC back-channel logout."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from asgi_mcp_auth._asgi.asgi_types import Receive
from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._oauth.responses import Response, json_response, refusal_response
from asgi_mcp_auth._oauth.security_event import EventRefusedError
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._signals.receiver import Receiver
from asgi_mcp_auth._verify.limits import within
from asgi_mcp_auth.errors import Unavailable

__all__ = ("EventsApp",)

MAX_BODY = 65_536
MAX_SECONDS = 10.0  # for a whole body
MAX_CONCURRENT = 64
EVENT_TYPE = b"application/secevent+jwt"
FORM_TYPE = b"application/x-www-form-urlencoded"
NO_STORE = (b"cache-control", b"no-store")
BUSY = json_response(503, {"error": "temporarily_unavailable"}, ((b"retry-after", b"1"),))


class EventsApp:
    """An ASGI app that receives security events and logout tokens by POST; the content type decides which.

    Args:
        receiver: Verifies and stores the events.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or complete a lifespan."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = RequestInfo(scope)
        if request.is_websocket or request.method != "POST":
            answer = json_response(405, {"detail": "Use POST"}, ((b"allow", b"POST"),))
        elif self._running >= MAX_CONCURRENT:
            answer = BUSY
        else:
            self._running += 1
            try:
                answer = await self._answer(request, receive)
            finally:
                self._running -= 1
        await send_response(answer, request, receive, send)

    async def _answer(self, request: RequestInfo, receive: Receive) -> Response:
        content_types = request.fields.get(b"content-type", [])
        media_type = content_types[0].partition(b";")[0].strip(b" \t").lower() if len(content_types) == 1 else b""
        if media_type not in (EVENT_TYPE, FORM_TYPE):
            return _refused("invalid_request", "The content type is not application/secevent+jwt")
        try:
            body = await within(MAX_SECONDS, _read(receive))
        except TimeoutError:
            body = None
        if body is None:
            return _refused("invalid_request", "The body is too large or not complete")
        try:
            if media_type == FORM_TYPE:
                await self._receiver.receive_logout(_logout_token(body))
                return Response(200, ((b"content-length", b"0"), NO_STORE))
            lines = request.fields.get(b"authorization", [])
            await self._receiver.receive_event(body, lines[0] if len(lines) == 1 else None)
            return Response(202, ((b"content-length", b"0"), NO_STORE))
        except EventRefusedError as refused:
            return _refused(refused.code, refused.description)
        except Unavailable as unavailable:
            return refusal_response(unavailable.without_traceback(), None)


def _refused(code: str, description: str) -> Response:
    # RFC 8935 section 2.3 has `err` and `description`; a logout fault may have any body.
    return json_response(400, {"err": code, "description": description}, ((b"content-language", b"en"),))


def _logout_token(body: bytes) -> bytes:
    try:
        form = parse_qs(body.decode("ascii"), max_num_fields=10, keep_blank_values=True)
    except ValueError:
        form = {}
    tokens = form.get("logout_token", [])
    if len(tokens) != 1:
        raise EventRefusedError("invalid_request", "The form does not contain exactly one logout_token")
    return tokens[0].encode("utf-8", "surrogatepass")


async def _read(receive: Receive) -> bytes | None:
    """Return the body; None if it is too large, or the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return bytes(body)
