"""The lifespan of an ASGI app, run around a block of a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

__all__ = ("running",)

LIFESPAN_SECONDS = 60.0


@asynccontextmanager
async def running(app: Any) -> AsyncGenerator[Any]:
    """Start an ASGI app before a block and shut it down after the block, as a server does.

        async with running(app) as started:
            walk = await walk_discovery(started, url, issuer)
            call = await call_tool(started, url, "add", {"a": 1, "b": 2}, token=token)

    `walk_discovery` and `call_tool` do this themselves. Use `running` to make several calls during one lifespan:
    the session manager of an MCP SDK server starts once only.

    Yields:
        The started app. Its requests have the lifespan state (`scope["state"]`), and it ignores a second lifespan.

    Raises:
        RuntimeError: The app reported a failed startup or shutdown. If the app raised, its own exception is raised.
        TimeoutError: The startup took more than 60 seconds.

    An app without lifespan support (it raises or returns before it completes the startup) is called as it is.
    """
    if isinstance(app, _StartedApp):
        yield app
        return
    lifespan = _Lifespan(app)
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run)
        try:
            await lifespan.start()
            try:
                yield _StartedApp(app, lifespan.state)
            finally:
                await lifespan.stop()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised below: the task group would wrap it in a group
            failure = error
        finally:
            lifespan.scope.cancel()
    if failure is not None:
        raise failure


class _StartedApp:
    """An app whose lifespan is running; its requests get a copy of the lifespan state."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        state = {**self._state, **scope.get("state", {})}
        await self._app({**scope, "state": state}, receive, send)


class _Lifespan:
    """One lifespan connection (ASGI lifespan specification 2.0), seen from the server."""

    def __init__(self, app: Any) -> None:
        self.state: dict[str, Any] = {}
        self.scope = anyio.CancelScope(shield=True)  # a cancelled test still shuts the app down
        self._app = app
        self._startup_sent = False
        self._started = anyio.Event()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()
        self._supported = False
        self._failed: str | None = None
        self._error: Exception | None = None

    async def run(self) -> None:
        """Call the app with the lifespan scope, until it returns or raises or `scope` is cancelled."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            with self.scope:
                await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - an app without lifespan support may raise anything
            self._error = error
        finally:
            self._started.set()
            self._ended.set()

    async def start(self) -> None:
        """Wait until the app has started, has failed, or turns out not to support the lifespan."""
        with anyio.fail_after(LIFESPAN_SECONDS):
            await self._started.wait()
            if self._failed is not None:
                await self._ended.wait()
        self._raise_failure("startup")

    async def stop(self) -> None:
        """Ask a started app to shut down and wait for it, at most 60 seconds."""
        if not self._supported:
            return
        self._stopping.set()
        with anyio.move_on_after(LIFESPAN_SECONDS, shield=True):
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        self._raise_failure("shutdown")

    def _raise_failure(self, phase: str) -> None:
        if self._failed is not None:
            raise self._error or RuntimeError(f"the app reported a failed {phase}: {self._failed or 'no message'}")

    async def _receive(self) -> dict[str, str]:
        if not self._startup_sent:
            self._startup_sent = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._supported = True
            self._started.set()
        elif kind == "lifespan.shutdown.complete":
            self._ended.set()
        elif kind not in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            raise RuntimeError(f"an app must not send {kind} during the lifespan")
        else:
            self._failed = str(message.get("message", ""))
            self._started.set()
            self._stopping.set()  # an app that waits for the shutdown after a failed startup ends
            if self._supported:
                self._ended.set()
