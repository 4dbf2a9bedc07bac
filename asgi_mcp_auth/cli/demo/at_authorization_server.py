"""What an exchange with the authorization server means: metadata, keys, registration, authorization, tokens."""

from __future__ import annotations

from asgi_mcp_auth._policy.problems import as_list, as_mapping
from asgi_mcp_auth.cli.demo.exchanges import Exchange
from asgi_mcp_auth.cli.demo.meaning import BROWSER, CLIENT, MCP_SERVER, OTHER, Meaning, Place, brief, claims_of, wrong

__all__ = ("at_the_authorization_server",)


def at_the_authorization_server(exchange: Exchange, place: Place) -> Meaning:
    """What it is, by the last segment of the path."""
    name = exchange.path.rpartition("/")[2]
    if "/.well-known/" in exchange.path:
        return _server_metadata(exchange, place)
    if name == "jwks":
        return _keys(exchange)
    if name == "register":
        return _registration(exchange)
    if name in ("authorize", "consent"):
        return _authorization(exchange, place)
    return _token(exchange, place) if name == "token" else OTHER


def _asker(exchange: Exchange) -> str:
    """Who asks the authorization server for a document: MCP clients name their protocol version."""
    return CLIENT if "mcp-protocol-version" in exchange.request_fields else MCP_SERVER


def _server_metadata(exchange: Exchange, place: Place) -> Meaning:
    if exchange.status != 200:  # noqa: PLR2004 - a client tries several places
        return Meaning(kind="no server metadata", sender=_asker(exchange), says="Not here: the next place is tried.")
    answer = exchange.answer
    names = ("authorization_endpoint", "token_endpoint", "registration_endpoint")
    return Meaning(
        kind="server metadata" if _asker(exchange) == CLIENT else "server metadata for the MCP server",
        sender=_asker(exchange),
        says="The authorization server's metadata: its endpoints, and that it does PKCE."
        if _asker(exchange) == CLIENT
        else "The middleware finds where its issuer's keys are.",
        spec="RFC 8414 §3",
        details=(f"issuer {answer.get('issuer')}", *(f"{name} {answer[name]}" for name in names if name in answer))
        if _asker(exchange) == CLIENT
        else (f"jwks_uri {answer.get('jwks_uri')}",),
        problem=wrong(
            issuer=(answer.get("issuer"), place.issuer),
            code_challenge_methods_supported=(answer.get("code_challenge_methods_supported"), ["S256"]),
        ),
    )


def _keys(exchange: Exchange) -> Meaning:
    keys = [as_mapping(key) or {} for key in as_list(exchange.answer.get("keys")) or ()]
    return Meaning(
        kind="keys",
        sender=MCP_SERVER,
        says="The middleware fetches the issuer's public keys, and keeps them for the requests to come.",
        spec="RFC 7517 §5",
        details=(", ".join(f"{key.get('alg')} {key.get('kid')}" for key in keys) or "none",),
        problem=wrong(status=(exchange.status, 200)),
    )


def _registration(exchange: Exchange) -> Meaning:
    name, client = exchange.message.get("client_name"), exchange.answer.get("client_id")
    return Meaning(
        kind="registration",
        says="The client registers itself: nobody had to set it up.",
        spec="RFC 7591 §3",
        details=(f"client_name {name}", f"client_id {brief(str(client))}"),
        problem=wrong(status=(exchange.status, 201)),
    )


def _authorization(exchange: Exchange, place: Place) -> Meaning:
    asked = exchange.query if exchange.method == "GET" else exchange.form
    details = tuple(f"{name} {asked[name]}" for name in ("scope", "resource") if name in asked)
    sent_to = exchange.sent_to
    if sent_to is None:
        shown = exchange.status == 200  # noqa: PLR2004
        return Meaning(
            kind="consent page" if shown else "authorization refused",
            sender=BROWSER,
            says="A person is asked: which client, which resource, which scopes."
            if shown
            else "The request cannot be trusted: the page says why, and nobody is redirected.",
            spec="OAuth 2.1 §4.1.1, RFC 8707 §2.1, RFC 7636",
            details=details,
            problem=None if shown else f"the status is {exchange.status}",
        )
    where, back = sent_to
    denied = back.get("error")
    return Meaning(
        kind="denied" if denied else "authorization",
        sender=BROWSER,
        says="The answer is no: the browser takes that back to the client."
        if denied
        else "The answer is yes: the browser takes a code back to the client.",
        spec="OAuth 2.1 §4.1.2, RFC 9207",
        details=(*details, f"→ {where}", f"error {denied}" if denied else f"code {brief(back.get('code', ''))}"),
        problem=wrong(iss=(back.get("iss"), place.issuer)),
    )


GRANTS = {
    "authorization_code": (
        "The code and the PKCE verifier make a token, for this resource alone.",
        "OAuth 2.1 §4.1.3, RFC 7636 §4.5",
    ),
    "refresh_token": ("The refresh token makes a new access token, without asking anybody.", "OAuth 2.1 §4.3"),
    "client_credentials": ("The client's own name and secret make a token: there is no person.", "OAuth 2.1 §4.2"),
}


def _token(exchange: Exchange, place: Place) -> Meaning:
    form, answer = exchange.form, exchange.answer
    grant = form.get("grant_type", "")
    if "error" in answer:
        error = str(answer["error"])
        return Meaning(
            kind=error, says=f"No token: {error}.", spec="OAuth 2.1 §3.2.4", details=(f"grant_type {grant}",)
        )
    refreshed = grant == "refresh_token"
    token = str(answer.get("access_token", ""))
    claims = claims_of(token)
    lifetime = int(claims.get("exp", 0)) - int(claims.get("iat", 0))
    rotated = answer.get("refresh_token")
    shown = [f"access_token {brief(token)} aud {claims.get('aud')} scope {claims.get('scope')}, for {lifetime} s"]
    if rotated:
        shown.append(f"refresh_token {brief(str(rotated))}{', in place of the one that was sent' if refreshed else ''}")
    says, spec = GRANTS.get(grant, (f"A token by {grant}.", "OAuth 2.1 §4.4"))
    return Meaning(
        kind=grant,
        says=says,
        spec=f"{spec}, RFC 8707 §2.2",
        details=tuple(shown),
        problem=wrong(status=(exchange.status, 200), aud=(claims.get("aud"), place.resource)),
    )
