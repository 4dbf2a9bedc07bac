"""Types of ASGI values, as this package reads and writes them.

The `TypedDict`s of `asgiref.typing` are not used: they require keys that the specification makes optional, for example
`trailers`, and servers add keys of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgi_mcp_auth._request import Scope

__all__ = ("ASGIApp", "Message", "Receive", "Scope", "Send", "WrapSend")

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WrapSend = Callable[[Send], Send]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""Any ASGI 3 app, whatever the types of its parameters."""
