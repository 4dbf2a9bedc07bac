"""`asgi-mcp-auth check-config` and `config-schema`: a configuration file, judged and shown as it was understood."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import Referenced, as_list, as_mapping
from asgi_mcp_auth._settings.loader import settings_of
from asgi_mcp_auth._settings.reader import Field, Kind, fields_of
from asgi_mcp_auth._settings.schema import config_schema
from asgi_mcp_auth._settings.shorthand import shorthand_fields
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
    resource = config.metadata.resource
    if isinstance(resource, Referenced):
        yield "resource", _origin(resource)
        yield "metadata", "the well-known URL of that resource"
    else:
        yield "resource", compiled.identifier
        yield "metadata", compiled.metadata_url
    for issuer in compiled.trust.named:
        named = issuer.config.issuer
        name = _origin(named) if isinstance(named, Referenced) else issuer.rules.issuer
        yield "issuer", " ".join([name, *_details(issuer.config)])
    others = compiled.trust.others
    for pattern in () if others is None else others.patterns:
        written = pattern.trusted.config
        yield "issuers", " ".join([str(_showable(written.issuer_pattern)), *_details(written)])
    if others is not None and others.resolver is not None:
        yield "issuers", "those that the resolver names"
    for name, text in _written(config.policy, fields_of(ScopePolicy)):
        yield "policy", f"{name} = {text}"


def _details(config: AuthServerConfig) -> list[str]:
    """What was written about an issuer, beside its name."""
    written = _written(config, fields_of(AuthServerConfig))
    details = [f"{name} = {text}" for name, text in written if name not in ("issuer", "issuer_pattern", "tenants")]
    return [f"({', '.join(details)})"] if details else []


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
    return json.dumps(_showable(value), default=list, ensure_ascii=False)


def _showable(value: object) -> object:
    """The same value, with the origin in place of every text that was referred to: it may be a secret."""
    if isinstance(value, Referenced):
        return _origin(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    mapping, items = as_mapping(value), as_list(value)
    if mapping is not None:
        return {str(_showable(name)): _showable(item) for name, item in mapping.items()}
    return value if items is None else [_showable(item) for item in items]


def _origin(text: Referenced) -> str:
    return f"({text.origin})"


def print_schema() -> int:
    """Print the JSON Schema of a configuration file."""
    print(json.dumps(config_schema(settings_of(MCPAuth), shorthand_fields()), indent=2, ensure_ascii=False))
    return 0
