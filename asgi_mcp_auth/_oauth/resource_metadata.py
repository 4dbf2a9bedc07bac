"""The protected resource metadata document (RFC 9728): its members, and the responses to requests for it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asgi_mcp_auth._oauth.grammar import TCHAR
from asgi_mcp_auth._oauth.jws import VERIFIABLE, parse_compact
from asgi_mcp_auth._oauth.origin import PREFLIGHT_HEADERS
from asgi_mcp_auth._oauth.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.config import ResourceServerMetadata
from asgi_mcp_auth.errors import InvalidToken, printable

__all__ = ("Document", "build_members", "check_signed_metadata", "compile_document", "is_language_tag")

ALLOWED_METHODS = b"GET, HEAD, OPTIONS"
# A list of tokens (RFC 9110 section 5.6.2): no other text is echoed.
_FIELD_NAMES = re.compile(f"[{TCHAR}, ]{{1,1024}}".encode("ascii"))
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")  # the shape of RFC 5646 section 2.1
_ANY_ORIGIN = (b"access-control-allow-origin", b"*")

LANGUAGE_MEMBERS = ("resource_name", "resource_documentation", "resource_policy_uri", "resource_tos_uri")


def is_language_tag(tag: str) -> bool:
    """Return whether `tag` has the shape of a BCP 47 language tag."""
    return _LANGUAGE_TAG.fullmatch(tag) is not None


def language_variants(metadata: ResourceServerMetadata) -> dict[str, dict[str, str]]:
    """Return the human-readable members that are set: texts by language tag, the default under `""` (RFC 9728 2.1)."""
    values = {name: getattr(metadata, name) for name in LANGUAGE_MEMBERS}
    return {name: {"": v} if isinstance(v, str) else dict(v) for name, v in values.items() if v is not None}


def build_members(
    metadata: ResourceServerMetadata,
    *,
    resource: str,
    issuers: Sequence[str],
    scopes: Sequence[str],
    senders: Mapping[str, object],
) -> dict[str, object]:
    """Return the members to publish, in the order of RFC 9728 section 2, without empty arrays and nulls (section 3.2).

    Args:
        metadata: The metadata as configured, checked.
        resource: The identifier.
        issuers: The issuers exactly as configured: clients compare them (RFC 8414 section 3.3).
        scopes: The scopes as clients must request them.
        senders: The members about tokens that are bound to their senders.
    """
    members: dict[str, object] = {
        "resource": resource,
        "authorization_servers": list(issuers),
        "jwks_uri": metadata.jwks_uri,
        "scopes_supported": list(scopes),
        "bearer_methods_supported": list(metadata.bearer_methods_supported or ("header",)),
        "resource_signing_alg_values_supported": list(metadata.resource_signing_alg_values_supported or ()),
    }
    for name, texts in language_variants(metadata).items():
        members |= {f"{name}#{tag}" if tag else name: text for tag, text in texts.items()}
    members["authorization_details_types_supported"] = list(metadata.authorization_details_types_supported or ())
    members |= {**senders, **metadata.extra}
    return {name: value for name, value in members.items() if value is not None and value not in ([], ())}


def check_signed_metadata(signed: object, members: Mapping[str, object]) -> str | None:
    """Return what is wrong with a `signed_metadata` JWT for `members`, or None (RFC 9728 sections 2.2 and 3.3).

    The signature is not checked: the signer may use any key.
    """
    if not isinstance(signed, str):
        return "is not a string"
    try:
        jws = parse_compact(signed.encode("ascii", "replace"))
    except InvalidToken as refusal:
        return f"is not a compact JWS ({refusal.found})"
    header, claims = jws.header, jws.claims
    if header.alg not in VERIFIABLE:
        return f"is not signed with an asymmetric algorithm ({printable(header.alg)})"
    if not isinstance(claims.get("iss"), str) or not claims["iss"]:
        return "has no iss claim"
    if "signed_metadata" in claims:
        return "nests a signed_metadata claim"
    different = sorted(
        name for name, value in members.items() if name != "signed_metadata" and claims.get(name) != value
    )
    return f"does not assert the published {', '.join(different)}" if different else None


class Document(NamedTuple):
    """A metadata document, ready to serve: any origin may read it without a token (RFC 9728 section 3.2)."""

    members: dict[str, object]
    response: Response
    etag: bytes

    def answer(self, request: RequestInfo) -> Response:
        """Return the response to a request for the document, with any method."""
        if request.method in ("GET", "HEAD"):
            if any(self._matches(line) for line in request.fields.get(b"if-none-match", ())):
                kept = (b"cache-control", b"etag", b"access-control-allow-origin")
                return Response(304, tuple(field for field in self.response.headers if field[0] in kept))
            return self.response
        if request.method == "OPTIONS":
            wanted = b", ".join(request.fields.get(b"access-control-request-headers", ()))
            echo = wanted if _FIELD_NAMES.fullmatch(wanted) else ", ".join(PREFLIGHT_HEADERS).encode("ascii")
            preflight = (_ANY_ORIGIN, (b"access-control-allow-methods", ALLOWED_METHODS))
            more = ((b"access-control-allow-headers", echo), (b"access-control-max-age", b"86400"))
            return Response(204, (*preflight, *more, (b"allow", ALLOWED_METHODS)))
        refused = {"error": "invalid_request", "error_description": "Method not allowed"}
        return json_response(405, refused, ((b"allow", ALLOWED_METHODS), _ANY_ORIGIN))

    def _matches(self, if_none_match: bytes) -> bool:
        """Return whether a field value has the ETag by weak comparison, or is `*` (RFC 9110 section 13.1.2)."""
        tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
        return self.etag in tags or b"*" in tags


def compile_document(members: Mapping[str, object]) -> Document:
    """Serialise a document once. The ETag changes if and only if the document changes."""
    content = dict(members)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
    etag = f'"{digest[:32]}"'.encode("ascii")
    headers = ((b"cache-control", b"public, max-age=3600"), (b"etag", etag), _ANY_ORIGIN)
    return Document(content, json_response(200, content, headers, store=True), etag)
