"""Examining a configuration file: what `check-config` says, then its issuers, and its resources where they answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import anyio
import anyio.to_thread

from asgi_mcp_auth._protocol.problems import Referenced
from asgi_mcp_auth._protocol.resource import CompiledResource
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import resource_codes as codes
from asgi_mcp_auth.doctor.findings import Finding, found
from asgi_mcp_auth.doctor.issuer import check_issuer
from asgi_mcp_auth.doctor.resource import ask_without_token, check_resource
from asgi_mcp_auth.doctor.resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor.web import Web
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("check_configuration", "load")

COMPARED = ("authorization_servers", "scopes_supported")


def load(file: str | None) -> MCPAuth:
    """The configuration of a file, or without one of the environment; its warnings are not logged.

    Raises:
        ConfigurationError: With every problem.
    """
    logger = logging.getLogger("asgi_mcp_auth.config")
    silent, logger.disabled = logger.disabled, True
    try:
        return MCPAuth.from_env() if file is None else MCPAuth.from_toml(file)
    finally:
        logger.disabled = silent


async def check_configuration(web: Web, file: str) -> AsyncIterator[Finding]:
    """Everything about one configuration file.

    Texts that the file refers to (`from_env`, `from_file`) are not shown, whatever they turn up in.
    """
    try:
        auth = await anyio.to_thread.run_sync(load, file)  # it reads files, and imports what they name
    except ConfigurationError as error:
        for problem in error.problems:
            unread = "" if problem.where != file else " A URL begins with https://."
            fix = printable(_plain(problem.fix), 400) + unread
            yield found(codes.CONFIG_INVALID, file, _plain(f"{problem.where}: {problem.what}"), fix=fix)
        return
    secrets = dict(_referred_to(auth))
    async for finding in _check(web, auth, file):
        yield _hidden(finding, secrets)


def _plain(text: str) -> str:
    """Our own words in ASCII, so that they are not escaped with those of others."""
    return text.replace("\u2026", "...")


async def _check(web: Web, auth: MCPAuth, file: str) -> AsyncIterator[Finding]:
    for warning in auth.warnings:
        yield found(codes.CONFIG_WARNING, file, _plain(warning))
    resources = auth.site.resources
    yield found(codes.CONFIG_GOOD, file, f"resources: {', '.join(resource.identifier for resource in resources)}")
    trusting: dict[str, tuple[AuthServerConfig, list[str]]] = {}
    for resource in resources:
        for issuer in resource.trust.named:
            name = issuer.template or issuer.rules.issuer
            config = replace(issuer.config, issuer=name)
            trusting.setdefault(name, (config, []))[1].append(resource.identifier)
    for url in (place for config, _ in trusting.values() for place in _places(config)):
        web.name(url)
    for resource in resources:
        web.name(resource.identifier)
    for config, trusted_by in trusting.values():
        async for finding in check_issuer(web, config, trusted_by):
            yield finding
    for resource in resources:
        async for finding in _check_live(web, resource):
            yield finding


def _places(config: AuthServerConfig) -> Iterator[str]:
    yield from (url for url in (config.issuer, config.metadata_url, config.jwks_uri) if url is not None)


async def _check_live(web: Web, resource: CompiledResource) -> AsyncIterator[Finding]:
    url = resource.identifier
    answer = await ask_without_token(web, url)
    if answer.failure is not None:
        yield found(codes.NOT_DEPLOYED, url, answer.failure)
        return
    async for finding in check_resource(web, url, follow=False):
        yield finding
    served = (await check_resource_metadata(web, url, None)).document
    if served is not None:
        for finding in _differences(served, resource):
            yield finding


def _differences(served: Mapping[str, Any], resource: CompiledResource) -> Iterator[Finding]:
    written = resource.document.members
    for name in COMPARED:
        if served.get(name) != written.get(name):
            told = f"{name}: {printable(served.get(name), 200)}, the file says {printable(written.get(name), 200)}"
            yield found(codes.DIFFERS, resource.identifier, told)


def _referred_to(auth: MCPAuth) -> Iterator[tuple[str, str]]:
    """The texts that stand elsewhere, each with its origin."""
    values: list[object] = []
    for config, resource in zip(auth.configs, auth.site.resources, strict=True):
        values.append(config.metadata.resource)
        for issuer in resource.trust.named:
            values += [getattr(issuer.config, field.name) for field in fields(issuer.config)]
    yield from ((str(value), f"({value.origin})") for value in values if isinstance(value, Referenced))


def _hidden(finding: Finding, secrets: Mapping[str, str]) -> Finding:
    shown = [finding.subject, finding.evidence, finding.fix]
    for secret, origin in secrets.items():
        shown = [text.replace(printable(secret, 500), origin) for text in shown]
    return replace(finding, subject=shown[0], evidence=shown[1], fix=shown[2]) if secrets else finding
