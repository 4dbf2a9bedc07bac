"""Check a protected resource's metadata: the URLs where clients look for the document, and its members (RFC 9728)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import PROTECTED_RESOURCE, insert_well_known, parse_url, same_resource
from asgi_mcp_auth._policy.problems import as_list
from asgi_mcp_auth.doctor import _issuer_codes as issuer_codes
from asgi_mcp_auth.doctor import _resource_codes as codes
from asgi_mcp_auth.doctor._challenge_codes import OFFLINE_ACCESS
from asgi_mcp_auth.doctor._documents import RESOURCE_METADATA, FetchedDocument, is_absent
from asgi_mcp_auth.doctor._findings import Finding, Severity, cut, found
from asgi_mcp_auth.doctor._issuer import check_metadata_cors, fetch_document
from asgi_mcp_auth.doctor._web import Web
from asgi_mcp_auth.errors import printable

__all__ = ("MAX_SERVERS", "CheckedMetadata", "check_document", "check_resource_metadata", "well_known_urls")

MAX_SERVERS = 10
"""The number of authorization servers that are checked; the document is the server's and may list any number."""


class CheckedMetadata(NamedTuple):
    """A resource's metadata and the findings about the document.

    Attributes:
        document: The first document that was found; None if no URL has a document.
        servers: The issuers in the document that are URLs.
        scopes: The scopes in the document's `scopes_supported`.
        well_known: Whether a well-known URL has a document that names the resource.
        findings: The findings at all URLs.
    """

    document: Mapping[str, Any] | None
    servers: tuple[str, ...]
    scopes: tuple[str, ...]
    well_known: bool
    findings: tuple[Finding, ...]


def well_known_urls(resource: str) -> tuple[str, ...]:
    """Return where clients look without `resource_metadata`: at the URL with the resource's path, then at the root."""
    url = parse_url(resource)
    if url is None:
        return ()
    urls = (insert_well_known(url, PROTECTED_RESOURCE), url.origin + PROTECTED_RESOURCE)
    return tuple(dict.fromkeys(urls))


async def check_resource_metadata(web: Web, resource: str, resource_metadata: str | None) -> CheckedMetadata:
    """Fetch the metadata at the URL in the challenge and at the well-known URLs, and check the first document.

    Args:
        web: The HTTP client.
        resource: The URL that clients use.
        resource_metadata: The parameter of the challenge.
    """
    well_known = well_known_urls(resource)
    findings: list[Finding] = []
    fetched: dict[str, FetchedDocument] = {}
    for url in dict.fromkeys((*((resource_metadata,) if resource_metadata else ()), *well_known)):
        result = fetched[url] = await fetch_document(web, url, RESOURCE_METADATA)
        # The root URL may be empty: only clients that found no other document use it.
        if url == resource_metadata or result.document is not None or not is_absent(result.answer):
            findings += result.findings
    good = next((result for result in fetched.values() if result.document is not None), None)
    if good is None or good.document is None:
        tried = ", ".join(f"{result.answer.status or 'no response'} at {url}" for url, result in fetched.items())
        missing = found(codes.METADATA_NOT_FOUND, resource, tried)
        return CheckedMetadata(None, (), (), well_known=False, findings=(*findings, missing))
    at = good.answer.url
    if well_known and fetched[well_known[0]].document is None:
        evidence = f"status {fetched[well_known[0]].answer.status}; found at {at}"
        findings.append(found(codes.PATH_MISSING, well_known[0], evidence))
    wrong = list(check_document(good.document, resource, at))
    if not any(finding.code is codes.MISMATCH for finding in wrong):
        findings.append(found(codes.METADATA_FOUND, at, f"resource {cut(good.document.get('resource'))}"))
    findings += wrong
    findings += await check_metadata_cors(web, good.answer)
    return CheckedMetadata(
        document=good.document,
        servers=_servers(good.document),
        scopes=tuple(_texts(good.document, "scopes_supported")),
        well_known=any((fetched[url].document or {}).get("resource") == resource for url in well_known),
        findings=tuple(findings),
    )


def _texts(document: Mapping[str, Any], member: str) -> list[str]:
    return [item for item in as_list(document.get(member)) or () if isinstance(item, str)]


def _servers(document: Mapping[str, Any]) -> tuple[str, ...]:
    servers = _texts(document, "authorization_servers")
    return tuple(dict.fromkeys(server for server in servers if insecure_url(server, allow_http=True) is None))


def check_document(document: Mapping[str, Any], resource: str, subject: str) -> Iterator[Finding]:
    """Check the members of a metadata document, for clients that use the URL `resource`."""
    named = document.get("resource")
    if named != resource:
        url = parse_url(resource)
        equivalent = url is not None and isinstance(named, str) and same_resource(named, url)
        yield found(
            codes.MISMATCH,
            subject,
            f"the document says {cut(named)}, the URL is {cut(resource)}",
            setting=f'Set resource="{printable(resource, 200)}", or have clients use the URL in the document.',
            severity=Severity.WARNING if equivalent else None,
        )
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
    if "offline_access" in _texts(document, "scopes_supported"):
        yield found(OFFLINE_ACCESS, subject, "scopes_supported lists offline_access")
    empty = [name for name, value in document.items() if value is None or value == cast("object", [])]
    if empty:
        yield found(codes.EMPTY_MEMBER, subject, ", ".join(empty[:8]))
