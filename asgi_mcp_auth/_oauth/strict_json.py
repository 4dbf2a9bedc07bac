"""JSON from strangers: UTF-8, no duplicate names, bounded depth, finite numbers, no lone surrogates.

Python's decoder is laxer than RFC 8259 section 4 wants where it matters: two parsers that disagree about
a repeated member disagree about who the caller is (RFC 7519 section 4).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

__all__ = ("MAX_DEPTH", "JSONRefused", "NotJSON", "load_object", "load_value")

MAX_DEPTH = 32

_STRING = re.compile(rb'"[^"]*+"?')  # without escapes; an unclosed one goes to the end
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'{}[]"'))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JSONRefused(ValueError):  # noqa: N818 - internal, and always turned into one of our errors
    """The bytes are not JSON we accept; the message says why and quotes nothing."""


class NotJSON(JSONRefused):
    """The bytes are not JSON at all."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "duplicate member names"
        raise JSONRefused(msg)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number out of range"
        raise JSONRefused(msg)
    return number


def _no_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise JSONRefused(msg)


_decoder: Any = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
_plain_decoder: Any = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def _decode(text: str) -> Any:
    """`JSONDecoder.decode`, which looks for white space with regular expressions, only where there is some: -1 µs."""
    try:
        value, end = _decoder.scan_once(text, 0)
    except StopIteration:  # white space before the value, or no value
        return _decoder.decode(text)
    return value if end == len(text) else _decoder.decode(text)


def _too_deep(data: bytes, limit: int) -> bool:
    """Whether the decoder would go deeper than `limit`: told before it goes there, without a step per bracket."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = data.translate(_ONE_KIND, _NO_STRUCTURE).replace(b'""', b"")  # two adjacent quotes change nothing
    if b'"' in structure:
        structure = _STRING.sub(b"", structure)
    for removed in range(limit):  # each round takes the innermost level away
        inner = structure.replace(b"[]", b"")
        if len(inner) == len(structure):  # what never closes is no JSON
            return removed + inner.count(b"[") > limit
        structure = inner
    return b"[" in structure


def load_value(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Decode one JSON value.

    Raises:
        JSONRefused: For anything that is not JSON (`NotJSON`) or ambiguous. The caller bounds the number of bytes.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if (text is None or text.count("{") + text.count("[") > max_depth) and _too_deep(data, max_depth):
        msg = "nested too deeply"
        raise JSONRefused(msg)
    try:
        value = _decode(data.decode("utf-8") if text is None else text)
    except JSONRefused:
        raise
    except ValueError as error:  # not UTF-8, not JSON, or an integer of thousands of digits
        msg = "not JSON"
        raise NotJSON(msg) from error
    if b"\\" in data and _SURROGATE.search(data) is not None:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            msg = "a lone surrogate"
            raise JSONRefused(msg) from None
    return value


def _load_plain(data: bytes, max_depth: int) -> dict[str, Any] | None:
    """`load_object` for what most tokens carry, a third quicker: one object alone, without escapes; None for the rest.

    Without escapes a quote begins or ends a string, and without a gap after quotes each member brings a `":`. There may
    be more of them, in strings that begin with a colon, but if there are as many as names, no name is there twice.
    """
    try:
        text = data.decode()
        if (
            text.find("{", 1) >= 0
            or ("[" in text and text.count("[") >= max_depth)
            or "\\" in text
            or '" ' in text
            or "\n" in text
            or "\t" in text
            or "\r" in text
        ):
            return None
        members, end = _plain_decoder.scan_once(text, 0)
    except (ValueError, StopIteration):  # why, `load_value` says
        return None
    if members.__class__ is not dict or end != len(text) or text.count('":') != len(members):
        return None
    return cast("dict[str, Any]", members)


def load_object(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Decode one JSON object.

    Raises:
        JSONRefused: For anything else, whatever the bytes. The caller bounds their number.
    """
    members = _load_plain(data, max_depth)
    if members is not None:
        return members
    value = load_value(data, max_depth=max_depth)
    if not isinstance(value, dict):
        msg = "not a JSON object"
        raise JSONRefused(msg)
    return cast("dict[str, Any]", value)
