"""Websockets: held to the same rules as HTTP before they are accepted, and closed when the token has expired."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from harness import (
    CH0,
    EXPIRED,
    INVALID,
    ISS,
    MALFORMED,
    PRM_PATH,
    Answer,
    Clock,
    R,
    RecordingApp,
    bearer,
    call,
    chr_,
    chs,
    cht,
    http_scope,
    protect,
    token,
    websocket,
)

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    Decision,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    Verified,
    current_auth,
)
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]

Lines = Iterable[tuple[str, str | bytes]]
Maker = Callable[[Issuer], Lines]
EVIL = ("origin", "https://evil.example")
CLOSED = {"type": "websocket.close", "code": 1008, "reason": "The access token expired"}


def always(*fields: tuple[str, str | bytes]) -> Maker:
    return lambda _: fields


def minted(*before: tuple[str, str | bytes], **changes: Any) -> Maker:
    return lambda issuer: [*before, *bearer(token(issuer, **changes))]


def expired(issuer: Issuer) -> Lines:
    return bearer(token(issuer, exp=issuer.clock() - 60))


def twice(issuer: Issuer) -> Lines:
    return bearer(token(issuer)) + bearer(token(issuer))


def revoking_hook(info: AuthInfo) -> bool:
    return True


@pytest.mark.parametrize(
    ("headers", "options", "status", "challenge", "body"),
    [
        pytest.param(always(), {}, 401, CH0, {"detail": "Authentication required"}, id="RS-4 no token"),
        pytest.param(
            always(*bearer("abc")),
            {},
            401,
            cht(INVALID),
            {"error": "invalid_token", "error_description": INVALID},
            id="RS-4 bad token",
        ),
        pytest.param(
            expired,
            {},
            401,
            cht(EXPIRED),
            {"error": "invalid_token", "error_description": EXPIRED},
            id="RS-4 expired token",
        ),
        pytest.param(
            twice,
            {},
            400,
            chr_("Multiple Authorization headers"),
            {"error": "invalid_request", "error_description": "Multiple Authorization headers"},
            id="RS-4 RS-12 two tokens",
        ),
        pytest.param(
            always(("authorization", "Bearer a b")),
            {},
            400,
            chr_(MALFORMED),
            {"error": "invalid_request", "error_description": MALFORMED},
            id="RS-4 malformed",
        ),
        pytest.param(
            minted(scope="other"),
            {},
            403,
            chs("mcp:read"),
            {"error": "insufficient_scope", "error_description": "Additional scope required"},
            id="RS-4 missing scope",
        ),
        pytest.param(
            minted(EVIL),
            {},
            403,
            None,
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Origin not allowed"}},
            id="RS-4 RS-220 wrong Origin",
        ),
        pytest.param(
            minted(),
            {"websockets": False},
            403,
            None,
            {"error": "access_denied"},
            id="RS-4 switched off",
        ),
        pytest.param(
            always(),
            {"websockets": False},
            403,
            None,
            {"error": "access_denied"},
            id="RS-4 switched off, without a token",
        ),
        pytest.param(
            minted(),
            {"resource": "http://127.0.0.1:8000/mcp"},
            421,
            None,
            {"detail": "Host not allowed"},
            id="RS-4 RS-223 Host",
        ),
        pytest.param(
            minted(),
            {"is_revoked": revoking_hook},
            401,
            cht(INVALID),
            {"error": "invalid_token", "error_description": INVALID},
            id="RS-4 RS-88 revoked",
        ),
    ],
)
@pytest.mark.parametrize("denial", [True, False], ids=["denial", "close"])
async def test_refused(
    *,
    headers: Maker,
    options: dict[str, Any],
    status: int,
    challenge: str | None,
    body: dict[str, Any],
    denial: bool,
    issuer: Issuer,
) -> None:
    app = RecordingApp()
    opened = await websocket(protect(issuer, app, **options), headers=headers(issuer), denial=denial)
    if denial:
        answer = opened.denial
        assert answer is not None
        assert (answer.status, answer.challenge, answer.json()) == (status, challenge, body)
        assert answer.header("content-length") == str(len(answer.body))
        assert [message["type"] for message in opened.sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
    else:
        assert opened.sent == [{"type": "websocket.close", "code": 1008}]
    assert app.calls == 0


async def test_the_denial_is_what_http_would_say(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), allowed_origins=["https://app.example"])
    rows: list[Lines] = [[], [("origin", "https://app.example")], bearer("abc"), [EVIL]]
    for headers in rows:
        over_http = await call(guarded, "GET", headers=headers)
        over_websocket = (await websocket(guarded, headers=headers)).denial
        assert over_websocket == over_http


@pytest.mark.parametrize(
    "extensions",
    [
        pytest.param(None, id="RS-4 no extensions at all"),
        pytest.param({"other": {}}, id="RS-4 other extensions"),
    ],
)
async def test_without_the_extension_it_is_closed(extensions: Any, issuer: Issuer) -> None:
    opened = await websocket(protect(issuer, RecordingApp()), extensions=extensions)
    assert opened.sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_client_that_left_before_the_refusal_gets_none(issuer: Issuer) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        sent.append(message)

    extensions: dict[str, dict[str, Any]] = {"websocket.http.response": {}}
    scope = http_scope("GET") | {"type": "websocket", "extensions": extensions}
    await protect(issuer, RecordingApp())(scope, receive, send)
    assert sent == []


@pytest.mark.parametrize(
    ("path", "options"),
    [
        pytest.param(PRM_PATH, {}, id="RS-54 metadata is for HTTP"),
        pytest.param("/.well-known/other", {}, id="RS-54 well-known"),
    ],
)
async def test_not_found(path: str, options: dict[str, Any], issuer: Issuer) -> None:
    app = RecordingApp()
    opened = await websocket(protect(issuer, app, **options), path, bearer(token(issuer)))
    assert opened.denial == Answer(
        404,
        [
            (b"content-type", b"application/json"),
            (b"content-length", b"22"),
            (b"cache-control", b"no-store"),
            (b"access-control-allow-origin", b"*"),
        ],
        b'{"detail":"Not found"}',
    )
    assert app.calls == 0


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(minted(), id="RS-4 RS-222 no Origin"),
        pytest.param(minted(("origin", "https://mcp.example.com")), id="RS-4 own Origin"),
    ],
)
async def test_accepted(headers: Maker, issuer: Issuer) -> None:
    app = RecordingApp()
    opened = await websocket(protect(issuer, app), headers=headers(issuer), texts=["a", "b"])
    assert opened.sent == [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "text": "b"},
    ]
    [scope] = app.scopes
    assert scope["state"]["mcp_auth"].subject == "alice"
    assert scope["user"].auth_info is scope["state"]["mcp_auth"]
    assert b"authorization" not in {name for name, _ in scope["headers"]}


async def test_a_public_path_is_open(issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app, public_paths=["/public"], websockets=False)
    opened = await websocket(guarded, "/public", [EVIL], texts=["a"])
    assert opened.sent == [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "a"}]
    assert "user" not in app.scopes[0]


async def test_path_rules_hold(issuer: Issuer) -> None:
    """A handshake is a GET."""
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    policy = ScopePolicy(default=["mcp:read"], paths={"GET /mcp/live": ["live"]})
    auth = MCPAuth(
        ResourceServerConfig(metadata=metadata, policy=policy), http_client=issuer.http_client, clock=issuer.clock
    )
    opened = await websocket(auth.wrap(RecordingApp()), "/mcp/live", bearer(token(issuer)))
    assert opened.denial is not None
    assert (opened.denial.status, opened.denial.challenge) == (403, chs("mcp:read live"))
    assert (
        await websocket(auth.wrap(RecordingApp()), "/mcp/live", bearer(token(issuer, scope="live mcp:read")))
    ).accepted


# --- Expiry ---


@dataclass
class Socket:
    """A connected client that sends nothing until the test lets it leave."""

    sent: list[Any] = field(default_factory=list[Any])
    gone: anyio.Event = field(default_factory=anyio.Event)
    _connected: bool = False

    async def receive(self) -> Any:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await self.gone.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Any) -> None:
        if self.gone.is_set():
            raise OSError("the client is gone")
        self.sent.append(message)

    @staticmethod
    def scope(raw: str) -> dict[str, Any]:
        return http_scope("GET", headers=bearer(raw)) | {"type": "websocket", "extensions": {}}


@pytest.fixture
def _awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher looks at the test's clock all the time."""
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the clock is moved by hand
            await anyio.sleep(0.005)


