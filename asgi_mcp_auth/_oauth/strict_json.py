"""Strict JSON decoding for untrusted bytes: one decoder, whose cost is bounded before it starts.

RFC 8259 section 4 leaves repeated member names to the implementation. Two parsers that resolve a repeated name
differently read two different callers out of one token (RFC 7519 section 4), so repeated names are refused. Also
refused: bytes that are not UTF-8, `NaN` and `Infinity`, numbers out of range, lone surrogates, and values that are
too many, too long or nested too deeply. `load_tolerant` confines such faults to the value that has them.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

from asgi_mcp_auth._oauth.json_types import JSONObject, JSONValue

__all__ = (
    "MAX_DEPTH",
    "MAX_VALUES",
    "JSONRefused",
    "NotJSON",
    "is_valid",
    "load_object",
    "load_tolerant",
    "load_value",
)

MAX_DEPTH = 32  # four times what tokens, metadata documents and key sets of known providers need
MAX_VALUES = 16_000  # a value costs up to 1 µs to decode, and no request may block the event loop for 25 ms
MAX_DOCUMENT_VALUES = 64_000  # in 512 KiB of metadata or keys: 1,000 JWKs with certificates have about 20,000
MAX_DIGITS = 1_000  # `int()` takes quadratic time; an RSA modulus of 3,072 bits has 925 digits

_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JSONRefused(ValueError):  # noqa: N818 - internal, and always turned into a public error
    """The bytes are not JSON that this library accepts. The message gives the reason and quotes no input."""


class NotJSON(JSONRefused):
    """The bytes are not JSON at all."""


def _unique(pairs: list[tuple[str, JSONValue]]) -> JSONObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JSONRefused("duplicate member names")
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JSONRefused("a number too long")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JSONRefused("a number out of range")
    return number


def _no_constant(name: str) -> NoReturn:
    raise JSONRefused(f"{name} is not JSON")


def _scanner(decoder: json.JSONDecoder) -> Callable[[str, int], tuple[JSONValue, int]]:
    """Return the function that decodes the value at a position, and returns the position after the value."""
    scan: Callable[[str, int], tuple[JSONValue, int]] = vars(decoder)["scan_once"]  # not in typeshed
    return scan


_scan = _scanner(
    json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_no_constant)
)
# A text of at most MAX_DIGITS bytes has no number of more digits (benchmarks: in_process, new tokens).
_scan_short = _scanner(json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant))


def _structure(data: bytes, max_values: int) -> bytes:
    """Return the brackets and commas of a JSON text, without the contents of its strings."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes that are left begin and end strings
    # A value brings at most two strings, its name and itself.
    if data.count(b'"') > 4 * (max_values + 1):
        raise JSONRefused("too many values")
    return b"".join(data.split(b'"')[::2]).translate(None, _NOT_STRUCTURE)


def _depth(structure: bytes) -> int:
    depth = deepest = 0
    for character in structure:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth -= 1
    return deepest


def _check_cost(data: bytes, max_depth: int, max_values: int, max_containers: int) -> None:
    """Refuse what is expensive to decode. The counts are exact for JSON; other bytes may be refused here too.

    Each value but the first comes after a comma or an opening bracket. Counting them with the contents of strings
    costs a scan of the bytes, and only a text that exceeds a limit then is looked at more closely.
    """
    containers = data.count(b"[") + data.count(b"{")
    values = containers + data.count(b",")
    if values <= max_values and containers <= min(max_depth, max_containers):
        return
    structure = _structure(data, max_values)
    containers = structure.count(b"[") + structure.count(b"{")
    if containers + structure.count(b",") > max_values or containers > max_containers:
        raise JSONRefused("too many values")
    if containers > max_depth and _depth(structure) > max_depth:
        raise JSONRefused("nested too deeply")


def load_value(
    data: bytes, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES, max_containers: int = MAX_VALUES
) -> JSONValue:
    """Decode one JSON value.

    Args:
        data: The JSON text, in UTF-8. The caller bounds its length.
        max_depth: At most this many arrays and objects may be open at once.
        max_values: At most this many values are decoded: members, items, arrays and objects.
        max_containers: At most this many of the values may be arrays and objects.

    Raises:
        NotJSON: The bytes are not JSON.
        JSONRefused: The bytes are ambiguous, or expensive to decode.
    """
    _check_cost(data, max_depth, max_values, max_containers)
    try:
        text = data.decode().strip(" \t\n\r")
        value, end = (_scan_short if len(data) <= MAX_DIGITS else _scan)(text, 0)
    except JSONRefused:
        raise
    except (ValueError, StopIteration):
        raise NotJSON("not JSON") from None
    if end != len(text):
        raise NotJSON("not JSON")
    if b"\\" in data and _SURROGATE.search(data) is not None:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise JSONRefused("a lone surrogate") from None
    return value


def load_object(
    data: bytes, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES, max_containers: int = MAX_VALUES
) -> JSONObject:
    """Decode one JSON object; the arguments are those of `load_value`.

    Raises:
        JSONRefused: As `load_value`, and if the value is not an object.
    """
    value = load_value(data, max_depth=max_depth, max_values=max_values, max_containers=max_containers)
    if not isinstance(value, dict):
        raise JSONRefused("not a JSON object")
    return value


def _repeated_as_nan(pairs: list[tuple[str, JSONValue]]) -> JSONObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        members |= {name: math.nan for name, count in Counter(name for name, _ in pairs).items() if count > 1}
    return members


def _long_as_nan(text: str) -> float:
    return int(text) if len(text) <= MAX_DIGITS else math.nan


_scan_tolerant = _scanner(
    json.JSONDecoder(
        object_pairs_hook=_repeated_as_nan, parse_int=_long_as_nan, parse_float=float, parse_constant=float
    )
)


def load_tolerant(data: bytes) -> JSONObject:
    """Decode an object of a configured server so that a fault affects only the value that has the fault.

    A byte order mark is ignored (RFC 8259 section 8.1). A repeated member and a number too long become NaN. Bytes that
    are not UTF-8 become lone surrogates. The caller asks `is_valid` about every part that the caller uses.

    Raises:
        JSONRefused: The bytes are not one JSON object, or expensive to decode.
    """
    _check_cost(data, MAX_DEPTH, MAX_DOCUMENT_VALUES, MAX_DOCUMENT_VALUES)
    text = data.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape").strip(" \t\n\r")
    try:
        value, end = _scan_tolerant(text, 0)
    except (ValueError, StopIteration):
        end, value = -1, None
    if end != len(text):
        raise NotJSON("not JSON")
    if not isinstance(value, dict):
        raise JSONRefused("not a JSON object")
    return value


def is_valid(value: object) -> bool:
    """Return whether `value` has no NaN, no infinite number and no lone surrogate, at any depth."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return False
    return True
