"""What `walk_discovery` gives: the way a client went, step by step, and where it ended. No token is in the text."""

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
    """One exchange: the request, without its token; the status, None if there was no answer; what was made of it."""

    request: str
    status: int | None
    found: str

    def __str__(self) -> str:
        return f"{self.request} → {self.status or 'no answer'}: {self.found}"


def _numbered(steps: tuple[Step, ...]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The whole way. `str()` of it has a line for each step; no token is in it.

    Attributes:
        challenge: Of the first 401.
        resource_metadata: The protected resource metadata, as published.
        server_metadata: That of the authorization server.
        token: The access token of the last call.
        response: To the last call, an `httpx.Response`.
        steps: Each exchange.
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
    """The way ended before an answer. The message has the steps up to there, and why; no token is in it.

    Attributes:
        reason: Why.
        steps: Each exchange before.
    """

    def __init__(self, reason: str, steps: tuple[Step, ...]) -> None:
        super().__init__(f"{reason}\n{_numbered(steps)}")
        self.reason = reason
        self.steps = steps