async def waiting(scope: Any, receive: Any, send: Any) -> None:
    """An app that accepts and waits for the client to leave."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


@pytest.mark.usefixtures("_awake")
@pytest.mark.parametrize("leeway", [pytest.param(0.0, id="RS-4 no leeway"), pytest.param(30.0, id="RS-4 leeway")])
async def test_closed_at_exp_and_leeway(leeway: float, issuer: Issuer, clock: Clock) -> None:
    server = AuthServerConfig(issuer=issuer.url, leeway=leeway)
    guarded = protect(issuer, waiting, authorization_servers=[server])
    socket = Socket()
    async with anyio.create_task_group() as group:
        group.start_soon(guarded, socket.scope(token(issuer)), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 1)
        clock.now += 300 + leeway - 0.001
        await anyio.sleep(0.05)
        assert socket.sent == [{"type": "websocket.accept"}]
        clock.now += 0.001
        await until(lambda: len(socket.sent) == 2)
        assert socket.sent == [{"type": "websocket.accept"}, CLOSED]
        socket.gone.set()
    assert len(socket.sent) == 2


async def test_closed_in_real_time(issuer: Issuer) -> None:
    real = Issuer(ISS, algorithms=())
    real.keys = issuer.keys
    server = AuthServerConfig(issuer=real.url, leeway=0)
    guarded = protect(real, waiting, authorization_servers=[server])
    socket = Socket()
    expires = time.time() + 0.4
    async with anyio.create_task_group() as group:
        group.start_soon(guarded, socket.scope(token(real, exp=expires)), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 2)
        closed = time.time()
        assert 0 <= closed - expires < 2
        socket.gone.set()
    assert socket.sent == [{"type": "websocket.accept"}, CLOSED]


@pytest.mark.usefixtures("_awake")
async def test_an_app_that_goes_on_is_not_heard(issuer: Issuer, clock: Clock) -> None:
    said: list[int] = []

    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while len(said) < 5:
            await send({"type": "websocket.send", "text": str(len(said))})
            if len(said) == 1:
                clock.now += 10_000
                await until(lambda: CLOSED in socket.sent)
            said.append(len(said))
        await send({"type": "websocket.close", "code": 1000})

    socket = Socket()
    await protect(issuer, talkative)(socket.scope(token(issuer)), socket.receive, socket.send)
    assert said == [0, 1, 2, 3, 4]
    assert socket.sent == [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "0"},
        {"type": "websocket.send", "text": "1"},
        CLOSED,
    ]


@pytest.mark.usefixtures("_awake")
async def test_an_app_that_accepts_too_late_is_refused(issuer: Issuer, clock: Clock) -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        clock.now += 10_000
        await until(lambda: bool(socket.sent))
        await waiting(scope, receive, send)

    socket = Socket()
    socket.gone.set()
    sent: list[Any] = socket.sent

    async def send(message: Any) -> None:
        sent.append(message)

    await protect(issuer, late)(socket.scope(token(issuer)), socket.receive, send)
    assert sent == [CLOSED]


@pytest.mark.requirement("AU-1", "AU-5")
@pytest.mark.usefixtures("_awake")
async def test_a_websocket_that_ends_with_its_token_is_reported_with_its_caller(issuer: Issuer, clock: Clock) -> None:
    seen: list[Decision] = []
    lines: list[str] = []
    audit: dict[str, Any] = {"audit": "best_effort", "audit_sink": lines.append, "audit_operations": ["*"]}
    guarded, socket = protect(issuer, waiting, on_decision=[seen.append], **audit), Socket()
    async with anyio.create_task_group() as group:
        group.start_soon(guarded, socket.scope(token(issuer)), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 1)
        assert [one.outcome for one in seen] == ["allowed"]
        clock.now += 10_000
        await until(lambda: CLOSED in socket.sent)
        socket.gone.set()
    allowed, expired = seen
    assert (allowed.outcome, expired.outcome) == ("allowed", "expired")
    assert expired.auth_info is allowed.auth_info
    assert expired.time >= allowed.time + 10_000
    facts = ("resource", "path", "kid", "alg", "credential", "scopes_needed", "verify_seconds")
    assert [getattr(expired, name) for name in facts] == [getattr(allowed, name) for name in facts]
    assert [json.loads(line)["outcome"] for line in lines] == ["allowed", "expired"]


@pytest.mark.usefixtures("_awake")
async def test_an_app_that_closed_before_is_closed_once(issuer: Issuer, clock: Clock) -> None:
    seen: list[Decision] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        clock.now += 10_000
        await anyio.sleep(0.05)

    socket = Socket()
    await protect(issuer, app, on_decision=[seen.append])(socket.scope(token(issuer)), socket.receive, socket.send)
    assert socket.sent == [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 4000}]
    assert [one.outcome for one in seen] == ["allowed"]


@pytest.mark.usefixtures("_awake")
async def test_the_watcher_ends_with_the_app(issuer: Issuer, clock: Clock) -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    socket = Socket()
    await protect(issuer, short)(socket.scope(token(issuer)), socket.receive, socket.send)
    clock.now += 10_000
    await anyio.sleep(0.05)
    assert socket.sent == [{"type": "websocket.accept"}]


@pytest.mark.usefixtures("_awake")
async def test_the_watcher_ends_with_an_app_that_fails(issuer: Issuer, clock: Clock) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert current_auth() is scope["state"]["mcp_auth"]
        raise KeyError("own")

    socket = Socket()
    with pytest.raises(KeyError, match="own"):
        await protect(issuer, failing)(socket.scope(token(issuer)), socket.receive, socket.send)
    assert current_auth() is None
    clock.now += 10_000
    await anyio.sleep(0.05)
    assert socket.sent == []


@pytest.mark.usefixtures("_awake")
async def test_the_watcher_ends_with_a_cancelled_connection(issuer: Issuer, clock: Clock) -> None:
    socket = Socket()
    async with anyio.create_task_group() as group:
        group.start_soon(protect(issuer, waiting), socket.scope(token(issuer)), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 1)
        group.cancel_scope.cancel()
    clock.now += 10_000
    await anyio.sleep(0.05)
    assert socket.sent == [{"type": "websocket.accept"}]


@pytest.mark.usefixtures("_awake")
async def test_nothing_is_sent_to_a_client_that_has_left(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The app may still be cleaning up when the token expires; a server refuses to send then."""

    async def cleaning_up(scope: Any, receive: Any, send: Any) -> None:
        await waiting(scope, receive, send)
        clock.now += 10_000
        await anyio.sleep(0.05)

    socket = Socket()
    async with anyio.create_task_group() as group:
        group.start_soon(protect(issuer, cleaning_up), socket.scope(token(issuer)), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 1)
        socket.gone.set()
    assert socket.sent == [{"type": "websocket.accept"}]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


class Endless:
    """A verifier that does not know when a token ends."""

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified:
        return Verified(AuthInfo(issuer=ISS, subject="alice", scopes=["mcp:read"]), None)


@pytest.mark.usefixtures("_awake")
async def test_a_token_without_an_end_keeps_its_socket(issuer: Issuer, clock: Clock) -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata)
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, verifier=Endless())
    socket = Socket()
    async with anyio.create_task_group() as group:
        group.start_soon(auth.wrap(waiting), socket.scope("opaque"), socket.receive, socket.send)
        await until(lambda: len(socket.sent) == 1)
        clock.now += 10_000
        await anyio.sleep(0.05)
        socket.gone.set()
    assert socket.sent == [{"type": "websocket.accept"}]
