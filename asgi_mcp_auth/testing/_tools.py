"""A call of an MCP tool in process, over Streamable HTTP, for servers of the MCP SDK and of fastmcp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.testing._client import client_of_hosts
from asgi_mcp_auth.testing._lifespan import running

if TYPE_CHECKING:
    import httpx

__all__ = ("MCP_FIELDS", "ToolCall", "call_tool")

MCP_FIELDS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
PROTOCOL_VERSION = "2025-11-25"  # the newest revision with a handshake: all supported server versions have it
CLIENT = {"name": "asgi-mcp-auth-testing", "version": "1"}
MAX_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The outcome of `call_tool`: an HTTP response and the JSON-RPC message in it.

    Attributes:
        response: The `httpx.Response` to `tools/call`, or to the handshake if that failed.
        message: The JSON-RPC response, with `result` or `error`; None if the body has none.
    """

    response: httpx.Response
    message: Mapping[str, Any] | None

    @property
    def status_code(self) -> int:
        """The HTTP status, for `assert_challenge(call, …)`."""
        return self.response.status_code

    @property
    def headers(self) -> httpx.Headers:
        """The header fields of the response, for `assert_challenge(call, …)`."""
        return self.response.headers

    @property
    def result(self) -> Mapping[str, Any]:
        """The result of the call, with `content` and `isError`.

        Raises:
            AssertionError: The response has no result. The message shows the status and the body.
        """
        result = None if self.message is None else self.message.get("result")
        if not isinstance(result, dict):
            msg = f"the response {self.status_code} has no result of a tool: {self.response.text[:MAX_SHOWN]}"
            raise AssertionError(msg)  # noqa: TRY004 - an assertion of the test, not a type error
        return result  # pyright: ignore[reportUnknownVariableType] - JSON

    @property
    def text(self) -> str:
        """The text parts of the result, joined by line breaks.

        Raises:
            AssertionError: As for `result`.
        """
        return "\n".join(part["text"] for part in self.result.get("content", ()) if part.get("type") == "text")


async def call_tool(
    app: Any,
    url: str,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    lifespan: bool = True,
) -> ToolCall:
    """Call a tool as an MCP client does, in process: `initialize`, `notifications/initialized`, `tools/call`.

        call = await call_tool(app, url, "add", {"a": 1, "b": 2}, token=token)
        assert call.text == "3"
        assert_challenge(await call_tool(app, url, "purge", token=token), 403, scopes="notes:read notes:purge")

    The app is the whole ASGI app, protected: `auth.wrap(server.streamable_http_app())` for the MCP SDK, or
    `auth.wrap(mcp.http_app())` for fastmcp. Servers with and without sessions work, and JSON and event-stream
    responses. Both kinds of server check the `Host`: `url` has to name a host that they allow.

    Args:
        app: The ASGI app.
        url: The URL of the MCP endpoint.
        name: The name of the tool.
        arguments: Its arguments. Default: none.
        token: An access token to send as Bearer. Default: the calls are unauthenticated.
        headers: Header fields to add to each request.
        lifespan: Run the lifespan of the app around the call. Pass False if the test runs it.

    Returns:
        The response to `tools/call`. If a request before it fails (a 401, for example), the response to that one.

    Raises:
        ValueError: `url` is not an absolute URL.
    """
    parsed = parse_url(url)
    if parsed is None:
        raise ValueError(f"{url!r} is not an absolute URL; pass the URL of the MCP endpoint, with scheme and host")
    fields = {**MCP_FIELDS, **(headers or {})}
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    async with AsyncExitStack() as stack:
        started = await stack.enter_async_context(running(app)) if lifespan else app
        client = await stack.enter_async_context(client_of_hosts((), apps={parsed.origin: started}))
        return await _Session(client, url, fields).call_tool(name, dict(arguments or {}))


class _Session:
    """One MCP session with a server, or a sequence of requests if the server has no sessions."""

    def __init__(self, client: httpx.AsyncClient, url: str, fields: dict[str, str]) -> None:
        self._client = client
        self._url = url
        self._fields = fields

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> ToolCall:
        hello = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": CLIENT}
        greeted = await self._request(1, "initialize", hello)
        if greeted.message is None or "result" not in greeted.message:
            return greeted
        self._fields["mcp-protocol-version"] = str(greeted.result.get("protocolVersion", PROTOCOL_VERSION))
        session = greeted.headers.get("mcp-session-id")
        if session is not None:
            self._fields["mcp-session-id"] = session
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        called = await self._request(2, "tools/call", {"name": name, "arguments": arguments})
        if session is not None:
            await self._client.delete(self._url, headers=self._fields)
        return called

    async def _request(self, number: int, method: str, params: dict[str, Any]) -> ToolCall:
        response = await self._post({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return ToolCall(response=response, message=_find_message(response, number))

    async def _post(self, message: dict[str, Any]) -> httpx.Response:
        return await self._client.post(self._url, content=json.dumps(message), headers=self._fields)


def _find_message(response: httpx.Response, number: int) -> Mapping[str, Any] | None:
    """Return the JSON-RPC response with this id from a JSON body or an event stream, else None."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        lines = response.text.replace("\r\n", "\n").split("\n")
        bodies = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    else:
        bodies = [response.text] if kind == "application/json" else []
    for body in bodies:
        try:
            message: Any = json.loads(body)
        except ValueError:
            continue
        if isinstance(message, dict) and message.get("id") == number:  # pyright: ignore[reportUnknownMemberType]
            return message  # pyright: ignore[reportUnknownVariableType] - JSON
    return None
