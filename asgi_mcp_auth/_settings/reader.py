"""Reader of configuration values from plain values (TOML, JSON, the environment), driven by type hints.

The dataclasses of the configuration and the declarations of the options are the only list of settings. A field that is
added there can be written in a file, is checked against its type, and is part of the JSON Schema. The reader checks
keys and types; `MCPAuth` checks the values. The caller passes the callables that resolve import strings and references.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum, StrEnum
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from asgi_mcp_auth._oauth.json_types import is_list, is_number, is_object
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
    "shapes_of",
    "suggest",
)


class Kind(StrEnum):
    """The kinds of values; all but a null (TOML has none) and an object can be written in TOML and JSON."""

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
    """One form that a value may have; a union of types has several shapes.

    Attributes:
        kind: The kind of value.
        of: The class to construct, for a record, a document or a choice.
        inner: The shapes of the items of a list, or of the values of a table.
        choices: The strings of a choice.
    """

    kind: Kind
    of: Any = None
    inner: tuple[Shape, ...] = ()
    choices: tuple[str, ...] = ()


class Field(NamedTuple):
    """One setting: a field of a configuration dataclass, or an option.

    Attributes:
        name: The name of the setting.
        shapes: The forms that its value may have.
        required: Whether the setting has no default.
        default: The default; `dataclasses.MISSING` if the setting is required.
        meaning: The description from the docstring or the declaration.
    """

    name: str
    shapes: tuple[Shape, ...]
    required: bool
    default: object
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
    """Return the forms that a type hint allows. An unknown type is an object, which an import string names."""
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
    """Return the fields of a configuration dataclass by name."""
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


def _meanings(documented: type[object]) -> dict[str, str]:
    """Return the descriptions in the `Args:` section of a docstring, by name."""
    text = (inspect.getdoc(documented) or "").partition("\nArgs:\n")[2]
    meanings: dict[str, str] = {}
    for names, meaning in _ARGUMENT.findall(text):
        meanings.update(dict.fromkeys(names.split(", "), " ".join(meaning.split())))
    return meanings


def describe(shapes: Iterable[Shape]) -> str:
    """Return the forms in words, for example "a string, or a table of fields"."""
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
"""The keys of a reference: a table with only one of these keys means the text of an environment variable or a file."""

TEXTUAL = {Kind.STRING, Kind.CHOICE, Kind.OBJECT}


class UnusableError(Exception):
    """A reference or an import string that cannot be resolved.

    Attributes:
        what: What is wrong.
        fix: How to fix it.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


INVALID: Final = object()
"""The result for a value that could not be read; its problem has been reported."""


