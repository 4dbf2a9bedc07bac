"""The scenario of the demo: the steps of the client, and the exchanges that each step must lead to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import anyio
from mcp.client.client import Client
from mcp.types import TextContent

from asgi_mcp_auth.cli.demo._client import HostApp, NotAuthorizedError, User
from asgi_mcp_auth.cli.demo._display import Display
from asgi_mcp_auth.cli.demo._servers import READ, START_SECONDS, RunningServers

__all__ = ("STARTUP", "first_missing", "run_scenario")

STARTUP = "The servers start, and the middleware fetches the metadata and keys of its issuer"
POLL_SECONDS = 0.01
HOUR = 3600.0
OTHER_RESOURCE = "https://other.example.com/mcp"
CODE_FLOW = ("authorization", "callback", "authorization_code")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the client, and the kinds of exchanges that it must lead to, in this order."""

    title: str
    expected: Sequence[str]
    run: Callable[[], Awaitable[str]]
    """Makes the call and returns its result for people."""


def first_missing(expected: Iterable[str], found: Iterable[str]) -> str | None:
    """Return the first expected kind that does not follow the kinds before it; other kinds may be between them."""
    kinds: Iterator[str] = iter(found)
    return next((kind for kind in expected if kind not in kinds), None)


def _steps(servers: RunningServers, host: HostApp, client: Client) -> Iterator[Step]:
    """Yield the steps, each when the step before has run. The first one enters `client`."""
    old = ""

    async def call(tool: str, **arguments: str) -> str:
        result = await client.call_tool(tool, arguments)
        text = ", ".join(part.text for part in result.content if isinstance(part, TextContent))
        if result.is_error:
            raise RuntimeError(text)
        return f"{tool}: {text}"

    async def first_call() -> str:
        await client.__aenter__()
        return await call("list_notes")

    async def call_an_hour_later() -> str:
        nonlocal old
        old = host.advance_clock(HOUR)
        return await call("list_notes")

    async def call_with_old_token() -> str:
        return f"Rejected with {await host.list_tools_with(old)}"

    async def call_with_other_token() -> str:
        return f"Rejected with {await host.list_tools_with(servers.issuer.mint(OTHER_RESOURCE, scope=READ))}"

    discovery = ("no token", "resource metadata", "server metadata", "registration")
    yield Step(
        f"A client that knows only the URL {servers.deployment.resource} calls list_notes",
        (*discovery, *CODE_FLOW, "tools/call list_notes"),
        first_call,
    )
    yield Step(
        "The client calls add_note, which needs another scope",
        ("step-up", *CODE_FLOW, "tools/call add_note"),
        lambda: call("add_note", text="Buy bread"),
    )
    yield Step(
        "An hour later the client calls list_notes: its token has expired, and it has a refresh token",
        ("refresh_token", "tools/call list_notes"),
        call_an_hour_later,
    )
    yield Step("Another client sends the expired token", ("expired",), call_with_old_token)
    yield Step(
        f"Another client sends a token of the same issuer for {OTHER_RESOURCE}",
        ("invalid_token",),
        call_with_other_token,
    )


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


async def _run_step(step: Step, display: Display) -> bool:
    """Run a step whose title has been printed; return whether it succeeded."""
    result, failed = "", False
    try:
        result = await step.run()
    except Exception as error:  # noqa: BLE001 - any failure of the SDK, the servers or the network fails the demo
        cause = _first_cause(error)
        if isinstance(cause, NotAuthorizedError):
            display.failure(str(cause))
            return False
        display.failure(f"The client gave up: {type(cause).__name__}: {cause}")
        failed = True
    missing = first_missing(step.expected, [meaning.kind for meaning in display.meanings])
    if missing is not None:
        display.failure(f"An exchange of the kind {missing!r} is missing, or out of order.")
    if failed or missing is not None or any(meaning.problem for meaning in display.meanings):
        return False
    display.success(result)
    return True


async def run_scenario(servers: RunningServers, user: User, display: Display) -> bool:
    """Run the steps up to the first that fails; return whether all succeeded. `STARTUP` must have been printed."""

    async def wait_for_keys() -> str:
        with anyio.move_on_after(START_SECONDS):
            while not display.has_shown("keys"):  # noqa: ASYNC110 - another thread's event loop fetches them
                await anyio.sleep(POLL_SECONDS)
        return "Ready"

    startup = Step(STARTUP, ("server metadata for the MCP server", "keys"), wait_for_keys)
    if not await _run_step(startup, display):
        return False
    host = HostApp(servers, user)
    async with host.http() as http:
        client = host.client(http)
        entered = False
        try:
            for step in _steps(servers, host, client):
                display.begin_step(step.title)
                if not await _run_step(step, display):
                    return False
                entered = True
        finally:
            if entered:
                await client.__aexit__(None, None, None)
    return True
