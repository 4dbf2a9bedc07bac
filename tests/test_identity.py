"""What a protected app finds: our own state, the forms of frameworks, and those of the MCP SDK and fastmcp."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastmcp import FastMCP
from fastmcp.server.auth import require_scopes
from fastmcp.server.dependencies import get_access_token as fastmcp_get_access_token
from fastmcp.server.dependencies import get_http_request
from harness import ISS, Answer, Clock, R, RecordingApp, bearer, call, protect, token
from mcp.server.auth.middleware.auth_context import auth_context_var, get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser as SDKAuthenticatedUser
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_mcp_auth import AuthInfo, MCPAuth, ResourceServerConfig, ResourceServerMetadata, current_auth
from asgi_mcp_auth._asgi.identity import HIDDEN_TOKEN, NO_CLIENT, AuthenticatedUser
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


# --- Our own ---


EXPECTED = AuthInfo(
    issuer=ISS,
    subject="alice",
    client_id="c1",
    scopes=["mcp:read", "b"],
    audience=R,
    resource=R,
    expires_at=1_800_000_300.0,
    claims={
        "iss": ISS,
        "sub": "alice",
        "aud": R,
        "client_id": "c1",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "jti": "j1",
        "scope": "mcp:read b",
    },
)


@pytest.mark.every_loop
async def test_what_an_app_finds(issuer: Issuer) -> None:
    seen: list[AuthInfo | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_auth())
        await inner(scope, receive, send)

    inner = RecordingApp()
    await call(protect(issuer, app), headers=bearer(token(issuer, scope="mcp:read b", jti="j1")))
    [scope] = inner.scopes
    assert scope["state"] == {"mcp_auth": EXPECTED, "claims": EXPECTED.claims}
    assert seen == [EXPECTED]
    assert seen[0] is scope["state"]["mcp_auth"]
    user = scope["user"]
    assert user.auth_info is seen[0]
    assert (user.is_authenticated, user.display_name, user.identity) == (True, "alice", EXPECTED.principal.key)
    assert scope["auth"].scopes == ["mcp:read", "b"]
    assert current_auth() is None


@pytest.mark.requirement("RS-87", "RS-216")
async def test_principals(issuer: Issuer, clock: Clock) -> None:
    other = Issuer("https://other.example", algorithms=(), clock=clock)
    other.keys = issuer.keys
    app = RecordingApp()
    config = ResourceServerConfig(
        metadata=ResourceServerMetadata(resource=R, authorization_servers=[issuer.url, other.url])
    )

    def factory() -> Any:
        return httpx.AsyncClient(
            mounts={
                "https://auth.example.com": httpx.ASGITransport(app=issuer),
                "https://other.example": httpx.ASGITransport(app=other),
            }
        )

    guarded = MCPAuth(config, http_client=factory, clock=clock).wrap(app)
    alice = token(issuer)
    for raw in (alice, token(issuer, scope="x"), token(other), token(issuer, client_id="c2"), token(issuer, sub="c1")):
        assert (await call(guarded, headers=bearer(raw))).status == 200
    principals = [scope["state"]["mcp_auth"].principal for scope in app.scopes]
    keys = [principal.key for principal in principals]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert [principal.is_client for principal in principals] == [False, False, False, False, True]


def test_the_own_user() -> None:
    user = AuthenticatedUser(EXPECTED)
    assert (user.is_authenticated, user.display_name, user.identity) == (True, "alice", EXPECTED.principal.key)
    assert repr(user) == "<AuthenticatedUser 'alice' of 'https://auth.example.com'>"


async def test_starlette(issuer: Issuer) -> None:
    @requires("mcp:read")
    async def endpoint(request: Request) -> JSONResponse:
        info: AuthInfo = request.state.mcp_auth
        return JSONResponse([info.subject, request.state.claims["sub"], request.user.display_name, request.auth.scopes])

    @requires("admin")
    async def admin(request: Request) -> JSONResponse:
        raise AssertionError

    def synchronous(request: Request) -> JSONResponse:
        """Runs on a worker thread."""
        info = current_auth()
        assert info is not None
        return JSONResponse([info.subject, auth.auth_info == info])

    app = Starlette(
        routes=[Route("/mcp", endpoint), Route("/mcp/admin", admin), Route("/mcp/thread", synchronous)],
    )
    config = ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[issuer.url]))
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock)
    guarded = auth.wrap(app)
    headers = bearer(token(issuer))
    assert (await call(guarded, "GET", headers=headers)).json() == ["alice", "alice", "alice", ["mcp:read"]]
    assert (await call(guarded, "GET", "/mcp/thread", headers)).json() == ["alice", True]
    assert (await call(guarded, "GET", "/mcp/admin", headers)).status == 403
    assert auth.auth_info is None


SCRIPT = """
import asyncio, json, sys
from asgi_mcp_auth import MCPAuthMiddleware

