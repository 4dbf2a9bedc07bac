"""Fetching security events from transmitters (RFC 8936): one process of the fleet asks, in the background."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import RunVar

from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.http import read_body
from asgi_mcp_auth._oauth.security_event import EventRefusedError
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._signals.receiver import Receiver, Source
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.errors import DiscoveryError, Unavailable
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("Poller",)

logger = logging.getLogger("asgi_mcp_auth.events")

POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0  # after failures
LEASE_SECONDS = 30.0  # after which another process asks, if the one that asks has ended
MAX_EVENTS = 20
MAX_ANSWER = 2_000_000


class Poller:
    """Fetches the events of transmitters with a `poll_endpoint`.

    Args:
        receiver: Verifies and stores the events.
        use: The entries of the store, for the lease of the process that asks.
        clock: Seconds, for the rate limit of records.
    """

    def __init__(self, receiver: Receiver, use: StoreUse, clock: Callable[[], float]) -> None:
        self._receiver = receiver
        self._use = use
        self._name = secrets.token_bytes(16)
        self._started: RunVar[bool] = RunVar("asgi_mcp_auth poller")
        self._budget = RecordBudget(clock)

    def start(self) -> None:
        """Ask in the background of this event loop, once for however many apps share this object."""
        if self._started.get(False):
            return
        self._started.set(True)
        for source in self._receiver.polled:
            spawn(partial(self._poll, source))

    async def _poll(self, source: Source) -> None:
        answers: dict[str, Any] = {}
        pause = POLL_SECONDS
        while True:
            try:
                if await self._leads(source):
                    answers, more = await self.poll_once(source, answers)
                    pause = 0.0 if more else POLL_SECONDS
                else:
                    answers, pause = {}, POLL_SECONDS
            except (DiscoveryError, Unavailable, JSONRefused) as error:
                grant = self._budget.take(source.compiled.issuer)
                if grant is not None:
                    logger.warning("Events of %s cannot be fetched: %s%s", source.compiled.issuer, error, grant.note)
                pause = min(MAX_POLL_SECONDS, max(POLL_SECONDS, pause * 2))
            await anyio.sleep(pause)

    async def _leads(self, source: Source) -> bool:
        """Return whether this process is the one that asks."""
        key = self._use.key("poll", source.compiled.issuer)
        holder = await self._use.add(key, self._name, LEASE_SECONDS)
        if holder == self._name:
            await self._use.touch(key, LEASE_SECONDS)
        return holder in (None, self._name)

    async def poll_once(self, source: Source, answers: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Send the answers to the last events, and receive the next ones (RFC 8936 section 2).

        Return the answers to these events, and whether there are more. An event that cannot be stored now has no
        answer: the transmitter delivers it again.

        Raises:
            DiscoveryError: The transmitter cannot be reached, or answers something else.
            JSONRefused: The answer is not unambiguous JSON.
        """
        settings = source.compiled.settings
        headers = {"content-type": "application/json", "accept": "application/json"}
        if settings.poll_token is not None:
            headers["authorization"] = f"Bearer {settings.poll_token}"
        content = json.dumps({"maxEvents": MAX_EVENTS, "returnImmediately": True, **answers}).encode()
        url = settings.poll_endpoint or ""
        body = await source.keys.post(url, _read, is_configured=True, headers=headers, content=content)
        answer = load_object(body)
        events = answer.get("sets")
        acknowledged: list[str] = []
        refused: dict[str, dict[str, str]] = {}
        for token_id, token in events.items() if isinstance(events, dict) else ():
            try:
                text = token if isinstance(token, str) else ""
                await self._receiver.receive_polled(text.encode("utf-8", "surrogatepass"), source.compiled.issuer)
                acknowledged.append(token_id)
            except EventRefusedError as error:
                refused[token_id] = {"err": error.code, "description": error.description}
            except Unavailable:
                continue
        return {"ack": acknowledged, "setErrs": refused}, answer.get("moreAvailable") is True and bool(acknowledged)


async def _read(response: Any) -> bytes:
    if response.status_code != 200:  # noqa: PLR2004
        raise DiscoveryError(f"the transmitter answered {response.status_code}", transient=True)
    body = await read_body(response, MAX_ANSWER)
    if body is None:
        raise DiscoveryError("the answer of the transmitter is too large", transient=True)
    return body
