"""How the judging of a request ends: with an answer of our own, or with the app. And who is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from asgi_mcp_auth._oauth.origin import Cors
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.responses import Response
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.decisions import Decision, Outcome
from asgi_mcp_auth.errors import Refusal

__all__ = (
    "OPEN",
    "Admitted",
    "Answer",
    "Permission",
    "report",
)


class Permission:
    """What changes for the app; None stands for what the server gave. Nothing changes once it is made.

    `operations` are there where a hook or an observer looks at them; `needed` is what the rules for its body ask for;
    `listens` is whether the body asks for `subscriptions/listen`, None if the body was not read.
    """

    __slots__ = ("listens", "needed", "operations", "receive", "scope", "wrap_send")

    def __init__(  # noqa: PLR0917 - immutable in the eyes of type checkers, quick to make
        self,
        receive: Any = None,
        operations: tuple[Operation, ...] = (),
        wrap_send: Callable[[Any], Any] | None = None,
        scope: Any = None,
        needed: Sequence[Requirement] = (),
        listens: bool | None = None,
    ) -> None:
        self.receive: Final = receive
        self.operations: Final = operations
        self.wrap_send: Final = wrap_send
        self.scope: Final = scope
        self.needed: Final = needed
        self.listens: Final = listens


OPEN = Permission()


class Answer(NamedTuple):
    """The request ends here."""

    outcome: Outcome
    response: Response
    resource: CompiledResource | None = None
    refusal: Refusal | None = None


class Admitted(NamedTuple):
    """The request goes on to the app: with an identity, or without one on a public path."""

    outcome: Outcome
    resource: CompiledResource | None = None
    verified: Verified | None = None
    cors: Cors | None = None
    passage: Permission = Permission()


def report(auth: MCPAuth, request: RequestInfo, decided: Answer | Admitted) -> None:
    """Tell the refusal log and the observers; an observer's failure is its own, and is logged."""
    answer = decided if isinstance(decided, Answer) else None
    if not auth.observers and (answer is None or not auth.refusal_log.wants(answer.refusal)):
        return
    resource = decided.resource
    verified = decided.verified if isinstance(decided, Admitted) else None
    decision = Decision(
        outcome=decided.outcome,
        method=request.method,
        url=request.public_url((resource or auth.site.resources[0]).url.origin),
        resource=None if resource is None else resource.identifier,
        status=None if answer is None else answer.response.status,
        auth_info=None if verified is None else verified.auth_info,
        refusal=None if answer is None else answer.refusal,
        operations=() if isinstance(decided, Answer) else decided.passage.operations,
    )
    auth.refusal_log(decision)
    for observe in auth.observers:
        try:
            observe(decision)
        except Exception as error:  # noqa: BLE001 - an observer decides nothing, so it cannot fail a request
            auth.hooks.failed("An on_decision observer", error)
