"""MCP servers on every ASGI server: the MCP SDK's and fastmcp's tools see who calls, on the old wire and on the new.

As in test_stacks.py, each pair is a real process asked over HTTP, here by the official client.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple

import anyio
import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from test_stacks import SERVERS, Running, Stack, metadata, unauthenticated

from asgi_mcp_auth.testing import Issuer

OLD, NEW = "2025-06-18", "2026-07-28"
BY_DEFAULT = {("uvicorn", app) for app in ("sdk-wrap", "fastmcp-native", "sdk-own", "fastmcp-own")}
PAIRS = [(server, app) for server, how in SERVERS.items() for app in how.mcp_servers.split()]


class Wire(NamedTuple):
    """The protocol mode that a test requests of the official client, and the version that the client then uses."""

    mode: Literal["auto", "legacy"]
    version: str


WIRES = [Wire("auto", NEW), Wire("legacy", "2025-11-25")]


def pairs(*suffixes: str, of: tuple[str, ...] = ("sdk", "fastmcp")) -> pytest.MarkDecorator:
    """The pairs whose app is of one of these makers, and protected in one of these ways."""
    return pytest.mark.parametrize(
        "stack",
        [
            pytest.param(
                (server, app), id=f"{app}-on-{server}", marks=[] if (server, app) in BY_DEFAULT else [pytest.mark.full]
            )
            for server, app in PAIRS
            if app.endswith(suffixes) and app.startswith(of)
        ],
        indirect=True,
    )


@pytest.fixture(scope="module")
def started(pytestconfig: pytest.Config) -> Generator[Running]:
    with contextlib.closing(Running(PAIRS if pytestconfig.getoption("full") else BY_DEFAULT)) as servers:
        yield servers


@pytest.fixture
def stack(request: pytest.FixtureRequest, started: Running) -> Generator[Stack]:
    with started.stack(*request.param) as made:
        yield made


def bearer(stack: Stack, **claims: Any) -> dict[str, str]:
    whole: dict[str, Any] = {"scope": "mcp:read"} | claims
    return {"authorization": f"Bearer {stack.issuer.mint(stack.resource, **whole)}"}


async def ask(stack: Stack, wire: Wire, *names: str, **claims: Any) -> list[Any]:
    """What the official client gets from tools: the list of all first, then what each says."""
    http2 = stack.how.http2
    async with (
        httpx2.AsyncClient(headers=bearer(stack, **claims), timeout=20, http1=not http2, http2=http2) as http,
        Client(streamable_http_client(stack.url, http_client=http), mode=wire.mode) as client,
    ):
        assert client.protocol_version == wire.version
        answers: list[Any] = [sorted(tool.name for tool in (await client.list_tools()).tools)]
        for name in names:
            result: Any = await client.call_tool(name, {})
            answers.append(None if result.is_error else result.content[0].text)
        return answers


@pytest.mark.parametrize("probe", [metadata, unauthenticated], ids=lambda probe: probe.__name__)
@pairs("-wrap", "-native")
def test_the_document_and_the_challenge(stack: Stack, probe: Callable[[Stack], None]) -> None:
    probe(stack)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: f"RS-210 {wire.version}")
@pairs("-wrap", "-native")
def test_a_tool_sees_its_caller(stack: Stack, wire: Wire) -> None:
    for subject in ("alice", "bob"):
        _, *said = anyio.run(lambda: ask(stack, wire, "whoami", "whoami_sync", sub=subject))  # noqa: B023
        caller = [subject, ["mcp:read"]]
        assert [json.loads(text) for text in said] == [[caller, caller]] * 2


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: f"RS-42 {wire.version}")
@pairs("-wrap", "-native")
def test_a_token_without_the_baseline_is_403(stack: Stack, wire: Wire) -> None:
    answer = Raw(stack, bearer(stack, scope="other"), wire.version).post("tools/list")
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: f"RS-214 {wire.version}")
@pairs("-wrap", "-native", "-own", of=("fastmcp",))
def test_require_scopes_of_fastmcp(stack: Stack, wire: Wire) -> None:
    tools, purged = anyio.run(lambda: ask(stack, wire, "purge", scope="mcp:read mcp:admin"))
    assert (tools, purged) == (["purge", "whoami", "whoami_sync"], "purged")
    tools, whoami = anyio.run(lambda: ask(stack, wire, "whoami"))
    assert (tools, json.loads(whoami)[0]) == (["whoami", "whoami_sync"], ["alice", ["mcp:read"]])


class Raw:
    """A client that sends whatever session id it likes."""

    def __init__(self, stack: Stack, headers: dict[str, str], version: str, session: str | None = None) -> None:
        self.stack = stack
        accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version}
        self.headers = headers | accept | ({"mcp-session-id": session} if session else {})

    def post(self, method: str, params: dict[str, Any] | None = None) -> httpx.Response:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return self.stack.client.post(self.stack.url, json=message, headers=self.headers)

    def open(self) -> str:
        client = {"protocolVersion": OLD, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        answer = self.post("initialize", client)
        assert answer.status_code == 200, answer.text
        session: str = answer.headers["mcp-session-id"]
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        headers = self.headers | {"mcp-session-id": session}
        assert self.stack.client.post(self.stack.url, json=ready, headers=headers).status_code == 202
        return session


@pytest.mark.requirement("RS-216")
@pairs("-wrap", "-native", "-own")
def test_nobody_else_gets_into_a_session(stack: Stack) -> None:
    session = Raw(stack, bearer(stack), OLD).open()
    call: dict[str, Any] = {"name": "whoami", "arguments": {}}
    for changes in ({"sub": "bob"}, {"client_id": "another"}):
        answer = Raw(stack, bearer(stack, **changes), OLD, session).post("tools/call", call)
        assert answer.status_code == 404
        assert "Session not found" in answer.text
    assert Raw(stack, {}, OLD, session).post("tools/call", call).status_code == 401
    answer = Raw(stack, bearer(stack), OLD, session).post("tools/call", call)
    assert answer.status_code == 200
    assert "alice" in answer.text
    assert stack.client.delete(stack.url, headers=bearer(stack) | {"mcp-session-id": session}).status_code == 200


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.version)
@pairs("-own")
def test_a_server_that_keeps_its_own_auth(stack: Stack, wire: Wire) -> None:
    """Our verification as `token_verifier=`; the answers are the server's."""
    stranger = Issuer("https://auth.example.com", algorithms=("ES256",)).mint(stack.resource, scope="mcp:read")
    statuses = [
        Raw(stack, headers, wire.version).post("tools/list").status_code
        for headers in ({}, {"authorization": f"Bearer {stranger}"}, bearer(stack, aud="https://x.example"))
    ]
    assert statuses == [401, 401, 401]
    assert Raw(stack, bearer(stack, scope="other"), wire.version).post("tools/list").status_code == 403
    assert stack.get_document().json()["resource"] == stack.resource
    _, said = anyio.run(lambda: ask(stack, wire, "whoami"))
    assert json.loads(said) == [["alice", ["mcp:read"]], [None, None]]
