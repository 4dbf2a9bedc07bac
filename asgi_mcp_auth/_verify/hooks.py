"""Calling functions of the user: with a time limit, failing closed, and with few records of their failures."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from threading import Thread
from typing import TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, Event, from_thread
from anyio.lowlevel import current_token

from asgi_mcp_auth._keys.background import PerLoop
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.limits import within
from asgi_mcp_auth.authorization import Allow, Deny, NeedScopes, Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.errors import Forbidden, Reason, Refusal, Unavailable

__all__ = ("Authorize", "HookCaller", "run_on_thread")

logger = logging.getLogger("asgi_mcp_auth.verifiers")

T = TypeVar("T")
HookAnswer = Allow | Deny | NeedScopes
Authorize = Callable[[AuthInfo, Operation, RequestInfo], HookAnswer | Awaitable[HookAnswer]]

MAX_THREADS = 40  # at once on one event loop, as anyio's default limiter has it


class HookCaller:
    """Calls functions of the user. A function that raises or takes too long means 503 `hook_failed`.

    Args:
        timeout: Seconds that a call may take.
        clock: Seconds, for the rate limit of records.
    """

    def __init__(self, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._budget = RecordBudget(clock)

    async def call(self, hook: Callable[..., object], *args: object, name: str, token: bytes) -> object:
        """Return what a function returns, sync or async.

        A sync function runs on the event loop, where no time limit can interrupt it.

        Args:
            hook: The function.
            args: Its arguments.
            name: What log records call the function.
            token: The token of the request, to keep it out of the log.

        Raises:
            Refusal: What the function raised; `Unavailable` for an exception of another class or a timeout.
        """
        try:
            return await within(self._timeout, _call(hook, args))
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - a failure of the user's code never lets a request pass
            raise self.failed(name, error, token) from None

    def failed(self, name: str, error: Exception, token: bytes = b"") -> Unavailable:
        """Return the refusal for a function that raised `error`. Log its traceback without the token."""
        grant = self._budget.take(name)
        if grant is not None:
            text, secret = "".join(traceback.format_exception(error)), token.decode("ascii", "replace")
            for form in {secret, quote(secret), quote(secret, safe="")} - {""}:
                text = text.replace(form, "[token]")
            logger.error("%s failed%s:\n%s", name, grant.note, text)
        return Unavailable(Reason.HOOK_FAILED, found=type(error).__name__)

    def wrong_answer(self, name: str, answer: object, expected: str) -> Unavailable:
        """Return the refusal for a function whose answer has the wrong type. Log the type, not the value."""
        grant = self._budget.take(name)
        if grant is not None:
            logger.error("%s returned %s, not %s%s", name, type(answer).__name__, expected, grant.note)
        return Unavailable(Reason.HOOK_FAILED, found=type(answer).__name__)

    async def authorize(
        self,
        hook: Authorize,
        auth_info: AuthInfo,
        operations: Iterable[Operation],
        request: RequestInfo,
        token: bytes,
    ) -> tuple[str, ...] | Refusal:
        """Ask the `authorize` hook about operations that the scope rules allow.

        The time limit is for all operations of the request together. One denied operation denies the request, because
        a batch is not served in part.

        Returns:
            The scopes that the hook demands in addition to the policy's (none: allowed), or the refusal.
        """
        wanted: list[str] = []

        async def ask_about_each() -> Refusal | None:
            for operation in operations:
                answer: object = await _call(hook, (auth_info, operation, request))
                if isinstance(answer, Deny):
                    denied = Forbidden(Reason.DENIED_BY_HOOK, found=answer.reason, client_id=auth_info.client_id)
                    denied.operation = str(operation)
                    return denied
                if isinstance(answer, NeedScopes):
                    wanted.extend(answer.scopes)
                elif not isinstance(answer, Allow):
                    return self.wrong_answer("authorize", answer, "Allow, Deny or NeedScopes")
            return None

        try:
            refusal = await self.call(ask_about_each, name="authorize", token=token)
        except Refusal as raised:
            return raised.without_traceback()
        return refusal if isinstance(refusal, Refusal) else tuple(wanted)


async def _call(hook: Callable[..., object], args: tuple[object, ...]) -> object:
    answer = hook(*args)
    return await answer if inspect.isawaitable(answer) else answer


_threads = PerLoop("asgi_mcp_auth hook threads", lambda: CapacityLimiter(MAX_THREADS))


async def run_on_thread(function: Callable[[str], T], argument: str) -> T:
    """Return what a sync function returns, called on a thread.

    The thread is a daemon: anyio's worker threads are joined at exit, so a function that hangs would hold the
    shutdown. A thread keeps its place among `MAX_THREADS` until the function returns, whether a caller waits or not.
    """
    limits, loop, borrower, done = _threads.get(), current_token(), object(), Event()
    context, outcome = copy_context(), Future[T]()

    def finish() -> None:
        limits.release_on_behalf_of(borrower)
        done.set()

    def work() -> None:
        try:
            outcome.set_result(context.run(function, argument))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            outcome.set_exception(error)
        with suppress(Exception):  # the event loop may have ended
            from_thread.run_sync(finish, token=loop)

    await limits.acquire_on_behalf_of(borrower)
    Thread(target=work, name="asgi_mcp_auth verify function", daemon=True).start()
    await done.wait()
    return outcome.result()
