"""Judging an answer that should be a JSON document, and what browsers are told about it.

Pure: an `Answer` in; the document, if it is one, and findings out (RFC 8414 section 3.2, RFC 9728 section 3.2, Fetch).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from asgi_mcp_auth._oauth.http_cache import stated_lifetime
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth.doctor import issuer_codes as codes
from asgi_mcp_auth.doctor.findings import Finding, cut, found
from asgi_mcp_auth.doctor.web import BROWSER, Answer

__all__ = ("DISCOVERY_HEADER", "Read", "cors", "is_absent", "lifetime", "preflight", "read_document")

OK = 200
REDIRECTS = range(300, 400)
CLIENT_ERRORS = range(400, 500)
SUCCESS = range(200, 300)
DISCOVERY_HEADER = "mcp-protocol-version"
"""What clients add to requests for metadata; in a browser it takes a preflight."""


class Read(NamedTuple):
    """A document, or None, and what was found about the answer."""

    answer: Answer
    document: dict[str, Any] | None
    findings: tuple[Finding, ...]


def is_absent(answer: Answer) -> bool:
    """Whether the answer says that there is nothing here; clients go on to the next place then."""
    return answer.status in CLIENT_ERRORS


def read_document(answer: Answer) -> Read:
    """Read a JSON object, or say why there is none."""
    document, why = _parse(answer)
    findings = [why] if why is not None else []
    if answer.failure is None and insecure_url(answer.url, allow_http=False) is not None:
        findings.append(found(codes.NOT_HTTPS, answer.url, "plain http"))
    if document is not None:
        kind = (answer.field("content-type") or "none").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            findings.append(found(codes.CONTENT_TYPE, answer.url, f"Content-Type: {kind}"))
    return Read(answer, document, tuple(findings))


def _parse(answer: Answer) -> tuple[dict[str, Any] | None, Finding | None]:
    url, body = answer.url, answer.body
    if answer.withheld:
        return None, found(codes.NOT_ASKED, url, answer.failure)
    if answer.failure is not None:
        return None, found(codes.UNREACHABLE, url, answer.failure)
    if answer.status in REDIRECTS:
        return None, found(codes.REDIRECTED, url, f"{answer.status} to {answer.field('location')}")
    if answer.status != OK:
        return None, found(codes.ERROR_STATUS, url, f"status {answer.status}")
    if body is None:
        coding = answer.field("content-encoding")
        return None, found(codes.TOO_LARGE if coding is None else codes.NOT_JSON, url, f"content coding {coding}")
    if body.lstrip()[:1] == b"<" or "html" in (answer.field("content-type") or "").lower():
        return None, found(codes.HTML, url, f"200 {answer.field('content-type')}")
    try:
        return load_object(body), None
    except JSONRefused as error:
        return None, found(codes.NOT_JSON, url, f"{error}; {len(body)} bytes")


def lifetime(answer: Answer) -> float | None:
    """The seconds that the answer says it is fresh, or None."""
    named = (answer.field(name) for name in ("cache-control", "age", "expires", "date"))
    return stated_lifetime(*named)


def _allows_browsers(answer: Answer) -> bool:
    return answer.field("access-control-allow-origin") in ("*", BROWSER)


def cors(answer: Answer, what: str) -> Iterator[Finding]:
    """Whether a page of any origin may read this answer to a request with an `Origin`."""
    if not _allows_browsers(answer):
        allowed = answer.field("access-control-allow-origin")
        yield found(codes.NO_CORS, answer.url, f"{what}: Access-Control-Allow-Origin: {cut(allowed or 'none')}")


def preflight(answer: Answer, what: str, header: str) -> Iterator[Finding]:
    """Whether the answer to a preflight lets a page of any origin make the request, with `header`."""
    if answer.failure is not None or answer.status not in SUCCESS or not _allows_browsers(answer):
        evidence = f"{what}: the preflight got {answer.failure or answer.status}"
        yield found(codes.NO_CORS, answer.url, f"{evidence}, origin {answer.field('access-control-allow-origin')}")
        return
    allowed = {name.strip().lower() for name in (answer.field("access-control-allow-headers") or "").split(",")}
    if not {"*", header} & allowed:
        told = answer.field("access-control-allow-headers")
        yield found(codes.NO_CORS, answer.url, f"{what}: {header} is not among Access-Control-Allow-Headers: {told}")
