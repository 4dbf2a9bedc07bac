"""Examining an authorization server: its metadata, in the order in which clients look for it, endpoints and keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.doctor import issuer_codes as codes
from asgi_mcp_auth.doctor import key_codes
from asgi_mcp_auth.doctor.documents import (
    DISCOVERY_HEADER,
    Read,
    cors,
    is_absent,
    lifetime,
    preflight,
    read_document,
)
from asgi_mcp_auth.doctor.findings import Finding, Severity, cut, found
from asgi_mcp_auth.doctor.keys import check_keys, check_lifetime
from asgi_mcp_auth.doctor.resource_codes import SERVER_INVALID
from asgi_mcp_auth.doctor.server import check_provider, check_server, read_metadata, same_issuer
from asgi_mcp_auth.doctor.web import BROWSER, Answer, Web

__all__ = ("Looked", "ask_preflight", "check_issuer", "check_template", "fetch_document", "find_metadata")

FORBIDDEN = 403


async def fetch_document(web: Web, url: str) -> Read:
    """A document as a page in a browser asks for it; without an `Origin`, where that alone is refused."""
    read = read_document(await web.ask(url))
    if read.answer.status == FORBIDDEN:
        plain = read_document(await web.ask(url, headers={}))
        if plain.document is not None:
            return plain
    return read


class Looked(NamedTuple):
    """Where an issuer's metadata was looked for: the last place is the one that has it, if `read` does."""

    read: Read | None
    tried: tuple[Read, ...]


async def find_metadata(web: Web, issuer: str, metadata_url: str | None = None) -> Looked:
    """Look in MCP's order (authorization server discovery); a document of another issuer ends the search as well."""
    url = parse_url(issuer)
    places = (metadata_url,) if metadata_url is not None else () if url is None else discovery_urls(url, None)
    tried: list[Read] = []
    for place in places:
        tried.append(await fetch_document(web, place))
        if tried[-1].document is not None:
            return Looked(tried[-1], tuple(tried))
    return Looked(None, tuple(tried))


async def check_issuer(web: Web, config: AuthServerConfig, resources: Iterable[str] = ()) -> AsyncIterator[Finding]:
    """Everything about one authorization server.

    Args:
        web: Asks.
        config: Names the issuer, and where its metadata and its keys are, if it says so.
        resources: The protected resources that trust it.
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
    looked = await find_metadata(web, issuer, config.metadata_url)
    for finding in _places(looked, issuer, config):
        yield finding
    async for finding in _type_place(web, config, looked):
        yield finding
    metadata = config.metadata
    if looked.read is not None and looked.read.document is not None:
        subject = looked.read.answer.url
        read = read_metadata(looked.read.document, subject)
        if isinstance(read, Finding):
            yield read
        else:
            metadata = read
            for finding in check_server(metadata, subject, resources):
                yield finding
            async for finding in _browsers(web, metadata, looked.read):
                yield finding
    async for finding in _keys(web, config, metadata, issuer):
        yield finding


async def check_template(web: Web, config: AuthServerConfig, template: str) -> AsyncIterator[Finding]:
    """The document and the key set that all tenants of a template share; clients see the tenants' own issuers."""
    metadata = config.metadata
    if config.metadata_url is not None:
        read = await fetch_document(web, config.metadata_url)
        for finding in read.findings:
            yield finding
        if read.document is None:
            return
        for finding in same_issuer(read.document, template, config.metadata_url):
            yield finding
        accepted = read_metadata(read.document, config.metadata_url)
        if isinstance(accepted, Finding):
            yield accepted
        else:
            metadata = accepted
    async for finding in _keys(web, config, metadata, template):
        yield finding


