"""The meaning of an exchange with the authorization server: metadata, keys, registration, authorization, tokens."""

from __future__ import annotations

from asgi_mcp_auth._policy.problems import as_list, as_mapping
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange
from asgi_mcp_auth.cli.demo._meaning import (
    BROWSER,
    CLIENT,
    MCP_SERVER,
    OTHER,
    Deployment,
    Meaning,
    abbreviate,
    claims_of,
    differences,
)

__all__ = ("meaning_at_authorization_server",)


def meaning_at_authorization_server(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    """Return the meaning of an exchange, by the last segment of the path."""
    name = exchange.path.rpartition("/")[2]
    if "/.well-known/" in exchange.path:
        return _server_metadata(exchange, deployment)
    if name == "jwks":
        return _keys(exchange)
    if name == "register":
        return _registration(exchange)
    if name in ("authorize", "consent"):
        return _authorization(exchange, deployment)
    return _token(exchange, deployment) if name == "token" else OTHER


def _requester(exchange: HTTPExchange) -> str:
    """Return the sender of a request for metadata: MCP clients name their protocol version."""
    return CLIENT if "mcp-protocol-version" in exchange.request_fields else MCP_SERVER


def _server_metadata(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    if exchange.status != 200:  # noqa: PLR2004 - a client tries several URLs
        return Meaning(
            kind="no server metadata",
            sender=_requester(exchange),
            summary="No metadata at this URL: the next well-known URL is tried.",
        )
    metadata = exchange.response_object
    problem = differences(
        issuer=(metadata.get("issuer"), deployment.issuer),
        code_challenge_methods_supported=(metadata.get("code_challenge_methods_supported"), ["S256"]),
    )
    if _requester(exchange) == MCP_SERVER:
        return Meaning(
            kind="server metadata for the MCP server",
            sender=MCP_SERVER,
            summary="The middleware discovers the URL of the issuer's keys.",
            spec="RFC 8414 §3",
            details=(f"jwks_uri {metadata.get('jwks_uri')}",),
            problem=problem,
        )
    names = ("issuer", "authorization_endpoint", "token_endpoint", "registration_endpoint")
    return Meaning(
        kind="server metadata",
        summary="The authorization server's metadata: its endpoints, and that it supports PKCE.",
        spec="RFC 8414 §3",
        details=tuple(f"{name} {metadata[name]}" for name in names if name in metadata),
        problem=problem,
    )


def _keys(exchange: HTTPExchange) -> Meaning:
    keys = [as_mapping(key) or {} for key in as_list(exchange.response_object.get("keys")) or ()]
    return Meaning(
        kind="keys",
        sender=MCP_SERVER,
        summary="The middleware fetches the issuer's public keys, and caches them.",
        spec="RFC 7517 §5",
        details=(", ".join(f"{key.get('alg')} {key.get('kid')}" for key in keys) or "none",),
        problem=differences(status=(exchange.status, 200)),
    )


def _registration(exchange: HTTPExchange) -> Meaning:
    name, client = exchange.request_object.get("client_name"), exchange.response_object.get("client_id")
    return Meaning(
        kind="registration",
        summary="The client registers itself, without any setup by hand.",
        spec="RFC 7591 §3",
        details=(f"client_name {name}", f"client_id {abbreviate(str(client))}"),
        problem=differences(status=(exchange.status, 201)),
    )


def _authorization(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    request = exchange.query if exchange.method == "GET" else exchange.form
    details = tuple(f"{name} {request[name]}" for name in ("scope", "resource") if name in request)
    redirect = exchange.redirect
    if redirect is None:
        shown = exchange.status == 200  # noqa: PLR2004
        return Meaning(
            kind="consent page" if shown else "authorization refused",
            sender=BROWSER,
            summary="The consent page: it names the client, the resource and the scopes."
            if shown
            else "The request cannot be trusted: the page says why, without a redirect.",
            spec="OAuth 2.1 §4.1.1, RFC 8707 §2.1, RFC 7636",
            details=details,
            problem=None if shown else f"the status is {exchange.status}",
        )
    target, response = redirect
    denied = response.get("error")
    return Meaning(
        kind="denied" if denied else "authorization",
        sender=BROWSER,
        summary="Denied: the browser takes the error back to the client."
        if denied
        else "Allowed: the browser takes a code back to the client.",
        spec="OAuth 2.1 §4.1.2, RFC 9207",
        details=(
            *details,
            f"→ {target}",
            f"error {denied}" if denied else f"code {abbreviate(response.get('code', ''))}",
        ),
        problem=differences(iss=(response.get("iss"), deployment.issuer)),
    )


GRANTS = {
    "authorization_code": (
        "The code and the PKCE verifier are exchanged for a token for this resource alone.",
        "OAuth 2.1 §4.1.3, RFC 7636 §4.5",
    ),
    "refresh_token": ("The refresh token is exchanged for a new access token, without consent.", "OAuth 2.1 §4.3"),
    "client_credentials": ("The client's id and secret are exchanged for a token, without a user.", "OAuth 2.1 §4.2"),
}


def _token(exchange: HTTPExchange, deployment: Deployment) -> Meaning:
    form, response = exchange.form, exchange.response_object
    grant = form.get("grant_type", "")
    if "error" in response:
        error = str(response["error"])
        return Meaning(
            kind=error, summary=f"No token: {error}.", spec="OAuth 2.1 §3.2.4", details=(f"grant_type {grant}",)
        )
    token = str(response.get("access_token", ""))
    claims = claims_of(token)
    lifetime = int(claims.get("exp", 0)) - int(claims.get("iat", 0))
    details = [
        f"access_token {abbreviate(token)}, for {lifetime} s",
        f"aud {claims.get('aud')}",
        f"scope {claims.get('scope')}",
    ]
    if rotated := response.get("refresh_token"):
        replaces = ", which replaces the one that was sent" if grant == "refresh_token" else ""
        details.append(f"refresh_token {abbreviate(str(rotated))}{replaces}")
    summary, spec = GRANTS.get(grant, (f"A token by {grant}.", "OAuth 2.1 §4.4"))
    return Meaning(
        kind=grant,
        summary=summary,
        spec=f"{spec}, RFC 8707 §2.2",
        details=tuple(details),
        problem=differences(status=(exchange.status, 200), aud=(claims.get("aud"), deployment.resource)),
    )
