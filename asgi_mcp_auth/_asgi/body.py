"""Reading the body of a request before the app does, within bounds, and giving the app the same bytes."""

from __future__ import annotations

import re

from asgi_mcp_auth._asgi.asgi_types import Message, Receive
from asgi_mcp_auth._mcp.headers import WHITE, MCPFields
from asgi_mcp_auth._mcp.messages import malformed
from asgi_mcp_auth._verify.limits import within
from asgi_mcp_auth.errors import MessageRefused, MessageTooLarge, Reason, UnsupportedContent

__all__ = ("read_body", "replay", "without_body")

MAX_WAIT = 30.0  # seconds for a whole body, as gunicorn's default `timeout` for a worker and Heroku's router have it
JSON = b"application/json"
# JSON is UTF-8 (RFC 8259 section 8.1), but an app may follow the parameter: in UTF-7, ASCII hides other JSON.
_CHARSET = re.compile(rb"(?:\A|;)[ \t]*charset=(?:utf-?8|\"utf-?8\")[ \t]*(?=;|\Z)")


def _check_content(fields: MCPFields, limit: int) -> int | None:
    """Check the `Content-*` fields. Return the declared length, or None without one.

    Raises:
        MessageRefused: The body is not JSON, compressed, longer than `limit`, or a field is repeated or malformed.
    """
    if fields.repeated is not None and fields.repeated.startswith("Content-"):
        what = f"two {fields.repeated} lines"
        raise malformed(what)
    get = fields.get
    content_type, encoding, declared = get(b"content-type"), get(b"content-encoding"), get(b"content-length")
    if content_type != JSON and not _is_json(content_type or b""):
        raise UnsupportedContent(Reason.UNSUPPORTED_CONTENT, found=content_type)
    if encoding is not None and encoding.lower() not in (b"", b"identity"):
        raise UnsupportedContent(Reason.UNSUPPORTED_CONTENT, found=encoding)
    if declared is None:
        return None
    if not declared.isdigit():
        what = "a Content-Length that is no number"
        raise malformed(what)
    if len(declared) > len(str(limit)) or (length := int(declared)) > limit:
        raise MessageTooLarge(Reason.BODY_TOO_LARGE, expected=limit, found=declared)
    return length


def _is_json(content_type: bytes) -> bool:
    media_type, _, params = content_type.strip(WHITE).lower().partition(b";")
    return media_type.strip(WHITE) == JSON and params.count(b"charset") == len(_CHARSET.findall(params))


async def read_body(receive: Receive, fields: MCPFields, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        MessageRefused: The body is not JSON by its header fields, longer than `limit`, not as long as declared, too
            slow, or cut off.
    """
    try:
        return await within(MAX_WAIT, _read(receive, fields, limit))
    except TimeoutError:
        what = f"a body that took more than {MAX_WAIT:.0f} s"
        raise MessageRefused(Reason.MALFORMED_MESSAGE, found=what) from None


async def _read(receive: Receive, fields: MCPFields, limit: int) -> bytes:
    declared = _check_content(fields, limit)
    body: bytes | bytearray = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            what = "the client left"
            raise malformed(what)
        piece: bytes = message.get("body", b"")
        length = len(body) + len(piece)
        if length > limit:
            found = f"at least {length}"
            raise MessageTooLarge(Reason.BODY_TOO_LARGE, expected=limit, found=found)
        if not message.get("more_body"):
            if declared is not None and declared != length:
                what = "a body of another length than declared"
                raise malformed(what)
            return bytes(body + piece) if body else piece
        body = body or bytearray()  # one buffer: a list of tiny pieces would take many times their size
        body += piece


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what the server still sends: the disconnect."""
    pending: list[bytes] = [body]

    async def again() -> Message:
        if pending:  # popped, so that a long response does not hold the body
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return again


def without_body(receive: Receive) -> Receive:
    """Return a `receive` for a request that carries no message (GET, DELETE), without the body that it may have."""

    async def emptied() -> Message:
        message = await receive()
        return {**message, "body": b""} if message.get("body") else message

    return emptied
