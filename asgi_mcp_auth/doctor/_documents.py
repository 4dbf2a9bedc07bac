"""Check a response that should be a JSON document, and whether clients in browsers can read the document.

Pure: an `Answer` in; the document and findings out (RFC 8414 section 3.2, RFC 9728 section 3.2, Fetch).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from asgi_mcp_auth._oauth.http_cache import stated_lifetime
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.strict_json import JSONRefused, is_valid, load_object, load_tolerant
from asgi_mcp_auth.doctor import _issuer_codes as codes
from asgi_mcp_auth.doctor._findings import Finding, cut, found
from asgi_mcp_auth.doctor._resource_codes import METADATA_NOT_FOUND
from asgi_mcp_auth.doctor._web import BROWSER, Answer

__all__ = (
    "DISCOVERY_HEADER",
    "KEY_SET",
    "RESOURCE_METADATA",
    "SERVER_METADATA",
    "DocumentType",
    "FetchedDocument",
    "cors",
    "is_absent",
    "lifetime",
    "preflight",
    "read_document",
)

OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, GONE, TOO_MANY_REQUESTS = 200, 401, 403, 404, 410, 429
REDIRECTS = range(300, 400)
CLIENT_ERRORS = range(400, 500)
SERVER_ERRORS = range(500, 600)
SUCCESS = range(200, 300)
DISCOVERY_HEADER = "mcp-protocol-version"
"""The header field that clients add to requests for metadata; browsers send a preflight for the field."""


class DocumentType(NamedTuple):
    """A kind of document that clients or servers fetch.

    Attributes:
        name: The name, for people.
        reference: The RFC section that requires a JSON object with status 200.
        missing: How to fix a URL that does not have the document.
        server_error: How to fix a status of 500 or more.
        setting: How to fix a missing document with settings of this library; empty if `missing` applies.
        needed: The members that decide which servers and keys are trusted, so must not be faulty; None for a key set.
    """

    name: str
    reference: str
    missing: str
    server_error: str
    setting: str = ""
    needed: frozenset[str] | None = None


SERVER_ERROR = "Fix the server's error, or answer 404 if there is no metadata at this URL."
SERVER_METADATA: Final = DocumentType(
    "authorization server metadata",
    "RFC 8414 3.2",
    "Serve the metadata at this URL, or fix the URL that names it (`metadata_url`).",
    SERVER_ERROR,
    needed=frozenset({"issuer", "jwks_uri"}),
)
RESOURCE_METADATA: Final = DocumentType(
    "protected resource metadata",
    "RFC 9728 3.2",
    "Serve the metadata at this URL, or fix `resource_metadata` in the challenge.",
    SERVER_ERROR,
    METADATA_NOT_FOUND.setting,
    frozenset({"resource", "authorization_servers"}),
)
KEY_SET: Final = DocumentType(
    "key set", "RFC 7517 5", "Serve the key set at this URL, or fix `jwks_uri`.", "Fix the server's error."
)


class FetchedDocument(NamedTuple):
    """A document, or None, and the findings about the response."""

    answer: Answer
    document: dict[str, Any] | None
    findings: tuple[Finding, ...]


def is_absent(answer: Answer) -> bool:
    """Return whether the response says that the URL has no document; clients try the next well-known URL then."""
    return answer.status in CLIENT_ERRORS


def read_document(answer: Answer, kind: DocumentType) -> FetchedDocument:
    """Return the JSON object in a response; without one, the findings say why."""
    document, problem = _parse(answer, kind)
    findings = [problem] if problem is not None else []
    if answer.failure is None and insecure_url(answer.url, allow_http=False) is not None:
        findings.append(found(codes.NOT_HTTPS, answer.url, "plain http"))
    if document is not None:
        media_type = (answer.field("content-type") or "none").partition(";")[0].strip().lower()
        is_json = media_type.startswith("application/") and media_type.endswith("+json")
        if media_type != "application/json" and not is_json:
            evidence = f"Content-Type: {media_type}"
            findings.append(found(codes.CONTENT_TYPE, answer.url, evidence, reference=kind.reference))
    return FetchedDocument(answer, document, tuple(findings))


def _parse(answer: Answer, kind: DocumentType) -> tuple[dict[str, Any] | None, Finding | None]:
    url, body, reference = answer.url, answer.body, kind.reference
    if answer.withheld:
        return None, found(codes.NOT_ASKED, url, answer.failure)
    if answer.failure is not None:
        return None, found(codes.UNREACHABLE, url, answer.failure)
    if answer.status in REDIRECTS:
        evidence = f"{answer.status} to {answer.field('location')}"
        return None, found(codes.REDIRECTED, url, evidence, reference=reference)
    if answer.status != OK:
        return None, _wrong_status(answer, kind)
    if not answer.decoded:
        return None, found(codes.NOT_DECODED, url, f"Content-Encoding: {answer.field('content-encoding')}")
    if body is None:
        return None, found(codes.TOO_LARGE, url)
    if body.lstrip()[:1] == b"<" or "html" in (answer.field("content-type") or "").lower():
        fix = kind.missing if kind is KEY_SET else None
        return None, found(codes.HTML, url, f"200 {answer.field('content-type')}", fix=fix, reference=reference)
    try:
        return load_object(body), None
    except JSONRefused as error:
        document = _read_leniently(body, kind.needed)
        code = codes.NOT_JSON if document is None else codes.NOT_STRICT_JSON
        return document, found(code, url, f"{error}; {len(body)} bytes", reference=reference)


def _read_leniently(body: bytes, needed: frozenset[str] | None) -> dict[str, Any] | None:
    """Return a JSON object that only strict parsers reject, as the middleware reads it.

    Faulty members are left out; None if one of them is needed. A key set is returned whole: `read_key_set` skips faulty
    JWKs.
    """
    try:
        document = load_tolerant(body)
    except JSONRefused:
        return None
    if needed is None:
        return document
    sound = {name: value for name, value in document.items() if is_valid([name, value])}
    return None if needed & (document.keys() - sound.keys()) else sound


def _wrong_status(answer: Answer, kind: DocumentType) -> Finding:
    fix, setting = f"Answer 200 with the {kind.name}.", ""
    if answer.status in (NOT_FOUND, GONE):
        fix, setting = kind.missing, kind.setting
    elif answer.status in (UNAUTHORIZED, FORBIDDEN):
        fix = f"Serve the {kind.name} to clients without a token."
    elif answer.status == TOO_MANY_REQUESTS:
        fix = "Wait, and run the doctor again; raise the rate limit of this URL if clients meet it too."
    elif answer.status in SERVER_ERRORS:
        fix = kind.server_error
    evidence = f"status {answer.status}"
    return found(codes.ERROR_STATUS, answer.url, evidence, fix=fix, setting=setting, reference=kind.reference)


def lifetime(answer: Answer) -> float | None:
    """Return for how many seconds the response says that it is fresh, or None if it does not say."""
    named = (answer.field(name) for name in ("cache-control", "age", "expires", "date"))
    return stated_lifetime(*named)


def _allows_browsers(answer: Answer) -> bool:
    return answer.field("access-control-allow-origin") in ("*", BROWSER)


def cors(answer: Answer, what: str) -> Iterator[Finding]:
    """Check whether a web page of any origin may read this response to a request with an `Origin`."""
    if not _allows_browsers(answer):
        allowed = answer.field("access-control-allow-origin")
        yield found(codes.NO_CORS, answer.url, f"{what}: Access-Control-Allow-Origin: {cut(allowed or 'none')}")


def preflight(answer: Answer, what: str, header: str) -> Iterator[Finding]:
    """Check whether the response to a preflight lets a web page of any origin send the request, with `header`."""
    if answer.failure is not None or answer.status not in SUCCESS or not _allows_browsers(answer):
        evidence = f"{what}: the preflight got {answer.failure or answer.status}"
        yield found(codes.NO_CORS, answer.url, f"{evidence}, origin {answer.field('access-control-allow-origin')}")
        return
    listed = answer.field("access-control-allow-headers")
    allowed = {name.strip().lower() for name in (listed or "").split(",")}
    if not {"*", header} & allowed:
        evidence = f"{what}: Access-Control-Allow-Headers does not list {header}: {listed}"
        yield found(codes.NO_CORS, answer.url, evidence)
