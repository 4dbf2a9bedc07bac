"""`asgi_mcp_auth.testing.running`: startup, shutdown and state of the lifespan, as a server runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_mcp_auth.testing import _lifespan as lifespan_module
from asgi_mcp_auth.testing import running

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


def starlette(log: list[str], *, startup: Exception | None = None, shutdown: Exception | None = None) -> Starlette:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[dict[str, str]]:
        log.append("startup")
        if startup is not None:
            raise startup
        yield {"database": "connected"}
        log.append("shutdown")
        if shutdown is not None:
            raise shutdown

    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.database)

    return Starlette(routes=[Route("/", show)], lifespan=lifespan)


async def get(app: Any) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="https://api.example.com") as client:
        return (await client.get("/")).text


async def test_the_app_starts_before_the_block_and_shuts_down_after_it() -> None:
    log: list[str] = []
    async with running(starlette(log)) as app:
        log.append(await get(app))
    assert log == ["startup", "connected", "shutdown"]


async def test_a_started_app_is_not_started_again() -> None:
    log: list[str] = []
    async with running(starlette(log)) as app, running(app) as same:
        assert same is app
    assert log == ["startup", "shutdown"]


class TestError(BaseException):
    """As pytest's own outcomes, no `Exception`."""

    __test__ = False


@pytest.mark.parametrize("error", [ZeroDivisionError(), TestError()], ids=["an exception", "a base exception"])
async def test_an_exception_in_the_block_is_raised_unchanged_after_the_shutdown(error: BaseException) -> None:
    log: list[str] = []
    with pytest.raises(type(error)) as raised:
        async with running(starlette(log)):
            raise error
    assert raised.value is error
    assert log == ["startup", "shutdown"]


async def test_a_cancelled_block_still_shuts_the_app_down() -> None:
    log: list[str] = []
    with anyio.move_on_after(0.01) as scope:
        async with running(starlette(log)):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert log == ["startup", "shutdown"]


async def test_an_exception_in_the_startup_or_shutdown_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running(starlette([], startup=ZeroDivisionError())):
            pytest.fail("the app has not started")
    with pytest.raises(ZeroDivisionError):
        async with running(starlette([], shutdown=ZeroDivisionError())):
            pass


def answering(*messages: dict[str, str], then: Exception | None = None) -> Any:
    """An app that answers the lifespan events with these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for message in messages:
            await receive()
            await send(message)
        if then is not None:
            raise then

    return app


STARTED = {"type": "lifespan.startup.complete"}


@pytest.mark.parametrize(
    ("app", "message"),
    [
        pytest.param(answering({"type": "lifespan.startup.failed", "message": "no keys"}), "failed startup: no keys", id="startup"),
        pytest.param(answering({"type": "lifespan.startup.failed"}), "failed startup: no message", id="no message"),
        pytest.param(answering(STARTED, {"type": "lifespan.shutdown.failed", "message": "x"}), "failed shutdown: x", id="shutdown"),
    ],
)  # fmt: skip
async def test_a_reported_failure_is_a_runtime_error(app: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        async with running(app):
            pass


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(answering(then=NotImplementedError()), id="raises"),
        pytest.param(answering(), id="returns"),
        pytest.param(answering({"type": "http.response.start"}), id="sends an HTTP message"),
        pytest.param(answering(STARTED), id="returns after the startup"),
    ],
)
async def test_an_app_without_lifespan_support_is_called_as_it_is(app: Any) -> None:
    async with running(app):
        pass


async def test_a_startup_that_hangs_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan_module, "LIFESPAN_SECONDS", 0.01)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    with pytest.raises(TimeoutError):
        async with running(app):
            pytest.fail("the app has not started")
