"""What an exchange with the MCP server means: refused by the middleware in front of it, or answered by the app."""

from __future__ import annotations

from asgi_mcp_auth._oauth.challenge import parse_challenges
from asgi_mcp_auth.cli.demo.exchanges import Exchange
from asgi_mcp_auth.cli.demo.meaning import Meaning, Place, wrong

__all__ = ("at_the_mcp_server",)


def at_the_mcp_server(exchange: Exchange, place: Place) -> Meaning:
    """What it is, by the challenge if there is one."""
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
            problem=wrong(status=(exchange.status, 401), scope=(scope, place.baseline), **checks),
        )
    if error == "insufficient_scope":
        missing = sorted(set(place.baseline.split()) - set(scope.split()))
        return Meaning(
            kind="step-up",
            says="The token is good, but this operation needs more: the challenge names every scope to ask for.",
            spec="RFC 6750 §3.1, MCP: scope challenge handling",
            details=details,
            problem=wrong(status=(exchange.status, 403), missing=(missing, []), **checks),
        )
    expired = params.get("error_description") == "The access token expired"
    return Meaning(
        kind="expired" if expired else error,
        says="The token has expired." if expired else "The token is not for this resource, or not to be believed.",
        spec="RFC 6750 §3.1, RFC 8707, RFC 9068 §4",
        details=details,
        problem=wrong(status=(exchange.status, 401), error=(error, "invalid_token"), **checks),
    )


def _resource_metadata(exchange: Exchange, place: Place) -> Meaning:
    answer = exchange.answer
    servers = answer.get("authorization_servers")
    return Meaning(
        kind="resource metadata",
        says="The protected resource's metadata, which needs no token: what it is, and whose tokens it takes.",
        spec="RFC 9728 §3",
        details=(f"resource {answer.get('resource')}", f"authorization_servers {' '.join(map(str, servers or ()))}"),
        problem=wrong(
            status=(exchange.status, 200),
            resource=(answer.get("resource"), place.resource),
            authorization_servers=(servers, [place.issuer]),
        ),
    )
