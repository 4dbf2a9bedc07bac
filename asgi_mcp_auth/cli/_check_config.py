"""`asgi-mcp-auth check-config` and `config-schema`: a configuration as understood, and the schema of its file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from asgi_mcp_auth._options import MCPAuthOptions, Settings
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import Referenced, as_list, as_mapping
from asgi_mcp_auth._policy.verifiers import CompiledChoice, CompiledIntrospection
from asgi_mcp_auth._settings.loader import settings_of
from asgi_mcp_auth._settings.reader import Field, Kind, fields_of
from asgi_mcp_auth._settings.schema import config_schema
from asgi_mcp_auth._settings.shorthand import SHORTHAND
from asgi_mcp_auth.auth import MCPAuth, options_of, protection_of
from asgi_mcp_auth.cli._terminal import console, write
from asgi_mcp_auth.config import (
    AuthServerConfig,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    TokenExchange,
)
from asgi_mcp_auth.errors import ConfigurationError

__all__ = ("check_config", "print_schema", "text_of")

WIDTH = 12
OWN_VALUES: Final = frozenset({ScopePolicy.__module__, TokenExchange.__module__})
"""The modules of configuration values, whose secrets are the fields that their repr leaves out."""
PUBLIC: Final = frozenset(
    {
        *(field.name for owner in (ResourceServerMetadata, ScopePolicy) for field in fields(owner)),
        *("issuer", "issuer_pattern", "tenants", "tenant_claim", "type", "metadata_url", "jwks_uri", "profile"),
        *("extra_audiences", "algorithms", "scope_claims", "allowed_clients"),
        *("public_paths", "allowed_origins", "allowed_hosts", "cors_methods", "cors_headers"),
    }
)
"""Settings that are published, or sent with every token or request: shown also if `from_env` or `from_file` has them.

All others are taken for secrets, new settings included.
"""


def check_config(file: str | None) -> int:
    """Print what a file, or without one the environment, configures; or its problems. Return the exit status."""
    logging.getLogger("asgi_mcp_auth.config").addHandler(logging.NullHandler())  # warnings are printed here
    try:
        auth = MCPAuth.from_env() if file is None else MCPAuth.from_toml(file)
    except ConfigurationError as error:
        write(console(stderr=True), str(error), hanging=4)
        return 1
    out = console()
    for config, compiled in zip(auth.configs, protection_of(auth).config.resources, strict=True):
        for name, value in _resource(config, compiled):
            write(out, f"{name:<{WIDTH}}{value}", hanging=WIDTH)
        out.print()
    options = list(_changed(options_of(auth), settings_of(MCPAuthOptions).values()))
    for name, text in options:
        style = "bold yellow" if name.startswith("dangerously_") else ""
        write(out, f"{'option':<{WIDTH}}{name} = {text}", style, hanging=WIDTH)
    if options:
        out.print()
    for warning in auth.warnings:
        write(out, f"{'warning':<{WIDTH}}{warning}", "yellow", hanging=WIDTH)
    write(out, "The configuration is good.", "green")
    return 0


def _resource(config: ResourceServerConfig, compiled: CompiledResource) -> Iterator[tuple[str, str]]:
    """Yield the lines of one resource, each a label and its text."""
    yield "resource", compiled.identifier
    yield "metadata", compiled.metadata_url
    for name, text in _written(config.metadata, without=("resource", "authorization_servers")):
        yield "metadata", f"{name} = {text}"
    for issuer in compiled.trust.named:
        yield "issuer", " ".join([issuer.rules.issuer, *_details(issuer.config)])
    others = compiled.trust.others
    for pattern in () if others is None else others.patterns:
        written = pattern.trusted.config
        yield "issuers", " ".join([str(written.issuer_pattern), *_details(written)])
    if others is not None and others.resolver is not None:
        yield "issuers", f"those that {_name_of(others.resolver)} returns"
    for name, text in _written(config.policy):
        yield "policy", f"{name} = {text}"
    if public := compiled.policy.operations.public_names:
        yield "public", ", ".join(public)
    if (dpop := compiled.senders.dpop) is not None:
        nonces = "without nonces" if dpop.nonce_key is None else "with nonces"
        mode = "required" if dpop.is_required else "allowed"
        yield "dpop", f"{mode}, {' '.join(dpop.algorithms)}, {nonces}, window {dpop.proofs.window:g} s"
    if isinstance(compiled.verifier, CompiledChoice):
        yield from _credentials(compiled.verifier)


def _credentials(choice: CompiledChoice) -> Iterator[tuple[str, str]]:
    """Yield what is accepted in addition to JWTs, without secrets."""
    if choice.jwt is not True:
        yield "tokens", "JWTs count as opaque tokens" if choice.jwt is False else f"JWTs go to {_name_of(choice.jwt)}"
    if isinstance(choice.opaque, CompiledIntrospection):
        settings = choice.opaque.settings
        where = settings.endpoint or "introspection_endpoint of the metadata"
        method = choice.opaque.authentication.method or "client_secret"
        yield "tokens", f"opaque tokens are introspected at {where} ({method}, ttl {settings.ttl:g} s)"
    elif choice.opaque is not None:
        yield "tokens", f"opaque tokens go to {_name_of(choice.opaque)}"
    if choice.keys is not None:
        ways = [f"bearer {choice.keys.prefix}…" if choice.keys.prefix else "", choice.keys.header or ""]
        source = choice.keys.file or _name_of(choice.keys.store)
        yield "tokens", f"API keys of {source}, sent as {' or '.join(filter(None, ways))}"


def _details(config: AuthServerConfig) -> list[str]:
    """Return the settings of an issuer in parentheses, or nothing if all have their defaults."""
    written = _written(config, without=("issuer", "issuer_pattern", "tenants"))
    details = [f"{name} = {text}" for name, text in written]
    return [f"({', '.join(details)})"] if details else []


def _written(
    record: AuthServerConfig | ResourceServerMetadata | ScopePolicy, without: Iterable[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record that differ from their defaults."""
    declared = [field for field in fields_of(type(record)).values() if field.name not in without]
    return _changed({field.name: getattr(record, field.name) for field in declared}, declared)


