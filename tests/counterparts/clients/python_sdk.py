"""An MCP client made of the official Python SDK, driven line by line: tests/clients.py is the other side.

    python python_sdk.py '{"url": "http://127.0.0.1:8000/mcp", "redirectUri": ..., "mode": "auto" | "legacy", ...}'

The lines are those of typescript.mjs, and {"do": "later", "seconds": …}, which puts the client's clock ahead.
"""

import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import httpx2
import mcp.shared.auth_utils
from mcp.client.auth import OAuthClientProvider, oauth2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import TextContent
from pydantic import AnyUrl

OPTIONS = json.loads(sys.argv[1])


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def hear() -> Any:
    return json.loads(await anyio.to_thread.run_sync(sys.stdin.readline) or '{"do": "close"}')


class Clock:
    """The module `time`, as the SDK sees it."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


class Kept:
    """What a host application keeps for its user."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


answer: dict[str, str] = {}


async def redirect(url: str) -> None:
    say(authorize=url)
    came_back: str = (await hear())["callback"]
    query = parse_qs(urlsplit(came_back).query)
    answer.clear()
    answer.update({name: values[0] for name, values in query.items()})


async def callback() -> AuthorizationCodeResult:
    if "code" not in answer:
        message = f"refused: {answer.get('error')}"
        raise RuntimeError(message)
    return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


def why(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}"


async def main() -> None:
    clock, kept = Clock(), Kept()
    setattr(oauth2, "time", clock)  # noqa: B010 - type checkers have an opinion on modules in place of modules
    setattr(mcp.shared.auth_utils, "time", clock)  # noqa: B010
    provider = OAuthClientProvider(
        OPTIONS["url"],
        OAuthClientMetadata(
            client_name="Python",
            redirect_uris=[AnyUrl(OPTIONS["redirectUri"])],
            grant_types=OPTIONS.get("grants", ["authorization_code", "refresh_token"]),
            token_endpoint_auth_method="none",
        ),
        kept,
        redirect,
        callback,
        client_metadata_url=OPTIONS.get("clientMetadataUrl"),
    )
    async with AsyncExitStack() as stack:
        client: Client | None = None
        while (request := await hear())["do"] != "close":
            try:
                done: Any = None
                if request["do"] == "connect":
                    http = await stack.enter_async_context(httpx2.AsyncClient(auth=provider, timeout=20))
                    transport = streamable_http_client(OPTIONS["url"], http_client=http)
                    client = await stack.enter_async_context(Client(transport, mode=OPTIONS.get("mode", "auto")))
                    done = client.protocol_version
                elif request["do"] == "later":
                    clock.ahead += request["seconds"]
                elif request["do"] == "registered":
                    done = kept.client and kept.client.client_id
                else:
                    assert client is not None
                    if request["do"] == "list":
                        done = [tool.name for tool in (await client.list_tools()).tools]
                    else:
                        content = (await client.call_tool(request["tool"], {})).content[0]
                        done = content.text if isinstance(content, TextContent) else content.type
                say(done=done)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
                say(failed=why(error))


anyio.run(main)
