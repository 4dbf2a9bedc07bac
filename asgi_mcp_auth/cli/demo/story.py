"""The story that the demonstration tells: what the client does, and which exchanges that must lead to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio

from asgi_mcp_auth.cli.demo.client import Host, NotAuthorizedError, Person
from asgi_mcp_auth.cli.demo.display import Display
from asgi_mcp_auth.cli.demo.servers import READ, START_SECONDS, Running

__all__ = ("OPENING", "Act", "acts", "missing", "tell_story")

OPENING = "The servers start, and the middleware fetches what it has to know of its issuer"
POLL_SECONDS = 0.01
HOUR = 3600.0
ELSEWHERE = "https://other.example.com/mcp"
CODE_FLOW = ("authorization", "callback", "authorization_code")


@dataclass(frozen=True, slots=True)
class Act:
    """What the client does, the kinds of exchanges that it must lead to, in this order, and what it gets."""

    title: str
    expected: Sequence[str]
    play: Callable[[], Awaitable[str]]


def missing(expected: Iterable[str], found: Iterable[str]) -> str | None:
    """The first kind of exchange that did not happen, or not in its place; others may be between."""
    kinds: Iterator[str] = iter(found)
    return next((kind for kind in expected if kind not in kinds), None)


def acts(running: Running, host: Host, client: Any) -> Iterator[Act]:
    """The acts; each is made when the one before has been played. `client` is entered in the first."""
    old = ""

    async def call(tool: str, **arguments: str) -> str:
        result = await client.call_tool(tool, arguments)
        text = ", ".join(str(part.text) for part in result.content)
        if result.is_error:
            raise RuntimeError(text)
        return f"{tool}: {text}"

    async def first() -> str:
        await client.__aenter__()
        return await call("list_notes")

    async def later() -> str:
        nonlocal old
        old = host.later(HOUR)
        return await call("list_notes")

    async def with_old() -> str:
        return f"Refused with {await host.call_with(old)}"

    async def with_foreign() -> str:
        return f"Refused with {await host.call_with(running.issuer.mint(ELSEWHERE, scope=READ))}"

    discovery = ("no token", "resource metadata", "server metadata", "registration")
    yield Act(
        f"A client calls list_notes. All it knows is the URL {running.place.resource}",
        (*discovery, *CODE_FLOW, "tools/call list_notes"),
        first,
    )
    yield Act(
        "It calls add_note, which needs another scope",
        ("step-up", *CODE_FLOW, "tools/call add_note"),
        lambda: call("add_note", text="Buy bread"),
    )
    yield Act(
        "An hour later it calls list_notes: its token has expired, and it has a refresh token",
        ("refresh_token", "tools/call list_notes"),
        later,
    )
    yield Act("Somebody sends the expired token all the same", ("expired",), with_old)
    yield Act(f"Somebody sends a token of the same issuer for {ELSEWHERE}", ("invalid_token",), with_foreign)


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


async def _play(act: Act, display: Display) -> bool:
    """Play an act, of which the title has been shown; returns whether it went as it should."""
    outcome, failed = "", False
    try:
        outcome = await act.play()
    except Exception as error:  # noqa: BLE001 - of the SDK, the servers or the network: it is shown, and fails the demo
        cause = _first_cause(error)
        if isinstance(cause, NotAuthorizedError):
            display.wrong(str(cause))
            return False
        display.wrong(f"The client gave up: {type(cause).__name__}: {cause}")
        failed = True
    lacking = missing(act.expected, [meaning.kind for meaning in display.meanings])
    if lacking is not None:
        display.wrong(f"There was no exchange of the kind {lacking!r} in its place.")
    if failed or lacking is not None or any(meaning.problem for meaning in display.meanings):
        return False
    display.got(outcome)
    return True


async def tell_story(running: Running, person: Person, display: Display) -> bool:
    """Play all acts, to the first that does not go as it should; returns whether all did. `OPENING` has been shown."""

    async def ready() -> str:
        with anyio.move_on_after(START_SECONDS):
            while not display.has_shown("keys"):  # noqa: ASYNC110 - it is another thread's loop that they are asked in
                await anyio.sleep(POLL_SECONDS)
        return "Ready"

    if not await _play(Act(OPENING, ("server metadata for the MCP server", "keys"), ready), display):
        return False
    host = Host(running, person)
    async with host.http() as http:
        client = host.client(http)
        entered = False
        try:
            for act in acts(running, host, client):
                display.act(act.title)
                if not await _play(act, display):
                    return False
                entered = True
        finally:
            if entered:
                await client.__aexit__(None, None, None)
    return True
