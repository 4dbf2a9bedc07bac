"""Examine targets: issuers, live resources and configuration files, recognised by their responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Literal

from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._oauth.credentials import is_token
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import _challenge_codes, _issuer_codes, _key_codes, _resource_codes
from asgi_mcp_auth.doctor._challenge import metadata_parameter
from asgi_mcp_auth.doctor._configuration import check_configuration
from asgi_mcp_auth.doctor._documents import SUCCESS
from asgi_mcp_auth.doctor._findings import Finding, Report, found
from asgi_mcp_auth.doctor._issuer import check_issuer, find_metadata
from asgi_mcp_auth.doctor._resource import check_resource, send_initialize, uses_this_library, wrong_url_fix
from asgi_mcp_auth.doctor._resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor._web import Web
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("CODES", "Kind", "examine", "find_issuers", "find_kinds", "is_url")

Kind = Literal["issuer", "resource", "config"]
"""What a target is."""

CODES: Final = (
    *(_issuer_codes.ANY_URL + _issuer_codes.ISSUER + _key_codes.KEYS),
    *(_resource_codes.RESOURCE + _challenge_codes.CHALLENGE + _resource_codes.METADATA + _resource_codes.CONFIG),
)
"""Every code that a finding may have, in the order of the README. A name never changes its meaning."""

UNAUTHORIZED = 401

Progress = Callable[[str], None]


def is_url(target: str) -> bool:
    """Return whether a target is a URL; all other targets are files."""
    return "://" in target


def _no_progress(url: str) -> None:
    """Ignore the URL."""


async def examine(
    targets: Sequence[str],
    kind: Kind | None = None,
    *,
    token: str | None = None,
    http_client: ClientFactory | None = None,
    progress: Progress = _no_progress,
) -> tuple[Report, ...]:
    """Examine each target, and what the target names: a file's issuers and resources, a resource's issuers.

    No redirect is followed, and no credential is sent except an invalid token and `token`. Servers get `initialize`
    requests: a server without protection, or with `token`, may open a session. A configuration file may name code to
    import; that code is imported.

    Args:
        targets: URLs of issuers or resources, or paths of configuration files.
        kind: What the targets are. Default: recognised by the responses.
        token: A valid access token, to check the app behind the middleware. Sent only over https or to loopback, to
            the resources among `targets` and to the resource of a file with one resource.
        http_client: A factory of `httpx.AsyncClient`, for a proxy or other ways to the network.
        progress: Called with each URL before it is requested.

    Raises:
        ConfigurationError: `token` is not an access token.
    """
    if token is not None and not is_token(token.encode("utf-8", "replace")):
        fix = "Pass one access token, without Bearer and without spaces."
        raise ConfigurationError([Problem("token", "The text is not an access token.", fix)])
    web = Web(Fetcher(http_client), filter(is_url, targets), progress=progress)
    return tuple([await _examine_one(web, target, kind, token) for target in targets])


async def find_kinds(
    urls: Sequence[str], kind: Kind | None, progress: Progress = _no_progress
) -> dict[str, Sequence[Kind]]:
    """Return what each URL is: `kind`, or else recognised by the responses."""
    web = Web(Fetcher(), urls, progress=progress)
    return {url: [kind] if kind is not None else await _recognise(web, url) for url in urls}


async def find_issuers(resource: str, progress: Progress = _no_progress) -> tuple[str, ...]:
    """Return the issuers that a live resource names in its metadata."""
    web = Web(Fetcher(), [resource], progress=progress)
    parameter = metadata_parameter(await send_initialize(web, resource))
    return (await check_resource_metadata(web, resource, parameter)).servers


async def _examine_one(web: Web, target: str, kind: Kind | None, token: str | None) -> Report:
    if kind == "config" or (kind is None and not is_url(target)):
        return Report.of(target, "config", [finding async for finding in check_configuration(web, target, token)])
    if parse_url(target) is None:
        evidence = "not an absolute URL of printable ASCII without user information"
        return Report.of(target, kind, [found(_resource_codes.NOT_RECOGNISED, target, evidence)])
    if "/.well-known/" in target:
        fix = "Pass the issuer or the resource itself, as the document names it, not the URL of the document."
        finding = found(_resource_codes.NOT_RECOGNISED, target, "the URL of a well-known document", fix=fix)
        return Report.of(target, kind, [finding])
    kinds: list[Kind] = [kind] if kind is not None else await _recognise(web, target)
    if not kinds:
        return Report.of(target, None, [await _not_recognised(web, target)])
    findings: list[Finding] = []
    for each in kinds:
        findings += [finding async for finding in _checks(web, target, each, token)]
    return Report.of(target, " and ".join(kinds), findings)


def _checks(web: Web, target: str, kind: Kind, token: str | None) -> AsyncIterator[Finding]:
    if kind == "issuer":
        return check_issuer(web, AuthServerConfig(issuer=target))
    return check_resource(web, target, token=token)


async def _recognise(web: Web, target: str) -> list[Kind]:
    """Return what a URL is: a resource challenges or has resource metadata, an issuer has metadata of its own."""
    kinds: list[Kind] = []
    metadata = (await find_metadata(web, target)).fetched
    issuer = None if metadata is None or metadata.document is None else metadata.document.get("issuer")
    answer = await send_initialize(web, target)
    document = (await check_resource_metadata(web, target, None)).document
    is_resource = answer.status == UNAUTHORIZED or (document is not None and "resource" in document)
    # A resource may republish the metadata of its issuer, which has another name then.
    if isinstance(issuer, str) and (issuer.rstrip("/") == target.rstrip("/") or not is_resource):
        kinds.append("issuer")
    if is_resource:
        kinds.append("resource")
    return kinds


async def _not_recognised(web: Web, target: str) -> Finding:
    answer = await send_initialize(web, target)
    if answer.failure is not None:
        return found(_issuer_codes.UNREACHABLE, target, answer.failure)
    fix = None
    if answer.status in SUCCESS:
        fix = "If this is your MCP server, it is not protected: wrap the whole app in the middleware."
    elif uses_this_library(answer):
        fix = wrong_url_fix(target, answer.status)
    evidence = f"POST got {answer.status}; no well-known document"
    return found(_resource_codes.NOT_RECOGNISED, target, evidence, fix=fix)
