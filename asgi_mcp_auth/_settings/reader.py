"""Reading configuration values from plain values (TOML, JSON, the environment) by the type hints of the configuration.

The dataclasses and the constructor are the only list of settings. A field that is added to them can be written in a
file, is checked against its type, and is part of the JSON Schema. Keys and types are checked here; `MCPAuth` checks
the values. Import strings and references are resolved by callables that the caller passes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum, StrEnum
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._policy.problems import Problems, Referenced, as_list, as_mapping, show
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = (
    "REFERENCES",
    "Field",
    "Kind",
    "Reader",
    "Shape",
    "UnusableError",
    "describe",
    "fields_of",
    "known_or_not",
    "shapes_of",
)


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


REFERENCES = ("from_env", "from_file")
"""A table of only one of these stands for the text of an environment variable or a file."""

TEXTUAL = {Kind.STRING, Kind.CHOICE, Kind.OBJECT}


class UnusableError(Exception):
    """A reference or an import string leads nowhere: what is wrong, and how to mend it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class _Invalid:
    """What could not be read; its problem has been told."""


INVALID = _Invalid()


class Reader:
    """Reads plain values by their shapes.

    Args:
        problems: Where every problem goes.
        import_object: From an import string to the object; raises `UnusableError`.
        dereference: From `from_env` or `from_file` and a name to the text; raises `UnusableError`.
    """

    def __init__(
        self,
        problems: Problems,
        *,
        import_object: Callable[[str], object],
        dereference: Callable[[str, str], str],
    ) -> None:
        self.problems = problems
        self.unreadable: set[str] = set()
        """The places whose values are missing from the result."""
        self._import_object = import_object
        self._dereference = dereference

    def fields(self, values: Mapping[str, object], fields: Mapping[str, Field], where: str = "") -> dict[str, Any]:
        """The keyword arguments that a table gives; unknown keys and unreadable values are left out."""
        arguments: dict[str, Any] = {}
        for key, value in values.items():
            place = f"{where}.{key}" if where else key
            if key not in fields:
                self.problems.add(place, "Unknown key.", known_or_not(key, fields))
                continue
            read = self.value(value, fields[key].shapes, place)
            if read is not INVALID:
                arguments[key] = read
        return arguments

    def value(self, value: object, shapes: tuple[Shape, ...], where: str) -> object:
        """One value, or `INVALID` when its problem was told."""
        reference = as_mapping(value)
        if reference is not None and len(reference) == 1 and next(iter(reference)) in REFERENCES:
            return self._follow(*reference.popitem(), shapes, where)
        for shape in shapes:
            if _fits(value, shape):
                return self._make(value, shape, where)
        one_item = isinstance(value, str) and not isinstance(value, Referenced) and _lists_text(shapes)
        fix = f"Write [{show(value)}]." if one_item else "Write it so."
        return self._unreadable(where, f"{show(value)} is not {describe(shapes)}.", fix)

    def text(self, text: str, shapes: tuple[Shape, ...], where: str) -> object:
        """A value that is there as text: itself where text is wanted, a list at its spaces, and JSON."""
        kinds = {shape.kind for shape in shapes}
        if kinds & TEXTUAL:
            return self.value(text, shapes, where)
        origin = text.origin if isinstance(text, Referenced) else None
        if _lists_text(shapes) and not text.lstrip().startswith("["):
            return self.value(_mark(text.split(), origin), shapes, where)
        try:
            value = load_object(f'{{"value": {text}}}'.encode()).popitem()[1]
        except JSONRefused as error:
            what = f"{show(text)} is not {describe(shapes)}: {error}."
            return self._unreadable(where, what, "Write it as JSON.")
        return self.value(_mark(value, origin), shapes, where)

    def _follow(self, kind: str, name: object, shapes: tuple[Shape, ...], where: str) -> object:
        if not isinstance(name, str):
            return self._unreadable(f"{where}.{kind}", f"{show(name)} is not a string.", "Write a name.")
        try:
            text = self._dereference(kind, name)
        except UnusableError as error:
            return self._unreadable(f"{where}.{kind}", error.what, error.fix)
        return self.text(Referenced(text, f"{kind} = {show(name)}"), shapes, where)

    def _unreadable(self, where: str, what: str, fix: str) -> object:
        self.problems.add(where, what, fix)
        self.unreadable.add(where)
        return INVALID

    def _make(self, value: Any, shape: Shape, where: str) -> object:
        match shape.kind:
            case Kind.LIST:
                items = [self.value(item, shape.inner, f"{where}[{i}]") for i, item in enumerate(as_list(value) or ())]
                return [item for item in items if item is not INVALID]
            case Kind.TABLE:
                table = {name: self.value(item, shape.inner, f"{where}[{name!r}]") for name, item in value.items()}
                return {name: item for name, item in table.items() if item is not INVALID}
            case Kind.RECORD:
                return value if isinstance(value, shape.of) else self._record(value, shape.of, where)
            case Kind.DOCUMENT:
                return value if isinstance(value, shape.of) else self._document(value, shape.of, where)
            case Kind.CHOICE if value not in shape.choices:
                return self._unreadable(where, f"{show(value)} is not {describe([shape])}.", "Write one of them.")
            case Kind.CHOICE:
                return shape.of(value)
            case Kind.OBJECT if isinstance(value, str):
                return self._object(value, where)
            case _:
                return value

    def _record(self, values: Any, record: type[Any], where: str) -> object:
        fields = fields_of(record)
        arguments = self.fields(values, fields, where)
        for field in fields.values():
            if not field.required or field.name in arguments:
                continue
            place = f"{where}.{field.name}"
            first = field.shapes[0]
            if first.kind is Kind.RECORD and field.name not in values:
                arguments[field.name] = self._record({}, first.of, place)  # tells what is missing in it
            elif field.name not in values:
                self._unreadable(place, "It is missing.", f"Write {field.name} = …, {describe(field.shapes)}.")
            # Something that is told of at the same place, so that the rest is still judged.
            arguments.setdefault(field.name, "" if first.kind is Kind.STRING else INVALID)
        return INVALID if INVALID in arguments.values() else record(**arguments)

    def _document(self, value: Any, document: Any, where: str) -> object:
        try:
            return document.from_dict(value)
        except InvalidServerMetadata as error:
            return self._unreadable(where, error.message, "Write it as the server publishes it.")

    def _object(self, text: str, where: str) -> object:
        try:
            return self._import_object(text)
        except UnusableError as error:
            return self._unreadable(where, error.what, error.fix)


