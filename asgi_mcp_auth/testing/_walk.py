"""The results of `walk_discovery`: the exchanges of a client, in order. Their text contains no token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_mcp_auth._oauth.challenge import Challenge
from asgi_mcp_auth.config import AuthorizationServerMetadata

if TYPE_CHECKING:
    import httpx

__all__ = ("Step", "Walk", "WalkError")


class Step(NamedTuple):
    """One exchange.

    Attributes:
        request: Method and URL.
        status: The HTTP status; None if there was no response.
        found: What the client found in the response.
    """

    request: str
    status: int | None
    found: str

    def __str__(self) -> str:
        return f"{self.request} → {self.status or 'no response'}: {self.found}"


def _numbered(steps: tuple[Step, ...]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A complete walk. `str(walk)` has one line per step and contains no token.

    Attributes:
        challenge: The challenge of the first 401.
        resource_metadata: The protected resource metadata, as published.
        server_metadata: The metadata of the authorization server.
        token: The access token of the last call.
        response: The `httpx.Response` to the last call.
        steps: All exchanges.
    """

    challenge: Challenge
    resource_metadata: Mapping[str, Any]
    server_metadata: AuthorizationServerMetadata
    token: str
    response: httpx.Response
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return _numbered(self.steps)

    def __repr__(self) -> str:
        return f"<Walk of {len(self.steps)} steps to {self.response.status_code}>"


class WalkError(AssertionError):
    """A walk that failed. The message has the reason and the steps so far, and contains no token.

    Attributes:
        reason: Why the walk failed.
        steps: The exchanges so far.
    """

    def __init__(self, reason: str, steps: tuple[Step, ...]) -> None:
        super().__init__(f"{reason}\n{_numbered(steps)}")
        self.reason = reason
        self.steps = steps
