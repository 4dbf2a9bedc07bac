"""Background work on asyncio and on trio; this module is its only owner.

Work runs in an empty context, so that the identity of a request cannot leak into it. A strong reference keeps it alive
(asyncio keeps only weak ones), and its failure is logged. Nothing exists before the first work starts.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar, current_token

if TYPE_CHECKING:
    from anyio.lowlevel import EventLoopToken

__all__ = ("Background", "PerLoop", "SingleFlight", "spawn", "trio_here")

logger = logging.getLogger("asgi_mcp_auth.background")

T = TypeVar("T")


def trio_here() -> Any:
    """Return the module trio if the caller runs on trio, else None. Trio is never imported for it."""
    trio = sys.modules.get("trio")
    # While another thread imports trio, the module is in sys.modules before it has its attributes.
    lowlevel = getattr(trio, "lowlevel", None)
    return trio if lowlevel is not None and lowlevel.in_trio_run() else None


class PerLoop(Generic[T]):
    """One value for each event loop, made when the loop first asks for it.

    Args:
        name: The name of the variable.
        make: Makes the value.
    """

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._values: RunVar[T] = RunVar(name)
        self._make = make

    def get(self) -> T:
        """Return the value of the running event loop."""
        value = self._values.get(None)
        if value is None:
            value = self._make()
            self._values.set(value)
        return value


class Background:
    """A piece of work in the background."""

    __slots__ = ("_scope", "_work")

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Run until the work ends, is cancelled, or fails; a failure is logged."""
        with self._scope:
            try:
                await self._work()
            except Exception:  # no caller awaits it, and on trio an exception ends the whole run
                logger.exception("Background work failed")

    def cancel(self) -> None:
        """Cancel the work. Call it on the event loop that runs the work."""
        self._scope.cancel()


class _Tasks:
    """The running tasks of one asyncio event loop."""

    __slots__ = ("loop", "running")

    def __init__(self) -> None:
        self.loop = weakref.ref(asyncio.get_running_loop())
        self.running: set[asyncio.Task[None]] = set()
        # Only a new loop pays for a look at the others.
        _loops[:] = [*(other for other in _loops if not other.forget_if_closed()), self]

    def forget_if_closed(self) -> bool:
        """Return whether the loop is closed, and let its tasks go: a closed loop never runs their last lines."""
        loop = self.loop()
        if loop is not None and not loop.is_closed():
            return False
        self.running.clear()
        return True


_loops: list[_Tasks] = []

_tasks = PerLoop("asgi_mcp_auth_tasks", _Tasks)


def spawn(work: Callable[[], Awaitable[None]]) -> Background:
    """Start `work` in the background on the running event loop. Cancelling the caller does not cancel the work."""
    background = Background(work)
    trio = trio_here()
    if trio is not None:
        trio.lowlevel.spawn_system_task(background.run, context=Context())
        return background
    running = _tasks.get().running
    task = asyncio.get_running_loop().create_task(background.run(), context=Context())
    running.add(task)
    task.add_done_callback(running.discard)
    return background


class _Flight(Generic[T]):
    """One run of the work on one event loop; `results` has its result once it is done, unless it was cancelled."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.results: list[T] = []


class SingleFlight(Generic[T]):
    """Work that runs at most once at a time on each event loop, in the background; all callers share its result.

    Args:
        work: What to run. It limits its own time and returns its failure as a result.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._flights: dict[EventLoopToken, _Flight[T]] = {}

    @property
    def under_way(self) -> bool:
        """Whether the work is running on this event loop."""
        return current_token() in self._flights

    def start(self) -> _Flight[T]:
        """Return the run that is under way on this event loop; start one if there is none."""
        loop = current_token()
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
        """Drop the runs of asyncio loops that were closed before their tasks had ended."""
        for token in tuple(self._flights):
            if isinstance(loop := token.native_token, asyncio.AbstractEventLoop) and loop.is_closed():
                self._flights.pop(token, None)

    async def join(self) -> T | None:
        """Wait for that run and return its result, or None if the run was cancelled.

        Cancelling the caller does not cancel the run.
        """
        flight = self.start()
        await flight.done.wait()
        return flight.results[0] if flight.results else None
