"""How a request that step 9 admitted goes on to the app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from asgi_mcp_auth._protocol.scopes import Requirement
from asgi_mcp_auth.authorization import Operation

__all__ = ("OPEN", "Passage")


class Passage:
    """What changes for the app; None stands for what the server gave. Nothing changes once it is made.

    `operations` are there where a hook or an observer looks at them; `needed` is what the rules for its body ask for.
    """

    __slots__ = ("needed", "operations", "receive", "scope", "wrap_send")

    def __init__(
        self,
        receive: Any = None,
        operations: tuple[Operation, ...] = (),
        wrap_send: Callable[[Any], Any] | None = None,
        scope: Any = None,
        needed: Sequence[Requirement] = (),
    ) -> None:
        self.receive: Final = receive
        self.operations: Final = operations
        self.wrap_send: Final = wrap_send
        self.scope: Final = scope
        self.needed: Final = needed


OPEN = Passage()
