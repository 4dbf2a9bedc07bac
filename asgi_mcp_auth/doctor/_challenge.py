"""Check the challenges of a 401, as strict parsers and as official clients read them.

Pure: an `Answer` in, findings out (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC 9728 section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges
from asgi_mcp_auth._oauth.grammar import NQCHAR, NQSCHAR, QUOTED_STRING
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import PROTECTED_RESOURCE, insert_well_known, parse_url
from asgi_mcp_auth._policy.problems import as_strings
from asgi_mcp_auth.doctor import _challenge_codes as codes
from asgi_mcp_auth.doctor._findings import Finding, Severity, found
from asgi_mcp_auth.doctor._web import Answer
from asgi_mcp_auth.errors import printable

__all__ = ("bearer_challenge", "check_challenge", "check_dpop", "dpop_challenge", "metadata_parameter")

_QUOTED = re.compile(QUOTED_STRING)
_NAMED = re.compile(r"[A-Za-z_][\w*-]*\s*=")
_UNQUOTED = re.compile(r'([A-Za-z_][\w*-]*)\s*=\s*(?!")')
_SCOPE = re.compile(f"[{NQCHAR}]+(?: [{NQCHAR}]+)*")  # RFC 6750 section 3
_TEXT = re.compile(f"[{NQSCHAR}]*")
READ_BY_CLIENTS = ("error", "scope", "resource_metadata")
MAX_LENGTH = 4096  # the regular expressions of this module are slow on longer fields


def _challenge_of(answer: Answer, scheme: str) -> Challenge | None:
    challenges = parse_challenges((answer.field("www-authenticate") or "")[:MAX_LENGTH])
    return next((challenge for challenge in challenges if challenge.scheme.lower() == scheme), None)


def bearer_challenge(answer: Answer) -> Challenge | None:
    """Return the first Bearer challenge, the one that clients read, or None."""
    return _challenge_of(answer, "bearer")


def dpop_challenge(answer: Answer) -> Challenge | None:
    """Return the first DPoP challenge, or None."""
    return _challenge_of(answer, "dpop")


def metadata_parameter(answer: Answer) -> str | None:
    """Return `resource_metadata` of the first Bearer challenge, else of the first DPoP challenge, or None."""
    challenge = bearer_challenge(answer) or dpop_challenge(answer)
    return None if challenge is None else challenge.params.get("resource_metadata")


def check_dpop(answer: Answer, document: Mapping[str, Any], resource: str) -> Iterator[Finding]:
    """Check that the challenges of a 401 and the metadata document say the same about DPoP."""
    challenge, is_bearer = dpop_challenge(answer), bearer_challenge(answer) is not None
    announced = as_strings(document.get("dpop_signing_alg_values_supported")) or []
    is_required = document.get("dpop_bound_access_tokens_required") is True
    offered = [] if challenge is None else challenge.params.get("algs", "").split()
    if sorted(announced) != sorted(offered) or (challenge is not None and is_required == is_bearer):
        challenges = f"{'Bearer and ' if is_bearer else ''}{'no DPoP' if challenge is None else 'DPoP'}"
        evidence = f"challenges: {challenges}, algs {offered}; metadata: algorithms {announced}, required {is_required}"
        yield found(codes.DPOP_INCONSISTENT, resource, evidence)


def check_challenge(
    answer: Answer, resource: str, *, token_sent: bool = False, well_known: bool = False
) -> Iterator[Finding]:
    """Check the challenges of a 401 for `resource`.

    Args:
        answer: The response to a request without a token, or with an invalid one.
        resource: The URL that was requested.
        token_sent: Whether the request had a token.
        well_known: Whether a well-known URL has the resource's metadata, so that `resource_metadata` is optional.
    """
    value = answer.field("www-authenticate")
    if value is None:
        yield found(codes.NO_CHALLENGE, resource)
        return
    lines, bearer = answer.lines("www-authenticate"), bearer_challenge(answer)
    if len(value) > MAX_LENGTH or any('"' in _QUOTED.sub("", line) for line in lines) or not parse_challenges(value):
        yield found(codes.UNREADABLE, resource, value)
        return
    if bearer is None and (bearer := dpop_challenge(answer)) is not None:
        yield found(codes.DPOP_ONLY, resource, value)
    elif bearer is None:
        yield found(codes.NO_BEARER, resource, value)
        return
    elif not value.lstrip().lower().startswith("bearer"):
        yield found(codes.BEARER_LATE, resource, value)
    if not bearer.params:
        yield found(codes.BARE_CHALLENGE, resource, value)
        return
    if not token_sent and "error" in bearer.params:
        yield found(codes.ERROR_WITHOUT_TOKEN, resource, f"error={bearer.params['error']}")
    if not token_sent:
        yield from _metadata(bearer, resource, well_known=well_known)
    yield from _scope(bearer, resource)
    yield from _syntax(bearer, value, resource)
    yield from _as_clients_read(bearer, value, resource)
    if "no-store" not in (answer.field("cache-control") or "").lower():
        yield found(codes.STORED, resource, f"Cache-Control: {answer.field('cache-control')}")


def _metadata(bearer: Challenge, resource: str, *, well_known: bool) -> Iterator[Finding]:
    """Check `resource_metadata`; without the parameter, clients need the metadata at a well-known URL (MCP)."""
    given, url = bearer.params.get("resource_metadata"), parse_url(resource)
    if given is None:
        severity = Severity.WARNING if well_known else Severity.ERROR
        has = "a well-known URL has the metadata" if well_known else "no well-known URL has the metadata"
        evidence = f"parameters: {', '.join(bearer.params)}; {has}"
        yield found(codes.NO_METADATA_PARAMETER, resource, evidence, severity=severity)
        return
    expected = "" if url is None else insert_well_known(url, PROTECTED_RESOURCE)
    setting = f'Set resource="{printable(resource, 200)}", the URL that clients use.'
    if (why := insecure_url(given, allow_http=False)) is not None:
        evidence = f"{given} {why}"
        yield found(codes.METADATA_PARAMETER, resource, evidence, setting=setting, severity=Severity.ERROR)
    elif given != expected:
        yield found(codes.METADATA_PARAMETER, resource, f"{given}, not {expected}", setting=setting)


def _scope(bearer: Challenge, resource: str) -> Iterator[Finding]:
    scope = bearer.params.get("scope")
    if scope is None:
        yield found(codes.NO_SCOPE, resource)
    elif not scope:
        yield found(codes.EMPTY_SCOPE, resource)
    elif "offline_access" in scope.split():
        yield found(codes.OFFLINE_ACCESS, resource, f"scope={scope}")


def _syntax(bearer: Challenge, value: str, resource: str) -> Iterator[Finding]:
    """Check quoting, repetition and characters of the parameters."""
    bare = _QUOTED.sub('""', value)
    unquoted = [name for name in _UNQUOTED.findall(bare) if name.lower() in bearer.params]
    if unquoted:
        yield found(codes.UNQUOTED, resource, ", ".join(unquoted))
    known = sum(len(challenge.params) for challenge in parse_challenges(value))
    if len(_NAMED.findall(bare)) > known:
        yield found(codes.REPEATED, resource, value)
    for name, grammar in (("scope", _SCOPE), ("error", _TEXT), ("error_description", _TEXT)):
        text = bearer.params.get(name) or ""
        if text and grammar.fullmatch(text) is None:
            yield found(codes.CHARACTERS, resource, f"{name}={text}")


def _as_clients_read(bearer: Challenge, value: str, resource: str) -> Iterator[Finding]:
    """Check that official clients read the same values.

    They search the joined field lines with this expression, without an anchor.
    """
    for name in READ_BY_CLIENTS:
        match = re.search(rf'{name}=(?:"([^"]+)"|([^\s,]+))', value)
        read = None if match is None else match.group(1) or match.group(2)
        if read != (bearer.params.get(name) or None) and bearer.params.get(name) != "":
            yield found(codes.MISREAD, resource, f"{name} is {bearer.params.get(name)}, clients read {read}")
    if "=" in bearer.params.get("error_description", ""):
        yield found(codes.EQUALS, resource, bearer.params["error_description"])
