"""The demo's client: the MCP SDK's own, with its OAuth; the user is simulated, or at a browser."""

from __future__ import annotations

import json
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from asgi_mcp_auth.cli.demo._servers import RunningServers

__all__ = ("HostApp", "NotAuthorizedError", "User", "approve", "open_browser")

USER_SECONDS = 300.0
SECONDS = 20.0
POLL_SECONDS = 0.05
PROTOCOL = "2026-07-28"

User = Callable[[str], Awaitable[None]]
"""A function that sends a user to an authorization URL."""


class NotAuthorizedError(Exception):
    """The user denied the request, or did not respond in time; the message is for people."""


async def approve(url: str) -> None:
    """Request an authorization URL and follow its redirects; the server approves every request."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=SECONDS) as browser:
        await browser.get(url)


def open_browser(note: Callable[[str], None]) -> User:
    """Return a function that opens an authorization URL in the browser, and prints the URL with `note`."""

    async def open_page(url: str) -> None:
        note("The page for your consent opens in your browser.")
        note(f"If it does not: {url}")
        note("Waiting for you to allow or deny. Ctrl-C stops.")
        # Some browsers return only when they are closed: the thread is not joined.
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    return open_page


class HostApp:
    """A host application: stores the tokens of the SDK's client, and sends its user to the browser."""

    def __init__(self, servers: RunningServers, user: User) -> None:
        self._servers = servers
        self._user = user
        self._state = ""
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    # The SDK's `TokenStorage`

    async def get_tokens(self) -> OAuthToken | None:
        """Return the stored tokens."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store tokens."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the stored registration."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Store a registration."""
        self._client = client_info

    async def _redirect(self, url: str) -> None:
        self._state = parse_qs(urlsplit(url).query)["state"][0]
        await self._user(url)

    async def _callback(self) -> AuthorizationCodeResult:
        response = None
        with anyio.move_on_after(USER_SECONDS):
            while (response := self._servers.callback.take(self._state)) is None:  # noqa: ASYNC110 - another thread's
                await anyio.sleep(POLL_SECONDS)
        if response is None:
            raise NotAuthorizedError(f"The browser did not return within {USER_SECONDS:.0f} s.")
        if "code" not in response:
            raise NotAuthorizedError(f"The request was denied: {response.get('error')}.")
        return AuthorizationCodeResult(code=response["code"], state=response.get("state"), iss=response.get("iss"))

    def client(self, http_client: httpx2.AsyncClient) -> Client:
        """Return the SDK's client over an HTTP client of `http()`."""
        return Client(streamable_http_client(self._servers.deployment.resource, http_client=http_client))

    def http(self) -> httpx2.AsyncClient:
        """Return an HTTP client that authorizes its requests."""
        metadata = OAuthClientMetadata(
            client_name="The demo's client",
            redirect_uris=[AnyUrl(self._servers.redirect_uri)],
            grant_types=["authorization_code", "refresh_token"],
            token_endpoint_auth_method="none",  # noqa: S106 - the name of a method
        )
        resource = self._servers.deployment.resource
        self._provider = OAuthClientProvider(resource, metadata, self, self._redirect, self._callback)
        return httpx2.AsyncClient(auth=self._provider, timeout=SECONDS, trust_env=False)

    def advance_clock(self, seconds: float) -> str:
        """Advance all clocks. Return the access token of before."""
        self._servers.clock.offset += seconds
        # The SDK's client reads the system's clock, and stores the expiry time of its token.
        self._provider.context.token_expiry_time = 1.0
        return "" if self._tokens is None else self._tokens.access_token

    async def list_tools_with(self, token: str) -> int:
        """List the tools with a token, without the SDK. Return the status."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": PROTOCOL,
            "mcp-method": "tools/list",
        }
        async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
            resource = self._servers.deployment.resource
            return (await client.post(resource, content=json.dumps(message), headers=headers)).status_code
