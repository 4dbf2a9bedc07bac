"""`asgi-mcp-auth check-config` and `config-schema`: a configuration file, judged and shown as it was understood."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from asgi_mcp_auth._protocol.config_schema import config_schema
from asgi_mcp_auth._protocol.problems import as_list, as_mapping
from asgi_mcp_auth._protocol.resource import CompiledResource
from asgi_mcp_auth._protocol.shapes import Field, Kind, fields_of
from asgi_mcp_auth._protocol.shorthand import shorthand_fields
from asgi_mcp_auth._remote.settings import settings_of
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import AuthServerConfig, ResourceServerConfig, ScopePolicy
from asgi_mcp_auth.errors import ConfigurationError

__all__ = ("check_config", "print_schema")

WIDTH = 12


def check_config(file: str | None) -> int:
    """Print what a file, or without one the environment, configures; or its problems. Returns the exit status."""
    logging.getLogger("asgi_mcp_auth.config").addHandler(logging.NullHandler())  # warnings are printed here
    try:
        auth = MCPAuth.from_env() if file is None else MCPAuth.from_toml(file)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    for config, compiled in zip(auth.configs, auth.site.resources, strict=True):
        for name, value in _resource(config, compiled):
            print(f"{name:<{WIDTH}}{value}")
        print()
    for warning in auth.warnings:
        print(f"warning: {warning}")
    print("The configuration is good.")
    return 0


def _resource(config: ResourceServerConfig, compiled: CompiledResource) -> Iterator[tuple[str, str]]:
    yield "resource", compiled.identifier
    yield "metadata", compiled.metadata_url
    for server in config.metadata.authorization_servers:
        if isinstance(server, AuthServerConfig):
            written = dict(_written(server, fields_of(AuthServerConfig)))
            named = (
                server.issuer or server.issuer_pattern or ("" if server.metadata is None else server.metadata.issuer)
            )
            details = ", ".join(f"{name} = {text}" for name, text in written.items() if name not in NAMES)
            yield "issuer", f"{named} {f'({details})' if details else ''}".strip()
        else:
            yield "issuer", server if isinstance(server, str) else "by a resolver"
    for name, text in _written(config.policy, fields_of(ScopePolicy)):
        yield "policy", f"{name} = {text}"


NAMES = ("issuer", "issuer_pattern")


def _written(record: Any, fields: Mapping[str, Field]) -> Iterator[tuple[str, str]]:
    """What differs from the defaults."""
    for field in fields.values():
        value = getattr(record, field.name)
        if value != field.default:
            yield field.name, _text(value, field)


def _text(value: object, field: Field) -> str:
    """A value for people; what is no plain value, by its kind."""
    kinds = {shape.kind for shape in field.shapes}
    if Kind.DOCUMENT in kinds or Kind.OBJECT in kinds:
        return "…"
    plain = as_mapping(value) or as_list(value) or value
    return json.dumps(plain, default=_nested, ensure_ascii=False)


def _nested(record: Any) -> object:
    """What JSON has no word for: a record within a record."""
    kind: type[Any] = record.__class__
    return {name: getattr(record, name) for name in fields_of(kind)}


def print_schema() -> int:
    """Print the JSON Schema of a configuration file."""
    print(json.dumps(config_schema(settings_of(MCPAuth), shorthand_fields()), indent=2, ensure_ascii=False))
    return 0
