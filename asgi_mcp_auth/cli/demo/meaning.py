"""What an HTTP exchange can mean in the flow, as a value, and the tools that such values are made with. Pure.

Nothing here has a token or a code whole: a few characters tell two apart, and of a token its claims are shown.
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
    "Meaning",
    "Place",
    "brief",
    "claims_of",
    "wrong",
)

CLIENT = "client"
MCP_SERVER = "MCP server"
AUTHORIZATION_SERVER = "authorization server"
BROWSER = "browser"


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


def wrong(**facts: tuple[object, object]) -> str | None:
    """What differs, of pairs of what was found and what should be."""
    different = [f"{name} is {found!r}, not {wanted!r}" for name, (found, wanted) in facts.items() if found != wanted]
    return "; ".join(different) or None


def claims_of(token: str) -> Mapping[str, Any]:
    """The claims of a JWT, unverified: to be shown, never believed."""
    try:
        return parse_compact(token.encode("utf-8", "replace")).claims
    except InvalidToken:
        return {}


OTHER = Meaning(kind="other", sender=BROWSER, says="Not a step of the flow, such as a browser's request for an icon.")
