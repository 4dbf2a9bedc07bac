"""HTTP bodies as JSON-RPC messages (JSON-RPC 2.0 section 4, MCP "Base Protocol"), read strictly.

The app reads the body again with another parser, so a body that two parsers could read in two ways is refused:
duplicate members, members that differ from a known member in case only (Go matches those), a message that is a request
and a response at once, and everything that `strict_json` refuses.
"""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

from asgi_mcp_auth._oauth.json_types import JSONObject, JSONValue
from asgi_mcp_auth._oauth.strict_json import JSONRefused, NotJSON, load_value
from asgi_mcp_auth.errors import MessageRefused, Reason

__all__ = ("INVALID_PARAMS", "MAX_MESSAGES", "Message", "malformed", "parse", "read_messages")

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602

MAX_DEPTH = 64
MAX_MESSAGES = 100  # in a batch
MAX_ID_LENGTH = 256  # that is sent back in an error
MAX_METHOD_LENGTH = 256

REQUEST_MEMBERS = frozenset(("jsonrpc", "id", "method", "params"))
MEMBERS = REQUEST_MEMBERS | {"result", "error"}
PARAM_MEMBERS = frozenset(("name", "uri", "ref", "arguments", "notifications", "taskid", "task", "_meta"))
SPELLED = {"taskid": "taskId"}
USUAL_PARAMS = frozenset(("name", "uri", "arguments", "taskId", "_meta", "cursor"))


class Message(NamedTuple):
    """A request, a notification (`message_id` is None), or a client's response (`method` is None)."""

    method: str | None
    message_id: str | int | None
    params: JSONObject


def malformed(
    what: str, code: int = INVALID_REQUEST, message_id: str | int | None = None, *, description: str = "Invalid request"
) -> MessageRefused:
    """Return the refusal of a message; `what` is for the log."""
    if isinstance(message_id, str) and len(message_id) > MAX_ID_LENGTH:
        message_id = None
    return MessageRefused(
        Reason.MALFORMED_MESSAGE, code=code, message_id=message_id, found=what, description=description
    )


def parse(body: bytes) -> JSONValue:
    """Return the JSON value of a body; the caller bounds the number of bytes.

    Raises:
        MessageRefused: The body is not JSON, or ambiguous.
    """
    try:
        return load_value(body, max_depth=MAX_DEPTH)
    except NotJSON as error:
        raise malformed(str(error), PARSE_ERROR, description="Parse error") from None
    except JSONRefused as error:
        raise malformed(str(error)) from None


def read_messages(value: JSONValue) -> tuple[list[Message], bool]:
    """Return the messages of a JSON value, and whether it is a batch.

    Raises:
        MessageRefused: The value is neither a message nor a batch of 1 to 100 messages.
    """
    if not isinstance(value, list):
        return [_message(value)], False
    if not 0 < len(value) <= MAX_MESSAGES:
        raise malformed(f"a batch of {len(value)}")
    return [_message(item) for item in value], True


def _no_look_alikes(members: JSONObject, known: frozenset[str]) -> None:
    for name in members:
        folded = name.casefold()
        if folded in known and name != SPELLED.get(folded, folded):
            raise malformed(f"a member {name!r}")


def _message(message: JSONValue) -> Message:
    if not isinstance(message, dict):
        raise malformed("not an object")
    get = message.get
    message_id = get("id")
    is_request = REQUEST_MEMBERS.issuperset(message)
    if not is_request:
        _no_look_alikes(message, MEMBERS)
    if not isinstance(message_id, (int, str, NoneType)) or isinstance(message_id, bool):
        raise malformed("an id that is neither string nor integer")
    if get("jsonrpc") != "2.0":
        raise malformed("no jsonrpc 2.0", message_id=message_id)
    method = get("method")
    if method is None and "method" not in message:
        return _response(message, message_id)
    if not is_request and ("result" in message or "error" in message):
        raise malformed("a request and a response at once", message_id=message_id)
    if message_id is None and "id" in message:
        raise malformed("an id of null")
    if type(method) is not str or not 0 < len(method) <= MAX_METHOD_LENGTH:
        raise malformed("no method", message_id=message_id)
    params = get("params")
    if params is None:
        return Message(method, message_id, {})
    if not isinstance(params, dict):
        raise malformed("params that are no object", INVALID_PARAMS, message_id, description="Invalid params")
    if not USUAL_PARAMS.issuperset(params):
        _no_look_alikes(params, PARAM_MEMBERS)
    return Message(method, message_id, params)


def _response(message: JSONObject, message_id: str | int | None) -> Message:
    """Return a client's answer to the server; its id may be null in an error only (JSON-RPC 2.0 section 5)."""
    answered = ("result" in message) != ("error" in message)
    if not answered or "id" not in message or (message_id is None and "error" not in message):
        raise malformed("neither request nor response", message_id=message_id)
    return Message(None, message_id, {})
