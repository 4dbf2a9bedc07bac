"""Examining targets: an issuer, a live resource or a configuration file, told apart by what answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import issuer_codes, resource_codes
from asgi_mcp_auth.doctor.configuration import check_configuration
from asgi_mcp_auth.doctor.documents import SUCCESS
from asgi_mcp_auth.doctor.findings import Finding, Report, found
from asgi_mcp_auth.doctor.issuer import check_issuer, find_metadata
from asgi_mcp_auth.doctor.resource import ask_without_token, check_resource
from asgi_mcp_auth.doctor.resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor.web import Web

__all__ = ("Kind", "examine", "is_url", "kinds_of")

Kind = Literal["issuer", "resource", "config"]
"""What a target is taken for."""

UNAUTHORIZED = 401


def is_url(target: str) -> bool:
    """Whether a target is a URL; all others are files."""
    return "://" in target


async def examine(
    targets: Sequence[str],
    kind: Kind | None = None,
    *,
    http_client: ClientFactory | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Report, ...]:
    """Examine each target, and what it names: a file's issuers and resources, a resource's issuers.

    Nothing is changed anywhere, no redirect is followed, and no credential is sent but a made-up token. An unprotected
    server is sent an `initialize`. A configuration file may name code to import, which is imported.

    Args:
        targets: URLs of issuers or resources, or paths of configuration files.
        kind: What they are; default: told by what answers.
        http_client: A factory of an `httpx.AsyncClient`, for other ways to the network.
        progress: Told of each URL before it is asked.
    """
    web = Web(Fetcher(http_client), filter(is_url, targets), progress=progress)
    return tuple([await _examine_one(web, target, kind) for target in targets])


async def kinds_of(
    targets: Sequence[str], kind: Kind | None, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Sequence[Kind]]:
    """What each URL is, told by what answers unless `kind` says so."""
    web = Web(Fetcher(), targets, progress=progress)
    return {target: [kind] if kind is not None else await _told_by_answers(web, target) for target in targets}


async def _examine_one(web: Web, target: str, kind: Kind | None) -> Report:
    if kind == "config" or (kind is None and not is_url(target)):
        return await _report(target, "config", check_configuration(web, target))
    if parse_url(target) is None:
        what = "It is not an absolute URL of printable ASCII, without user information."
        return Report(target=target, kind=kind, findings=(found(resource_codes.NOT_RECOGNISED, target, what),))
    if "/.well-known/" in target:
        fix = "Name the issuer or the resource itself, as the document does, not the place of the document."
        place = found(resource_codes.NOT_RECOGNISED, target, "the place of a well-known document", fix=fix)
        return Report(target=target, kind=kind, findings=(place,))
    kinds: list[Kind] = [kind] if kind is not None else await _told_by_answers(web, target)
    if not kinds:
        return Report(target=target, kind=None, findings=(await _not_recognised(web, target),))
    findings: list[Finding] = []
    for each in kinds:
        checks = check_issuer(web, AuthServerConfig(issuer=target)) if each == "issuer" else check_resource(web, target)
        findings += (await _report(target, each, checks)).findings
    return Report(target=target, kind=" and ".join(kinds), findings=tuple(findings))


async def _report(target: str, kind: Kind, checks: AsyncIterator[Finding]) -> Report:
    """Each finding once: two resources may name one issuer."""
    findings = [finding async for finding in checks]
    return Report(target=target, kind=kind, findings=tuple(dict.fromkeys(findings)))


async def _told_by_answers(web: Web, target: str) -> list[Kind]:
    """A resource challenges or has resource metadata; an issuer has metadata of its own. It may be both."""
    kinds: list[Kind] = []
    document = (await find_metadata(web, target)).read
    named = None if document is None or document.document is None else document.document.get("issuer")
    answer = await ask_without_token(web, target)
    metadata = (await check_resource_metadata(web, target, None)).document
    is_resource = answer.status == UNAUTHORIZED or (metadata is not None and "resource" in metadata)
    # A resource may republish the metadata of its issuer, which has another name then.
    if isinstance(named, str) and (named.rstrip("/") == target.rstrip("/") or not is_resource):
        kinds.append("issuer")
    if is_resource:
        kinds.append("resource")
    return kinds


async def _not_recognised(web: Web, target: str) -> Finding:
    answer = await ask_without_token(web, target)
    if answer.failure is not None:
        return found(issuer_codes.UNREACHABLE, target, answer.failure)
    served = answer.status in SUCCESS
    fix = (
        "If this is your MCP server, it is not protected: put the middleware around the whole app." if served else None
    )
    return found(resource_codes.NOT_RECOGNISED, target, f"POST got {answer.status}; no well-known document", fix=fix)
