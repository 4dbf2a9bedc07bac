"""The only owner of background work, on asyncio and on trio.

Work runs in an empty context (a request's identity must not leak into it), is held by a strong reference
(asyncio keeps only weak ones), and its failure is logged, never lost. Nothing here exists before it runs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context

import anyio

__all__ = ("Background", "spawn")

logger = logging.getLogger("asgi_mcp_auth.background")

_running: set[asyncio.Task[None]] = set()


class Background:
    """A piece of work that is under way."""

    __slots__ = ("_scope", "_work")

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Run to the end, to the cancellation, or to a logged failure."""
        with self._scope:
            try:
                await self._work()
            except Exception:  # nobody waits for it, and on trio it would end the whole run
                logger.exception("Background work failed")

    def cancel(self) -> None:
        """Stop the work, from the event loop it runs on."""
        self._scope.cancel()


def spawn(work: Callable[[], Awaitable[None]]) -> Background:
    """Start `work` beside the caller on the running event loop; the caller's cancellation does not touch it."""
    background = Background(work)
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.spawn_system_task(background.run, context=Context())
    else:
        task = asyncio.get_running_loop().create_task(background.run(), context=Context())
        _running.add(task)
        task.add_done_callback(_running.discard)
    return background
