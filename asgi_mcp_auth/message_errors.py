"""The refusals of a JSON-RPC message, answered as JSON-RPC errors: clients tell protocol eras apart by 4xx bodies.

    errors.Refusal
    └── MessageRefused              400  unreadable, no message, wrong parameters, contradicting header fields
        ├── MessageTooLarge         413
        ├── UnsupportedContent      415
        └── SessionNotFound         404

None of them carries a challenge: no other token would change the answer.
"""

from __future__ import annotations

from typing import Any

from asgi_mcp_auth.errors import Refusal
from asgi_mcp_auth.reasons import Reason

__all__ = ("MessageRefused", "MessageTooLarge", "SessionNotFound", "UnsupportedContent")


class MessageRefused(Refusal):
    """A JSON-RPC message that cannot be judged, or contradicts its header fields: 400 with a JSON-RPC error.

    Args:
        reason: As for `Refusal`.
        code: The JSON-RPC error code: -32700 unreadable, -32600 no message, -32602 parameters, -32020 header fields.
        message_id: The message's id, where it could be read.
        log: As for `Refusal`; `description` is the error's message.
    """

    default_description = "Invalid request"

    def __init__(self, reason: Reason, *, code: int = -32600, message_id: str | int | None = None, **log: Any) -> None:
        super().__init__(reason, **log)
        self.rpc_code = code
        self.message_id = message_id


class MessageTooLarge(MessageRefused):
    """The body is longer than `max_body_size`: 413."""

    status = 413
    default_description = "Request body too large"


class UnsupportedContent(MessageRefused):
    """Not `application/json`, or compressed: 415."""

    status = 415
    default_description = "Unsupported media type"


class SessionNotFound(MessageRefused):
    """No such session, or not this caller's: 404, one answer for both."""

    status = 404
    default_description = "Session not found"
