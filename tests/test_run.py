"""The app of a verified caller: its scope, its stream, and nothing of another request."""

from __future__ import annotations

import copy
import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from harness import APP, CORS, RecordingApp, bearer, call, http_scope, lines, protect, send_scope, token

from asgi_mcp_auth import current_auth
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("RS-1")
async def test_a_public_path_gets_the_request_untouched(issuer: Issuer) -> None:
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)
        assert current_auth() is None

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError

    scope = http_scope(path="/healthz", headers=bearer("anything"))
    await protect(issuer, app, public_paths=["/healthz"])(scope, receive, send)
    [(got_scope, got_receive, got_send)] = seen
    assert got_scope is scope
    assert (got_receive, got_send) == (receive, send)
    assert issuer.requests == {}


@pytest.mark.requirement("RS-240")
async def test_the_scope_is_copied(issuer: Issuer) -> None:
    state: dict[str, Any] = {"db": "pool"}
    scope = http_scope(headers=bearer(token(issuer)), state=state)
    before = copy.deepcopy(scope)
    app = RecordingApp()
    assert (await send_scope(protect(issuer, app), scope)).status == 200
    assert scope == before
    assert scope["state"] is state
    assert state == {"db": "pool"}
    [child] = app.scopes
    assert child["state"]["db"] == "pool"
    assert set(child) - set(scope) == {"user", "auth"}


@pytest.mark.requirement("RS-242")
async def test_identity_that_came_with_the_request_is_replaced(issuer: Issuer) -> None:
    app = RecordingApp()
    scope = http_scope(
        headers=lines([("x-auth-subject", "root")], bearer(token(issuer))),
        state={"mcp_auth": "root", "claims": {"sub": "root"}},
        user="root",
        auth="root",
    )
    await send_scope(protect(issuer, app), scope)
    [child] = app.scopes
    assert child["state"]["mcp_auth"].subject == "alice"
    assert child["state"]["claims"]["sub"] == "alice"
    assert child["user"].display_name == "alice"
    assert child["auth"].scopes == ["mcp:read"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, {b"host", b"x-other"}, id="RS-240 hidden by default"),
        pytest.param({"expose_token": True}, {b"host", b"x-other", b"authorization", b"dpop"}, id="RS-240 exposed"),
    ],
)
async def test_the_raw_token(options: dict[str, Any], expected: set[bytes], issuer: Issuer) -> None:
    app = RecordingApp()
    raw = token(issuer)
    headers = lines([("x-other", b"1"), ("dpop", b"proof")], bearer(raw))
    await call(protect(issuer, app, **options), headers=headers)
    [child] = app.scopes
    assert {name for name, _ in child["headers"]} == expected
    exposed = bool(options)
    assert child["state"]["mcp_auth"].token == (raw if exposed else None)
    shown = [repr(child["state"]["mcp_auth"]), repr(child["user"]), repr(child["auth"])]
    assert not any(raw in text for text in shown)


@pytest.mark.requirement("RS-213")
@pytest.mark.every_loop
async def test_streams_are_not_buffered_and_a_disconnect_arrives(issuer: Issuer) -> None:
    arrived = anyio.Event()
    received: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-accel-buffering", b"no")]})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await arrived.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        received.append(await receive())

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == b"first":
            arrived.set()

    guarded = protect(issuer, app, allowed_origins=[APP])
    with anyio.fail_after(5):
        await guarded(http_scope(headers=lines([("origin", APP)], bearer(token(issuer)))), receive, send)
    assert received == [{"type": "http.disconnect"}]
    assert sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x-accel-buffering", b"no"), *CORS]},
        {"type": "http.response.body", "body": b"first", "more_body": True},
        {"type": "http.response.body", "body": b"second", "more_body": True},
    ]


@pytest.mark.requirement("RS-245")
@pytest.mark.every_loop
async def test_500_interleaved_requests_do_not_mix(issuer: Issuer) -> None:
    count = 500
    arrived = 0
    everybody = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == count:
            everybody.set()
        await everybody.wait()
        info = current_auth()
        assert info is not None
        state = scope["state"]
        said = [info.subject, state["mcp_auth"].subject, state["claims"]["sub"], scope["user"].auth_info.subject]
        await anyio.lowlevel.checkpoint()
        again = current_auth()
        assert again is info
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([*said, scope["auth"].scopes[1]]).encode()})

    guarded = protect(issuer, app)
    key = issuer.keys[2]
    tokens = [token(issuer, key=key, sub=f"user{n}", scope=f"mcp:read s{n}") for n in range(count)]
    answers: dict[int, Any] = {}

    async def one(n: int) -> None:
        answers[n] = (await call(guarded, headers=bearer(tokens[n]))).json()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for n in range(count):
                group.start_soon(one, n)
    assert answers == {n: [f"user{n}"] * 4 + [f"s{n}"] for n in range(count)}


@pytest.mark.requirement("RS-245")
@pytest.mark.every_loop
async def test_changes_of_the_app_to_the_claims_stay_within_the_request(issuer: Issuer) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        state = scope["state"]
        seen.append(copy.deepcopy((state["claims"], state["mcp_auth"].claims, scope["auth"].scopes, sorted(state))))
        state["claims"]["sub"] = "root"
        state["claims"]["roles"].append("admin")
        state["claims"]["nested"]["deep"][0]["x"] = "changed"
        state["mcp_auth"].claims["sub"] = "root"
        state["more"] = 1
        scope["auth"].scopes.append("admin")
        await RecordingApp()(scope, receive, send)

    guarded = protect(issuer, app)
    headers = bearer(token(issuer, roles=["user"], nested={"deep": [{"x": "y"}]}))
    for _ in range(3):
        await call(guarded, headers=headers)
    first, *later = seen
    assert first[0] == first[1]
    assert (first[0]["sub"], first[0]["roles"], first[0]["nested"]) == ("alice", ["user"], {"deep": [{"x": "y"}]})
    assert first[2:] == (["mcp:read"], ["claims", "mcp_auth"])
    assert later == [first, first]
