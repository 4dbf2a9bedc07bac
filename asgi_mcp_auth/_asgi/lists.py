"""Rewriting the app's lists, in JSON responses and in event streams: filtered entries, and annotations.

Filtering is a convenience for the caller: the rules are enforced when an entry is called. A response or event that
cannot be read passes unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from asgi_mcp_auth._asgi.asgi_types import Message, Send
from asgi_mcp_auth._asgi.streams import is_event_stream
from asgi_mcp_auth._mcp.operations import LISTS
from asgi_mcp_auth._oauth.json_types import JSONObject, JSONValue
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_value
from asgi_mcp_auth.authorization import TargetKind

__all__ = ("ListRules", "rewrite_lists")

MAX_HELD = 4_194_304  # bytes of a response or event; a longer one passes unchanged
SECURITY_SCHEMES = "securitySchemes"
REQUIRED_SCOPES = "asgi-mcp-auth/requiredScopes"
_EVENT_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?!\n|\Z))|\r\r\n?")  # a \r at the end may be half of a line end
MAX_END_LENGTH = 4
_LINE = re.compile(rb"\r\n|\n|\r")

ListsById = Mapping[str | int | None, str]
Schemes = Callable[[str], list[JSONValue] | None]
Lacks = Callable[[TargetKind, str], tuple[str, ...] | None]
"""From the kind and the name of an entry to (): usable; to all scopes it needs; or to None: no scope would help."""


class ListRules(NamedTuple):
    """How lists are rewritten.

    Attributes:
        lacks: What the caller lacks to use an entry; None to keep every entry.
        schemes: The `securitySchemes` of a tool, or None for none; None to add no such member.
        mark: Whether to keep entries that more scopes would allow, with these scopes.
        modern: Whether the request is of MCP 2026-07-28 or later, which has `cacheScope`.
    """

    lacks: Lacks | None
    schemes: Schemes | None
    mark: bool
    modern: bool


class _Filter:
    """Rewrites one response. `lists` holds the list methods by request id; None means any list."""

    def __init__(self, lists: ListsById | None, rules: ListRules) -> None:
        self._lists = lists
        self._lacks, self._schemes, self._mark, self._modern = rules

    def data(self, data: bytes) -> bytes | None:
        """Return the rewritten JSON data, or None if nothing changes."""
        try:
            # The app's own output: its length is bounded, and the number of its values need not be.
            value = load_value(data, max_depth=128, max_values=len(data), max_containers=len(data))
        except JSONRefused:
            return None
        messages = value if isinstance(value, list) else [value]
        if True not in [self._message(message) for message in messages]:  # a list, so that every message is rewritten
            return None
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    def _message(self, message: JSONValue) -> bool:
        if not isinstance(message, dict):
            return False
        result, message_id = message.get("result"), message.get("id")
        if not isinstance(result, dict) or isinstance(message_id, bool) or not isinstance(message_id, (str, int)):
            return False
        if self._lists is None:
            listed = list(LISTS.values())
        else:
            listed = [LISTS[self._lists[message_id]]] if message_id in self._lists else []
        return True in [self._result(result, *item) for item in listed]

    def _result(self, result: JSONObject, kind: TargetKind, member: str, key: str) -> bool:
        entries = result.get(member)
        if not isinstance(entries, list) or (self._lacks is None and kind != "tool"):
            return False
        kept: list[JSONValue] = []
        for entry in entries:
            members = entry if isinstance(entry, dict) else {}
            name = members.get(key)
            if not isinstance(name, str):
                return False  # not a list of named entries
            if self._schemes is not None and kind == "tool":
                members = _with_schemes(members, self._schemes(name))
            lacking = () if self._lacks is None else self._lacks(kind, name)
            if lacking and self._mark:
                meta = members.get("_meta")
                own = meta if isinstance(meta, dict) else {}
                kept.append({**members, "_meta": {**own, REQUIRED_SCOPES: [*lacking]}})
            elif lacking == ():
                kept.append(members)
        result[member] = kept
        if self._lacks is not None and (self._modern or "cacheScope" in result):
            result["cacheScope"] = "private"  # the list differs by caller
        return True

    def event(self, event: bytes) -> bytes:
        """Return a server-sent event, including its end, rewritten if its data is a list."""
        lines = _LINE.split(event)
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        changed = self.data(b"\n".join(data)) if data else None
        if changed is None:
            return event
        newline = b"\r\n" if b"\r\n" in event else b"\n"
        others = [line for line in lines if line and not line.startswith(b"data:")]
        return newline.join([*others, b"data: " + changed, b"", b""])


def _with_schemes(members: JSONObject, schemes: list[JSONValue] | None) -> JSONObject:
    """Return a tool with its `securitySchemes`, also in `_meta`; unchanged if the app sets them."""
    meta = members.get("_meta")
    own = meta if isinstance(meta, dict) else {}
    if schemes is None or SECURITY_SCHEMES in members or SECURITY_SCHEMES in own:
        return members
    return {**members, SECURITY_SCHEMES: schemes, "_meta": {**own, SECURITY_SCHEMES: schemes}}


class _Sender:
    """The `send` of one response. It holds a JSON body, or an event of a stream, until that is complete."""

    def __init__(self, send: Send, rewriting: _Filter) -> None:
        self._send = send
        self._rewriting = rewriting
        self._start: Message = {}
        self._held = bytearray()
        self._next: Send = self._decide

    async def send(self, message: Message) -> None:
        await self._next(message)

    async def _decide(self, message: Message) -> None:
        names = {bytes(name).lower(): bytes(value).lower() for name, value in message.get("headers", ())}
        readable = names.get(b"content-encoding", b"identity") == b"identity"
        if readable and names.get(b"content-type", b"").partition(b";")[0].strip() == b"application/json":
            self._start, self._next = message, self._whole
            return
        self._next = self._events if readable and is_event_stream(message) else self._send
        await self._send(message)

    async def _whole(self, message: Message) -> None:
        self._held += message.get("body", b"")
        if message["type"] != "http.response.body" or len(self._held) > MAX_HELD:
            self._next = self._send  # an extension (http.response.pathsend), or too much to hold
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": bytes(self._held), "more_body": True})
            await self._send({**message, "body": b""} if "body" in message else message)
        elif not message.get("more_body"):
            self._next = self._send
            whole = bytes(self._held)
            body = self._rewriting.data(whole)
            if body is not None:
                length = (b"content-length", str(len(body)).encode("ascii"))
                others = [field for field in self._start["headers"] if bytes(field[0]).lower() != b"content-length"]
                self._start = {**self._start, "headers": [*others, length]}
            await self._send(self._start)
            await self._send({**message, "body": whole if body is None else body})

    async def _events(self, message: Message) -> None:
        last = not message.get("more_body")
        searched = max(0, len(self._held) - MAX_END_LENGTH)
        self._held += message.get("body", b"")
        out: list[bytes] = []
        begin = 0
        for end in _EVENT_END.finditer(self._held, searched):
            out.append(self._rewriting.event(bytes(self._held[begin : end.end()])))
            begin = end.end()
        del self._held[:begin]
        if last or len(self._held) > MAX_HELD:
            self._next = self._send
            out.append(bytes(self._held))
        if out or last:
            await self._send({**message, "body": b"".join(out)})


def rewrite_lists(send: Send, lists: ListsById | None, rules: ListRules) -> Send:
    """Return a `send` that rewrites a JSON response as a whole, and an event stream event by event."""
    return _Sender(send, _Filter(lists, rules)).send
