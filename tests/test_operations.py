"""What a message asks for: what MCP SDKs run is what was checked."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pydantic_core
import pytest
from harness import http_scope
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp_types.jsonrpc import JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter
from operations import LEGACY, MODERN, VERSION

from asgi_mcp_auth import RequestInfo
from asgi_mcp_auth._mcp.headers import MCPFields
from asgi_mcp_auth._mcp.messages import parse, read_messages
from asgi_mcp_auth._mcp.operations import asks, asks_of, operations
from asgi_mcp_auth.errors import MessageRefused

pytestmark = pytest.mark.anyio


def fields_of(lines: Iterable[tuple[bytes, bytes]]) -> MCPFields:
    return MCPFields(RequestInfo(http_scope() | {"headers": list(lines)}).fields)


NAMES = st.sampled_from(["x", "delete_file", "tools/call", "tools/list", "1"]) | st.text(max_size=3)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["name", "Name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def bodies(draw: Callable[[Any], Any]) -> bytes:
    members = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "Method", "x"])
    valid: list[tuple[str, Any]] = [("jsonrpc", "2.0"), ("id", 1), ("method", draw(NAMES))]
    valid.append(("params", draw(st.fixed_dictionaries({"name": NAMES}) | VALUES)))
    pairs = valid + draw(st.lists(st.tuples(members, VALUES), max_size=2))
    pairs = draw(st.permutations([pair for pair in pairs if draw(st.integers(0, 9)) or pair[0] == "x"]))
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()


def runs(value: object) -> list[tuple[str, str | None]]:
    """The methods, and the tools, that the SDK would run for one JSON value; ValueError where it refuses it."""
    message = jsonrpc_message_adapter.validate_python(value, by_name=False)
    if not isinstance(message, (JSONRPCRequest, JSONRPCNotification)):
        return []
    return [(message.method, (message.params or {})["name"] if message.method == "tools/call" else None)]


@settings(max_examples=500, deadline=None)
@given(bodies() | st.binary(max_size=40))
def test_what_the_sdk_runs_is_what_was_checked(body: bytes) -> None:
    try:
        messages, batch = read_messages(parse(body))
        checked = [operations(one, {})[0] for one in asks_of(messages)]
    except MessageRefused:
        return
    assert not batch
    try:
        run = runs(pydantic_core.from_json(body))
    except ValueError:
        return  # it runs nothing
    assert [(operation.method, operation.tool) for operation in checked] == run


@settings(max_examples=300, deadline=None)
@given(st.lists(bodies(), max_size=4))
def test_of_a_batch_everything_was_checked(elements: list[bytes]) -> None:
    body = b"[" + b",".join(elements) + b"]"
    try:
        messages, batch = read_messages(parse(body))
        checked = [operations(one, {})[0] for one in asks_of(messages)]
    except MessageRefused:
        return
    assert batch
    run: list[tuple[str, str | None]] = []
    for value in pydantic_core.from_json(body):  # SDKs that knew batches took the elements one by one
        with contextlib.suppress(ValueError):
            run += runs(value)
    assert not Counter(run) - Counter((operation.method, operation.tool) for operation in checked)


META: dict[str, Any] = {VERSION: MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


@st.composite
def modern_posts(draw: Callable[[Any], Any]) -> tuple[bytes, dict[str, str]]:
    """A body of 2026-07-28 and the fields that describe it; one thing or another may be wrong."""

    def often(right: Any, wrong: Any) -> Any:
        return right if draw(st.integers(0, 7)) else draw(wrong)

    method, name = draw(st.sampled_from(["tools/call", "tools/list", "x"])), draw(NAMES)
    params = {"name": name, "_meta": often(META, VALUES), **often({}, st.dictionaries(NAMES, VALUES, max_size=1))}
    body = {"jsonrpc": "2.0", "id": often(1, VALUES), "method": method, "params": often(params, VALUES)}
    odd = st.sampled_from(["delete_file", "=?base64?eA==?=", "=?base64?eA=?=", "TOOLS/CALL", "tools/list", ""])
    literal = name if name.isascii() and name.isprintable() and name.strip() == name else "x"
    fields = {"mcp-protocol-version": often(MODERN, st.sampled_from([LEGACY, "9999-01-01"]))}
    fields |= {"mcp-method": often(method, odd), "mcp-name": often(literal, odd)}
    return json.dumps(often(body, st.just([body]))).encode(), fields


@settings(max_examples=500, deadline=None)
@given(modern_posts())
def test_what_the_modern_sdk_runs_is_what_was_checked(sent: tuple[bytes, dict[str, str]]) -> None:
    body, given_fields = sent
    fields = fields_of((name.encode(), value.encode()) for name, value in given_fields.items())
    try:
        checked = [operations(one, {})[0] for one in asks(body, fields)]
    except MessageRefused:
        event("refused")
        return
    decoded = json.loads(body)
    try:
        request = JSONRPCRequest.model_validate(decoded)
    except ValueError:
        return  # a notification, a batch, or nothing: it runs nothing
    if isinstance(classify_inbound_request(decoded, headers=given_fields), InboundLadderRejection):
        return
    event("run")
    assert [operation.method for operation in checked] == [request.method]
    if request.method == "tools/call":
        assert checked[0].tool == (request.params or {})["name"]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        pytest.param({}, {"mcp-method": "tools/list"}, id="another method in its field"),
        pytest.param({}, {"mcp-name": "purge"}, id="another name in its field"),
        pytest.param({}, {"mcp-name": "=?base64?cHVyZ2U=?="}, id="another name in its field, encoded"),
        pytest.param({}, {"mcp-method": None}, id="a name without a method"),
        pytest.param({}, {"mcp-name": None}, id="a method without a name"),
        pytest.param({}, {"mcp-protocol-version": LEGACY}, id="another revision in its field"),
        pytest.param({"jsonrpc": "1.0"}, {}, id="no jsonrpc 2.0"),
        pytest.param({"id": True}, {}, id="no id"),
        pytest.param({"result": {}}, {}, id="a response at once"),
        pytest.param({"params": {"name": "add", "Name": "purge"}}, {}, id="a look-alike"),
    ],
)
def test_a_call_that_its_fields_contradict_is_refused(message: dict[str, Any], fields: dict[str, str | None]) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "_meta": META}}
    described = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "add", **fields}
    lines = [(name.encode(), line.encode()) for name, line in described.items() if line is not None]
    with pytest.raises(MessageRefused):
        asks(json.dumps(request | message).encode(), fields_of(lines))


def test_a_name_alone_is_compared_with_the_body() -> None:
    """MCP up to 2025-11-25: a field that the revision does not require has to agree with the body all the same."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add"}}
    with pytest.raises(MessageRefused):
        asks(json.dumps(request).encode(), fields_of([(b"mcp-name", b"purge")]))


@pytest.mark.parametrize(
    ("lines", "repeated"),
    [
        pytest.param([(b"mcp-name", b"add")] * 20_000, "Mcp-Name", id="RS-245 one of ours"),
        pytest.param([(b"mcp-name", b""), (b"mcp-method", b"")] * 10_000, "Mcp-Name", id="RS-245 two of ours"),
        pytest.param([(b"cookie", b"")] * 20_000, None, id="RS-245 another"),
    ],
)
def test_many_lines_of_a_field_are_read_in_one_pass(lines: list[tuple[bytes, bytes]], repeated: str | None) -> None:
    """Some servers bound no number of fields: what 20 000 lines cost is linear (5 ms, not 5 s)."""
    began = time.process_time()
    assert fields_of(lines).repeated == repeated
    assert time.process_time() - began < 1.0
