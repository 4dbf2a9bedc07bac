"""Check an authorization server: its metadata at the URLs that clients try, its endpoints and its keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import NamedTuple

from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.doctor import _issuer_codes as codes
from asgi_mcp_auth.doctor import _key_codes as key_codes
from asgi_mcp_auth.doctor._documents import (
    DISCOVERY_HEADER,
    KEY_SET,
    SERVER_METADATA,
    DocumentType,
    FetchedDocument,
    cors,
    is_absent,
    lifetime,
    preflight,
    read_document,
)
from asgi_mcp_auth.doctor._findings import Finding, Severity, cut, found
from asgi_mcp_auth.doctor._keys import check_keys, check_lifetime
from asgi_mcp_auth.doctor._resource_codes import SERVER_INVALID
from asgi_mcp_auth.doctor._server_metadata import (
    NOTHING,
    check_certificate_support,
    check_dpop_support,
    check_issuer_member,
    check_provider,
    check_server,
    read_metadata,
)
from asgi_mcp_auth.doctor._web import BROWSER, Answer, Web

__all__ = (
    "MetadataSearch",
    "check_issuer",
    "check_metadata_cors",
    "check_template",
    "fetch_document",
    "find_metadata",
)

FORBIDDEN = 403


async def fetch_document(web: Web, url: str, kind: DocumentType) -> FetchedDocument:
    """Fetch a document as a web page does; if a request with an `Origin` gets 403, without an `Origin`."""
    fetched = read_document(await web.ask(url), kind)
    if fetched.answer.status == FORBIDDEN:
        without_origin = read_document(await web.ask(url, headers={}), kind)
        if without_origin.document is not None:
            return without_origin
    return fetched


class MetadataSearch(NamedTuple):
    """The result of looking for an issuer's metadata.

    Attributes:
        fetched: The metadata; None if no URL has metadata.
        tried: The response at each URL that was tried, in order; the last response is `fetched`, if there is one.
    """

    fetched: FetchedDocument | None
    tried: tuple[FetchedDocument, ...]


async def find_metadata(web: Web, issuer: str, metadata_url: str | None = None) -> MetadataSearch:
    """Try the URLs in MCP's order (authorization server discovery), up to the first one that has a document."""
    url = parse_url(issuer)
    well_known = list(() if url is None else discovery_urls(url, None))
    tried: list[FetchedDocument] = []
    for candidate in well_known if metadata_url is None else (metadata_url,):
        tried.append(await fetch_document(web, candidate, SERVER_METADATA))
        if tried[-1].document is not None:
            return MetadataSearch(tried[-1], tuple(tried))
    return MetadataSearch(None, tuple(tried))


async def check_issuer(
    web: Web,
    config: AuthServerConfig,
    advertised: Mapping[str, Collection[str]] = NOTHING,
    proofs: Mapping[str, Collection[str]] = NOTHING,
    certified: Collection[str] = (),
) -> AsyncIterator[Finding]:
    """Check one authorization server.

    Args:
        web: The HTTP client.
        config: The issuer, and the URLs of its metadata and its keys if the configuration names them.
        advertised: The protected resources that trust the server, each with the scopes that it advertises.
        proofs: The resources that accept DPoP, each with the algorithms that it accepts.
        certified: The resources that accept certificate-bound tokens.
    """
    issuer = config.issuer or ("" if config.metadata is None else config.metadata.issuer)
    why = insecure_url(issuer, allow_http=False)
    if why is not None:
        not_https = "https" in why
        yield found(codes.NOT_HTTPS if not_https else SERVER_INVALID, issuer, why)
        if not not_https:
            return
    for finding in check_provider(issuer):
        yield finding
    search = await find_metadata(web, issuer, config.metadata_url)
    for finding in _check_search(search, issuer, config):
        yield finding
    async for finding in _check_type(web, config, search):
        yield finding
    metadata = config.metadata
    if search.fetched is not None and search.fetched.document is not None:
        subject = search.fetched.answer.url
        metadata, findings = read_metadata(search.fetched.document, subject)
        for finding in findings:
            yield finding
        if metadata is not None:
            for finding in (
                *check_server(metadata, subject, advertised),
                *check_dpop_support(metadata, subject, proofs),
                *check_certificate_support(metadata, subject, certified),
            ):
                yield finding
            async for finding in _browsers(web, metadata, search.fetched):
                yield finding
    async for finding in _keys(web, config, metadata or config.metadata, issuer):
        yield finding


async def check_template(web: Web, config: AuthServerConfig, template: str) -> AsyncIterator[Finding]:
    """Check the metadata and the key set that all tenants of a template share; clients use the tenants' own issuers."""
    metadata = config.metadata
    if config.metadata_url is not None:
        fetched = await fetch_document(web, config.metadata_url, SERVER_METADATA)
        for finding in fetched.findings:
            yield finding
        if fetched.document is None:
            return
        for finding in check_issuer_member(fetched.document, template, config.metadata_url):
            yield finding
        read, findings = read_metadata(fetched.document, config.metadata_url)
        for finding in findings:
            yield finding
        metadata = read or metadata
    async for finding in _keys(web, config, metadata, template):
        yield finding


