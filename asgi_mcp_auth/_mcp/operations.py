"""What a message asks for: from the bytes of a body, held to its header fields, to what rules and hooks judge.

Side doors are operations on the same targets: a completion's reference, a subscription's URIs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from asgi_mcp_auth._mcp.headers import (
    BATCHING,
    NAMED_BY,
    VERSION_MEMBER,
    MCPFields,
    check_fields,
    decode_value,
    mismatch,
)
from asgi_mcp_auth._mcp.messages import INVALID_PARAMS, USUAL_PARAMS, Message, malformed, parse, read_messages
from asgi_mcp_auth.authorization import Operation, TargetKind

__all__ = (
    "IN_BODY_ONLY",
    "LISTS",
    "MAX_OPERATIONS",
    "MAX_URI_LENGTH",
    "TARGETED",
    "Asked",
    "asked_by_fields",
    "asks",
    "asks_of",
    "operation",
    "step_by_step",
    "usual_call",
)

MAX_OPERATIONS = 1000  # of one body
MAX_URI_LENGTH = 8192

Asked = tuple[str, TargetKind | None, str | None, Message]
"""One thing that is asked for: a method, the kind and name of its target, if it has one, and the whole message.

`operation` makes an `Operation` of it, which takes 1 µs, for those who look at one.
"""

TARGETED: Final[Mapping[str, tuple[TargetKind, str]]] = {
    "tools/call": ("tool", "name"),
    "prompts/get": ("prompt", "name"),
    "resources/read": ("resource", "uri"),
    "resources/subscribe": ("resource", "uri"),
    "resources/unsubscribe": ("resource", "uri"),
}
CALLS: Final = {method: target for method, target in TARGETED.items() if NAMED_BY.get(method) == target[1]}
"""Those whose target `Mcp-Name` repeats."""

ID_TYPES: Final = (int, str)
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


def asks(body: bytes, fields: MCPFields, *, allow_batches: bool = False) -> list[Asked]:
    """Everything that a body asks for; the header fields agree with it.

    Args:
        body: The bytes, whose number is bounded.
        fields: Those of its request.
        allow_batches: Whether a batch may come without the version that has them.

    Raises:
        MessageRefused: There is no telling what it asks for, or a field says something else.
    """
    value = parse(body)
    call = usual_call(value, fields)
    return step_by_step(value, fields, allow_batches=allow_batches) if call is None else [call]


def usual_call(value: Any, fields: MCPFields) -> Asked | None:
    """One call of a tool, prompt or resource, with fields that describe it or are not asked for: told at a look.

    None for all else, right or wrong. What most messages are costs 2.5 µs less so; that `step_by_step` finds the same
    is a property that is tested.
    """
    if value.__class__ is not dict or len(value) != 4 or fields.repeated is not None:  # noqa: PLR2004 - those below
        return None
    get = value.get
    method, message_id, params = get("method"), get("id"), get("params")
    if method.__class__ is not str or params.__class__ is not dict or message_id.__class__ not in ID_TYPES:
        return None
    target = CALLS.get(method)
    if target is None or get("jsonrpc") != "2.0" or not USUAL_PARAMS.issuperset(params):
        return None
    kind, member = target
    name, meta = params.get(member), params.get("_meta")
    if name.__class__ is not str or not 0 < len(name) <= MAX_URI_LENGTH:
        return None
    version = meta.get(VERSION_MEMBER) if meta.__class__ is dict else None
    if version is not None and (version.__class__ is not str or version.encode("utf-8") != fields.version):
        return None
    if fields.method is None:
        described = fields.name is None and not fields.modern
    else:
        described = (
            fields.method == method.encode("utf-8") and fields.name is not None and decode_value(fields.name) == name
        )
    return (method, kind, name, Message(method, message_id, params)) if described else None


def step_by_step(value: Any, fields: MCPFields, *, allow_batches: bool) -> list[Asked]:
    """`asks` of any JSON value.

    Raises:
        MessageRefused: As for `asks`.
    """
    messages, batch = read_messages(value)
    if fields.repeated is not None:
        raise mismatch(fields.repeated, messages[0].message_id)
    if batch and fields.version != BATCHING and not (fields.version is None and allow_batches):
        what = "a batch"
        raise malformed(what)
    for message in messages:
        check_fields(fields, message)
        if message.method is None and fields.modern:
            what = "a response from a client"
            raise malformed(what, message_id=message.message_id)
    return asks_of(messages)


def asks_of(messages: Iterable[Message]) -> list[Asked]:
    """What messages ask for; a client's responses ask for nothing.

    Raises:
        MessageRefused: A method's target is missing or no string (-32602), or there are too many.
    """
    found: list[Asked] = []
    for message in messages:
        method, _, params = message
        if method is None:
            continue
        target = TARGETED.get(method)
        if target is not None:
            kind, member = target
            found.append((method, kind, _text(message, params, member), message))
        elif method == "completion/complete":
            found.append((method, *_reference(message), message))
        elif method == "subscriptions/listen" and (uris := _subscriptions(message)):
            found.extend((method, "resource", uri, message) for uri in uris)
        else:
            found.append((method, None, None, message))
        if len(found) > MAX_OPERATIONS:
            what = "too many operations"
            raise malformed(what, message_id=message.message_id)
    return found


def operation(asked: Asked, header_params: Mapping[str, str]) -> Operation:
    """It, as hooks, observers and logs are told of it."""
    method, kind, name, message = asked
    return Operation(
        method=method,
        kind=kind,
        name=name,
        message_id=message.message_id,
        params=message.params,
        header_params=header_params,
    )


def _text(message: Message, members: Mapping[str, Any], name: str) -> str:
    value: object = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_URI_LENGTH:
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


def _subscriptions(message: Message) -> list[str]:
    wanted = _members(message, "notifications")
    folded = "resourcesubscriptions"
    uris = wanted.get("resourceSubscriptions")
    odd = [name for name in wanted if name.replace("_", "").casefold() == folded and name != "resourceSubscriptions"]
    listed = cast("list[object]", uris or [])
    if odd or not (uris is None or isinstance(uris, list)) or len(listed) > MAX_OPERATIONS:
        what = "resourceSubscriptions that are no list"
        raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
    return [_text(message, {"uri": uri}, "uri") for uri in listed]


def asked_by_fields(fields: MCPFields) -> Asked:
    """What a request asks for as the header fields alone tell it (`headers_only`).

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
    return method, kind, name if kind else None, Message(method, None, {})
