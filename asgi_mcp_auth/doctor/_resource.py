"""Check a live protected resource: its answers without a token, to an invalid token and to web pages, and its metadata.

Then the authorization servers that the metadata names. Requests are separate from the checks of responses, which are
pure.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth._policy.problems import as_strings
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import _issuer_codes as issuer_codes
from asgi_mcp_auth.doctor import _resource_codes as codes
from asgi_mcp_auth.doctor._challenge import (
    bearer_challenge,
    check_challenge,
    check_dpop,
    dpop_challenge,
    metadata_parameter,
)
from asgi_mcp_auth.doctor._challenge_codes import NO_CHALLENGE
from asgi_mcp_auth.doctor._documents import SUCCESS
from asgi_mcp_auth.doctor._findings import Finding, Severity, found
from asgi_mcp_auth.doctor._issuer import check_issuer
from asgi_mcp_auth.doctor._resource_metadata import MAX_SERVERS, check_resource_metadata
from asgi_mcp_auth.doctor._web import BROWSER, Answer, Web
from asgi_mcp_auth.errors import Misdirected, NoCredential, NotFound, printable

__all__ = (
    "check_app",
    "check_foreign_origin",
    "check_invalid_token",
    "check_resource",
    "check_unauthenticated",
    "send_initialize",
    "uses_this_library",
    "wrong_url_fix",
)

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, MISDIRECTED, UNAVAILABLE = 401, 403, 404, 421, 503
REDIRECTS = range(300, 400)
INVALID_TOKEN = "made-up-by-the-doctor"
REBINDING = "rebinding.invalid"
OTHER_METHODS = ("GET", "DELETE")
OWN_REFUSALS: Final = {refusal.status: refusal.default_description for refusal in (NoCredential, NotFound, Misdirected)}
"""The refusals of this library that have a body no other library has, by status."""

INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "asgi-mcp-auth doctor", "version": "1"},
        },
    }
).encode()
FIELDS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


async def send_initialize(web: Web, url: str, **fields: str) -> Answer:
    """Send the first request of every client, without a token; `fields` are header fields, with `_` for `-`."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return await web.ask(url, "POST", FIELDS | more, INITIALIZE)


def uses_this_library(answer: Answer) -> bool:
    """Return whether the response to a request without a token comes from asgi_mcp_auth."""
    detail = _json_object(answer).get("detail")
    return detail is not None and detail == OWN_REFUSALS.get(answer.status)


def _json_object(answer: Answer) -> dict[str, Any]:
    try:
        return load_object(answer.body or b"")
    except JSONRefused:
        return {}


def wrong_url_fix(url: str, status: int) -> str:
    """Return how to configure this library for a URL that the server does not know."""
    text = f'Set resource="{printable(url, 200)}", the URL that clients use'
    return f"{text}, or add the host to allowed_hosts=." if status == MISDIRECTED else f"{text}."


async def check_resource(
    web: Web, url: str, *, follow: bool = True, token: str | None = None
) -> AsyncIterator[Finding]:
    """Check one live resource.

    Args:
        web: The HTTP client.
        url: The URL that clients use.
        follow: Whether to check the authorization servers that the metadata names.
        token: A valid access token, to check the app behind the middleware.
    """
    first = await send_initialize(web, url)
    own = uses_this_library(first)
    async for finding in _check_resource(web, url, first, follow=follow, token=token):
        yield finding.with_setting() if own else finding