def known_or_not(key: str, known: Iterable[str]) -> str:
    """How to mend an unknown key."""
    names = list(known)
    close = get_close_matches(key, names, 1)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(names)}."


def _fits(value: object, shape: Shape) -> bool:
    """Whether a value has the outer form of a shape."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match shape.kind:
        case Kind.ANY:
            return True
        case Kind.NULL:
            return value is None
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.INTEGER:
            return is_number and isinstance(value, int)
        case Kind.NUMBER:
            return is_number
        case Kind.STRING | Kind.CHOICE:
            return isinstance(value, str)
        case Kind.LIST:
            return as_list(value) is not None
        case Kind.TABLE:
            return as_mapping(value) is not None
        case Kind.RECORD | Kind.DOCUMENT:
            return isinstance(value, shape.of) or as_mapping(value) is not None
        case Kind.OBJECT:  # an import string; or, from Python, the object itself
            plain = value is None or is_number or isinstance(value, bool)
            return not plain and as_list(value) is None and as_mapping(value) is None


def _lists_text(shapes: Iterable[Shape]) -> bool:
    return any(shape.kind is Kind.LIST and any(inner.kind in TEXTUAL for inner in shape.inner) for shape in shapes)


def _mark(value: Any, origin: str | None) -> Any:
    """The same value, every string in it never shown in a message, if it came from a reference."""
    if origin is None:
        return value
    if isinstance(value, str):
        return Referenced(value, origin)
    if isinstance(value, list):
        return [_mark(item, origin) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {_mark(name, origin): _mark(item, origin) for name, item in cast("dict[str, object]", value).items()}
    return value
