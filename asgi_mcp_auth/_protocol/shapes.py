"""What a setting may be in a file, read from the type hints of the configuration itself.

The dataclasses and the constructor are the only list of settings there is: whatever is added to them can be
written in a file, is checked by its type, and stands in the JSON Schema.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

__all__ = ("Field", "Kind", "Shape", "describe", "fields_of", "parameters_of", "shapes_of")


class Kind(StrEnum):
    """The kinds of values that TOML or JSON can say, and the two that they cannot: a null (TOML) and an object."""

    NULL = "nothing"
    BOOLEAN = "true or false"
    INTEGER = "an integer"
    NUMBER = "a number"
    STRING = "a string"
    CHOICE = "one of"
    LIST = "a list"
    TABLE = "a table"
    RECORD = "a table of fields"
    DOCUMENT = "a document"
    OBJECT = "an import string 'module:attribute'"
    ANY = "anything"


class Shape(NamedTuple):
    """One form that a value may have; a union of types is several.

    Attributes:
        kind: What it is.
        of: The class to make, for a record, a document or a choice.
        inner: The shapes of the items of a list, or of the values of a table.
        choices: The strings of a choice.
    """

    kind: Kind
    of: Any = None
    inner: tuple[Shape, ...] = ()
    choices: tuple[str, ...] = ()


class Field(NamedTuple):
    """One setting: a field of a dataclass or a parameter of the constructor."""

    name: str
    shapes: tuple[Shape, ...]
    required: bool
    default: Any
    meaning: str


PLAIN: dict[Any, Kind] = {
    type(None): Kind.NULL,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    str: Kind.STRING,
    Any: Kind.ANY,
}


def shapes_of(hint: Any) -> tuple[Shape, ...]:
    """The forms that a type hint allows. A type unknown here is an object, which a file names by an import string."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return tuple(dict.fromkeys(shape for argument in arguments for shape in shapes_of(argument)))
    if hint in PLAIN:
        return (Shape(PLAIN[hint]),)
    if origin is Literal:
        return (Shape(Kind.CHOICE, of=str, choices=arguments),)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (Shape(Kind.CHOICE, of=hint, choices=tuple(str(member.value) for member in hint)),)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return (Shape(Kind.RECORD, of=hint),)
    if isinstance(hint, type) and hasattr(hint, "from_dict"):
        return (Shape(Kind.DOCUMENT, of=hint),)
    if origin in (Sequence, Iterable, tuple, list):
        return (Shape(Kind.LIST, inner=shapes_of(arguments[0])),)
    if origin in (Mapping, dict):
        return (Shape(Kind.TABLE, inner=shapes_of(arguments[1])),)
    return (Shape(Kind.OBJECT),)


def fields_of(record: type[Any]) -> dict[str, Field]:
    """The fields of a configuration dataclass by name."""
    hints = get_type_hints(record)
    meanings = _meanings(record)
    found: dict[str, Field] = {}
    for field in dataclasses.fields(record):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        required = default is dataclasses.MISSING
        found[field.name] = Field(
            field.name, shapes_of(hints[field.name]), required, default, meanings.get(field.name, "")
        )
    return found


def parameters_of(configured: type[Any]) -> dict[str, Field]:
    """The parameters of a constructor by name, documented in the docstring of its class."""
    constructor: Callable[..., Any] = configured.__init__
    hints = get_type_hints(constructor)
    meanings = _meanings(configured)
    found: dict[str, Field] = {}
    for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]:
        required = parameter.default is parameter.empty
        found[name] = Field(name, shapes_of(hints[name]), required, parameter.default, meanings.get(name, ""))
    return found


_ARGUMENT = re.compile(r"^    (\w+(?:, \w+)*): ((?:.|\n(?:        |\n))+)", re.MULTILINE)


def _meanings(documented: type[Any]) -> dict[str, str]:
    """What the `Args:` of a docstring say, by name."""
    text = (inspect.getdoc(documented) or "").partition("\nArgs:\n")[2]
    meanings: dict[str, str] = {}
    for names, meaning in _ARGUMENT.findall(text):
        meanings.update(dict.fromkeys(names.split(", "), " ".join(meaning.split())))
    return meanings


def describe(shapes: Iterable[Shape]) -> str:
    """The forms in words, for people: "a string, or a table of fields"."""
    words: list[str] = []
    for shape in shapes:
        if shape.kind is Kind.CHOICE:
            words.append(f"one of {', '.join(map(repr, shape.choices))}")
        elif shape.kind is Kind.LIST:
            words.append(f"a list, each {describe(shape.inner)}")
        elif shape.kind is Kind.TABLE and shape.inner != (Shape(Kind.ANY),):
            words.append(f"a table, each value {describe(shape.inner)}")
        elif shape.kind is not Kind.NULL:
            words.append(str(shape.kind))
    return ", or ".join(words)
