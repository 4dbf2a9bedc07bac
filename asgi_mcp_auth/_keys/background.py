"""The only owner of background work, on asyncio and on trio.

Work runs in an empty context (a request's identity must not leak into it), is held by a strong reference
(asyncio keeps only weak ones), and its failure is logged, never lost. Nothing here exists before it runs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # who runs asyncio has it loaded, and whoever makes a `Fetcher` loads anyio
    import asyncio

    from anyio.lowlevel import EventLoopToken

__all__ = ("Background", "SingleFlight", "spawn", "trio_here")

logger = logging.getLogger("asgi_mcp_auth.background")

T = TypeVar("T")

_running: set[asyncio.Task[None]] = set()


def trio_here() -> Any:
    """The module trio where the caller runs on it, else None; without importing it."""
    trio = sys.modules.get("trio")
    # Without it trio is not there, or still being imported by another thread: nothing runs on it.
    lowlevel = getattr(trio, "lowlevel", None)
    return trio if lowlevel is not None and lowlevel.in_trio_run() else None


def _this_loop() -> EventLoopToken:
    from anyio.lowlevel import current_token  # noqa: PLC0415

    return current_token()


class Background:
    """A piece of work that is under way."""

    __slots__ = ("_scope", "_work")

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        import anyio  # noqa: PLC0415

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
    trio = trio_here()
    if trio is not None:
        trio.lowlevel.spawn_system_task(background.run, context=Context())
    else:
        import asyncio  # noqa: PLC0415

        task = asyncio.get_running_loop().create_task(background.run(), context=Context())
        _running.difference_update([other for other in _running if other.get_loop().is_closed()])
        _running.add(task)
        task.add_done_callback(_running.discard)
    return background


class _Flight(Generic[T]):
    """One run of the work on one event loop; `results` has its result once it is done, unless it was cut off."""

    def __init__(self) -> None:
        import anyio  # noqa: PLC0415

        self.done = anyio.Event()
        self.results: list[T] = []


class SingleFlight(Generic[T]):
    """Work that runs once at a time on each event loop, in the background; whoever needs its result waits for it.

    Args:
        work: What to run. It bounds its own time and returns its failure as a result.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._flights: dict[EventLoopToken, _Flight[T]] = {}

    @property
    def under_way(self) -> bool:
        """Whether it is running on this event loop."""
        return _this_loop() in self._flights

    def start(self) -> _Flight[T]:
        """The run under way on this event loop, begun if there is none."""
        loop = _this_loop()
        flight = self._flights.get(loop)
        if flight is None:
            self._forget_closed_loops()
            begun = flight = self._flights[loop] = _Flight[T]()

            async def run() -> None:
                try:
                    begun.results.append(await self._work())
                finally:
                    self._flights.pop(loop, None)
                    begun.done.set()

            spawn(run)
        return flight

    def _forget_closed_loops(self) -> None:
        """An asyncio loop that is closed before its tasks have ended never runs their last lines."""
        import asyncio  # noqa: PLC0415

        for token in tuple(self._flights):
            if isinstance(loop := token.native_token, asyncio.AbstractEventLoop) and loop.is_closed():
                self._flights.pop(token, None)

    async def join(self) -> T | None:
        """The result of that run; None when it was cut off. The caller's cancellation does not touch it."""
        flight = self.start()
        await flight.done.wait()
        return flight.results[0] if flight.results else None
