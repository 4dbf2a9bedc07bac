"""Complete HTTP responses as values: rendered refusals, JSON responses, and the JSON-RPC error of `in_band_denied`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

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
    """One HTTP response: status, header fields and body."""

    status: int
    headers: tuple[Header, ...]
    body: bytes = b""

    def with_headers(self, more: Iterable[Header]) -> Response:
        """Return this response with more header fields."""
        return self._replace(headers=(*self.headers, *more))


def json_response(status: int, content: object, headers: Iterable[Header] = (), *, store: bool = False) -> Response:
    """Return a JSON response; with `Cache-Control: no-store` unless `store` is set."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
    if not store:
        fields.append((b"cache-control", b"no-store"))
    return Response(status, (*fields, *headers), body)


def in_band_denied(required_scopes: Iterable[str], *, id: str | int | None = None) -> dict[str, object]:  # noqa: A002
    """Return a JSON-RPC error for a scope that is found missing after the response has started.

    A 403 can no longer be sent then. The error code is outside -32768 … -32000, which JSON-RPC and MCP reserve.

    Args:
        required_scopes: The scopes that the operation needs.
        id: The id of the JSON-RPC request.
    """
    data = {"error": "insufficient_scope", "scope": " ".join(required_scopes)}
    error = {"code": IN_BAND_DENIED, "message": "Additional scope required", "data": data}
    return {"jsonrpc": "2.0", "id": id, "error": error}


@dataclass(frozen=True, slots=True)
class ChallengeSource:
    """The parts of a resource's challenges that are the same for every request.

    Args:
        schemes: The accepted credential schemes.
        resource_metadata: The URL of the resource's metadata document.
        scope: The scopes that the challenge of a 401 names.
    """

    schemes: tuple[CredentialScheme, ...]
    resource_metadata: str
    scope: tuple[str, ...]
    _rendered: dict[tuple[str, bytes | None], Response] = field(
        default_factory=dict[tuple[str, bytes | None], Response], repr=False, compare=False
    )

    def respond(self, refusal: Refusal, *, used: bytes | None = None, details: bool = False) -> Response:
        """Return the response to a refusal; see `refusal_response`. Frequent responses are rendered once."""
        if isinstance(refusal, NoCredential):
            is_frequent = not refusal.required
        else:
            is_frequent = isinstance(refusal, InvalidToken) and not details
        if not is_frequent or refusal.tool_call_id is not None or refusal.response_headers:
            return refusal_response(refusal, self, used=used, details=details)
        key = refusal.description, used
        response = self._rendered.get(key)
        if response is None:
            response = refusal_response(refusal, self, used=used)
            if len(self._rendered) < MAX_RENDERED:  # a custom verifier may use any number of descriptions
                self._rendered[key] = response
        return response


def _authentication(refusal: InsufficientAuthentication) -> tuple[tuple[str, str], ...]:
    """Return the challenge parameters of RFC 9470 section 3."""
    acr_values = (("acr_values", " ".join(refusal.acr_values)),) if refusal.acr_values else ()
    return acr_values if refusal.max_age is None else (*acr_values, ("max_age", str(refusal.max_age)))


def _body(refusal: Refusal) -> dict[str, object]:
    if isinstance(refusal, OriginNotAllowed):
        # A JSON-RPC error, as the MCP transport sends it: clients detect the protocol revision by the body of a 4xx.
        return {"jsonrpc": "2.0", "error": {"code": -32600, "message": refusal.description}}
    if isinstance(refusal, MessageRefused):
        known = {} if refusal.message_id is None else {"id": refusal.message_id}
        return {"jsonrpc": "2.0", **known, "error": {"code": refusal.rpc_code, "message": refusal.description}}
    if refusal.wire_code is None:
        return {"detail": refusal.description}
    if isinstance(refusal, (Unauthenticated, InsufficientScope)) or refusal.wire_code == "invalid_request":
        return {"error": refusal.wire_code, "error_description": refusal.description}
    return {"error": refusal.wire_code}


def _scope(refusal: Refusal, source: ChallengeSource) -> tuple[str, ...]:
    if isinstance(refusal, (InsufficientScope, InsufficientAuthentication)):
        return refusal.required
    if isinstance(refusal, NoCredential) and refusal.required is not None:
        return refusal.required
    return source.scope


def _tool_result(refusal: Refusal, source: ChallengeSource, used: bytes | None) -> Response:
    """Return a tool result with the challenge in `_meta`, as ChatGPT reads it (OpenAI Apps SDK, MCP SEP-1489).

    The challenge names an error also if there is no token: ChatGPT ignores a challenge without error.
    """
    lines = challenges(
        source.schemes,
        resource_metadata=source.resource_metadata,
        scope=_scope(refusal, source),
        error="insufficient_scope",
        description=refusal.description,
        used=used,
    )
    result = {
        "isError": True,
        "content": [{"type": "text", "text": NoCredential.default_description}],
        "_meta": {"mcp/www_authenticate": [line.decode("ascii") for line in lines]},
    }
    return json_response(200, {"jsonrpc": "2.0", "id": refusal.tool_call_id, "result": result})


def refusal_response(
    refusal: Refusal, source: ChallengeSource | None, *, used: bytes | None = None, details: bool = False
) -> Response:
    """Return the response to a refusal.

    A 400 about the credential, a 401 and a 403 `insufficient_scope` have challenges if a resource owns the path.

    Args:
        refusal: The refusal.
        source: The challenges of the resource that owns the path; None if no resource is known.
        used: The credential scheme that the client used; None if it is not known.
        details: Add `cause`, which only operators should read (`show_error_details`).
    """
    if refusal.tool_call_id is not None and source is not None:
        return _tool_result(refusal, source, used)
    headers: list[Header] = []
    challenged = isinstance(refusal, (Unauthenticated, InsufficientScope)) or refusal.wire_code == "invalid_request"
    if challenged and source is not None:
        lines = challenges(
            source.schemes,
            resource_metadata=source.resource_metadata,
            scope=_scope(refusal, source),
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
