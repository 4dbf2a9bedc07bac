"""Examining a live protected resource: its answers without a token, to a made-up one, to browsers; its metadata.

Then the authorization servers that the metadata names. Judging an answer is pure, and apart from asking.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.doctor import issuer_codes
from asgi_mcp_auth.doctor import resource_codes as codes
from asgi_mcp_auth.doctor.challenge import bearer_challenge, check_challenge, metadata_parameter
from asgi_mcp_auth.doctor.documents import SUCCESS
from asgi_mcp_auth.doctor.findings import Finding, Severity, found
from asgi_mcp_auth.doctor.issuer import check_issuer
from asgi_mcp_auth.doctor.resource_metadata import MAX_SERVERS, check_resource_metadata
from asgi_mcp_auth.doctor.web import BROWSER, Answer, Web

__all__ = ("ask_without_token", "check_resource", "judge_first", "judge_foreign", "judge_made_up")

UNAUTHORIZED, FORBIDDEN, UNAVAILABLE = 401, 403, 503
REDIRECTS = range(300, 400)
MADE_UP = "made-up-by-the-doctor"
REBINDING = "rebinding.invalid"
OTHER_METHODS = ("GET", "DELETE")

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


async def ask_without_token(web: Web, url: str, **more: str) -> Answer:
    """The request every client begins with; `more` are header fields, `_` for `-`."""
    return await web.ask(
        url, "POST", FIELDS | {name.replace("_", "-"): value for name, value in more.items()}, INITIALIZE
    )


async def check_resource(web: Web, url: str, *, follow: bool = True) -> AsyncIterator[Finding]:
    """Everything about one live resource.

    Args:
        web: Asks.
        url: As clients are given it.
        follow: Whether to examine the authorization servers that it names.
    """
    first = await ask_without_token(web, url)
    if first.failure is not None:
        yield found(issuer_codes.NOT_ASKED if first.withheld else issuer_codes.UNREACHABLE, url, first.failure)
        return
    parsed = parse_url(url)
    if parsed is None or (parsed.scheme != "https" and not is_loopback(parsed.host)):
        yield found(issuer_codes.NOT_HTTPS, url)
    for finding in judge_first(first, url):
        yield finding
    async for finding in _made_up_token(web, url):
        yield finding
    async for finding in _other_methods(web, url, first):
        yield finding
    async for finding in _callers(web, url, first):
        yield finding
    examined = await check_resource_metadata(web, url, metadata_parameter(first))
    for finding in examined.findings:
        yield finding
    for issuer in examined.servers[:MAX_SERVERS] if follow else ():
        async for finding in check_issuer(web, AuthServerConfig(issuer=issuer), [url]):
            yield finding


def judge_first(answer: Answer, url: str) -> Iterator[Finding]:
    """The answer to a request without a token: 401 with a challenge, and nothing else."""
    if answer.status == UNAUTHORIZED:
        wrong = list(check_challenge(answer, url))
        if not any(finding.severity is Severity.ERROR for finding in wrong):
            yield found(codes.PROTECTED, url, answer.field("www-authenticate"))
        yield from wrong
    elif answer.status in SUCCESS:
        yield found(codes.NOT_PROTECTED, url, f"POST initialize got {answer.status}")
    elif answer.status in REDIRECTS:
        yield found(codes.LOGIN_REDIRECT, url, f"{answer.status} to {answer.field('location')}")
    else:
        yield found(codes.WRONG_STATUS, url, f"POST initialize got {answer.status}")


async def _made_up_token(web: Web, url: str) -> AsyncIterator[Finding]:
    answer = await ask_without_token(web, url, authorization=f"Bearer {MADE_UP}")
    for finding in judge_made_up(answer, url):
        yield finding


def judge_made_up(answer: Answer, url: str) -> Iterator[Finding]:
    """The answer to a made-up token: 401 `invalid_token`, so that clients get a new one."""
    told = answer.failure or f"status {answer.status}"
    if answer.status in SUCCESS:
        yield found(codes.BAD_TOKEN_ACCEPTED, url, told)
    elif answer.status == UNAVAILABLE:  # keys cannot be had; that is the issuer's finding
        yield found(codes.BAD_TOKEN_STATUS, url, told, severity=Severity.WARNING)
    elif answer.status != UNAUTHORIZED:
        yield found(codes.BAD_TOKEN_STATUS, url, told)
    else:
        wrong = list(check_challenge(answer, url, token_sent=True))
        bearer = bearer_challenge(answer)
        if bearer is not None and bearer.params.get("error") == "invalid_token":
            yield found(codes.BAD_TOKEN_REFUSED, url)
        elif not any(finding.code is codes.NO_CHALLENGE for finding in wrong):
            yield found(codes.BAD_TOKEN_ERROR, url, answer.field("www-authenticate"))
        yield from wrong


async def _other_methods(web: Web, url: str, first: Answer) -> AsyncIterator[Finding]:
    """GET opens a stream and DELETE ends a session, for clients up to MCP 2025-11-25; neither without a token.

    Asked only of what is protected: elsewhere a DELETE might do what it says.
    """
    if first.status != UNAUTHORIZED:
        return
    for method in OTHER_METHODS:
        answer = await web.ask(url, method, {"accept": "text/event-stream"})
        if answer.status in SUCCESS:
            yield found(codes.METHOD_OPEN, url, f"{method} got {answer.status}")


async def _callers(web: Web, url: str, first: Answer) -> AsyncIterator[Finding]:
    """Web pages: of the resource's own origin, of a foreign one, and one that has rebound its name."""
    parsed = parse_url(url)
    if parsed is None or first.status != UNAUTHORIZED:
        return
    own = {"origin": parsed.origin}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = await web.ask(url, "OPTIONS", own | asked)
    if preflight.status not in SUCCESS:
        yield found(codes.PREFLIGHT, url, preflight.failure or f"status {preflight.status}")
    same = await ask_without_token(web, url, **own)
    exposed = {name.strip().lower() for name in (same.field("access-control-expose-headers") or "").split(",")}
    if same.field("access-control-allow-origin") is not None and not {"*", "www-authenticate"} & exposed:
        yield found(codes.NOT_EXPOSED, url, f"Access-Control-Expose-Headers: {', '.join(sorted(exposed))}")
    for finding in judge_foreign(await ask_without_token(web, url, origin=BROWSER), url):
        yield finding
    if is_loopback(parsed.host):
        rebound = await ask_without_token(web, url, host=REBINDING)
        if rebound.failure is None and rebound.status == UNAUTHORIZED:
            yield found(codes.HOST_OPEN, url, f"Host: {REBINDING} got {rebound.status}")


def judge_foreign(answer: Answer, url: str) -> Iterator[Finding]:
    """The answer to a page of an origin that nobody has heard of."""
    echoed = answer.field("access-control-allow-origin") == BROWSER
    if echoed and (answer.field("access-control-allow-credentials") or "").lower() == "true":
        yield found(codes.ORIGIN_OPEN, url, f"Access-Control-Allow-Origin: {BROWSER}, with credentials")
    elif answer.failure is None and answer.status != FORBIDDEN:
        yield found(codes.ORIGIN_LATE, url, f"Origin: {BROWSER} got {answer.status}")
