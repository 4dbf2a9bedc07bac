"""Complete responses as values: a refusal rendered for the wire, and the few other answers of our own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asgi_mcp_auth._oauth.challenge import CredentialScheme, challenges
from asgi_mcp_auth.errors import (
    InsufficientAuthentication,
    InsufficientScope,
    InvalidToken,
    MessageRefused,
    NoCredential,
    OriginNotAllowed,
    Refusal,
    Unauthenticated,
    Unavailable,
)

__all__ = ("ChallengeSource", "Header", "Response", "in_band_denied", "json_response", "refusal_response")

IN_BAND_DENIED = 40300
MAX_RETRY_AFTER = 3600
MAX_RENDERED = 16

Header = tuple[bytes, bytes]


class Response(NamedTuple):
    """Status, header fields and body, ready to send."""

    status: int
    headers: tuple[Header, ...]
    body: bytes = b""

    def with_headers(self, more: Iterable[Header]) -> Response:
        """The same response with fields added."""
        return self._replace(headers=(*self.headers, *more))


def json_response(status: int, content: Any, headers: Iterable[Header] = (), *, store: bool = False) -> Response:
    """A JSON response; not to be stored by caches unless said so."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
    if not store:
        fields.append((b"cache-control", b"no-store"))
    return Response(status, (*fields, *headers), body)


def in_band_denied(required_scopes: Iterable[str], *, id: str | int | None = None) -> dict[str, Any]:  # noqa: A002
    """A JSON-RPC error for a permission found missing after the response has begun, when no 403 can be sent any more.

    Its code is an application's own: outside -32768 … -32000, which JSON-RPC and MCP reserve.

    Args:
        required_scopes: What the operation needs.
        id: The JSON-RPC request's id.
    """
    data = {"error": "insufficient_scope", "scope": " ".join(required_scopes)}
    error = {"code": IN_BAND_DENIED, "message": "Additional scope required", "data": data}
    return {"jsonrpc": "2.0", "id": id, "error": error}


@dataclass(frozen=True, slots=True)
class ChallengeSource:
    """The fixed parts of one resource's challenges.

    Args:
        schemes: The accepted credential schemes.
        resource_metadata: The URL of the metadata document.
        scope: The scopes that a first 401 asks for.
    """

    schemes: tuple[CredentialScheme, ...]
    resource_metadata: str
    scope: tuple[str, ...]
    _rendered: dict[tuple[str, bytes | None], Response] = field(
        default_factory=dict[tuple[str, bytes | None], Response], repr=False, compare=False
    )

    def respond(self, refusal: Refusal, *, used: bytes | None = None, details: bool = False) -> Response:
        """Render a refusal; the answers to missing and invalid tokens are rendered once."""
        is_missing = isinstance(refusal, NoCredential)
        if refusal.response_headers or not (is_missing or (isinstance(refusal, InvalidToken) and not details)):
            return refusal_response(refusal, self, used=used, details=details)
        key = refusal.description, used
        response = self._rendered.get(key)
        if response is None:
            response = refusal_response(refusal, self, used=used)
            if len(self._rendered) < MAX_RENDERED:  # a verifier of the user's own may make any number of descriptions
                self._rendered[key] = response
        return response


def _authentication(refusal: InsufficientAuthentication) -> tuple[tuple[str, str], ...]:
    """The parameters of RFC 9470 section 3."""
    acr_values = (("acr_values", " ".join(refusal.acr_values)),) if refusal.acr_values else ()
    return acr_values if refusal.max_age is None else (*acr_values, ("max_age", str(refusal.max_age)))


def _body(refusal: Refusal) -> Any:
    if isinstance(refusal, OriginNotAllowed):
        # The transport's own shape: clients probe protocol eras on 4xx bodies.
        return {"jsonrpc": "2.0", "error": {"code": -32600, "message": refusal.description}}
    if isinstance(refusal, MessageRefused):
        known = {} if refusal.message_id is None else {"id": refusal.message_id}
        return {"jsonrpc": "2.0", **known, "error": {"code": refusal.rpc_code, "message": refusal.description}}
    if refusal.wire_code is None:
        return {"detail": refusal.description}
    if isinstance(refusal, (Unauthenticated, InsufficientScope)) or refusal.wire_code == "invalid_request":
        return {"error": refusal.wire_code, "error_description": refusal.description}
    return {"error": refusal.wire_code}


def refusal_response(
    refusal: Refusal, source: ChallengeSource | None, *, used: bytes | None = None, details: bool = False
) -> Response:
    """Render a refusal.

    400 (about the credential), 401 and 403 `insufficient_scope` carry challenges, when a resource owns the path.

    Args:
        refusal: What to answer.
        source: The owning resource's challenges, or None before one is known.
        used: The scheme the client used, if it is known.
        details: Add what only the operator should read (`show_error_details`).
    """
    headers: list[Header] = []
    challenged = isinstance(refusal, (Unauthenticated, InsufficientScope)) or refusal.wire_code == "invalid_request"
    if challenged and source is not None:
        lines = challenges(
            source.schemes,
            resource_metadata=source.resource_metadata,
            scope=(
                refusal.required
                if isinstance(refusal, (InsufficientScope, InsufficientAuthentication))
                else source.scope
            ),
            params=_authentication(refusal) if isinstance(refusal, InsufficientAuthentication) else (),
            error=refusal.wire_code,
            description=None if isinstance(refusal, NoCredential) else refusal.description,
            used=used,
        )
        headers += [(b"www-authenticate", line) for line in lines]
    if isinstance(refusal, Unavailable):
        wait = refusal.retry_after or 1.0
        seconds = min(max(1, math.ceil(wait)), MAX_RETRY_AFTER) if math.isfinite(wait) else MAX_RETRY_AFTER
        headers.append((b"retry-after", str(seconds).encode("ascii")))
    body = _body(refusal)
    if details:
        body |= {"cause": {"reason": str(refusal.reason), **refusal.details()}}
    return json_response(refusal.status, body, (*headers, *refusal.response_headers))
