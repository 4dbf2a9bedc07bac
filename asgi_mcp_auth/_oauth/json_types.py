"""The types of decoded JSON, and checks that narrow values which may be anything, such as options of a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ("JSONObject", "JSONValue", "is_list", "is_mapping", "is_number", "is_object", "is_sequence", "unchecked")

JSONValue: TypeAlias = "dict[str, JSONValue] | list[JSONValue] | str | float | bool | None"
JSONObject: TypeAlias = dict[str, JSONValue]


def is_object(value: object) -> TypeIs[dict[str, object]]:
    """Return whether `value` is a decoded JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeIs[list[object]]:
    """Return whether `value` is a list."""
    return isinstance(value, list)


def is_sequence(value: object) -> TypeIs[Sequence[object]]:
    """Return whether `value` is a sequence; a string is one."""
    return isinstance(value, Sequence)


def is_mapping(value: object) -> TypeIs[Mapping[object, object]]:
    """Return whether `value` is a mapping."""
    return isinstance(value, Mapping)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether `value` is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unchecked(value: object) -> object:
    """Return a value of a user, which may have any type, whatever its annotation says."""
    return value
