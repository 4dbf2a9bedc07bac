"""The `Mcp-*` header fields: reading them, and holding them to the body (MCP 2026-07-28, Streamable HTTP transport).

The body decides. A field can only refuse: when it contradicts the body, or is missing where the revision demands it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, cast

from asgi_mcp_auth._protocol.rpc import LONGEST_ID, Message
from asgi_mcp_auth.message_errors import MessageRefused
from asgi_mcp_auth.reasons import Reason

__all__ = ("BATCHING", "NAMED_BY", "MCPFields", "check_fields", "decode_value", "header_params", "mismatch")

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
"""Methods whose target `Mcp-Name` repeats, and the member of `params` that has it."""

_FIELDS = {
    b"mcp-protocol-version": "MCP-Protocol-Version",
    b"mcp-method": "Mcp-Method",
    b"mcp-name": "Mcp-Name",
    b"content-type": "Content-Type",
    b"content-encoding": "Content-Encoding",
    b"content-length": "Content-Length",
}
_PARAM = b"mcp-param-"


def mismatch(field: str, message_id: str | int | None = None) -> MessageRefused:
    """The refusal of a header field that is missing, repeated, malformed or says something else than the body."""
    if isinstance(message_id, str) and len(message_id) > LONGEST_ID:
        message_id = None
    return MessageRefused(
        Reason.HEADER_MISMATCH,
        code=HEADER_MISMATCH,
        message_id=message_id,
        found=field,
        description=f"Header mismatch: {field}",
    )


class MCPFields(NamedTuple):
    """The fields that describe a message, without white space around them; None for one that is not there."""

    version: bytes | None
    method: bytes | None
    name: bytes | None
    content_type: bytes | None
    content_encoding: bytes | None
    content_length: bytes | None
    repeated: str | None
    """One that stands there more than once: readers disagree which of them counts."""

    @classmethod
    def read(cls, headers: Iterable[tuple[bytes, bytes]]) -> MCPFields:
        """Read them in one pass."""
        found: dict[bytes, bytes] = {}
        repeated = None
        for name, line in headers:
            if name in _FIELDS:
                if name in found:
                    repeated = _FIELDS[name]
                found[name] = line.strip(b" \t")
        get = found.get
        return cls(
            version=get(b"mcp-protocol-version"),
            method=get(b"mcp-method"),
            name=get(b"mcp-name"),
            content_type=get(b"content-type"),
            content_encoding=get(b"content-encoding"),
            content_length=get(b"content-length"),
            repeated=repeated,
        )

    @property
    def modern(self) -> bool:
        """Whether the message claims MCP 2026-07-28 or later; servers take an unknown version for that too."""
        return self.version is not None and self.version not in LEGACY


def decode_value(value: bytes) -> str | None:
    """The text of a field: literal, or base64 of UTF-8 between `=?base64?` and `?=`; None when that is malformed."""
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
    """Hold the fields to one message of the body.

    Raises:
        MessageRefused: -32020, naming the field.
    """
    method, message_id, params = message
    modern = fields.modern
    meta = params.get("_meta")
    said: object = cast("dict[str, object]", meta).get(VERSION_MEMBER) if isinstance(meta, dict) else None
    if said is not None:
        known = said.encode("utf-8") if isinstance(said, str) else b""
        if (modern or known not in LEGACY) and known != fields.version:
            raise mismatch("MCP-Protocol-Version", message_id)
    if fields.method is None:
        if modern and method is not None and message_id is not None:
            raise mismatch("Mcp-Method", message_id)
    elif method is None or fields.method != method.encode("utf-8") or not method.isascii():
        raise mismatch("Mcp-Method", message_id)
    member = None if method is None else NAMED_BY.get(method)
    if member is None:
        return
    if fields.name is None:
        if modern and message_id is not None:
            raise mismatch("Mcp-Name", message_id)
    elif decode_value(fields.name) != params.get(member):
        raise mismatch("Mcp-Name", message_id)


def header_params(headers: Iterable[tuple[bytes, bytes]], message_id: str | int | None) -> dict[str, str]:
    """The `Mcp-Param-*` fields, decoded, by lower-case name without the prefix.

    Raises:
        MessageRefused: -32020, for one that is repeated or malformed.
    """
    params: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(_PARAM):
            short = name[len(_PARAM) :].decode("latin-1").lower()
            text = decode_value(value.strip(b" \t"))
            if short in params or text is None:
                field = "Mcp-Param"
                raise mismatch(field, message_id)
            params[short] = text
    return params