def _changed(values: Mapping[str, Any], declared: Iterable[Field]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each value that differs from its default."""
    for field in declared:
        if field.name != "protected_resources" and field.name in values and values[field.name] != field.default:
            yield field.name, text_of(values[field.name], field)


def text_of(value: object, field: Field) -> str:
    """Return a value as JSON for people; a document and a secret only as "…", an object by its name."""
    kinds = {shape.kind for shape in field.shapes}
    is_secret = field.name == "shared_secret" and not isinstance(value, Referenced)
    if is_secret or Kind.DOCUMENT in kinds:
        return "…"
    if Kind.OBJECT in kinds:
        return _name_of(value)
    return json.dumps(_showable(value, public=field.name in PUBLIC), default=_name_of, ensure_ascii=False)


def _showable(value: object, *, public: bool) -> object:
    """Return a value in lists, dicts and plain values.

    The origin stands in for each text that may be a secret, and "…" for a secret that is written in the file.
    """
    if isinstance(value, Referenced):
        return _without_query(str(value)) if public else f"({value.origin})"
    if is_dataclass(value) and type(value).__module__ in OWN_VALUES:  # others may hold secrets
        shown = {field.name: (field.repr, getattr(value, field.name)) for field in fields(value)}
        value = {
            name: text if is_shown or text is None or isinstance(text, Referenced) else "…"
            for name, (is_shown, text) in shown.items()
        }
    mapping, items = as_mapping(value), as_list(value)
    if mapping is not None:
        return {str(_showable(name, public=public)): _showable(item, public=public) for name, item in mapping.items()}
    return value if items is None else [_showable(item, public=public) for item in items]


def _without_query(text: str) -> str:
    """Return a URL without its query, where some servers expect an API key; any other text as it is."""
    address, mark, _ = text.partition("?")
    return f"{address}?…" if mark and "://" in address else text


def _name_of(value: object) -> str:
    """Return the name of a function or class, or the class of any other object: its repr may hold a secret."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{getattr(named, '__qualname__', '')}"


def print_schema() -> int:
    """Print the JSON Schema of a configuration file. Return the exit status."""
    print(json.dumps(config_schema(settings_of(Settings), SHORTHAND), indent=2, ensure_ascii=False))
    return 0
