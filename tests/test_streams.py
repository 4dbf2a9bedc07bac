"""What outlives or follows a request: filtered lists, sessions bound to their caller, streams that end (A13)."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from harness import Answer, Clock, bearer, http_scope, send_scope, token
from test_operations import LEGACY, MODERN, call_tool, guarded, modern, post, rpc

from asgi_mcp_auth import MemoryStore
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]

TOOLS = {"tools": [{"name": "delete_file"}, {"name": "x"}], "cacheScope": "public", "nextCursor": "n"}


class Replies:
    """An app that answers with given chunks."""

    def __init__(self, *chunks: bytes, content_type: bytes = b"application/json", **more: bytes) -> None:
        self.chunks = chunks
        self.headers = [(b"Content-Type", content_type), (b"content-length", str(sum(map(len, chunks))).encode())]
        self.headers += [(name.replace("_", "-").encode(), value) for name, value in more.items()]
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def reply(result: Any, message_id: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message_id, "result": result}).encode()


async def listing(
    issuer: Issuer, app: Replies, scope: str = "mcp:read", method: str = "tools/list", **policy: Any
) -> Answer:
    guard = guarded(issuer, app, filter_lists=True, **policy)
    return await post(guard, token(issuer, scope=scope), rpc(method))


def names(answer: Answer) -> list[str]:
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


@pytest.mark.parametrize(
    ("scope", "policy", "expected"),
    [
        pytest.param("mcp:read", {}, ["x"], id="RS-214 hidden"),
        pytest.param("mcp:read files:write", {}, ["delete_file", "x"], id="RS-214 enough"),
        pytest.param("mcp:read", {"unlisted": "deny"}, [], id="RS-214 unlisted"),
        pytest.param("mcp:read", {"mark_reachable": True}, ["delete_file", "x"], id="RS-214 marked"),
    ],
)
async def test_a_json_list(issuer: Issuer, scope: str, policy: Any, expected: list[str]) -> None:
    body = reply(TOOLS)
    answer = await listing(issuer, Replies(body[:20], body[20:]), scope, **policy)
    assert names(answer) == expected
    assert answer.header("content-length") == str(len(answer.body))
    result = answer.json()["result"]
    assert (result["cacheScope"], result["nextCursor"]) == ("private", "n")
    marks = [tool.get("_meta") for tool in result["tools"]]
    if "mark_reachable" in policy:
        assert marks == [{"asgi-mcp-auth/requiredScopes": ["mcp:read", "files:write"]}, None]
    else:
        assert set(marks) <= {None}


async def test_resources_and_prompts(issuer: Issuer) -> None:
    for method, result in (
        ("resources/list", {"resources": [{"uri": "file:///secret/a"}, {"uri": "x://y"}]}),
        (
            "resources/templates/list",
            {"resourceTemplates": [{"uriTemplate": "file:///secret/{a}"}, {"uriTemplate": "x://{y}"}]},
        ),
        ("prompts/list", {"prompts": [{"name": "boss"}, {"name": "y"}]}),
    ):
        answer = await listing(issuer, Replies(reply(result)), method=method)
        (kept,) = answer.json()["result"].values()
        assert len(kept) == 1
        assert "y" in str(kept)


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(Replies(reply(TOOLS), content_encoding=b"gzip"), id="RS-214 compressed"),
        pytest.param(Replies(reply(TOOLS), content_type=b"text/plain"), id="RS-214 another type"),
        pytest.param(Replies(reply(TOOLS, 2)), id="RS-214 another request's"),
        pytest.param(Replies(reply({"tools": [{"title": "x"}]})), id="RS-214 no list"),
        pytest.param(Replies(b'{"a":1,"a":2}'), id="RS-214 unreadable"),
        pytest.param(Replies(b'{"jsonrpc":"2.0","id":1,"error":{}}'), id="RS-214 an error"),
        pytest.param(Replies(b"x" * 3_000_000, b"y" * 3_000_000), id="RS-214 too large"),
        pytest.param(Replies(b"data: x" * 1_000_000, content_type=b"text/event-stream"), id="RS-214 a huge event"),
    ],
)
async def test_what_is_not_understood_passes(issuer: Issuer, app: Replies) -> None:
    assert (await listing(issuer, app)).body == b"".join(app.chunks)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["RS-213 LF", "RS-213 CRLF"])
@pytest.mark.parametrize("at", range(1, 61), ids="RS-213 split at {}".format)
async def test_an_event_stream(issuer: Issuer, newline: bytes, at: int) -> None:
    end = newline * 2
    events = b": ping" + end + b"id: 7" + newline + b"data: " + reply(TOOLS) + end + b'data: {"method":"x"}' + end
    answer = await listing(issuer, Replies(events[:at], events[at:], content_type=b"text/event-stream"))
    first, listed, last, rest = answer.body.split(end)
    assert (first, last, rest) == (b": ping", b'data: {"method":"x"}', b"")
    assert listed.startswith(b"id: 7" + newline + b"data: ")
    assert [tool["name"] for tool in json.loads(listed.partition(b"data: ")[2])["result"]["tools"]] == ["x"]


async def test_hidden_is_forbidden(issuer: Issuer) -> None:
    app = Replies(b"{}")
    assert (await post(guarded(issuer, app, filter_lists=True), token(issuer), call_tool("delete_file"))).status == 403
    assert app.scopes == []  # RS-215


NOT_FOUND = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Session not found"}}


async def test_sessions(issuer: Issuer) -> None:
    app = Replies(b"{}", mcp_session_id=b"s1")
    guard = guarded(issuer, app, {"session_store": MemoryStore()})
    alice, again, bob = token(issuer), token(issuer, jti="2"), token(issuer, sub="bob")
    session = ("mcp-session-id", "s1")
    assert (await post(guard, alice, rpc("ping"), LEGACY, session)).status == 404  # not made yet
    assert (await post(guard, alice, rpc("initialize"))).status == 200
    answers = [await post(guard, who, rpc("ping"), LEGACY, session) for who in (alice, again, bob)]
    assert [answer.status for answer in answers] == [200, 200, 404]  # RS-210
    assert answers[2].json() == NOT_FOUND
    assert (await post(guard, bob, rpc("initialize"))).status == 200  # the app names alice's session again
    assert (await post(guard, bob, b"", None, session, method="GET")).status == 404
    assert (await post(guard, alice, b"", None, session, method="DELETE")).status == 200
    assert (await post(guard, None, rpc("ping"), LEGACY, session)).status == 401  # RS-3


async def test_later_revisions_have_no_sessions(issuer: Issuer) -> None:
    app = Replies(b"{}")
    guard = guarded(issuer, app, {"session_store": MemoryStore()})
    fields = [("mcp-session-id", "zzz"), ("last-event-id", "1"), ("mcp-method", "ping")]
    assert (await post(guard, token(issuer), modern(rpc("ping")), MODERN, *fields)).status == 200  # RS-211
    assert {b"mcp-session-id", b"last-event-id"}.isdisjoint(dict(app.scopes[0]["headers"]))


async def test_a_store_that_fails(issuer: Issuer) -> None:
    class Broken(MemoryStore):
        async def get(self, key: str) -> bytes | None:
            raise OSError(key)

    guard = guarded(issuer, Replies(b"{}"), {"session_store": Broken()})
    assert (await post(guard, token(issuer), rpc("ping"), LEGACY, ("mcp-session-id", "s1"))).status == 503


def streaming(sent: list[Any], clock: Clock, *, chunks: list[bytes], content_type: bytes = b"text/event-stream") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", content_type)]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        clock.now += 1000
        await anyio.sleep(0.05)
        sent.append("late")
        await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


@pytest.mark.parametrize(
    ("content_type", "chunks", "expected"),
    [
        pytest.param(b"text/event-stream", [b"data: 1\n\n"], b"data: 1\n\n", id="RS-212 between events"),
        pytest.param(b"text/event-stream", [b"data: "], b"data: data: late\n\n", id="RS-212 after the event under way"),
        pytest.param(b"text/plain", [b"1"], b"1data: late\n\n", id="RS-212 no event stream"),
    ],
)
async def test_a_stream_ends_with_its_token(  # noqa: PLR0917
    issuer: Issuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    content_type: bytes,
    chunks: list[bytes],
    expected: bytes,
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)
    sent: list[Any] = []
    app = guarded(issuer, streaming(sent, clock, chunks=chunks, content_type=content_type))
    answer = await send_scope(app, http_scope("GET", headers=bearer(token(issuer))))
    assert (answer.body, sent) == (expected, ["late"])


async def test_the_app_is_told_where_asgi_has_words_for_it(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.streams.MAX_SLEEP", 0.005)
    app = guarded(issuer, streaming([], clock, chunks=[b"data: 1\n\n"]))
    scope = http_scope("GET", headers=bearer(token(issuer)), asgi={"version": "3.0", "spec_version": "2.4"})
    with pytest.raises(OSError, match="expired"):
        await send_scope(app, scope)
