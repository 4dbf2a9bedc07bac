"""The meaning of an HTTP exchange in the flow, as a value, and the functions that build such values. Pure.

A meaning never contains a whole token or code: it shows the first characters, and the claims of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asgi_mcp_auth._oauth.jws import parse_compact
from asgi_mcp_auth.errors import InvalidToken

__all__ = (
    "AUTHORIZATION_SERVER",
    "BROWSER",
    "CLIENT",
    "MCP_SERVER",
    "OTHER",
    "Deployment",
    "Meaning",
    "abbreviate",
    "claims_of",
    "differences",
)

CLIENT = "client"
MCP_SERVER = "MCP server"
AUTHORIZATION_SERVER = "authorization server"
BROWSER = "browser"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The URLs and scopes of the demo's servers, which exchanges are checked against."""

    resource: str
    metadata_url: str
    issuer: str
    baseline: str
    """The scopes that every request needs, separated by spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The meaning of an exchange.

    Attributes:
        kind: A stable name, which a step of the scenario expects.
        sender: The sender of the request.
        summary: One sentence for people.
        spec: The sections that specify the exchange.
        details: The parts of the exchange to show.
        problem: The deviation from the specification, or None.
    """

    kind: str
    sender: str = CLIENT
    summary: str
    spec: str = ""
    details: tuple[str, ...] = ()
    problem: str | None = None


def abbreviate(secret: str) -> str:
    """Return the first characters of a secret, enough to distinguish it from another."""
    return f"{secret[:10]}…"


def differences(**facts: tuple[object, object]) -> str | None:
    """Return the facts whose found and expected values differ, in words, or None."""
    different = [
        f"{name} is {found!r}, not {expected!r}" for name, (found, expected) in facts.items() if found != expected
    ]
    return "; ".join(different) or None


def claims_of(token: str) -> Mapping[str, Any]:
    """Return the claims of a JWT, unverified: for display only."""
    try:
        return parse_compact(token.encode("utf-8", "replace")).claims
    except InvalidToken:
        return {}


OTHER = Meaning(kind="other", sender=BROWSER, summary="Not a step of the flow, such as a request for an icon.")
