"""Changing a running server: `POST dev/faults`, `dev/rotate`, `dev/forget` below the issuer, each a JSON object.

A page of another site cannot do it: JSON needs a preflight, which these paths do not pass, and the server answers to
its own host names only.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._policy.responses import json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.core import Reply
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.forms import media_type
from asgi_mcp_auth.dev.switches import Switch
from asgi_mcp_auth.testing import SigningKey

__all__ = ("Controlled", "control")


class Controlled(Protocol):
    """What can be changed while it runs."""

    @property
    def faults(self) -> frozenset[Switch]:
        """The switches in force."""
        ...

    def switch_on(self, *faults: str) -> None:
        """Put faults in force."""
        ...

    def switch_off(self, *faults: str) -> None:
        """Take faults out of force."""
        ...

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Sign with a new key."""
        ...

    def jwks(self) -> dict[str, Any]:
        """The published keys."""
        ...

    def forget(self) -> None:
        """Forget clients and grants."""
        ...


def control(server: Controlled, action: str, request: Request, body: bytes) -> Reply:
    """Answer a request to change the server; a GET of `faults` shows them with what there is.

    Raises:
        OAuthError: `invalid_request`.
    """
    if request.method == "GET" and action == "faults":
        known = {switch.value: switch.meaning for switch in Switch}
        return Reply(json_response(200, {"faults": sorted(server.faults), "known": known}))
    members = _members(request, body)
    if action == "rotate":
        server.rotate(keep=members.get("keep") is not False)
        return Reply(json_response(200, {"kids": [key["kid"] for key in server.jwks()["keys"]]}), "keys rotated")
    if action == "forget":
        server.forget()
        return Reply(json_response(200, {}), "clients and grants forgotten")
    on, off = _names(members, "on"), _names(members, "off")
    server.switch_off(*off)
    server.switch_on(*on)
    faults = sorted(server.faults)
    return Reply(json_response(200, {"faults": faults}), f"faults: {' '.join(faults) or 'none'}")


def _members(request: Request, body: bytes) -> dict[str, Any]:
    if media_type(request) != "application/json" or b"origin" in request.fields:
        raise OAuthError("invalid_request", "Send application/json, and not from a web page.")
    try:
        return load_object(body)
    except JSONRefused as error:
        raise OAuthError("invalid_request", f"The body is refused: {error}.") from None


def _names(members: dict[str, Any], member: str) -> list[str]:
    value = members.get(member, [])
    known = [str(switch) for switch in Switch]  # a list: what is asked for may be anything
    if not isinstance(value, list) or not all(name in known for name in cast("list[object]", value)):
        raise OAuthError("invalid_request", f"{member} is no list of known faults: GET shows them.")
    return cast("list[str]", value)
