"""How the judging of a request ends: with an answer of our own, or with the app. And who is told."""

from __future__ import annotations

import logging
from typing import NamedTuple

from asgi_mcp_auth._asgi.passage import Passage
from asgi_mcp_auth._protocol.cross_origin import Cors
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.resource import CompiledResource
from asgi_mcp_auth._protocol.responses import Response
from asgi_mcp_auth._remote.verifiers import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.decisions import Decision, Outcome
from asgi_mcp_auth.errors import Refusal

__all__ = ("Admitted", "Answer", "report")

logger = logging.getLogger("asgi_mcp_auth")


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
    passage: Passage = Passage()


def report(auth: MCPAuth, request: Request, decided: Answer | Admitted) -> None:
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
        except Exception:  # an observer decides nothing, so it cannot fail a request either
            logger.exception("An on_decision observer failed")
