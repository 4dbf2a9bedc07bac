"""The JSON Schema (2020-12) of a configuration file, for editors, derived from the shapes that the reader uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asgi_mcp_auth._settings.reader import REFERENCES, Field, Kind, Shape, fields_of

__all__ = ("config_schema",)

JSONObject = dict[str, object]
REFERENCE: JSONObject = {
    "description": "The text of an environment variable, or of a file relative to this file. It is never shown.",
    "type": "object",
    "properties": {name: {"type": "string"} for name in REFERENCES},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
TYPES = {
    Kind.NULL: "null",
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.STRING: "string",
    Kind.DOCUMENT: "object",
}


def config_schema(settings: Mapping[str, Field], shorthand: Iterable[str]) -> JSONObject:
    """Return the schema of a configuration file.

    Args:
        settings: All settings by name.
        shorthand: The settings for a single resource, which exclude `protected_resources`.
    """
    definitions: JSONObject = {"reference": REFERENCE}
    properties = _properties(settings, definitions)
    either: list[JSONObject] = [
        {"required": ["protected_resources"], "properties": dict.fromkeys(shorthand, False)},
        {"required": ["resource"], "properties": {"protected_resources": False}},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "asgi-mcp-auth",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "oneOf": either,
        "$defs": definitions,
    }


def _properties(fields: Mapping[str, Field], definitions: JSONObject) -> JSONObject:
    properties: JSONObject = {}
    for field in fields.values():
        about: JSONObject = {"description": field.meaning} if field.meaning else {}
        if isinstance(field.default, (bool, int, float, str)):
            about["default"] = field.default
        properties[field.name] = about | _value(field.shapes, definitions)
    return properties


def _value(shapes: Iterable[Shape], definitions: JSONObject) -> JSONObject:
    """Return a schema that allows any of the shapes, and a reference."""
    forms = [_form(shape, definitions) for shape in shapes if shape.kind is not Kind.NULL]
    return {"anyOf": [*forms, {"$ref": "#/$defs/reference"}]}


def _form(shape: Shape, definitions: JSONObject) -> JSONObject:
    match shape.kind:
        case Kind.CHOICE:
            return {"enum": list(shape.choices)}
        case Kind.LIST:
            return {"type": "array", "items": _value(shape.inner, definitions)}
        case Kind.TABLE:
            return {"type": "object", "additionalProperties": _value(shape.inner, definitions)}
        case Kind.RECORD:
            return _record(shape.of, definitions)
        case Kind.OBJECT:
            return {"type": "string", "pattern": r"^[^:]+:[^:]+$|^(rediss?|unix)(\+[a-z]+)?://"}
        case Kind.ANY:
            return {}
        case _:
            return {"type": TYPES[shape.kind]}


def _record(record: type[Any], definitions: JSONObject) -> JSONObject:
    if record.__name__ not in definitions:
        fields = fields_of(record)
        definitions[record.__name__] = {
            "type": "object",
            "properties": _properties(fields, definitions),
            "additionalProperties": False,
            "required": [field.name for field in fields.values() if field.required],
        }
    return {"$ref": f"#/$defs/{record.__name__}"}
