"""How an admitted request goes on to the app: what changes compared with what the server passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth.authorization import Operation

__all__ = ("UNCHANGED", "Admission")


class Admission(NamedTuple):
    """The changes for one admitted request. None means: as the server passed it.

    Attributes:
        receive: Replays a body that was read.
        operations: What the body asks for, if a hook or an observer wants to know.
        wrap_send: Wraps `send`, to filter lists or to watch for a new session id.
        removed_fields: Header fields, by canonical name, that the app does not get.
        needed: The scopes that the rules for the body require.
    """

    receive: Any = None
    operations: tuple[Operation, ...] = ()
    wrap_send: Callable[[Any], Any] | None = None
    removed_fields: frozenset[bytes] = frozenset()
    needed: Sequence[Requirement] = ()


UNCHANGED = Admission()