async def _check_resource(
    web: Web, url: str, first: Answer, *, follow: bool, token: str | None
) -> AsyncIterator[Finding]:
    if first.failure is not None:
        yield found(issuer_codes.NOT_ASKED if first.withheld else issuer_codes.UNREACHABLE, url, first.failure)
        return
    parsed = parse_url(url)
    secure = parsed is not None and (parsed.scheme == "https" or is_loopback(parsed.host))
    if not secure:
        yield found(issuer_codes.NOT_HTTPS, url)
    metadata = await check_resource_metadata(web, url, metadata_parameter(first))
    for finding in check_unauthenticated(first, url, well_known=metadata.well_known):
        yield finding
    invalid = await send_initialize(web, url, authorization=f"Bearer {INVALID_TOKEN}")
    for finding in check_invalid_token(invalid, url):
        yield finding
    for finding in check_dpop(first, metadata.document or {}, url) if first.status == UNAUTHORIZED else ():
        yield finding
    if first.status == UNAUTHORIZED:  # elsewhere a DELETE might delete something, and no token is needed
        async for finding in _check_protected(web, url, token if secure else None):
            yield finding
    for finding in metadata.findings:
        yield finding
    bearer = bearer_challenge(first)
    scopes = (*metadata.scopes, *("" if bearer is None else bearer.params.get("scope", "")).split())
    document = metadata.document or {}
    algorithms = as_strings(document.get("dpop_signing_alg_values_supported"))
    certified = (url,) if document.get("tls_client_certificate_bound_access_tokens") is True else ()
    proofs = {url: algorithms} if algorithms else {}
    for issuer in metadata.servers[:MAX_SERVERS] if follow else ():
        async for finding in check_issuer(web, AuthServerConfig(issuer=issuer), {url: scopes}, proofs, certified):
            yield finding


def check_unauthenticated(answer: Answer, url: str, *, well_known: bool = False) -> Iterator[Finding]:
    """Check the response to a request without a token: 401 with a challenge.

    Args:
        answer: The response.
        url: The URL that clients use.
        well_known: Whether a well-known URL has the resource's metadata, so that `resource_metadata` is optional.
    """
    if answer.status == UNAUTHORIZED:
        wrong = list(check_challenge(answer, url, well_known=well_known))
        if not any(finding.severity is Severity.ERROR for finding in wrong):
            yield found(codes.PROTECTED, url, answer.field("www-authenticate"))
        yield from wrong
    elif answer.status in SUCCESS:
        yield found(codes.NOT_PROTECTED, url, f"POST initialize got {answer.status}")
    elif answer.status in REDIRECTS:
        yield found(codes.LOGIN_REDIRECT, url, f"{answer.status} to {answer.field('location')}")
    else:
        evidence = f"POST initialize got {answer.status}"
        setting = wrong_url_fix(url, answer.status) if answer.status in (NOT_FOUND, MISDIRECTED) else ""
        yield found(codes.WRONG_STATUS, url, evidence, setting=setting)


def check_invalid_token(answer: Answer, url: str) -> Iterator[Finding]:
    """Check the response to an invalid token: 401 `invalid_token`, so that clients get a new token."""
    evidence = answer.failure or f"status {answer.status}"
    if answer.status in SUCCESS:
        yield found(codes.BAD_TOKEN_ACCEPTED, url, evidence)
    elif answer.status == UNAVAILABLE:  # the keys are unavailable, which is a finding at the issuer
        yield found(codes.BAD_TOKEN_STATUS, url, evidence, severity=Severity.WARNING)
    elif answer.status != UNAUTHORIZED:
        yield found(codes.BAD_TOKEN_STATUS, url, evidence)
    else:
        wrong = list(check_challenge(answer, url, token_sent=True))
        bearer = bearer_challenge(answer)
        is_no_scheme = bearer is None and dpop_challenge(answer) is not None
        if is_no_scheme or (bearer is not None and bearer.params.get("error") == "invalid_token"):
            yield found(codes.BAD_TOKEN_REFUSED, url)
        elif not any(finding.code is NO_CHALLENGE for finding in wrong):
            yield found(codes.BAD_TOKEN_ERROR, url, answer.field("www-authenticate"))
        yield from wrong