def _check_search(search: MetadataSearch, issuer: str, config: AuthServerConfig) -> Iterator[Finding]:
    """Yield the findings at each URL that was tried, up to the URL that has the document."""
    yield from _failures(search)
    url = parse_url(issuer)
    well_known = list(() if url is None else discovery_urls(url, None))
    if search.fetched is None:
        if any(is_absent(fetched.answer) for fetched in search.tried):
            evidence = ", ".join(
                f"{tried.answer.status or 'no response'} at {tried.answer.url}" for tried in search.tried
            )
            optional = config.metadata is not None or config.jwks is not None or config.jwks_uri is not None
            yield found(codes.METADATA_NOT_FOUND, issuer, evidence, severity=Severity.WARNING if optional else None)
        return
    at, document = search.fetched.answer.url, search.fetched.document or {}
    mismatch = list(check_issuer_member(document, issuer, at))
    yield from mismatch
    if at not in well_known:
        yield found(codes.ELSEWHERE, at, f"clients try {' and '.join(well_known)}")
    elif not mismatch:
        position = well_known.index(at) + 1
        yield found(codes.METADATA_FOUND, at, f"clients try {len(well_known)} URLs; this is number {position}")
    if at in well_known and at != well_known[0]:
        yield found(codes.NO_RFC8414_URL, well_known[0], f"{search.tried[0].answer.status or 'no response'}")


def _failures(search: MetadataSearch) -> Iterator[Finding]:
    reported: set[str] = set()
    for fetched in search.tried:
        failure = fetched.answer.failure
        if failure in reported:  # one failure of a server that was not asked again
            continue
        if failure is not None:
            reported.add(failure)
        if fetched.document is not None or not is_absent(fetched.answer):
            yield from fetched.findings


async def _check_type(web: Web, config: AuthServerConfig, search: MetadataSearch) -> AsyncIterator[Finding]:
    """Check the URL of the configuration's `type`: clients try every well-known URL, the middleware only this one."""
    url = parse_url(config.issuer or "")
    discovered = not (config.metadata_url or config.jwks_uri or config.jwks or config.metadata)
    if config.type is None or url is None or not discovered or search.fetched is None:
        return
    (selected,) = discovery_urls(url, config.type)
    fetched = await fetch_document(web, selected, SERVER_METADATA)
    if fetched.document is None:
        evidence = f"{fetched.answer.status or 'no response'} at {selected}, found at {search.fetched.answer.url}"
        yield found(codes.NOT_AT_TYPE, selected, evidence)


async def _browsers(
    web: Web, metadata: AuthorizationServerMetadata, fetched: FetchedDocument
) -> AsyncIterator[Finding]:
    """Check that clients in a browser can read the metadata, register, and get tokens."""
    for finding in await check_metadata_cors(web, fetched.answer):
        yield finding
    for what, url in (("token endpoint", metadata.token_endpoint), ("registration", metadata.registration_endpoint)):
        if url is None or metadata.authorization_endpoint is None or insecure_url(url, allow_http=False) is not None:
            continue
        answer = await _preflight(web, url, "POST", "content-type")
        for finding in preflight(answer, what, "content-type"):
            yield finding


async def check_metadata_cors(web: Web, answer: Answer) -> list[Finding]:
    """Return why clients in a browser cannot read metadata: the response, or else the preflight."""
    rejected = list(cors(answer, "metadata"))
    if rejected:
        return rejected
    return list(preflight(await _preflight(web, answer.url, "GET", DISCOVERY_HEADER), "metadata", DISCOVERY_HEADER))


async def _preflight(web: Web, url: str, method: str, header: str) -> Answer:
    """Send the preflight that a browser sends for a web page of another origin before a request with `header`."""
    fields = {"access-control-request-method": method, "access-control-request-headers": header}
    return await web.ask(url, "OPTIONS", {"origin": BROWSER, **fields})


async def _keys(
    web: Web, config: AuthServerConfig, metadata: AuthorizationServerMetadata | None, issuer: str
) -> AsyncIterator[Finding]:
    """Check the key set: the configured `jwks`, or the document at `jwks_uri`."""
    if config.jwks is not None:
        for finding in check_keys(config.jwks, f"the configured jwks of {cut(issuer)}"):
            yield finding
        return
    url = config.jwks_uri or (None if metadata is None else metadata.jwks_uri)
    if url is None:
        if metadata is not None:
            yield found(key_codes.NO_JWKS_URI, issuer)
        return
    fetched = await fetch_document(web, url, KEY_SET)
    for finding in fetched.findings:
        yield finding
    if fetched.document is None:
        return
    for finding in (*check_keys(fetched.document, url), *check_lifetime(lifetime(fetched.answer), url)):
        yield finding
    for finding in cors(fetched.answer, "key set"):  # only clients that verify ID tokens need the key set
        yield found(finding.code, url, finding.evidence, severity=Severity.INFO)
