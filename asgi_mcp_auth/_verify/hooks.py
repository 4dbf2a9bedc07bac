"""Asking the `authorize=` hook about operations that the scope rules allow; it fails closed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.verifier import ask_hook
from asgi_mcp_auth.authorization import Allow, Deny, NeedScopes, Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Forbidden, Reason, Refusal, Unavailable

__all__ = ("Authorize", "ask_authorize")

logger = logging.getLogger("asgi_mcp_auth.verifiers")

HookAnswer = Allow | Deny | NeedScopes
Authorize = Callable[[AuthInfo, Operation, RequestInfo], HookAnswer | Awaitable[HookAnswer]]


async def ask_authorize(
    authorize: Authorize, auth_info: AuthInfo, operations: Iterable[Operation], request: RequestInfo, token: bytes
) -> tuple[str, ...] | Refusal:
    """The scopes that the hook wants beside the policy's (none: allowed), or the refusal.

    One denied operation denies all: a batch is not served in part.
    """
    wanted: list[str] = []
    for operation in operations:
        try:
            answer = await ask_hook(authorize, auth_info, operation, request, name="authorize", token=token)
        except Refusal as refusal:
            return refusal.without_traceback()
        if isinstance(answer, Deny):
            denied = Forbidden(Reason.DENIED_BY_HOOK, found=answer.reason, client_id=auth_info.client_id)
            denied.operation = str(operation)
            return denied
        if isinstance(answer, NeedScopes):
            wanted += answer.scopes
        elif not isinstance(answer, Allow):
            logger.error("authorize returned %s, not Allow, Deny or NeedScopes", type(answer).__name__)
            return Unavailable(Reason.HOOK_FAILED, found=type(answer).__name__)
    return tuple(wanted)
