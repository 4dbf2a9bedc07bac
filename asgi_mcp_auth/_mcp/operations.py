"""What a message asks for: the operations in a body that its header fields agree with.

Completions and subscriptions are operations on the targets that they name, and so are calls of a tool that calls,
reads or gets another target (`proxied`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from asgi_mcp_auth._mcp.headers import BATCHING, NAMED_BY, MCPFields, check_fields, decode_value, mismatch
from asgi_mcp_auth._mcp.messages import INVALID_PARAMS, Message, malformed, parse, read_messages
from asgi_mcp_auth._mcp.resource_uris import as_read, forms, is_usual, without_query
from asgi_mcp_auth._oauth.json_types import JSONObject, JSONValue
from asgi_mcp_auth.authorization import Operation, TargetKind
from asgi_mcp_auth.errors import MessageRefused

__all__ = (
    "IN_BODY_ONLY",
    "LISTS",
    "MAX_HOOKED",
    "MAX_OPERATIONS",
    "MAX_UNUSUAL_URIS",
    "MAX_URI_LENGTH",
    "TARGETED",
    "Argument",
    "Asked",
    "Named",
    "ambiguous",
    "asked_by_fields",
    "asks",
    "asks_of",
    "check_uris",
    "named",
    "operations",
    "proxied",
)

MAX_OPERATIONS = 1000  # of one body
MAX_HOOKED = 100  # operations of one body, where a hook is asked about each of them
MAX_UNUSUAL_URIS = 16  # different ones in one body: each is looked up in all its forms
MAX_URI_LENGTH = 8192

Asked = tuple[str, TargetKind | None, str | None, Message]
"""One operation: a method, the kind and the name of its target if it has one, and the message.

`operations` makes `Operation` values of it for hooks and the log (benchmarks: in_process).
"""

Named = tuple[str, TargetKind | None, str | None, str | int | None]
"""An operation without its arguments: a method, the kind and the name of its target, and the id of the message."""

TARGETED: Final[Mapping[str, tuple[TargetKind, str]]] = {
    "tools/call": ("tool", "name"),
    "prompts/get": ("prompt", "name"),
    "resources/read": ("resource", "uri"),
    "resources/subscribe": ("resource", "uri"),
    "resources/unsubscribe": ("resource", "uri"),
}
_REACHED_BY: Final[Mapping[TargetKind, str]] = {
    "tool": "tools/call",
    "resource": "resources/read",
    "prompt": "prompts/get",
}

IN_BODY_ONLY: Final = frozenset(
    ("completion/complete", "subscriptions/listen", "resources/subscribe", "resources/unsubscribe")
)
"""Methods whose targets no header field has."""

_MAY_LACK_TARGET: Final[Mapping[bool, Mapping[str, str]]] = {
    True: {"resources/subscribe": "uri", "resources/unsubscribe": "uri", "completion/complete": "ref"},
    False: {"subscriptions/listen": "notifications"},
}
"""By `MCPFields.modern`: methods that the revision or the server may lack, and the member that names the target.

