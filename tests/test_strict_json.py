"""Strict JSON: what is refused, that only `JSONRefused` is raised, and that the cost is bounded."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import sys
import time
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth import strict_json
from asgi_mcp_auth._oauth.strict_json import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_VALUES,
    JSONRefused,
    is_valid,
    load_object,
    load_tolerant,
    load_value,
)

ACCEPTED = [
    pytest.param(b"{}", {}, id="empty"),
    pytest.param(b' \t\r\n{"a" : 1}\n', {"a": 1}, id="whitespace of RFC 8259"),
    pytest.param(
        b'{"a":[1,2.5,-3e2,true,false,null,"x"]}', {"a": [1, 2.5, -300.0, True, False, None, "x"]}, id="all types"
    ),
    pytest.param(b'{"a":{"b":1},"c":{"b":2}}', {"a": {"b": 1}, "c": {"b": 2}}, id="one name in two objects"),
    pytest.param('{"é":"日本"}'.encode(), {"é": "日本"}, id="UTF-8"),
    pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}, id="a surrogate pair"),
    pytest.param(b'{"a":"\\\\ud800"}', {"a": "\\ud800"}, id="an escaped backslash before ud800"),
    pytest.param(b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}', {"a": "[" * 40}, id="brackets in a string"),
    pytest.param(
        b'{"a":"\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
        {"a": '"' + "[" * 40},
        id="brackets after an escaped quote",
    ),
    pytest.param(b'{"":0}', {"": 0}, id="the empty name"),
    pytest.param(b'{"a":' + b"9" * MAX_DIGITS + b"}", {"a": int("9" * MAX_DIGITS)}, id="an integer as long as allowed"),
]

REFUSED = [
    pytest.param(b"", "not JSON", id="RS-70 nothing"),
    pytest.param(b"abc", "not JSON", id="RS-70 not JSON"),
    pytest.param(b"[]", "not a JSON object", id="RS-70 array"),
    pytest.param(b'"x"', "not a JSON object", id="RS-70 string"),
    pytest.param(b"null", "not a JSON object", id="RS-70 null"),
    pytest.param(b"1", "not a JSON object", id="RS-70 number"),
    pytest.param(b"true", "not a JSON object", id="RS-70 boolean"),
    pytest.param(b"{} {}", "not JSON", id="RS-70 two objects"),
    pytest.param(b"{}x", "not JSON", id="RS-70 something after"),
    pytest.param(b"{'a':1}", "not JSON", id="RS-70 single quotes"),
    pytest.param(b'{"a":1,}', "not JSON", id="RS-70 trailing comma"),
    pytest.param(b'{"a":1', "not JSON", id="RS-70 cut"),
    pytest.param(b'{"a":"\n"}', "not JSON", id="RS-70 raw newline in a string"),
    pytest.param(b'{"a":01}', "not JSON", id="RS-70 leading zero"),
    pytest.param(b"{}\x00", "not JSON", id="RS-70 NUL after"),
    pytest.param(b'{"alg":"RS256","alg":"none"}', "duplicate member names", id="RS-70 duplicate names"),
    pytest.param(b'{"a":1,"\\u0061":2}', "duplicate member names", id="RS-70 duplicate names, one escaped"),
    pytest.param(b'{"x":[{"a":1,"a":1}]}', "duplicate member names", id="RS-70 duplicate names within"),
    *(
        pytest.param(text % gap, "duplicate member names", id=f"RS-70 duplicate names, a gap {gap!r}, {text!r}")
        for gap in (b" ", b"\t", b"\n", b"\r", b"  ")
        for text in (b'{"a"%s:1,"a":1}', b'{"a"%s:":","a":1}', b'{"a":1,"b":1,"a"%s:":"}')
    ),
    pytest.param(b'{"a":":","b":1,"a":":"}', "duplicate member names", id="RS-70 duplicate names, colons"),
    pytest.param(b'{"\\\\":1,"\\\\":1}', "duplicate member names", id="RS-70 duplicate names, escapes"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', "not JSON", id="RS-70 byte order mark"),
    pytest.param(b'{"a":"\xff"}', "not JSON", id="RS-70 not UTF-8"),
    pytest.param(b'{"a":"\xc0\xae"}', "not JSON", id="RS-70 overlong UTF-8"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "not JSON", id="RS-70 surrogate in UTF-8"),
    pytest.param('{"a":1}'.encode("utf-16"), "not JSON", id="RS-70 UTF-16"),
    pytest.param(b'{"a":NaN}', "NaN is not JSON", id="RS-70 NaN"),
    pytest.param(b'{"a":Infinity}', "Infinity is not JSON", id="RS-81 Infinity"),
    pytest.param(b'{"a":-Infinity}', "-Infinity is not JSON", id="RS-81 -Infinity"),
    pytest.param(b'{"a":1e400}', "a number out of range", id="RS-81 1e400"),
    pytest.param(b'{"a":-1e400}', "a number out of range", id="RS-81 -1e400"),
    pytest.param(b'{"a":' + b"9" * (MAX_DIGITS + 1) + b"}", "a number too long", id="RS-70 an integer too long"),
    pytest.param(b'{"a":-' + b"9" * MAX_DIGITS + b"}", "a number too long", id="RS-70 a negative integer too long"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", "a number too long", id="RS-70 an integer of 5000 digits"),
    pytest.param(b'{"a":"\\ud800"}', "a lone surrogate", id="RS-70 lone surrogate"),
    pytest.param(b'{"a":"\\uDFFF"}', "a lone surrogate", id="RS-70 lone low surrogate"),
    pytest.param(b'{"\\ud800":1}', "a lone surrogate", id="RS-70 lone surrogate in a name"),
    pytest.param(b'{"a":["\\ude00\\ud83d"]}', "a lone surrogate", id="RS-70 a pair the wrong way round"),
    pytest.param(b"[" * 10_000, "nested too deeply", id="RS-70 10,000 arrays"),
    pytest.param(b"[" * 100_000, "too many values", id="RS-70 100,000 arrays"),
    pytest.param(b'{"a":' * 5_000, "nested too deeply", id="RS-70 5,000 objects"),
]


@pytest.mark.parametrize(("data", "expected"), ACCEPTED)
def test_an_object_is_read(data: bytes, expected: dict[str, Any]) -> None:
    assert load_object(data) == expected


@pytest.mark.parametrize(("data", "why"), REFUSED)
def test_everything_else_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(JSONRefused) as caught:
        load_object(data)
    assert str(caught.value) == why


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"0" + b"}" * depth


@pytest.mark.parametrize("limit", [1, 2, MAX_DEPTH])
def test_the_depth_limit_is_exact(limit: int) -> None:
    assert load_object(nested(limit), max_depth=limit) == json.loads(nested(limit))
    with pytest.raises(JSONRefused, match=r"^nested too deeply$"):
        load_object(nested(limit + 1), max_depth=limit)


def test_many_shallow_members_are_not_deep() -> None:
    data = b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}"
    assert load_object(data) == {"a": [{}] * 1000}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":"' + b'\\"' * 100_000 + b"[" * 100, id="escaped quotes"),
        pytest.param(b'"' * 100_001 + b"[" * 100, id="quotes"),
        pytest.param(b'{"a":"' + b"\\" * 200_001 + b"[" * 100, id="backslashes"),
        pytest.param(b'"[' * 100_000, id="quotes and brackets"),
        pytest.param(b'{"a":"\\ud800' * 30_000, id="unclosed strings with surrogates"),
    ],
)
def test_hostile_bytes_take_linear_time(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(JSONRefused):
        load_object(data)
    assert time.perf_counter() - start < 2.0  # quadratic would be minutes


SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
JSON: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS: Final = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@settings(deadline=None, max_examples=150)
@given(OBJECTS, st.booleans())
def test_every_json_object_is_read_as_it_is(value: dict[str, Any], ascii_only: bool) -> None:
    assert load_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='{}[]":,\\ud8019aetrufalsn-+.E \n', max_size=60).map(str.encode),
        OBJECTS.map(json.dumps)
        .map(str.encode)
        .flatmap(lambda data: st.integers(0, len(data)).map(lambda cut: data[:cut])),
    )
)
def test_any_bytes_give_an_object_or_json_refused_and_never_more_than_json_loads(data: bytes) -> None:
    try:
        value = load_object(data)
    except JSONRefused:
        return
    assert json.loads(data) == value
    json.dumps(value, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 2_000 + b"]" * 2_000, id="RS-70 arrays that close"),
        pytest.param(b"[[]," * 2_000, id="RS-70 with siblings that close"),
        pytest.param(b'["\\\\",' * 2_000, id="RS-70 escaped backslashes"),
        pytest.param(b'["\\"",' * 2_000, id="RS-70 escaped quotes"),
        pytest.param(b'["]]","[",' * 2_000, id="RS-70 brackets in strings"),
        pytest.param(b'{"\\\\\\"]":[' * 2_000, id="RS-70 escapes in names"),
        pytest.param(b'[{"a":' * 2_000 + b"1" + b"}]" * 2_000, id="RS-70 of both kinds"),
    ],
)
@pytest.mark.parametrize(("times", "why"), [(1, "nested too deeply"), (20, "too many values")])
def test_deep_values_never_reach_the_decoder(
    data: bytes, times: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_json, "_scan", None)
    monkeypatch.setattr(strict_json, "_scan_short", None)
    with pytest.raises(JSONRefused) as caught:
        load_value(data * times, max_depth=64)
    assert str(caught.value) == why


def depth(value: Any) -> int:
    inner: Any = [*value.values()] if isinstance(value, dict) else value  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


BRACKETS: Final = st.recursive(
    st.text('[]{}"\\\n:,', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(BRACKETS, st.integers(0, 5))
def test_the_depth_is_exact_whatever_strings_hold(value: Any, limit: int) -> None:
    data = json.dumps(value).encode()
    if depth(value) <= limit:
        assert load_value(data, max_depth=limit) == value
    else:
        with pytest.raises(JSONRefused, match=r"^nested too deeply$"):
            load_value(data, max_depth=limit)


# -------------------------------------------------------------------------------------------------- the cost of decoding

MIB: Final = 1024 * 1024
ITEMS = [
    pytest.param(b"0", id="A9 integers"),
    pytest.param(b"1e5", id="A9 exponents"),
    pytest.param(b"2.2250738585072012e-308", id="A9 the number that takes longest to round"),
    pytest.param(b"1." + b"3" * 780 + b"e-300", id="A9 numbers of 800 characters"),
    pytest.param(b"9" * MAX_DIGITS, id="A9 long integers"),
    pytest.param(b"true", id="A9 literals"),
    pytest.param(b'""', id="A9 strings"),
    pytest.param(b'"\\\\\\",[{"', id="A9 strings with escapes and brackets"),
    pytest.param(b"[]", id="A9 arrays"),
    pytest.param(b"{}", id="A9 objects"),
    pytest.param(b'{"":0}', id="A9 objects with a member"),
    pytest.param(b'{"":"\\ud83d\\ude00"}', id="A9 objects with a surrogate pair"),
    pytest.param(b"[" * 60 + b"]" * 60, id="A9 nested arrays"),
    pytest.param(b"\n\t 0 \r\n", id="A9 white space"),
]
LONG_TEXTS = [
    pytest.param(b'["' + b"\\n" * (MIB // 2 - 2) + b'"]', id="A9 escapes"),
    pytest.param(b'["' + b"\\u3042" * (MIB // 6 - 2) + b'"]', id="A9 escapes of four digits"),
    pytest.param(b'["' + b"\\ud83d\\ude00" * (MIB // 12 - 2) + b'"]', id="A9 surrogate pairs"),
    pytest.param(b'["' + b"," * (MIB - 4) + b'"]', id="A9 a string of commas"),
    pytest.param(b'["' + b"[{" * (MIB // 2 - 2) + b'"]', id="A9 a string of brackets"),
    pytest.param(b'["' + b'\\\\[,\\"' * (MIB // 6 - 2) + b'"]', id="A9 a string of escapes, brackets and commas"),
    pytest.param(b"[" + b" " * (MIB - 2) + b"]", id="A9 spaces"),
    pytest.param(b"[0." + b"1" * (MIB - 5) + b"]", id="A9 one long number"),
    pytest.param(b"[" * (MIB // 2) + b"]" * (MIB // 2), id="A9 deep nesting"),
    pytest.param(b'"' * MIB, id="A9 quotes"),
    pytest.param(b"\\" * MIB, id="A9 backslashes"),
    pytest.param(b"\xff" * MIB, id="A9 not UTF-8"),
    pytest.param("\U0001f600".encode().join([b'["', b'"]']) * (MIB // 8), id="A9 many values of four bytes"),
]


def milliseconds(data: bytes) -> float:
    """The processor time to decode, the least of several: other processes disturb a measurement, and only upwards.

    Measured without the tracing of coverage, which calls back for each line of the hooks of the decoder, and without
    the garbage collector, whose time depends on what other tests have left in the process.
    """
    best, tracing = float("inf"), sys.gettrace()
    sys.settrace(None)
    gc.disable()
    try:
        for _ in range(5):
            start = time.process_time()
            with contextlib.suppress(JSONRefused):
                load_value(data, max_depth=64)
            best = min(best, (time.process_time() - start) * 1000)
    finally:
        gc.enable()
        sys.settrace(tracing)
    return best


def filled(item: bytes) -> bytes:
    return b"[" + b",".join([item] * (MIB // (len(item) + 1) - 1)) + b"]"


def as_many_as_allowed(item: bytes) -> bytes:
    """An array of as many items as the limit lets through, in at most 1 MiB."""
    each = 1 + len(re.findall(rb"[\[{,]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", item)))
    count = min((MAX_VALUES - 1) // each, MIB // (len(item) + 1) - 1)
    return b"[" + b",".join([item] * count) + b"]"


@pytest.mark.parametrize("item", ITEMS)
def test_no_array_of_1_mib_blocks_for_more_than_25_ms(item: bytes) -> None:
    assert milliseconds(filled(item)) < 25


@pytest.mark.parametrize("item", ITEMS)
def test_no_array_within_the_limit_blocks_for_more_than_25_ms(item: bytes) -> None:
    data = as_many_as_allowed(item)
    assert len(data) <= MIB
    assert isinstance(load_value(data, max_depth=64), list)
    assert milliseconds(data) < 25


@pytest.mark.parametrize("data", LONG_TEXTS)
def test_no_text_of_1_mib_blocks_for_more_than_25_ms(data: bytes) -> None:
    assert milliseconds(data) < 25


@pytest.mark.parametrize(
    ("data", "values", "containers"),
    [
        pytest.param(b"[0,0,0]", 3, 1, id="A9 items"),
        pytest.param(b'{"a":0,"b":0}', 2, 1, id="A9 members"),
        pytest.param(b"[[],{}]", 4, 3, id="A9 containers"),
        pytest.param(b'[{"a":[0,0]},0]', 5, 3, id="A9 nested"),
        pytest.param(b'["[,]{,}","\\",[","\\\\"]', 3, 1, id="A9 strings do not count"),
    ],
)
def test_the_limits_of_values_and_containers_are_exact(data: bytes, values: int, containers: int) -> None:
    expected = json.loads(data)
    assert load_value(data, max_values=values, max_containers=containers) == expected
    for limits in ({"max_values": values - 1}, {"max_containers": containers - 1}):
        with pytest.raises(JSONRefused, match=r"^too many values$"):
            load_value(data, **limits)


def test_a_long_text_with_many_commas_is_one_value() -> None:
    """A9: a CSV file as the argument of a tool."""
    text = '1,"two",[3],{4}\n' * 20_000
    assert load_value(json.dumps({"text": text}).encode()) == {"text": text}


# --- Documents of configured servers ---


@given(st.binary(max_size=64) | st.builds(bytes.__add__, st.just(b'{"a":'), st.binary(max_size=32)))
@example(b'{"a":1e999}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":"\xff"}')
@example(b'{"a":1,"a":2}')
@example(b'{"a":' + b"9" * 5000 + b"}")
def test_tolerant_decoding_accepts_what_strict_decoding_accepts_and_marks_the_rest(data: bytes) -> None:
    try:
        strict = load_object(data)
    except JSONRefused:
        strict = None
    try:
        tolerant = load_tolerant(data)
    except JSONRefused:
        assert strict is None
        return
    assert is_valid(tolerant) is (strict is not None) or data.startswith(b"\xef\xbb\xbf")
    assert strict is None or tolerant == strict


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"[]", "not a JSON object", id="DC-3 an array"),
        pytest.param(b"", "not JSON", id="DC-3 nothing"),
        pytest.param(b"{} x", "not JSON", id="DC-3 more than an object"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply", id="DC-3 deep"),
        pytest.param(b'{"a":[' + b"1," * 200_000 + b"1]}", "too many values", id="DC-3 many values"),
    ],
)
def test_tolerant_decoding_refuses(data: bytes, message: str) -> None:
    with pytest.raises(JSONRefused, match=message):
        load_tolerant(data)
