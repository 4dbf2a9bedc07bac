"""Lists without the entries that the caller may not use, in JSON responses and in event streams."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from harness import Answer, token
from operations import TOOLS, Replies, call_tool, guarded, names, post, reply, rpc

from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


async def listing(
    issuer: Issuer, app: Replies, scope: str = "mcp:read", method: str = "tools/list", **policy: Any
) -> Answer:
    guard = guarded(issuer, app, filter_lists=True, **policy)
    return await post(guard, token(issuer, scope=scope), rpc(method))


@pytest.mark.parametrize(
    ("scope", "policy", "expected"),
    [
        pytest.param("mcp:read", {}, ["x"], id="RS-214 hidden"),
        pytest.param("mcp:read files:write", {}, ["delete_file", "x"], id="RS-214 enough"),
        pytest.param("mcp:read", {"unlisted": "deny"}, [], id="RS-214 unlisted"),
        pytest.param("mcp:read", {"annotate_lists": {"required_scopes"}}, ["delete_file", "x"], id="RS-214 marked"),
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
    if "annotate_lists" in policy:
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


@pytest.mark.requirement("RS-215")
async def test_hidden_is_forbidden(issuer: Issuer) -> None:
    app = Replies(b"{}")
    assert (await post(guarded(issuer, app, filter_lists=True), token(issuer), call_tool("delete_file"))).status == 403
    assert app.scopes == []


@pytest.mark.parametrize(
    ("policy", "expected"),
    [({"default": []}, ["x"]), ({}, []), ({"default": [], "unlisted": "deny"}, [])],
    ids=["RS-214 no baseline", "RS-214 a baseline", "RS-214 unlisted"],
)
async def test_a_list_for_nobody(issuer: Issuer, policy: Any, expected: list[str]) -> None:
    app = guarded(issuer, Replies(reply(TOOLS)), public_methods=["tools/list"], filter_lists=True, **policy)
    answer = await post(app, None, rpc("tools/list"))
    assert (answer.status, names(answer), answer.json()["result"]["cacheScope"]) == (200, expected, "private")


EVENTS = [b"id: 7", b"data: " + reply(TOOLS), b""]


@pytest.mark.every_loop
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["RS-213 LF", "RS-213 CRLF", "RS-213 CR"])
async def test_events_split_at_every_byte(issuer: Issuer, newline: bytes) -> None:
    whole = newline.join([b": ping", b"", *EVENTS, *EVENTS, b"data: last", b"", b""])
    replies = Replies(whole, content_type=b"text/event-stream")
    app, listing, raw = guarded(issuer, replies, filter_lists=True), rpc("tools/list"), token(issuer)

    async def given(*chunks: bytes) -> bytes:
        replies.chunks = chunks
        return (await post(app, raw, listing)).body

    expected = await given(whole)
    assert expected.count(b'{"name":"x"}') == 2
    assert b"delete_file" not in expected
    for at in range(len(whole)):
        got = await given(whole[:at], whole[at:])
        assert got.replace(b"\r\n", b"\n") == expected.replace(b"\r\n", b"\n"), at
    assert (await given(*[bytes([b]) for b in whole])).count(b'{"name":"x"}') == 2


@pytest.mark.every_loop
async def test_large_streams_take_linear_time(issuer: Issuer) -> None:
    many, long = b"data: 1\n\n" * 200_000, [b"x" * 500] * 8000
    with anyio.fail_after(10):  # by squares it would be minutes
        for chunks in ([many], long):
            app = guarded(issuer, Replies(*chunks, content_type=b"text/event-stream"), filter_lists=True)
            assert (await post(app, token(issuer), rpc("tools/list"))).body == b"".join(chunks)
