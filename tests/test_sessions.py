"""Sessions bound to their caller, and the fields of sessions in later revisions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from harness import token
from operations import LEGACY, MODERN, Replies, guarded, modern, post, rpc

from asgi_mcp_auth import MemoryStore
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]

NOT_FOUND = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Session not found"}}


@pytest.mark.requirement("RS-3", "RS-210")
async def test_sessions(issuer: Issuer) -> None:
    app = Replies(b"{}", mcp_session_id=b"s1")
    guard = guarded(issuer, app, {"store": MemoryStore(), "session_binding": True})
    alice, again, bob = token(issuer), token(issuer, jti="2"), token(issuer, sub="bob")
    session = ("mcp-session-id", "s1")
    assert (await post(guard, alice, rpc("ping"), LEGACY, session)).status == 404  # not made yet
    assert (await post(guard, alice, rpc("initialize"))).status == 200
    answers = [await post(guard, who, rpc("ping"), LEGACY, session) for who in (alice, again, bob)]
    assert [answer.status for answer in answers] == [200, 200, 404]
    assert answers[2].json() == NOT_FOUND
    assert (await post(guard, bob, rpc("initialize"))).status == 200  # the app names alice's session again
    assert (await post(guard, bob, b"", None, session, method="GET")).status == 404
    assert (await post(guard, alice, b"", None, session, method="DELETE")).status == 200
    assert (await post(guard, None, rpc("ping"), LEGACY, session)).status == 401


@pytest.mark.requirement("RS-211")
async def test_later_revisions_have_no_sessions(issuer: Issuer) -> None:
    app = Replies(b"{}")
    guard = guarded(issuer, app, {"store": MemoryStore(), "session_binding": True})
    fields = [("mcp-session-id", "zzz"), ("last-event-id", "1"), ("mcp-method", "ping")]
    assert (await post(guard, token(issuer), modern(rpc("ping")), MODERN, *fields)).status == 200
    assert {b"mcp-session-id", b"last-event-id"}.isdisjoint(dict(app.scopes[0]["headers"]))


@pytest.mark.parametrize("name", ["mcp-session-id", "mcp_session_id", "mcp-session_id", "mcp_session-id"])
async def test_a_session_field_counts_however_a_wsgi_app_would_read_it(name: str, issuer: Issuer) -> None:
    app = Replies(b"{}", mcp_session_id=b"s1")
    guard = guarded(issuer, app, {"store": MemoryStore(), "session_binding": True}, public_methods=["ping"])
    assert (await post(guard, token(issuer), rpc("initialize"))).status == 200
    bob, session = token(issuer, sub="bob"), (name, "s1")
    assert (await post(guard, bob, rpc("ping"), LEGACY, session)).status == 404
    assert (await post(guard, bob, rpc("ping"), LEGACY, session, ("mcp-session-id", "s2"))).status == 404
    assert (await post(guard, None, rpc("ping"), LEGACY, session)).status == 404
    modern_fields = [(name, "s1"), ("last_event-id", "1"), ("mcp-method", "ping")]
    assert (await post(guard, bob, modern(rpc("ping")), MODERN, *modern_fields)).status == 200
    assert b"s1" not in [value for _, value in app.scopes[-1]["headers"]]


async def test_a_principal_cannot_fill_the_store_with_sessions(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.sessions.MAX_SESSIONS", 3)
    monkeypatch.setattr("asgi_mcp_auth._asgi.sessions.MAX_COUNTED", 5)
    app = Replies(b"{}")
    guard = guarded(issuer, app, {"store": MemoryStore(), "session_binding": True})
    alice, bob = token(issuer), token(issuer, sub="bob")

    async def begin(who: str, name: bytes) -> None:
        app.headers = [(b"mcp-session-id", name)]
        assert (await post(guard, who, rpc("initialize"))).status == 200

    async def live(who: str, *names: str) -> list[int]:
        app.headers = []
        return [(await post(guard, who, rpc("ping"), LEGACY, ("mcp-session-id", name))).status for name in names]

    await begin(bob, b"b")
    for name in (b"1", b"2", b"3"):
        await begin(alice, name)
    assert await live(alice, "1") == [200]
    await begin(alice, b"4")
    assert await live(alice, "1", "2", "3", "4") == [200, 404, 200, 200]  # 2 was not used for longest
    for name in (b"5", b"6", b"7"):
        await begin(bob, name)
    assert await live(bob, "b", "5", "6", "7") == [404, 200, 200, 200]
    assert await live(alice, "1", "3", "4") == [200] * 3


async def test_a_store_that_fails(issuer: Issuer) -> None:
    class Broken(MemoryStore):
        async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
            raise OSError(keys)

    guard = guarded(issuer, Replies(b"{}"), {"store": Broken(), "session_binding": True})
    assert (await post(guard, token(issuer), rpc("ping"), LEGACY, ("mcp-session-id", "s1"))).status == 503
