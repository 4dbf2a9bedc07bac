"""Faults of a server on demand: a replaced, late, slow or missing response."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import anyio

from asgi_mcp_auth._oauth.responses import Response

__all__ = ("Fault", "Faults", "send_slowly", "stall")

CHUNK = 64 * 1024
POLL_SECONDS = 0.01


@dataclass(eq=False, slots=True, kw_only=True)
class Fault:
    """A fault for the next `times` requests (None: for all) whose path matches `path`, until it is healed."""

    path: str
    times: int | None = None
    instead: Response | None = None
    stall: float = 0.0
    trickle: float = 0.0
    cut: bool = False
    healed: bool = False


class Faults:
    """The active faults, the newest first. A test may change them from another thread than the server's."""

    def __init__(self) -> None:
        self._found: tuple[Fault, ...] = ()

    def add(self, fault: Fault) -> None:
        """Activate a fault."""
        self._found = (fault, *self._found)

    def heal(self, path: str) -> None:
        """End the faults whose own path matches `path`, also for requests that they hold."""
        for fault in self._found:
            if fnmatchcase(fault.path, path):
                fault.healed = True
        self._found = tuple(fault for fault in self._found if not fault.healed)

    def find(self, path: str) -> Fault | None:
        """Return the fault that the next request for `path` meets, if any."""
        return next((fault for fault in self._found if fault.times != 0 and fnmatchcase(path, fault.path)), None)

    def meet(self, path: str) -> Fault | None:
        """Return the fault that this request meets, and count the request."""
        fault = self.find(path)
        if fault is not None and fault.times is not None:
            fault.times -= 1  # a used-up fault stays until it is healed: it may hold requests
        return fault


async def stall(fault: Fault, receive: Any) -> None:
    """Wait until the time is over, the fault is healed, or the client has disconnected."""
    async with anyio.create_task_group() as group:

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(until_gone)
        with anyio.move_on_after(fault.stall):
            while not fault.healed:  # noqa: ASYNC110 - a test may heal it from another thread
                await anyio.sleep(POLL_SECONDS)
        group.cancel_scope.cancel()


async def send_slowly(answer: Response, fault: Fault, send: Any) -> None:
    """Send a response in chunks. The fault `trickle` sends single bytes with pauses, and `cut` sends no body."""
    await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
    if fault.cut:  # the app ends with an incomplete response, so that the server closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        return
    body, size = memoryview(answer.body), 1 if fault.trickle else CHUNK
    for start in range(0, len(body), size):
        await send({"type": "http.response.body", "body": bytes(body[start : start + size]), "more_body": True})
        if not fault.healed:
            await anyio.sleep(fault.trickle)
    await send({"type": "http.response.body", "body": b""})