class Reader:
    """A reader of plain values by their shapes.

    Args:
        problems: Receives every problem.
        import_object: Returns the object that an import string or a URL names; raises `UnusableError`.
        dereference: Takes `from_env` or `from_file`, and a name. Returns the text; raises `UnusableError`.

    Attributes:
        problems: As above.
        unreadable: The paths of the values that are missing from the result, because they could not be read.
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
        self._import_object = import_object
        self._dereference = dereference

    def fields(self, values: Mapping[str, object], fields: Mapping[str, Field], where: str = "") -> dict[str, object]:
        """Return the values of a table as keyword arguments; unknown keys and unreadable values are left out."""
        arguments: dict[str, object] = {}
        for key, value in values.items():
            path = f"{where}.{key}" if where else key
            if key not in fields:
                self.problems.add(path, "Unknown key.", suggest(key, fields))
                continue
            read = self.value(value, fields[key].shapes, path)
            if read is not INVALID:
                arguments[key] = read
        return arguments

    def value(self, value: object, shapes: tuple[Shape, ...], where: str) -> object:
        """Return one value; `INVALID` if it cannot be read. Its problem has been reported then."""
        reference = as_mapping(value)
        if reference is not None and len(reference) == 1 and next(iter(reference)) in REFERENCES:
            return self._follow(*reference.popitem(), shapes, where)
        for shape in shapes:
            if _fits(value, shape):
                return self._make(value, shape, where)
        one_item = isinstance(value, str) and not isinstance(value, Referenced) and _lists_text(shapes)
        wanted = describe(shapes)
        fix = f"Write [{show(value)}]." if one_item else f"Write {wanted}."
        return self._unreadable(where, f"{show(value)} is not {wanted}.", fix)

    def text(self, text: str, shapes: tuple[Shape, ...], where: str) -> object:
        """Return a value that was given as text; `INVALID` if it cannot be read.

        The text is used as it is where text is allowed, is split at spaces where a list of texts is allowed, and is
        parsed as JSON otherwise. A text that begins with `{` is a table where a table of fields is allowed.
        """
        kinds = {shape.kind for shape in shapes}
        is_table = Kind.RECORD in kinds and text.lstrip().startswith("{")
        if kinds & TEXTUAL and not is_table:
            return self.value(text, shapes, where)
        origin = text.origin if isinstance(text, Referenced) else None
        if _lists_text(shapes) and not text.lstrip().startswith("["):
            return self.value(_mark(text.split(), origin), shapes, where)
        try:
            value = load_object(f'{{"value": {text}}}'.encode()).popitem()[1]
        except JSONRefused as error:
            what = f"{show(text)} is not {describe(shapes)}: {error}."
            return self._unreadable(where, what, "Write the value as JSON.")
        return self.value(_mark(value, origin), shapes, where)

    def _follow(self, kind: str, name: object, shapes: tuple[Shape, ...], where: str) -> object:
        if not isinstance(name, str):
            return self._unreadable(f"{where}.{kind}", f"{show(name)} is not a string.", f'Write {kind} = "NAME".')
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
                return self._unreadable(
                    where, f"{show(value)} is not {describe([shape])}.", f"Write {describe([shape])}."
                )
            case Kind.CHOICE:
                return shape.of(value)
            case Kind.OBJECT if isinstance(value, str):
                return self._object(value, where)
            case _:
                return value

    def _record(self, values: Any, record: type[object], where: str) -> object:
        fields = fields_of(record)
        arguments = self.fields(values, fields, where)
        for field in fields.values():
            if not field.required or field.name in arguments:
                continue
            path = f"{where}.{field.name}"
            first = field.shapes[0]
            if first.kind is Kind.RECORD and field.name not in values:
                arguments[field.name] = self._record({}, first.of, path)  # reports each field that is missing in it
            elif field.name not in values:
                what = "This required setting is missing."
                self._unreadable(path, what, f"Write {field.name} = …, {describe(field.shapes)}.")
            # With an empty string for a missing text, `MCPAuth` checks the other fields; its problem here is dropped.
            arguments.setdefault(field.name, "" if first.kind is Kind.STRING else INVALID)
        return INVALID if INVALID in arguments.values() else record(**arguments)

    def _document(self, value: Any, document: Any, where: str) -> object:
        try:
            return document.from_dict(value)
        except InvalidServerMetadata as error:
            return self._unreadable(where, error.message, "Write the metadata document as the server publishes it.")

    def _object(self, text: str, where: str) -> object:
        try:
            return self._import_object(text)
        except UnusableError as error:
            return self._unreadable(where, error.what, error.fix)


def suggest(key: str, known: Iterable[str]) -> str:
    """Return the fix for an unknown key: the most similar known key, or all known keys."""
    names = list(known)
    close = get_close_matches(key, names, 1)
    return f"Did you mean {close[0]}?" if close else f"Remove it, or use one of {', '.join(names)}."


def _fits(value: object, shape: Shape) -> bool:
    """Return whether a value has the form of a shape; values inside it are not checked."""
    match shape.kind:
        case Kind.ANY:
            return True
        case Kind.NULL:
            return value is None
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.INTEGER:
            return is_number(value) and isinstance(value, int)
        case Kind.NUMBER:
            return is_number(value)
        case Kind.STRING | Kind.CHOICE:
            return isinstance(value, str)
        case Kind.LIST:
            return as_list(value) is not None
        case Kind.TABLE:
            return as_mapping(value) is not None
        case Kind.RECORD | Kind.DOCUMENT:
            return isinstance(value, shape.of) or as_mapping(value) is not None
        case Kind.OBJECT:  # an import string, or in Python the object itself
            return not isinstance(value, int | float | None) and as_list(value) is None and as_mapping(value) is None


def _lists_text(shapes: Iterable[Shape]) -> bool:
    return any(shape.kind is Kind.LIST and any(inner.kind in TEXTUAL for inner in shape.inner) for shape in shapes)


def _mark(value: Any, origin: str | None) -> Any:
    """Return the value with every string as a `Referenced`, which messages never show; unchanged without an origin."""
    if origin is None:
        return value
    if isinstance(value, str):
        return Referenced(value, origin)
    if is_list(value):
        return [_mark(item, origin) for item in value]
    if is_object(value):
        return {_mark(name, origin): _mark(item, origin) for name, item in value.items()}
    return value
