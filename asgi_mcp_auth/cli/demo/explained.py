"""What an exchange means: pure, from an exchange to words, the sections of the RFCs, and a judgement."""

from __future__ import annotations

from asgi_mcp_auth.cli.demo.at_authorization_server import at_the_authorization_server
from asgi_mcp_auth.cli.demo.at_mcp_server import at_the_mcp_server
from asgi_mcp_auth.cli.demo.exchanges import Exchange
from asgi_mcp_auth.cli.demo.meaning import BROWSER, CLIENT, MCP_SERVER, OTHER, Meaning, Place, brief, wrong

__all__ = ("meaning_of",)


def meaning_of(exchange: Exchange, place: Place) -> Meaning:
    """What an exchange means; one that is no part of the flow is `OTHER`."""
    if exchange.server == MCP_SERVER:
        return at_the_mcp_server(exchange, place)
    if exchange.server == CLIENT:
        return _at_the_client(exchange, place)
    return at_the_authorization_server(exchange, place)


def _at_the_client(exchange: Exchange, place: Place) -> Meaning:
    if "state" not in exchange.query:
        return OTHER
    code, error = exchange.query.get("code"), exchange.query.get("error")
    return Meaning(
        kind="callback",
        sender=BROWSER,
        says="Back at the client, which compares state and iss with its own.",
        spec="OAuth 2.1 §4.1.2, RFC 9207 §2.4",
        details=(f"iss {exchange.query.get('iss')}", f"error {error}" if code is None else f"code {brief(code)}"),
        problem=wrong(iss=(exchange.query.get("iss"), place.issuer)),
    )
