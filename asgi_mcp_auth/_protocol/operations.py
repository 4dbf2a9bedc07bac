"""What a message asks for: from JSON-RPC messages to the `Operation`s that rules and hooks judge.

Side doors are operations on the same targets: a completion's reference, a subscription's URIs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from asgi_mcp_auth._protocol.mcp_headers import NAMED_BY, MCPFields, decode_value, mismatch
from asgi_mcp_auth._protocol.rpc import INVALID_PARAMS, Message, malformed
from asgi_mcp_auth.authorization import Operation, TargetKind

__all__ = ("IN_BODY_ONLY", "LISTS", "LONGEST_URI", "MAX_OPERATIONS", "TARGETED", "operation_of_fields", "operations")

MAX_OPERATIONS = 1000  # of one body
LONGEST_URI = 8192

TARGETED: Final[Mapping[str, tuple[TargetKind, str]]] = {
    "tools/call": ("tool", "name"),
    "prompts/get": ("prompt", "name"),
    "resources/read": ("resource", "uri"),
    "resources/subscribe": ("resource", "uri"),
    "resources/unsubscribe": ("resource", "uri"),
}
IN_BODY_ONLY: Final = frozenset(
    ("completion/complete", "subscriptions/listen", "resources/subscribe", "resources/unsubscribe")
)
"""Methods whose targets no header field has."""

LISTS: Final[Mapping[str, tuple[TargetKind, str, str]]] = {
    "tools/list": ("tool", "tools", "name"),
    "resources/list": ("resource", "resources", "uri"),
    "resources/templates/list": ("resource", "resourceTemplates", "uriTemplate"),
    "prompts/list": ("prompt", "prompts", "name"),
}
"""Methods that list targets: their kind, the member of the result, and the member of an entry that names it."""

_REFERENCES: Mapping[object, tuple[TargetKind, str]] = {
    "ref/prompt": ("prompt", "name"),
    "ref/resource": ("resource", "uri"),
}


def operations(messages: Iterable[Message], header_params: Mapping[str, str]) -> list[Operation]:
    """The operations of a body; a client's responses are none.

    Raises:
        MessageRefused: A method's target is missing or no string (-32602), or there are too many.
    """
    found: list[Operation] = []
    for message in messages:
        method = message.method
        if method is None:
            continue
        target = TARGETED.get(method)
        if target is not None:
            named: Sequence[tuple[TargetKind | None, str | None]] = [
                (target[0], _text(message, message.params, target[1]))
            ]
        elif method == "completion/complete":
            named = [_reference(message)]
        elif method == "subscriptions/listen":
            named = _subscriptions(message)
        else:
            named = ()
        for kind, name in named or ((None, None),):
            found.append(
                Operation(
                    method=method,
                    kind=kind,
                    name=name,
                    message_id=message.message_id,
                    params=message.params,
                    header_params=header_params,
                )
            )
        if len(found) > MAX_OPERATIONS:
            what = "too many operations"
            raise malformed(what, message_id=message.message_id)
    return found


def _text(message: Message, members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_URI:
        what = f"{message.method} without {name}"
        raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
    return value


def _members(message: Message, name: str) -> Mapping[str, Any]:
    value = message.params.get(name)
    if not isinstance(value, dict):
        what = f"{message.method} without {name}"
        raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
    return cast("Mapping[str, Any]", value)


def _reference(message: Message) -> tuple[TargetKind, str]:
    reference = _members(message, "ref")
    kind = reference.get("type")
    if not isinstance(kind, str) or kind not in _REFERENCES:
        what = "a reference to neither prompt nor resource"
        raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
    target, member = _REFERENCES[kind]
    return target, _text(message, reference, member)


def _subscriptions(message: Message) -> list[tuple[TargetKind, str]]:
    wanted = _members(message, "notifications")
    folded = "resourcesubscriptions"
    uris = wanted.get("resourceSubscriptions")
    odd = [name for name in wanted if name.replace("_", "").casefold() == folded and name != "resourceSubscriptions"]
    listed = cast("list[object]", uris or [])
    if odd or not (uris is None or isinstance(uris, list)) or len(listed) > MAX_OPERATIONS:
        what = "resourceSubscriptions that are no list"
        raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
    return [("resource", _text(message, {"uri": uri}, "uri")) for uri in listed]


def operation_of_fields(fields: MCPFields, header_params: Mapping[str, str]) -> Operation:
    """The operation as the header fields alone tell it (`headers_only`).

    Raises:
        MessageRefused: -32020: not MCP 2026-07-28, or a field is missing, repeated or malformed.
    """
    if fields.repeated is not None:
        raise mismatch(fields.repeated)
    if not fields.modern:
        field = "MCP-Protocol-Version"
        raise mismatch(field)
    if not fields.method or not fields.method.isascii():
        field = "Mcp-Method"
        raise mismatch(field)
    method = fields.method.decode("ascii")
    name = None if fields.name is None else decode_value(fields.name)
    if method in NAMED_BY and not name:
        field = "Mcp-Name"
        raise mismatch(field)
    kind = TARGETED[method][0] if method in TARGETED else None
    return Operation(method=method, kind=kind, name=name if kind else None, header_params=header_params)
