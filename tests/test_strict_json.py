"""JSON objects from strangers (RS-70): what is refused, and that nothing else than `JSONRefused` comes out."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.strict_json import MAX_DEPTH, JSONRefused, load_object, load_value

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
    pytest.param(b'{"a":' + b"9" * 4300 + b"}", {"a": int("9" * 4300)}, id="an integer of 4300 digits"),
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
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", "not JSON", id="RS-70 an integer of 5000 digits"),
    pytest.param(b'{"a":"\\ud800"}', "a lone surrogate", id="RS-70 lone surrogate"),
    pytest.param(b'{"a":"\\uDFFF"}', "a lone surrogate", id="RS-70 lone low surrogate"),
    pytest.param(b'{"\\ud800":1}', "a lone surrogate", id="RS-70 lone surrogate in a name"),
    pytest.param(b'{"a":["\\ude00\\ud83d"]}', "a lone surrogate", id="RS-70 a pair the wrong way round"),
    pytest.param(b"[" * 100_000, "nested too deeply", id="RS-70 100,000 arrays"),
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


TOKENS: Final = st.sampled_from(
    ['"a"', '"b"', '":"', '"', ":", ",", "1", "[", "]", "{", "}", " ", "\t", "\n", "\\", "é"]
)
MEMBERS: Final = st.tuples(
    st.sampled_from(['"a"', '"b"', '":"', '""', '"\\u0061"']),
    st.sampled_from([":", ":", ": ", " :", "\t:", "\r:", ":\n"]),
    st.sampled_from(["1", '"x"', '":"', '":1"', '" "', "[1]", "{}", '{"a":1}', '{"a":1,"a":2}', "1e999", "NaN"]),
).map("".join)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(MEMBERS, max_size=5).map(lambda members: "{" + ",".join(members) + "}")
    | st.lists(TOKENS, max_size=12).map(lambda parts: "{" + "".join(parts)),
    st.integers(1, 4),
)
def test_the_short_way_to_an_object_and_the_long_one_never_differ(text: str, limit: int) -> None:
    """RS-70: names that are there twice among them."""

    def outcome(load: Any) -> Any:
        try:
            return repr(load(text.encode(), max_depth=limit))
        except JSONRefused as refused:
            return refused.args

    assert outcome(load_object) == outcome(load_value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="RS-70 arrays that close"),
        pytest.param(b"[[]," * 100_000, id="RS-70 with siblings that close"),
        pytest.param(b'["\\\\",' * 100_000, id="RS-70 escaped backslashes"),
        pytest.param(b'["\\"",' * 100_000, id="RS-70 escaped quotes"),
        pytest.param(b'["]]","[",' * 100_000, id="RS-70 brackets in strings"),
        pytest.param(b'{"\\\\\\"]":[' * 50_000, id="RS-70 escapes in names"),
        pytest.param(b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000, id="RS-70 of both kinds"),
    ],
)
def test_deep_values_never_reach_the_decoder(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(JSONRefused, match=r"^nested too deeply$"):
        load_value(data, max_depth=64)
    assert time.perf_counter() - start < 1.0


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
