"""The demonstration's client: the MCP SDK's own, with its own OAuth; only its person is scripted, or is you."""

from __future__ import annotations

import json
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx

from asgi_mcp_auth.cli.demo.servers import Running

__all__ = ("Host", "NotAuthorizedError", "Person", "person_at_the_browser", "scripted_person")

PERSON_SECONDS = 300.0
SECONDS = 20.0
POLL_SECONDS = 0.05
PROTOCOL = "2026-07-28"

Person = Callable[[str], Awaitable[None]]


class NotAuthorizedError(Exception):
    """The person said no, or nothing; the message is for people."""


async def scripted_person(url: str) -> None:
    """Go where the client sends the browser, and on to where that leads. The server allows everything by itself."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=SECONDS) as browser:
        await browser.get(url)


def person_at_the_browser(say: Callable[[str], None]) -> Person:
    """Open the page in the browser, and say where it is."""

    async def open_page(url: str) -> None:
        say("The page for your consent opens in your browser.")
        say(f"If it does not: {url}")
        say("Waiting for you to allow or deny. Ctrl-C stops.")
        # Some browsers return only when they are closed: nobody waits for this thread.
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    return open_page


class Host:
    """A host application: keeps what the SDK's client asks it to keep, and sends its person to the browser."""

    def __init__(self, running: Running, person: Person) -> None:
        self._running = running
        self._person = person
        self._state = ""
        self._tokens: Any = None
        self._client: Any = None
        self._provider: Any = None

    # The interface `TokenStorage` of the SDK

    async def get_tokens(self) -> Any:
        """The tokens kept."""
        return self._tokens

    async def set_tokens(self, tokens: Any) -> None:
        """Keep tokens."""
        self._tokens = tokens

    async def get_client_info(self) -> Any:
        """The registration kept."""
        return self._client

    async def set_client_info(self, client_info: Any) -> None:
        """Keep a registration."""
        self._client = client_info

    async def _redirect(self, url: str) -> None:
        self._state = parse_qs(urlsplit(url).query)["state"][0]
        await self._person(url)

    async def _returned(self) -> Any:
        from mcp.shared.auth import AuthorizationCodeResult  # noqa: PLC0415 - an extra

        back = None
        with anyio.move_on_after(PERSON_SECONDS):
            while (back := self._running.returns.take(self._state)) is None:  # noqa: ASYNC110 - it is another thread's
                await anyio.sleep(POLL_SECONDS)
        if back is None:
            msg = f"Nobody came back from the browser in {PERSON_SECONDS:.0f} s."
            raise NotAuthorizedError(msg)
        if "code" not in back:
            msg = f"The answer was no: {back.get('error')}."
            raise NotAuthorizedError(msg)
        return AuthorizationCodeResult(code=back["code"], state=back.get("state"), iss=back.get("iss"))

    def client(self, http_client: Any) -> Any:
        """The SDK's client over an HTTP client of `http()`."""
        from mcp.client.client import Client  # noqa: PLC0415
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        return Client(streamable_http_client(self._running.place.resource, http_client=http_client))

    def http(self) -> Any:
        """An HTTP client that authorizes itself."""
        import httpx2  # noqa: PLC0415
        from mcp.client.auth import OAuthClientProvider  # noqa: PLC0415
        from mcp.shared.auth import OAuthClientMetadata  # noqa: PLC0415
        from pydantic import AnyUrl  # noqa: PLC0415

        metadata = OAuthClientMetadata(
            client_name="The demo's client",
            redirect_uris=[AnyUrl(self._running.redirect_uri)],
            grant_types=["authorization_code", "refresh_token"],
            token_endpoint_auth_method="none",  # noqa: S106 - the name of a method
        )
        resource = self._running.place.resource
        self._provider = OAuthClientProvider(resource, metadata, self, self._redirect, self._returned)
        return httpx2.AsyncClient(auth=self._provider, timeout=SECONDS, trust_env=False)

    def later(self, seconds: float) -> str:
        """Put all clocks ahead; returns the access token of before."""
        self._running.clock.ahead += seconds
        # The SDK's client has a clock of its own, and keeps the time at which its token ends.
        self._provider.context.token_expiry_time = 1.0
        token: str = self._tokens.access_token
        return token

    async def call_with(self, token: str) -> int:
        """Call a tool without the SDK, with any token; returns the status."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": PROTOCOL,
            "mcp-method": "tools/list",
        }
        async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
            resource = self._running.place.resource
            return (await client.post(resource, content=json.dumps(message), headers=headers)).status_code
