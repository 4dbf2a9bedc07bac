"""The meaning of an exchange: pure, from an exchange to a summary, the sections of the RFCs, and any deviation."""

from __future__ import annotations

from asgi_mcp_auth._oauth.challenge import parse_challenges
from asgi_mcp_auth.cli.demo._authorization_server import meaning_at_authorization_server
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange
from asgi_mcp_auth.cli.demo._meaning import (
    BROWSER,
    CLIENT,
    MCP_SERVER,
    OTHER,
    Deployment,
    Meaning,
    abbreviate,
    differences,
)

__all__ = ("meaning_of",)


def meaning_of(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    """Return the meaning of an exchange; `OTHER` for an exchange outside the flow."""
    if exchange.server == MCP_SERVER:
        return _at_mcp_server(exchange, deployment)
    if exchange.server == CLIENT:
        return _at_client(exchange, deployment)
    return meaning_at_authorization_server(exchange, deployment)


def _at_client(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    if "state" not in exchange.query:
        return OTHER
    code, error = exchange.query.get("code"), exchange.query.get("error")
    return Meaning(
        kind="callback",
        sender=BROWSER,
        summary="Back at the client, which compares state and iss with its own.",
        spec="OAuth 2.1 §4.1.2, RFC 9207 §2.4",
        details=(f"iss {exchange.query.get('iss')}", f"error {error}" if code is None else f"code {abbreviate(code)}"),
        problem=differences(iss=(exchange.query.get("iss"), deployment.issuer)),
    )


def _at_mcp_server(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    """Return the meaning of the challenge, if there is one, else of the app's response."""
    if exchange.path.startswith("/.well-known/oauth-protected-resource"):
        return _resource_metadata(exchange, deployment)
    header = exchange.response_fields.get("www-authenticate")
    if header is not None:
        return _challenge(exchange, deployment, header)
    operation = exchange.operation or {"GET": "a request for an event stream", "DELETE": "the end of the session"}.get(
        exchange.method
    )
    good = exchange.status in (200, 202)
    return Meaning(
        kind=exchange.operation or exchange.method,
        summary=f"The token is good and its scopes suffice: the app responds to {operation}.",
        spec="RFC 6750 §2.1, RFC 9068 §4",
        problem=None if good else f"the status is {exchange.status}",
    )


def _challenge(exchange: HTTPExchange, deployment: Deployment, header: str) -> Meaning:
    found = parse_challenges(header)
    params = found[0].params if found else {}
    error, scope = params.get("error"), params.get("scope", "")
    checks: dict[str, tuple[object, object]] = {
        "the number of challenges": (len(found), 1),
        "resource_metadata": (params.get("resource_metadata"), deployment.metadata_url),
    }
    details = (f"WWW-Authenticate: {header}",)
    if error is None:
        return Meaning(
            kind="no token",
            summary="No token: the challenge names the metadata URL and the scope to request.",
            spec="RFC 6750 §3, RFC 9728 §5.1",
            details=details,
            problem=differences(status=(exchange.status, 401), scope=(scope, deployment.baseline), **checks),
        )
    if error == "insufficient_scope":
        missing = sorted(set(deployment.baseline.split()) - set(scope.split()))
        return Meaning(
            kind="step-up",
            summary="The token is good, but this operation needs more scopes: the challenge names them.",
            spec="RFC 6750 §3.1, MCP: scope challenge handling",
            details=details,
            problem=differences(status=(exchange.status, 403), missing=(missing, []), **checks),
        )
    expired = params.get("error_description") == "The access token expired"
    return Meaning(
        kind="expired" if expired else error,
        summary="The token has expired." if expired else "The token is not valid for this resource.",
        spec="RFC 6750 §3.1, RFC 8707, RFC 9068 §4",
        details=details,
        problem=differences(status=(exchange.status, 401), error=(error, "invalid_token"), **checks),
    )


def _resource_metadata(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    metadata = exchange.response_object
    servers = metadata.get("authorization_servers")
    return Meaning(
        kind="resource metadata",
        summary="The resource's metadata, which needs no token: its identifier and its authorization servers.",
        spec="RFC 9728 §3",
        details=(f"resource {metadata.get('resource')}", f"authorization_servers {' '.join(map(str, servers or ()))}"),
        problem=differences(
            status=(exchange.status, 200),
            resource=(metadata.get("resource"), deployment.resource),
            authorization_servers=(servers, [deployment.issuer]),
        ),
    )