Without that member there is no target to protect, and the server's own -32601 is a MUST (JSON-RPC 2.0 section 5.1).
"""

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


class Argument(NamedTuple):
    """An argument of a tool that names the target of another operation.

    `path` are the members that lead to the name, each with whether its value is a list of which every item counts.
    The arguments of the target itself are the member `arguments` beside the name.
    """

    kind: TargetKind
    path: tuple[tuple[str, bool], ...]


def asks(body: bytes, fields: MCPFields, *, allow_batches: bool = False, allow_responses: bool = True) -> list[Asked]:
    """Return everything that a body asks for, after checking it against the header fields.

    Args:
        body: The bytes; the caller bounds their number.
        fields: The header fields of the request.
        allow_batches: Whether a batch may come without the version that has batches.
        allow_responses: Whether the body may contain a client's responses.

    Raises:
        MessageRefused: The body is malformed or ambiguous, or a header field contradicts it.
    """
    messages, batch = read_messages(parse(body))
    if fields.repeated is not None:
        raise mismatch(fields.repeated, messages[0].message_id)
    if batch and fields.version != BATCHING and not (fields.version is None and allow_batches):
        raise malformed("a batch")
    for message in messages:
        check_fields(fields, message)
        if message.method is None and (fields.modern or not allow_responses):
            raise malformed("a response from a client", message_id=message.message_id)
    return asks_of(messages, modern=fields.modern)


def asks_of(messages: Iterable[Message], *, modern: bool = False) -> list[Asked]:
    """Return what messages ask for; a client's responses ask for nothing.

    Raises:
        MessageRefused: A method's target is missing or no string (-32602), or there are too many operations.
    """
    found: list[Asked] = []
    may_lack = _MAY_LACK_TARGET[modern]
    for message in messages:
        method, _, params = message
        if method is None:
            continue
        target = TARGETED.get(method)
        if target is not None and (target[1] in params or method not in may_lack):
            kind, member = target
            found.append((method, kind, _text(message, params, member), message))
        elif method in IN_BODY_ONLY and (method not in may_lack or may_lack[method] in params):
            found += _in_body(method, message)
        else:
            found.append((method, None, None, message))
        if len(found) > MAX_OPERATIONS:
            raise _too_many(message)
    return found


def _in_body(method: str, message: Message) -> list[Asked]:
    """Return the targets of a completion or a subscription."""
    if method == "completion/complete":
        return [(method, *_reference(message), message)]
    uris = _subscriptions(message)
    return [(method, "resource", uri, message) for uri in uris] or [(method, None, None, message)]


def proxied(asked: Asked, arguments: Sequence[Argument]) -> list[Asked]:
    """Return the operations that a call of a tool names in its arguments.

    Raises:
        MessageRefused: An argument is missing or names no target (-32602), or there are too many operations.
    """
    message = asked[3]
    found: list[Asked] = []
    for argument in arguments:
        method = _REACHED_BY[argument.kind]
        member = TARGETED[method][1]
        for name, own in _named(message.params.get("arguments"), argument.path):
            if not isinstance(name, str) or not 0 < len(name) <= MAX_URI_LENGTH:
                raise _no_target(asked)
            target = Message(method, message.message_id, {member: name, "arguments": own})
            found.append((method, argument.kind, name, target))
            if len(found) > MAX_OPERATIONS:
                raise _too_many(message)
    if not found:
        raise _no_target(asked)
    return found


def _named(value: JSONValue, path: Sequence[tuple[str, bool]]) -> Iterator[tuple[JSONValue, JSONValue]]:
    """Yield the values at the end of a path, each with the member `arguments` beside it; None for a missing one."""
    (member, several), *rest = path
    members = value if isinstance(value, dict) else {}
    found = members.get(member)
    items = found if several and isinstance(found, list) else [None if several else found]
    for item in items:
        if rest:
            yield from _named(item, rest)
        else:
            yield item, members.get("arguments")


def check_uris(asked: list[Asked], *, hooked: bool) -> list[Asked]:
    """Bound the URIs that have to be looked up in several forms; with a hook, return them as servers read them.

    Args:
        asked: What a body asks for.
        hooked: Whether a hook is asked about each operation. A hook compares names on its own, so a URI that servers
            may read in several ways is refused, and any other is handed over in its canonical form.

    Raises:
        MessageRefused: There are too many operations, or a URI is ambiguous (-32602).
    """
    if hooked and sum(1 + len(without_query(one[2] or "")) for one in asked) > MAX_HOOKED:
        raise _too_many(asked[0][3])
    read: dict[str, str] = {}
    for _, kind, name, message in asked:
        if kind != "resource" or name is None or is_usual(name) or name in read:
            continue
        if len(read) == MAX_UNUSUAL_URIS:
            what = f"more than {MAX_UNUSUAL_URIS} URIs that are not in canonical form"
            raise malformed(what, INVALID_PARAMS, message.message_id, description="Too many resource URIs")
        if hooked and len(forms(name) or ()) != 1:
            raise ambiguous(message)
        read[name] = as_read(name)
    if not read or not hooked:
        return asked
    return [
        (method, kind, read.get(name or "", name) if kind == "resource" else name, message)
        for method, kind, name, message in asked
    ]


def operations(asked: Asked, header_params: Mapping[str, str]) -> tuple[Operation, ...]:
    """Return an operation as hooks and logs see it.

    A resource whose URI has a query or a fragment is followed by the resource without them: fastmcp ignores both when
    it matches a template.
    """
    method, kind, name, message = asked
    return tuple(
        Operation(
            method=method,
            kind=kind,
            name=one,
            message_id=message.message_id,
            params=message.params,
            header_params=header_params,
        )
        for one in _names(kind, name)
    )


def named(asked: Iterable[Asked]) -> tuple[Named, ...]:
    """Return what `operations` returns, without the arguments, which may be secrets."""
    return tuple(
        [(method, kind, one, message[1]) for method, kind, name, message in asked for one in _names(kind, name)]
    )


def _names(kind: TargetKind | None, name: str | None) -> Sequence[str | None]:
    return (name,) if kind != "resource" or name is None else (name, *without_query(name))


def ambiguous(message: Message) -> MessageRefused:
    """Return the refusal of a resource's URI that servers read in different ways."""
    return malformed("an ambiguous URI", INVALID_PARAMS, message.message_id, description="Ambiguous resource URI")