assert "httpx" not in sys.modules, "importing loads no httpx"

from asgi_mcp_auth.testing import Issuer

issuer = Issuer()
seen = []

async def app(scope, receive, send):
    seen.append(scope)

async def nothing(*_):
    raise AssertionError

guarded = MCPAuthMiddleware(
    app, resource="https://mcp.example.com/mcp", authorization_servers=[issuer.url], http_client=issuer.http_client
)
raw = issuer.mint("https://mcp.example.com/mcp")
scope = {
    "type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"", "headers":
    [(b"authorization", b"Bearer " + raw.encode())],
}
asyncio.run(guarded(scope, nothing, nothing))
user = seen[0]["user"]
print(json.dumps([
    type(user).__module__, type(user).__name__, user.display_name,
    sorted(name for name in sys.modules if name.split(".")[0] in ("mcp", "starlette", "fastmcp", "trio")),
]))
"""


def test_without_mcp_the_user_is_our_own_type() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    module, name, subject, loaded = json.loads(ran.stdout)
    assert (module, name, subject) == ("asgi_mcp_auth._asgi.identity", "AuthenticatedUser", "alice")
    assert [found for found in loaded if found.split(".")[0] in ("mcp", "starlette", "fastmcp")] == []


# --- The MCP SDK's form ---


@pytest.mark.parametrize("expose", [False, True])
async def test_the_sdks_user(expose: bool, issuer: Issuer) -> None:
    inside: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append((scope["user"], scope["user"].auth_info, auth_context_var.get(), get_access_token()))

    raw = token(issuer, jti="j1", scope="mcp:read b")
    guarded = protect(issuer, app, expose_token=expose)
    with pytest.raises(AssertionError, match="no response"):
        await call(guarded, headers=bearer(raw))
    [(user, auth_info, in_context, access_token)] = inside
    assert isinstance(user, SDKAuthenticatedUser)
    assert in_context is user
    assert access_token is user.access_token
    assert access_token.model_dump() == {
        "token": raw if expose else HIDDEN_TOKEN,
        "client_id": "c1",
        "scopes": ["mcp:read", "b"],
        "expires_at": 1_800_000_300,
        "resource": R,
        "subject": "alice",
        "claims": EXPECTED.claims,
    }
    assert auth_info == EXPECTED.replace(token=raw if expose else None)
    assert (user.display_name, user.identity) == ("alice", EXPECTED.principal.key)
    assert auth_context_var.get() is None


async def test_the_sdk_wants_a_client_id(issuer: Issuer) -> None:
    app = RecordingApp()
    await call(protect(issuer, app), headers=bearer(token(issuer, client_id=...)))
    assert app.scopes[0]["user"].access_token.client_id == NO_CLIENT  # never the subject
    assert app.scopes[0]["state"]["mcp_auth"].client_id is None


@pytest.mark.every_loop
async def test_the_sdks_variable_is_reset(issuer: Issuer) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert auth_context_var.get() is scope["user"]
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await call(protect(issuer, app), headers=bearer(token(issuer)))
    assert (auth_context_var.get(), current_auth()) == (None, None)


@pytest.mark.requirement("RS-245")
@pytest.mark.every_loop
async def test_the_sdks_token_is_made_for_each_request(issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app)
    raw = token(issuer, roles=["user"])
    await call(guarded, headers=bearer(raw))
    first = app.scopes[0]["user"].access_token
    first.scopes.append("admin")
    first.claims["roles"].append("admin")
    first.claims["sub"] = "root"
    await call(guarded, headers=bearer(raw))
    second = app.scopes[1]["user"].access_token
    assert (second.scopes, second.claims["roles"], second.claims["sub"]) == (["mcp:read"], ["user"], "alice")


# --- Real MCP servers ---


@asynccontextmanager
async def started(app: Any) -> AsyncGenerator[Any]:
    """The app with its lifespan running."""
    send_in, receive_in = anyio.create_memory_object_stream[Any](2)
    up, down = anyio.Event(), anyio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            up.set()
        else:
            assert message["type"] == "lifespan.shutdown.complete", message
            down.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group, send_in, receive_in:
            group.start_soon(
                app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive_in.receive, send
            )
            await send_in.send({"type": "lifespan.startup"})
            await up.wait()
            yield app
            await send_in.send({"type": "lifespan.shutdown"})
            await down.wait()


class Client:
    """An MCP client that speaks raw JSON-RPC, so that it can send another user's session id."""

    def __init__(self, app: Any, raw: str, session: str | None = None) -> None:
        self.app = app
        self.raw = raw
        self.session = session

    async def post(self, method: str, params: dict[str, Any] | None = None, *, id_: int | None = 1) -> Answer:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if id_ is not None:
            message["id"] = id_
        headers: dict[str, str | bytes] = {
            "authorization": f"Bearer {self.raw}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-06-18",
        }
        if self.session is not None:
            headers["mcp-session-id"] = self.session
        return await call(self.app, headers=headers, body=json.dumps(message).encode())

    async def open(self) -> Client:
        answer = await self.post(
            "initialize",
            {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
        )
        assert answer.status == 200, answer
        self.session = answer.header("mcp-session-id")
        assert (await self.post("notifications/initialized", id_=None)).status == 202
        return self

    async def result(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self.post(method, params)
        assert answer.status == 200, answer
        text = answer.body.decode()
        if (answer.header("content-type") or "").startswith("text/event-stream"):
            [text] = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        result: dict[str, Any] = json.loads(text)["result"]
        return result

    async def tool(self, name: str) -> Any:
        result = await self.result("tools/call", {"name": name, "arguments": {}})
        assert not result.get("isError"), result
        return json.loads(result["content"][0]["text"])


def told(access_token: Any) -> dict[str, Any] | None:
    """What a tool says of its caller."""
    info = current_auth()
    claims: dict[str, Any] = getattr(access_token, "claims", None) or {}
    return (
        None
        if access_token is None
        else {
            "token": access_token.token,
            "subject": claims.get("sub"),
            "issuer": claims.get("iss"),
            "client_id": access_token.client_id,
            "scopes": access_token.scopes,
            "current_auth": info and info.subject,
        }
    )


def sdk_app() -> Any:
    server = MCPServer("sdk")

    @server.tool()
    async def whoami(ctx: Context) -> str:
        request: Any = ctx.request_context.request
        return json.dumps({**(told(get_access_token()) or {}), "state": request.scope["state"]["mcp_auth"].subject})

    @server.tool()
    def whoami_sync(ctx: Context) -> str:
        request: Any = ctx.request_context.request
        return json.dumps({**(told(get_access_token()) or {}), "state": request.scope["state"]["mcp_auth"].subject})

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return server.streamable_http_app(transport_security=security)


def fastmcp_app() -> Any:
    server = FastMCP[None]("fastmcp")

    @server.tool
    async def whoami() -> str:
        state = get_http_request().state
        return json.dumps({**(told(fastmcp_get_access_token()) or {}), "state": state.mcp_auth.subject})

    @server.tool
    def whoami_sync() -> str:
        state = get_http_request().state
        return json.dumps({**(told(fastmcp_get_access_token()) or {}), "state": state.mcp_auth.subject})

    @server.tool(auth=require_scopes("admin"))
    def purge() -> str:
        return json.dumps("purged")

    return server.http_app(path="/mcp", host_origin_protection=False)


APPS = pytest.mark.parametrize("make_app", [sdk_app, fastmcp_app], ids=["mcp", "fastmcp"])


# What is ours runs on trio too, in the tests above and in the other files.
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@APPS
@ASYNCIO
@pytest.mark.parametrize("tool", ["whoami", "whoami_sync"])
@pytest.mark.parametrize("expose", [False, True], ids=["RS-240 hidden", "RS-240 exposed"])
async def test_a_tool_sees_its_caller(make_app: Any, tool: str, expose: bool, issuer: Issuer) -> None:
    async with started(protect(issuer, make_app(), expose_token=expose)) as app:
        for subject in ("alice", "bob"):
            raw = token(issuer, sub=subject, scope=f"mcp:read {subject}")
            client = await Client(app, raw).open()
            assert await client.tool(tool) == {
                "token": raw if expose else HIDDEN_TOKEN,
                "subject": subject,
                "issuer": ISS,
                "client_id": "c1",
                "scopes": ["mcp:read", subject],
                "current_auth": subject,
                "state": subject,
            }
            await end(client)


async def end(client: Client) -> None:
    answer = await call(
        client.app,
        "DELETE",
        headers={"authorization": f"Bearer {client.raw}", "mcp-session-id": client.session or ""},
    )
    assert answer.status == 200


@pytest.mark.requirement("RS-210", "RS-216")
@APPS
@ASYNCIO
async def test_nobody_else_gets_into_a_session(make_app: Any, issuer: Issuer, clock: Clock) -> None:
    async with started(protect(issuer, make_app())) as app:
        alice = await Client(app, token(issuer)).open()
        assert alice.session is not None
        for changes in ({"sub": "bob"}, {"client_id": "c2"}):
            mallory = Client(app, token(issuer, **changes), alice.session)
            answer = await mallory.post("tools/call", {"name": "whoami", "arguments": {}})
            assert answer.status == 404
            assert answer.json()["error"]["message"] == "Session not found"
        clock.now += 60
        alice.raw = token(issuer, scope="mcp:read more")  # refreshed
        assert (await alice.tool("whoami"))["scopes"] == ["mcp:read", "more"]
        await end(alice)


@pytest.mark.requirement("RS-3")
@APPS
@ASYNCIO
async def test_a_session_without_a_token(make_app: Any, issuer: Issuer) -> None:
    async with started(protect(issuer, make_app())) as app:
        alice = await Client(app, token(issuer)).open()
        for method in ("POST", "GET", "DELETE"):
            assert (await call(app, method, headers={"mcp-session-id": alice.session or ""})).status == 401
        await end(alice)


@ASYNCIO
async def test_require_scopes(issuer: Issuer) -> None:
    async with started(protect(issuer, fastmcp_app())) as app:
        alice = await Client(app, token(issuer)).open()
        root = await Client(app, token(issuer, sub="root", scope="mcp:read admin")).open()
        names = [
            sorted(tool["name"] for tool in (await client.result("tools/list"))["tools"]) for client in (alice, root)
        ]
        assert names == [["whoami", "whoami_sync"], ["purge", "whoami", "whoami_sync"]]
        assert await root.tool("purge") == "purged"
        answer = await alice.post("tools/call", {"name": "purge", "arguments": {}})
        assert b"purged" not in answer.body
        for client in (alice, root):
            await end(client)