def _places(looked: Looked, issuer: str, config: AuthServerConfig) -> Iterator[Finding]:
    """What was found at each place, up to the one that has the document."""
    failures: set[str] = set()
    for read in looked.tried:
        failure = read.answer.failure
        if failure in failures:  # of a server that has not been asked again
            continue
        if failure is not None:
            failures.add(failure)
        if read.document is not None or not is_absent(read.answer):
            yield from read.findings
    if looked.read is None:
        if any(is_absent(read.answer) for read in looked.tried):
            told = ", ".join(f"{read.answer.status or 'nothing'} at {read.answer.url}" for read in looked.tried)
            given = config.metadata is not None or config.jwks is not None or config.jwks_uri is not None
            yield found(codes.METADATA_NOT_FOUND, issuer, told, severity=Severity.WARNING if given else None)
        return
    place, document = looked.read.answer.url, looked.read.document or {}
    mismatch = list(same_issuer(document, issuer, place))
    yield from mismatch
    url = parse_url(issuer)
    usual = () if url is None else discovery_urls(url, None)
    if place not in usual:
        yield found(codes.ELSEWHERE, place, f"clients look at {' and '.join(usual)}")
    elif not mismatch:
        yield found(codes.METADATA_FOUND, place, f"place {usual.index(place) + 1} of {len(usual)}")
    if usual and place in usual[1:]:
        yield found(codes.OAUTH_PLACE, usual[0], f"{looked.tried[0].answer.status or 'nothing'}")


async def _type_place(web: Web, config: AuthServerConfig, looked: Looked) -> AsyncIterator[Finding]:
    """Clients try every place, the middleware only that of `type`, if there is one."""
    url = parse_url(config.issuer or "")
    discovered = not (config.metadata_url or config.jwks_uri or config.jwks or config.metadata)
    if config.type is None or url is None or not discovered or looked.read is None:
        return
    (place,) = discovery_urls(url, config.type)
    read = await fetch_document(web, place)
    if read.document is None:
        told = f"{read.answer.status or 'nothing'} at {place}, found at {looked.read.answer.url}"
        yield found(codes.TYPE_PLACE, place, told)


async def _browsers(web: Web, metadata: AuthorizationServerMetadata, read: Read) -> AsyncIterator[Finding]:
    """Whether clients that are web pages can read the metadata, register, and get tokens."""
    refused = list(cors(read.answer, "metadata"))
    if not refused:
        refused = list(
            preflight(await ask_preflight(web, read.answer.url, "GET", DISCOVERY_HEADER), "metadata", DISCOVERY_HEADER)
        )
    for finding in refused:
        yield finding
    for what, url in (("token endpoint", metadata.token_endpoint), ("registration", metadata.registration_endpoint)):
        if url is None or metadata.authorization_endpoint is None or insecure_url(url, allow_http=False) is not None:
            continue
        answer = await ask_preflight(web, url, "POST", "content-type")
        for finding in preflight(answer, what, "content-type"):
            yield finding


async def ask_preflight(web: Web, url: str, method: str, header: str) -> Answer:
    """A preflight, as the browser of a foreign page sends it before a request with `header`."""
    fields = {"access-control-request-method": method, "access-control-request-headers": header}
    return await web.ask(url, "OPTIONS", {"origin": BROWSER, **fields})


async def _keys(
    web: Web, config: AuthServerConfig, metadata: AuthorizationServerMetadata | None, issuer: str
) -> AsyncIterator[Finding]:
    """The key set: the one that is written down, or the one at its URL."""
    if config.jwks is not None:
        for finding in check_keys(config.jwks, f"the jwks written down for {cut(issuer)}"):
            yield finding
        return
    url = config.jwks_uri or (None if metadata is None else metadata.jwks_uri)
    if url is None:
        if metadata is not None:
            yield found(key_codes.NO_JWKS_URI, issuer)
        return
    read = await fetch_document(web, url)
    for finding in read.findings:
        yield finding
    if read.document is None:
        return
    for finding in (*check_keys(read.document, url), *check_lifetime(lifetime(read.answer), url)):
        yield finding
    for finding in cors(read.answer, "key set"):  # clients verify ID tokens with it, if anything
        yield found(finding.code, url, finding.evidence, severity=Severity.INFO)
