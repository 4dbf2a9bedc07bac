"""What an HTTP exchange means in the flow: pure, from an exchange to words, the sections of the RFCs, and a judgement.

Nothing here has a token or a code whole: a few characters tell two apart, and of a token its claims are shown.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from asgi_mcp_auth._protocol.challenge import parse_challenges
from asgi_mcp_auth.cli.demo.exchanges import Exchange

__all__ = ("AUTHORIZATION_SERVER", "CLIENT", "MCP_SERVER", "Meaning", "Place", "brief", "meaning_of")

CLIENT = "client"
MCP_SERVER = "MCP server"
AUTHORIZATION_SERVER = "authorization server"
PERSON = "browser"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the judgements are made against."""

    resource: str
    metadata_url: str
    issuer: str
    baseline: str
    """The scopes that every request needs, separated by spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an exchange is.

    Attributes:
        kind: A stable name, by which a story says what it expects.
        sender: Who made the request.
        says: One sentence for people.
        spec: Where it is laid down.
        details: What is worth reading in it.
        problem: What is not as it should be, None when all is.
    """

    kind: str
    sender: str = CLIENT
    says: str
    spec: str = ""
    details: tuple[str, ...] = ()
    problem: str | None = None


def brief(secret: str) -> str:
    """The beginning of a secret, by which it can be told from another."""
    return f"{secret[:10]}…"


def _wrong(**facts: tuple[object, object]) -> str | None:
    """What differs, of pairs of what was found and what should be."""
    different = [f"{name} is {found!r}, not {wanted!r}" for name, (found, wanted) in facts.items() if found != wanted]
    return "; ".join(different) or None


def _claims(token: str) -> Mapping[str, Any]:
    """The claims of a JWT, unverified: to be shown, never believed."""
    try:
        part = token.split(".")[1]
        claims: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}


def meaning_of(exchange: Exchange, place: Place) -> Meaning:
    """What an exchange means; one that is no part of the flow is of the kind `other`."""
    if exchange.server == MCP_SERVER:
        return _at_the_mcp_server(exchange, place)
    if exchange.server == CLIENT:
        return _at_the_client(exchange, place)
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


OTHER = Meaning(kind="other", sender=PERSON, says="Not a step of the flow, such as a browser's request for an icon.")


def _asker(exchange: Exchange) -> str:
    """Who asks the authorization server for a document: MCP clients name their protocol version."""
    return CLIENT if "mcp-protocol-version" in exchange.request_fields else MCP_SERVER


# At the MCP server, behind the middleware


def _at_the_mcp_server(exchange: Exchange, place: Place) -> Meaning:
    if exchange.path.startswith("/.well-known/oauth-protected-resource"):
        return _resource_metadata(exchange, place)
    header = exchange.response_fields.get("www-authenticate")
    if header is not None:
        return _challenge(exchange, place, header)
    operation = exchange.operation or {"GET": "a stream for events", "DELETE": "the session's end"}.get(exchange.method)
    good = exchange.status in (200, 202)
    return Meaning(
        kind=exchange.operation or exchange.method,
        says=f"The token is good and its scopes suffice: the app answers {operation}.",
        spec="RFC 6750 §2.1, RFC 9068 §4",
        problem=None if good else f"the status is {exchange.status}",
    )


def _challenge(exchange: Exchange, place: Place, header: str) -> Meaning:
    found = parse_challenges(header)
    params = found[0].params if found else {}
    error, scope = params.get("error"), params.get("scope", "")
    checks: dict[str, tuple[object, object]] = {
        "the number of challenges": (len(found), 1),
        "resource_metadata": (params.get("resource_metadata"), place.metadata_url),
    }
    details = (f"WWW-Authenticate: {header}",)
    if error is None:
        return Meaning(
            kind="no token",
            says="No token: the challenge tells where to find out more, and which scope to ask for.",
            spec="RFC 6750 §3, RFC 9728 §5.1",
            details=details,
            problem=_wrong(status=(exchange.status, 401), scope=(scope, place.baseline), **checks),
        )
    if error == "insufficient_scope":
        missing = sorted(set(place.baseline.split()) - set(scope.split()))
        return Meaning(
            kind="step-up",
            says="The token is good, but this operation needs more: the challenge names every scope to ask for.",
            spec="RFC 6750 §3.1, MCP: scope challenge handling",
            details=details,
            problem=_wrong(status=(exchange.status, 403), missing=(missing, []), **checks),
        )
    expired = params.get("error_description") == "The access token expired"
    return Meaning(
        kind="expired" if expired else error,
        says="The token has expired." if expired else "The token is not for this resource, or not to be believed.",
        spec="RFC 6750 §3.1, RFC 8707, RFC 9068 §4",
        details=details,
        problem=_wrong(status=(exchange.status, 401), error=(error, "invalid_token"), **checks),
    )


