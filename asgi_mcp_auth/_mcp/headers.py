"""The `Mcp-*` header fields, and their comparison with the body (MCP 2026-07-28, Streamable HTTP transport).

The body decides. A field can only refuse: when the field contradicts the body, or is missing where the revision
requires it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from asgi_mcp_auth._mcp.messages import MAX_ID_LENGTH, Message
from asgi_mcp_auth.errors import MessageRefused, Reason

__all__ = (
    "BATCHING",
    "NAMED_BY",
    "VERSION_MEMBER",
    "WHITE",
    "MCPFields",
    "check_fields",
    "decode_value",
    "header_params",
    "mismatch",
)

HEADER_MISMATCH = -32020
LEGACY: Final = frozenset((b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25"))
BATCHING: Final = b"2025-03-26"
VERSION_MEMBER: Final = "io.modelcontextprotocol/protocolVersion"

NAMED_BY: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
"""Methods whose target is repeated in `Mcp-Name`, and the member of `params` with the target."""

_FIELDS = {
    b"mcp-protocol-version": "MCP-Protocol-Version",
    b"mcp-method": "Mcp-Method",
    b"mcp-name": "Mcp-Name",
    b"content-type": "Content-Type",
    b"content-encoding": "Content-Encoding",
    b"content-length": "Content-Length",
}
_PARAM = b"mcp-param-"
WHITE = b" \t"


def mismatch(field: str, message_id: str | int | None = None) -> MessageRefused:
    """Return the refusal of a header field that is missing, repeated or malformed, or that contradicts the body."""
    if isinstance(message_id, str) and len(message_id) > MAX_ID_LENGTH:
        message_id = None
    return MessageRefused(
        Reason.HEADER_MISMATCH,
        code=HEADER_MISMATCH,
        message_id=message_id,
        found=field,
        description=f"Header mismatch: {field}",
    )


class MCPFields:
    """The header fields that describe a message; None for a missing field.

    Args:
        lines: The fields of a `RequestInfo`.

    Attributes:
        version: `MCP-Protocol-Version`, without white space around it, like the next two.
        method: `Mcp-Method`.
        name: `Mcp-Name`.
        repeated: A field of this module that occurs more than once: parsers disagree which line counts.
        modern: Whether the message claims MCP 2026-07-28 or later; servers take an unknown version for that too.
    """

    __slots__ = ("_lines", "method", "modern", "name", "repeated", "version")

    def __init__(self, lines: Mapping[bytes, Sequence[bytes]]) -> None:
        self._lines = lines
        version = self.get(b"mcp-protocol-version")
        self.version: Final = version
        self.method: Final = self.get(b"mcp-method")
        self.name: Final = self.get(b"mcp-name")
        repeated: str | None = None
        for name, values in lines.items():
            if len(values) > 1 and name in _FIELDS:
                repeated = _FIELDS[name]
                break
        self.repeated: Final = repeated
        self.modern: Final[bool] = version is not None and version not in LEGACY

    def get(self, name: bytes) -> bytes | None:
        """Return a field without white space around it, the last line if there are several; None if it is missing."""
        lines = self._lines.get(name)
        return None if lines is None else lines[-1].strip(WHITE)


def decode_value(value: bytes) -> str | None:
    """Return the text of a field: literal, or base64 of UTF-8 between `=?base64?` and `?=`; None if malformed."""
    if not (value.startswith(b"=?base64?") and value.endswith(b"?=") and len(value) >= len(b"=?base64??=")):
        try:
            return value.decode("ascii")
        except UnicodeDecodeError:  # clients must encode it
            return None
    encoded = value[9:-2]
    try:
        decoded = base64.b64decode(encoded, validate=True)
        # Non-zero bits behind the last byte would be a second spelling of the same text.
        return decoded.decode("utf-8") if base64.b64encode(decoded) == encoded else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def check_fields(fields: MCPFields, message: Message) -> None:
    """Compare the fields with one message of the body.

    Raises:
        MessageRefused: -32020, naming the field.
    """
    method, message_id, params = message
    meta = params.get("_meta")
    version = meta.get(VERSION_MEMBER) if isinstance(meta, dict) else None
    if version is not None:
        known = version.encode("utf-8") if isinstance(version, str) else b""
        if known != fields.version and (fields.modern or known not in LEGACY):
            raise mismatch("MCP-Protocol-Version", message_id)
    if fields.method is None:
        if fields.modern and method is not None and message_id is not None:
            raise mismatch("Mcp-Method", message_id)
    elif method is None or not method.isascii() or fields.method != method.encode("ascii"):
        raise mismatch("Mcp-Method", message_id)
    member = None if method is None else NAMED_BY.get(method)
    if member is None:
        return
    if fields.name is None:
        if fields.modern and message_id is not None:
            raise mismatch("Mcp-Name", message_id)
    elif decode_value(fields.name) != params.get(member):
        raise mismatch("Mcp-Name", message_id)


def header_params(headers: Iterable[tuple[bytes, bytes]], message_id: str | int | None) -> dict[str, str]:
    """Return the `Mcp-Param-*` fields, decoded, by lower-case name without the prefix.

    Raises:
        MessageRefused: -32020, for a field that is malformed, or repeated to a reader that cannot tell `_` from `-`.
    """
    params: dict[str, str] = {}
    seen: set[bytes] = set()
    for name, value in headers:
        canonical = name.lower().replace(b"_", b"-")  # as behind a CGI or WSGI adapter (RFC 3875 section 4.1.18)
        if canonical.startswith(_PARAM):
            text = decode_value(value.strip(WHITE))
            if text is None or canonical in seen or not name.lower().startswith(_PARAM):
                raise mismatch("Mcp-Param", message_id)
            seen.add(canonical)
            params[name[len(_PARAM) :].decode("latin-1").lower()] = text
    return params
