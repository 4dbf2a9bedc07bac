"""Examining a protected resource's metadata: where clients look for it, and what it says (RFC 9728)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import PROTECTED_RESOURCE, insert_well_known, parse_url, same_resource
from asgi_mcp_auth._policy.problems import as_list
from asgi_mcp_auth.doctor import issuer_codes
from asgi_mcp_auth.doctor import resource_codes as codes
from asgi_mcp_auth.doctor.documents import DISCOVERY_HEADER, Read, cors, is_absent, preflight
from asgi_mcp_auth.doctor.findings import Finding, Severity, cut, found
from asgi_mcp_auth.doctor.issuer import ask_preflight, fetch_document
from asgi_mcp_auth.doctor.web import Web

__all__ = ("MAX_SERVERS", "Examined", "check_resource_metadata", "judge_resource_metadata", "metadata_places")

MAX_SERVERS = 10
"""Of an answer's authorization servers, which are others' and may be very many."""


class Examined(NamedTuple):
    """The document, if there is one, the issuers that it names, and what was found."""

    document: Mapping[str, Any] | None
    servers: tuple[str, ...]
    findings: tuple[Finding, ...]


def metadata_places(resource: str) -> tuple[str, ...]:
    """Where clients look that were not told: with the path of the resource, then at the root."""
    url = parse_url(resource)
    if url is None:
        return ()
    places = (insert_well_known(url, PROTECTED_RESOURCE), url.origin + PROTECTED_RESOURCE)
    return tuple(dict.fromkeys(places))


async def check_resource_metadata(web: Web, resource: str, told: str | None) -> Examined:
    """Look at the place that the challenge names, then at the well-known ones; judge what is found first.

    Args:
        web: Asks.
        resource: The URL that clients are given.
        told: The challenge's `resource_metadata`.
    """
    usual = metadata_places(resource)
    findings: list[Finding] = []
    reads: dict[str, Read] = {}
    for place in dict.fromkeys((*((told,) if told else ()), *usual)):
        read = reads[place] = await fetch_document(web, place)
        # The root place is for clients that found nothing else; with several resources it has to be empty.
        needed = place == told or (read.document is not None) or not is_absent(read.answer)
        findings += read.findings if needed else ()
    good = next((read for read in reads.values() if read.document is not None), None)
    if good is None or good.document is None:
        tried = ", ".join(f"{read.answer.status or 'nothing'} at {url}" for url, read in reads.items())
        return Examined(None, (), (*findings, found(codes.METADATA_NOT_FOUND, resource, tried)))
    place = good.answer.url
    if usual and reads[usual[0]].document is None:
        findings.append(found(codes.PATH_PLACE, usual[0], f"status {reads[usual[0]].answer.status}; found at {place}"))
    wrong = list(judge_resource_metadata(good.document, resource, place))
    if not any(finding.code is codes.MISMATCH for finding in wrong):
        findings.append(found(codes.METADATA_FOUND, place, f"resource {cut(good.document.get('resource'))}"))
    refused = list(cors(good.answer, "metadata"))
    if not refused:
        refused = list(
            preflight(await ask_preflight(web, place, "GET", DISCOVERY_HEADER), "metadata", DISCOVERY_HEADER)
        )
    return Examined(good.document, _servers(good.document), (*findings, *wrong, *refused))


def _servers(document: Mapping[str, Any]) -> tuple[str, ...]:
    listed = as_list(document.get("authorization_servers")) or []
    texts = [server for server in listed if isinstance(server, str)]
    return tuple(dict.fromkeys(server for server in texts if insecure_url(server, allow_http=True) is None))


def judge_resource_metadata(document: Mapping[str, Any], resource: str, subject: str) -> Iterator[Finding]:
    """What the document says, for clients that were given the URL `resource`."""
    named = document.get("resource")
    if named != resource:
        url = parse_url(resource)
        alike = url is not None and isinstance(named, str) and same_resource(named, url)
        told = f"the document says {cut(named)}, the URL is {cut(resource)}"
        yield found(codes.MISMATCH, subject, told, severity=Severity.WARNING if alike else None)
    servers = document.get("authorization_servers")
    listed = as_list(servers)
    if not listed:
        yield found(codes.NO_SERVERS, subject, f"authorization_servers: {cut(servers)}")
    for server in (listed or ())[:MAX_SERVERS]:
        why = insecure_url(server, allow_http=False)
        if why is not None:
            code = issuer_codes.NOT_HTTPS if "https" in why else codes.SERVER_INVALID
            yield found(code, subject, f"{cut(server)} {why}")
    methods = document.get("bearer_methods_supported")
    if methods is not None and "header" not in (as_list(methods) or ()):
        yield found(codes.BEARER_METHOD, subject, f"bearer_methods_supported: {cut(methods)}")
    scopes = as_list(document.get("scopes_supported"))
    if scopes is not None and "offline_access" in scopes:
        yield found(codes.OFFLINE_ACCESS, subject, "scopes_supported has it")
    empty = [name for name, value in document.items() if value is None or value == cast("object", [])]
    if empty:
        yield found(codes.EMPTY_MEMBER, subject, ", ".join(empty[:8]))