def check_app(answer: Answer, url: str, token: str) -> Iterator[Finding]:
    """Check the response to a valid token, which comes from the app behind the middleware.

    Args:
        answer: The response.
        url: The URL that clients use.
        token: The token, which no finding repeats.
    """
    location = answer.field("location")
    evidence = answer.failure or f"status {answer.status}" + ("" if location is None else f" to {location}")
    evidence = evidence.replace(token, "[token]")
    if answer.failure is not None:
        yield found(issuer_codes.UNREACHABLE, url, evidence)
    elif answer.status in (UNAUTHORIZED, FORBIDDEN):
        yield found(codes.TOKEN_REJECTED, url, evidence)
    elif answer.status in SUCCESS or "jsonrpc" in _json_object(answer):
        yield found(codes.APP_REACHED, url, evidence)
    elif answer.status in REDIRECTS and location is not None and _differs_by_slash(url, location):
        other = printable(f"{url.rstrip('/')}{'' if url.endswith('/') else '/'}", 200)
        setting = f'Mount the app at the exact path of the resource, or set resource="{other}", which the app serves.'
        yield found(codes.APP_REDIRECTS, url, evidence, setting=setting)
    elif answer.status == NOT_FOUND:
        yield found(codes.APP_NOT_FOUND, url, evidence)
    else:
        yield found(codes.APP_WRONG_STATUS, url, evidence)


def _differs_by_slash(url: str, location: str) -> bool:
    """Return whether a redirect leads to the same path with or without the slash at its end.

    The scheme is ignored: behind a TLS proxy many servers redirect to http.
    """
    try:
        source, target = urlsplit(url), urlsplit(urljoin(url, location))
    except ValueError:
        return False
    same_host = source.netloc == target.netloc
    return same_host and source.path != target.path and source.path.rstrip("/") == target.path.rstrip("/")


async def _check_protected(web: Web, url: str, token: str | None) -> AsyncIterator[Finding]:
    """Check other methods, web pages and, with a token, the app of a resource that requires a token."""
    async for finding in _other_methods(web, url):
        yield finding
    async for finding in _web_pages(web, url):
        yield finding
    if token is not None:
        answer = await send_initialize(web, url, authorization=f"Bearer {token}")
        for finding in check_app(answer, url, token):
            yield finding


async def _other_methods(web: Web, url: str) -> AsyncIterator[Finding]:
    """Check that GET (opens a stream) and DELETE (ends a session) of MCP up to 2025-11-25 require a token."""
    for method in OTHER_METHODS:
        answer = await web.ask(url, method, {"accept": "text/event-stream"})
        if answer.status in SUCCESS:
            yield found(codes.METHOD_OPEN, url, f"{method} got {answer.status}")


async def _web_pages(web: Web, url: str) -> AsyncIterator[Finding]:
    """Check requests of web pages: of the resource's own origin, of an unknown origin, and after DNS rebinding."""
    parsed = parse_url(url)
    if parsed is None:
        return
    own = {"origin": parsed.origin}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = await web.ask(url, "OPTIONS", own | asked)
    if preflight.status not in SUCCESS:
        yield found(codes.PREFLIGHT, url, preflight.failure or f"status {preflight.status}")
    same = await send_initialize(web, url, **own)
    exposed = {name.strip().lower() for name in (same.field("access-control-expose-headers") or "").split(",")}
    if same.field("access-control-allow-origin") is not None and not {"*", "www-authenticate"} & exposed:
        yield found(codes.NOT_EXPOSED, url, f"Access-Control-Expose-Headers: {', '.join(sorted(exposed))}")
    for finding in check_foreign_origin(await send_initialize(web, url, origin=BROWSER), url):
        yield finding
    if is_loopback(parsed.host):
        rebound = await send_initialize(web, url, host=REBINDING)
        if rebound.failure is None and rebound.status == UNAUTHORIZED:
            yield found(codes.HOST_OPEN, url, f"Host: {REBINDING} got {rebound.status}")


def check_foreign_origin(answer: Answer, url: str) -> Iterator[Finding]:
    """Check the response to a web page of an unknown origin."""
    echoed = answer.field("access-control-allow-origin") == BROWSER
    if echoed and (answer.field("access-control-allow-credentials") or "").lower() == "true":
        yield found(codes.ORIGIN_OPEN, url, f"Access-Control-Allow-Origin: {BROWSER}, with credentials")
    elif answer.failure is None and answer.status != FORBIDDEN:
        yield found(codes.ORIGIN_LATE, url, f"Origin: {BROWSER} got {answer.status}")
