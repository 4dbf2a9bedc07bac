"""Examining a configuration file: what `check-config` says, then its issuers, and its resources where they answer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import resource_codes as codes
from asgi_mcp_auth.doctor.findings import Finding, cut, found
from asgi_mcp_auth.doctor.issuer import check_issuer, check_template
from asgi_mcp_auth.doctor.resource import ask_without_token, check_resource
from asgi_mcp_auth.doctor.resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor.web import Web
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("check_configuration", "load")

MAX_TENANTS = 3
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
    trusted = _trusted(resources)
    for url in trusted.named:
        web.name(url)
    for template, config in trusted.templates.items():
        async for finding in check_template(web, config, template):
            yield finding
    for config, trusted_by in trusted.issuers.values():
        async for finding in check_issuer(web, config, trusted_by):
            yield finding
    for resource in resources:
        async for finding in _check_live(web, resource):
            yield finding


class _Trusted(NamedTuple):
    """What the resources of a file trust, each once."""

    named: set[str]
    templates: dict[str, AuthServerConfig]
    issuers: dict[str, tuple[AuthServerConfig, list[str]]]


def _trusted(resources: Iterable[CompiledResource]) -> _Trusted:
    """The URLs that the file names, its templates, its issuers with who trusts them; of a template a few tenants."""
    found = _Trusted(set(), {}, {})
    for resource in resources:
        found.named.add(resource.identifier)
        tenants: Counter[str] = Counter()
        for issuer in resource.trust.named:
            name, config = issuer.identifier, replace(issuer.config, issuer=issuer.identifier)
            found.named.update(_places(config))
            if issuer.template is not None:
                found.templates[issuer.template] = config
                tenants[issuer.template] += 1
                config = AuthServerConfig(issuer=name)  # as clients see it
            if tenants[issuer.template or ""] <= MAX_TENANTS:
                trusting = found.issuers.setdefault(name, (config, []))[1]
                if resource.identifier not in trusting:  # an issuer with several `token_issuers` is here for each
                    trusting.append(resource.identifier)
    return found


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
            told = f"{name}: {cut(served.get(name))}, the file says {cut(written.get(name))}"
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