def _resource_metadata(exchange: Exchange, place: Place) -> Meaning:
    answer = exchange.answer
    servers = answer.get("authorization_servers")
    return Meaning(
        kind="resource metadata",
        says="The protected resource's metadata, which needs no token: what it is, and whose tokens it takes.",
        spec="RFC 9728 §3",
        details=(f"resource {answer.get('resource')}", f"authorization_servers {' '.join(map(str, servers or ()))}"),
        problem=_wrong(
            status=(exchange.status, 200),
            resource=(answer.get("resource"), place.resource),
            authorization_servers=(servers, [place.issuer]),
        ),
    )


# At the authorization server


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
        problem=_wrong(
            issuer=(answer.get("issuer"), place.issuer),
            code_challenge_methods_supported=(answer.get("code_challenge_methods_supported"), ["S256"]),
        ),
    )


def _keys(exchange: Exchange) -> Meaning:
    keys = cast("list[dict[str, Any]]", exchange.answer.get("keys", []))
    return Meaning(
        kind="keys",
        sender=MCP_SERVER,
        says="The middleware fetches the issuer's public keys, once, and keeps them.",
        spec="RFC 7517 §5",
        details=(", ".join(f"{key.get('alg')} {key.get('kid')}" for key in keys),),
        problem=_wrong(status=(exchange.status, 200)),
    )


def _registration(exchange: Exchange) -> Meaning:
    name, client = exchange.message.get("client_name"), exchange.answer.get("client_id")
    return Meaning(
        kind="registration",
        says="The client registers itself: nobody had to set it up.",
        spec="RFC 7591 §3",
        details=(f"client_name {name}", f"client_id {brief(str(client))}"),
        problem=_wrong(status=(exchange.status, 201)),
    )


def _authorization(exchange: Exchange, place: Place) -> Meaning:
    asked = exchange.query if exchange.method == "GET" else exchange.form
    details = tuple(f"{name} {asked[name]}" for name in ("scope", "resource") if name in asked)
    sent_to = exchange.sent_to
    if sent_to is None:
        shown = exchange.status == 200  # noqa: PLR2004
        return Meaning(
            kind="consent page" if shown else "authorization refused",
            sender=PERSON,
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
        sender=PERSON,
        says="The answer is no: the browser takes that back to the client."
        if denied
        else "The answer is yes: the browser takes a code back to the client.",
        spec="OAuth 2.1 §4.1.2, RFC 9207",
        details=(*details, f"→ {where}", f"error {denied}" if denied else f"code {brief(back.get('code', ''))}"),
        problem=_wrong(iss=(back.get("iss"), place.issuer)),
    )


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
    claims = _claims(token)
    lifetime = int(claims.get("exp", 0)) - int(claims.get("iat", 0))
    rotated = answer.get("refresh_token")
    shown = [f"access_token {brief(token)} aud {claims.get('aud')} scope {claims.get('scope')}, for {lifetime} s"]
    if rotated:
        shown.append(f"refresh_token {brief(str(rotated))}{', in place of the one that was sent' if refreshed else ''}")
    says = {
        "authorization_code": "The code and the PKCE verifier make a token, for this resource alone.",
        "refresh_token": "The refresh token makes a new access token, without asking anybody.",
    }
    return Meaning(
        kind=grant,
        says=says.get(grant, f"A token by {grant}."),
        spec="OAuth 2.1 §4.3, RFC 8707 §2.2" if refreshed else "OAuth 2.1 §4.1.3, RFC 7636 §4.5, RFC 8707 §2.2",
        details=tuple(shown),
        problem=_wrong(status=(exchange.status, 200), aud=(claims.get("aud"), place.resource)),
    )


# At the client, where the browser comes back to


def _at_the_client(exchange: Exchange, place: Place) -> Meaning:
    if "state" not in exchange.query:
        return OTHER
    code, error = exchange.query.get("code"), exchange.query.get("error")
    return Meaning(
        kind="callback",
        sender=PERSON,
        says="Back at the client, which compares state and iss with its own.",
        spec="OAuth 2.1 §4.1.2, RFC 9207 §2.4",
        details=(f"iss {exchange.query.get('iss')}", f"error {error}" if code is None else f"code {brief(code)}"),
        problem=_wrong(iss=(exchange.query.get("iss"), place.issuer)),
    )