def _too_many(message: Message) -> MessageRefused:
    return malformed("too many operations", message_id=message.message_id)


def _invalid_params(message: Message, what: str) -> MessageRefused:
    return malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")


def _no_target(asked: Asked) -> MessageRefused:
    what = f"the tool {asked[2]} names no target in its arguments; list other tools of that name in ScopePolicy.proxies"
    return _invalid_params(asked[3], what)


def _text(message: Message, members: JSONObject, name: str) -> str:
    value = members.get(name)
    if isinstance(value, str) and 0 < len(value) <= MAX_URI_LENGTH:
        return value
    raise _invalid_params(message, f"{message.method} without {name}")


def _members(message: Message, name: str) -> JSONObject:
    value = message.params.get(name)
    if isinstance(value, dict):
        return value
    raise _invalid_params(message, f"{message.method} without {name}")


def _reference(message: Message) -> tuple[TargetKind, str]:
    reference = _members(message, "ref")
    kind = reference.get("type")
    if not isinstance(kind, str) or kind not in _REFERENCES:
        raise _invalid_params(message, "a reference to neither prompt nor resource")
    target, member = _REFERENCES[kind]
    return target, _text(message, reference, member)


def _subscriptions(message: Message) -> list[str]:
    """Return the URIs that a client wants to watch, each once."""
    wanted = _members(message, "notifications")
    folded = "resourcesubscriptions"
    uris = wanted.get("resourceSubscriptions")
    odd = [name for name in wanted if name.replace("_", "").casefold() == folded and name != "resourceSubscriptions"]
    listed = [] if uris is None else uris
    if odd or not isinstance(listed, list) or len(listed) > MAX_OPERATIONS:
        raise _invalid_params(message, "resourceSubscriptions that are no list")
    return list(dict.fromkeys(_text(message, {"uri": uri}, "uri") for uri in listed))


def asked_by_fields(fields: MCPFields) -> Asked:
    """Return what a request asks for by its header fields alone (`headers_only`).

    Raises:
        MessageRefused: -32020: not MCP 2026-07-28, or a field is missing, repeated or malformed.
    """
    if fields.repeated is not None:
        raise mismatch(fields.repeated)
    if not fields.modern:
        raise mismatch("MCP-Protocol-Version")
    if not fields.method or not fields.method.isascii():
        raise mismatch("Mcp-Method")
    method = fields.method.decode("ascii")
    name = None if fields.name is None else decode_value(fields.name)
    if method in NAMED_BY and not name:
        raise mismatch("Mcp-Name")
    kind = TARGETED[method][0] if method in TARGETED else None
    return method, kind, name if kind else None, Message(method, None, {})
