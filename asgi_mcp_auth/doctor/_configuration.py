"""Check a configuration file: the file itself, then its issuers, and its resources if they respond."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import Referenced, as_strings
from asgi_mcp_auth._verify.introspection_verifier import IntrospectionVerifier
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import MCPAuth, protection_of
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import _resource_codes as codes
from asgi_mcp_auth.doctor._findings import Finding, cut, found
from asgi_mcp_auth.doctor._issuer import check_issuer, check_template
from asgi_mcp_auth.doctor._resource import check_resource, send_initialize
from asgi_mcp_auth.doctor._resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor._web import Web
from asgi_mcp_auth.errors import ConfigurationError, Reason, Refusal, Unavailable, printable
from asgi_mcp_auth.stores._shared import SharedStore

__all__ = ("check_configuration", "load_configuration")

MAX_TENANTS = 3
COMPARED = ("authorization_servers", "scopes_supported")


def load_configuration(file: str | None) -> MCPAuth:
    """Return the configuration of a file, or of the environment if `file` is None; no warning is logged.

    Raises:
        ConfigurationError: The configuration has problems; the error lists all of them.
    """
    with _silent("asgi_mcp_auth.config"):
        return MCPAuth.from_env() if file is None else MCPAuth.from_toml(file)


async def check_configuration(web: Web, file: str, token: str | None = None) -> AsyncIterator[Finding]:
    """Check one configuration file.

    Values that the file refers to (`from_env`, `from_file`) are replaced by their origin in every finding.

    Args:
        web: The HTTP client.
        file: The path of the file.
        token: A valid access token for the resource of the file; not sent if the file has several resources.
    """
    try:
        auth = await anyio.to_thread.run_sync(load_configuration, file)  # reads files and imports modules
    except ConfigurationError as error:
        for problem in error.problems:
            hint = "" if problem.where != file else " A URL begins with https://."
            fix = printable(_ascii(problem.fix), 400) + hint
            yield found(codes.CONFIG_INVALID, file, _ascii(f"{problem.where}: {problem.what}"), fix=fix)
        return
    references = dict(_references(auth))
    async for finding in _check(web, auth, file, token):
        yield _hide(finding.with_setting(), references)


def _ascii(text: str) -> str:
    """Return a text of this library in ASCII, which `printable` does not escape."""
    return text.replace("\u2026", "...")


async def _check(web: Web, auth: MCPAuth, file: str, token: str | None) -> AsyncIterator[Finding]:
    for warning in auth.warnings:
        yield found(codes.CONFIG_WARNING, file, _ascii(warning))
    resources = protection_of(auth).config.resources
    yield found(codes.CONFIG_GOOD, file, f"resources: {', '.join(resource.identifier for resource in resources)}")
    store = protection_of(auth).store
    if store is not None:
        yield await _check_store(store)
    for authenticator in protection_of(auth).authenticators:
        if authenticator.introspection is not None:
            yield await _check_introspection(authenticator.introspection)
    trusted = _trusted(resources)
    with_certificates = [one.identifier for one in resources if one.senders.certificates is not None]
    accepted = {one.identifier: one.senders.dpop.algorithms for one in resources if one.senders.dpop is not None}
    for url in trusted.named:
        web.allow_any_address(url)
    for template, config in trusted.templates.items():
        async for finding in check_template(web, config, template):
            yield finding
    for config, advertised in trusted.issuers.values():
        proofs = {name: algorithms for name, algorithms in accepted.items() if name in advertised}
        certified = [name for name in with_certificates if name in advertised]
        async for finding in check_issuer(web, config, advertised, proofs, certified):
            yield finding
    for resource in resources:
        async for finding in _check_live(web, resource, token if len(resources) == 1 else None):
            yield finding


class _Trusted(NamedTuple):
    """What the resources of a file trust.

    Attributes:
        named: Every URL in the file.
        templates: The configuration of each issuer template.
        issuers: By issuer, its configuration and the resources that trust it, each with the scopes it advertises. Of a
            template at most `MAX_TENANTS` issuers.
    """

    named: set[str]
    templates: dict[str, AuthServerConfig]
    issuers: dict[str, tuple[AuthServerConfig, dict[str, list[str]]]]


def _trusted(resources: Iterable[CompiledResource]) -> _Trusted:
    trusted = _Trusted(set(), {}, {})
    for resource in resources:
        trusted.named.add(resource.identifier)
        scopes = as_strings(resource.document.members.get("scopes_supported")) or []
        tenants: Counter[str] = Counter()
        for issuer in resource.trust.named:
            name, config = issuer.identifier, replace(issuer.config, issuer=issuer.identifier)
            trusted.named.update(url for url in (name, config.metadata_url, config.jwks_uri) if url is not None)
            if issuer.template is not None:
                trusted.templates[issuer.template] = config
                tenants[issuer.template] += 1
                config = AuthServerConfig(issuer=name)  # clients know the tenant's issuer, not the template
            if tenants[issuer.template or ""] <= MAX_TENANTS:
                trusted.issuers.setdefault(name, (config, {}))[1][resource.identifier] = scopes
    return trusted


async def _check_store(shared: SharedStore) -> Finding:
    with _silent("asgi_mcp_auth.stores"):
        await shared.probe()
    status, subject = shared.status(), printable(str(shared.store))
    if status.last_error is not None:
        return found(codes.STORE_FAILS, subject, status.last_error)
    if status.warning is not None:
        return found(codes.STORE_EVICTS, subject, status.warning)
    return found(codes.STORE_GOOD, subject)


async def _check_introspection(verifier: IntrospectionVerifier) -> Finding:
    """Ask about a token that was never issued, with the credentials of the configuration."""
    token = f"doctor-{secrets.token_urlsafe(24)}".encode("ascii")
    with _silent("asgi_mcp_auth.introspection"):
        decided = verifier.check(token, token)
        decided = decided if isinstance(decided, (Verified, Refusal)) else await decided
    issuer = verifier.rules.issuer
    if isinstance(decided, Unavailable):
        return found(codes.INTROSPECTION_FAILS, issuer, decided.found)
    if isinstance(decided, Refusal) and decided.reason is Reason.INACTIVE_TOKEN:
        return found(codes.INTROSPECTION_GOOD, issuer)
    return found(codes.INTROSPECTION_ACCEPTS, issuer)


@contextlib.contextmanager
def _silent(name: str) -> Generator[None]:
    """Switch a logger off, because its records become findings."""
    logger = logging.getLogger(name)
    silent, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = silent


async def _check_live(web: Web, resource: CompiledResource, token: str | None) -> AsyncIterator[Finding]:
    url = resource.identifier
    answer = await send_initialize(web, url)
    if answer.failure is not None:
        yield found(codes.NOT_DEPLOYED, url, answer.failure)
        return
    async for finding in check_resource(web, url, follow=False, token=token):
        yield finding
    served = (await check_resource_metadata(web, url, None)).document
    if served is not None:
        for finding in _differences(served, resource):
            yield finding


def _differences(served: Mapping[str, Any], resource: CompiledResource) -> Iterator[Finding]:
    configured = resource.document.members
    for name in COMPARED:
        if served.get(name) != configured.get(name):
            evidence = f"{name}: {cut(served.get(name))}, the file says {cut(configured.get(name))}"
            yield found(codes.DIFFERS, resource.identifier, evidence)


def _references(auth: MCPAuth) -> Iterator[tuple[str, str]]:
    """Yield the values that the configuration refers to (`from_env`, `from_file`), each with its origin."""
    values: list[object] = []
    for config, resource in zip(auth.configs, protection_of(auth).config.resources, strict=True):
        values.append(config.metadata.resource)
        for issuer in resource.trust.named:
            values += [getattr(issuer.config, field.name) for field in fields(issuer.config)]
    yield from ((str(value), f"({value.origin})") for value in values if isinstance(value, Referenced))


def _hide(finding: Finding, references: Mapping[str, str]) -> Finding:
    """Return the finding with the origin of each reference instead of the value."""
    shown = [finding.subject, finding.evidence, finding.fix]
    for value, origin in references.items():
        shown = [text.replace(printable(value, 500), origin) for text in shown]
    return replace(finding, subject=shown[0], evidence=shown[1], fix=shown[2]) if references else finding
