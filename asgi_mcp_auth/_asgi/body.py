"""Reading a request's body before the app does, bounded, and handing it the same bytes again."""

from __future__ import annotations

import re
from typing import Any

from asgi_mcp_auth._protocol.mcp_headers import MCPFields
from asgi_mcp_auth._protocol.rpc import malformed
from asgi_mcp_auth._remote.limits import within
from asgi_mcp_auth.message_errors import MessageRefused, MessageTooLarge, UnsupportedContent
from asgi_mcp_auth.reasons import Reason

__all__ = ("read_body", "replay", "without_body")

LONGEST_WAIT = 30.0  # for a whole body
# JSON is UTF-8 (RFC 8259 section 8.1), but an app may heed the parameter: in UTF-7, ASCII hides other JSON.
_CHARSET = re.compile(rb"(?:\A|;)[ \t]*charset=(?:utf-?8|\"utf-?8\")[ \t]*(?=;|\Z)")


def _check_content(fields: MCPFields, limit: int) -> None:
    """What can be told before anything is read."""
    if fields.repeated is not None and fields.repeated.startswith("Content-"):
        what = f"two {fields.repeated} lines"
        raise malformed(what)
    media_type, _, params = (fields.content_type or b"").lower().partition(b";")
    if media_type.strip(b" \t") != b"application/json" or params.count(b"charset") != len(_CHARSET.findall(params)):
        raise UnsupportedContent(Reason.UNSUPPORTED_CONTENT, found=fields.content_type)
    if fields.content_encoding is not None and fields.content_encoding.lower() not in (b"", b"identity"):
        raise UnsupportedContent(Reason.UNSUPPORTED_CONTENT, found=fields.content_encoding)
    length = fields.content_length
    if length is not None:
        if not length.isdigit():
            what = "a Content-Length that is no number"
            raise malformed(what)
        if len(length) > len(str(limit)) or int(length) > limit:
            raise MessageTooLarge(Reason.BODY_TOO_LARGE, expected=limit, found=length)


async def read_body(receive: Any, fields: MCPFields, limit: int) -> bytes:
    """The whole body.

    Raises:
        MessageRefused: Not JSON by its header fields, longer than `limit`, of another length than declared, too
            slow, or cut off.
    """
    _check_content(fields, limit)
    body = await within(LONGEST_WAIT, lambda: _read(receive, limit))
    if body is None:
        what = f"a body that took more than {LONGEST_WAIT:.0f} s"
        raise MessageRefused(Reason.MALFORMED_MESSAGE, found=what)
    if fields.content_length is not None and int(fields.content_length) != len(body):
        what = "a body of another length than declared"
        raise malformed(what)
    return body


async def _read(receive: Any, limit: int) -> bytes:
    body = bytearray()  # one buffer: a list of tiny pieces would take many times their size
    while True:
        message = await receive()
        if message["type"] != "http.request":
            what = "the client left"
            raise malformed(what)
        piece: bytes = message.get("body", b"")
        if len(body) + len(piece) > limit:
            found = f"at least {len(body) + len(piece)}"
            raise MessageTooLarge(Reason.BODY_TOO_LARGE, expected=limit, found=found)
        if not message.get("more_body"):
            return bytes(body + piece) if body else piece
        body += piece


def replay(body: bytes, receive: Any) -> Any:
    """`receive`, giving the body that was read, and then what is still to come: the disconnect."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def without_body(receive: Any) -> Any:
    """`receive` for a request that carries no message (GET, DELETE): a body it has all the same is left out."""

    async def emptied() -> Any:
        message = await receive()
        return {**message, "body": b""} if message.get("body") else message

    return emptied
