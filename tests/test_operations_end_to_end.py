"""Operations of real MCP servers, called by the official Python client through uvicorn, stepping up by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urljoin, urlsplit

import anyio
import anyio.to_thread
import httpx
import httpx2
import processes
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from processes import AsgiServer, AuthorizationServer
from pydantic import AnyUrl

COUNTERPARTS = Path(__file__).parent / "counterparts"
MODES: tuple[Literal["auto", "legacy"], ...] = ("auto", "legacy")


@pytest.fixture(scope="module")
def authority() -> Iterator[AuthorizationServer]:
    processes.require_authorization_server()
    with processes.authorization_server() as server:
        yield server


@contextlib.contextmanager
def serving(authority: AuthorizationServer, server: str, mark: str = "1") -> Generator[AsgiServer]:
    port = processes.free_port()
    env = {"RESOURCE": f"http://127.0.0.1:{port}/mcp", "ISSUERS": authority.issuer, "SERVER": server, "MARK": mark}
    with processes.uvicorn("mcp_servers:app", app_dir=COUNTERPARTS, port=port, env=env) as running:
        yield running


@pytest.fixture(scope="module", params=["sdk", "fastmcp"])
def server(request: pytest.FixtureRequest, authority: AuthorizationServer) -> Iterator[AsgiServer]:
    with serving(authority, request.param) as running:
        yield running


class Storage:
    """Knows the client `native`, which the authorization server was set up with."""

    tokens: OAuthToken | None = None

    def __init__(self, issuer: str, redirect_uri: str) -> None:
        self._client = OAuthClientInformationFull(
            client_id="native",
            redirect_uris=[AnyUrl(redirect_uri)],
            token_endpoint_auth_method="none",
            grant_types=["authorization_code", "refresh_token"],
            issuer=issuer,
        )

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("no registration is needed")


def browse(url: str, until: str) -> dict[str, str]:
    with httpx.Client(trust_env=False) as browser:
        for _ in range(10):
            response = browser.get(url)
            assert response.is_redirect, response.text
            url = urljoin(url, response.headers["location"])
            if url.startswith(until):
                return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    raise AssertionError(url)


@pytest.mark.parametrize("mode", MODES, ids="RS-42 RS-113 step-up {}".format)
def test_the_official_client_steps_up(server: AsgiServer, authority: AuthorizationServer, mode: Any) -> None:
    url = f"{server.url}/mcp"
    redirect_uri = "http://127.0.0.1:33418/callback"
    asked: list[str] = []
    answers: list[dict[str, str]] = []
    statuses: list[int] = []

    async def redirect(to: str) -> None:
        asked.append(parse_qs(urlsplit(to).query)["scope"][0])
        answers.append(await anyio.to_thread.run_sync(partial(browse, to, redirect_uri)))

    async def callback() -> AuthorizationCodeResult:
        answer = answers[-1]
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer.get("iss"))

    async def log(response: httpx2.Response) -> None:
        statuses.append(response.status_code)

    async def use() -> None:
        metadata = OAuthClientMetadata(
            redirect_uris=[AnyUrl(redirect_uri)],
            token_endpoint_auth_method="none",
            grant_types=["authorization_code", "refresh_token"],
        )
        provider = OAuthClientProvider(url, metadata, Storage(authority.issuer, redirect_uri), redirect, callback)
        async with (
            httpx2.AsyncClient(auth=provider, event_hooks={"response": [log]}, timeout=20) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            listed = (await client.list_tools()).tools
            assert sorted(tool.name for tool in listed) == ["read", "write"]
            assert (await client.call_tool("read", {})).content[0].text == "read"  # type: ignore[union-attr]
            assert 403 not in statuses
            assert (await client.call_tool("write", {})).content[0].text == "written"  # type: ignore[union-attr]

    anyio.run(use)
    assert statuses.count(401) == 1
    assert statuses.count(403) == 1
    assert [set(scope.split()) - {"offline_access"} for scope in asked] == [{"mcp:read"}, {"mcp:read", "mcp:write"}]


@pytest.fixture(scope="module", params=["sdk", "fastmcp"])
def unmarked(request: pytest.FixtureRequest, authority: AuthorizationServer) -> Iterator[AsgiServer]:
    """A server that takes out of its lists what is forbidden, and does not mark what more scopes would open."""
    with serving(authority, request.param, mark="0") as running:
        yield running


@pytest.mark.parametrize("mode", MODES, ids="RS-214 RS-215 {}".format)
def test_a_list_without_what_is_forbidden(authority: AuthorizationServer, unmarked: AsgiServer, mode: Any) -> None:
    async def use(server: AsgiServer) -> None:
        token = authority.client_credentials(resource=f"{server.url}/mcp")
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=20) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["read"]
            assert not (await client.call_tool("read", {})).is_error

    anyio.run(use, unmarked)
    token = authority.client_credentials(resource=f"{unmarked.url}/mcp")
    call: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "write", "arguments": {}},
    }
    refused = httpx.post(
        f"{unmarked.url}/mcp", json=call, headers={"authorization": f"Bearer {token}"}, trust_env=False
    )
    assert refused.status_code == 403
    assert 'scope="mcp:read mcp:write"' in refused.headers["www-authenticate"]
