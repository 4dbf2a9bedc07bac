"""Endpoints that change a running server: `POST dev/faults`, `dev/rotate`, `dev/forget` below the issuer.

Each request body is a JSON object. A page of another site cannot send it: JSON needs a preflight, which these paths
refuse, and the server accepts only its own host names.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from asgi_mcp_auth._oauth.responses import json_response
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._core import Reply
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._forms import media_type
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.testing import SigningKey

__all__ = ("ControllableServer", "control")


class ControllableServer(Protocol):
    """The operations of a `DevServer` that these endpoints use."""

    @property
    def faults(self) -> frozenset[Switch]:
        """The active fault switches."""
        ...

    def switch_on(self, *faults: str) -> None:
        """Activate faults."""
        ...

    def switch_off(self, *faults: str) -> None:
        """Deactivate faults."""
        ...

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Sign with a new key."""
        ...

    def jwks(self) -> dict[str, Any]:
        """Return the published key set."""
        ...

    def forget(self) -> None:
        """Remove clients and grants."""
        ...


def control(server: ControllableServer, action: str, request: RequestInfo, body: bytes) -> Reply:
    """Answer a request that changes the server. A GET of `faults` lists the active and the known faults.

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
    if off:  # without names, switch_off deactivates every fault
        server.switch_off(*off)
    server.switch_on(*on)
    faults = sorted(server.faults)
    return Reply(json_response(200, {"faults": faults}), f"faults: {' '.join(faults) or 'none'}")


def _members(request: RequestInfo, body: bytes) -> dict[str, Any]:
    if media_type(request) != "application/json" or b"origin" in request.fields:
        raise OAuthError("invalid_request", "Send application/json, and not from a web page.")
    try:
        return load_object(body)
    except JSONRefused as error:
        raise OAuthError("invalid_request", f"The body is invalid: {error}.") from None


def _names(members: dict[str, Any], member: str) -> list[str]:
    value = members.get(member, [])
    known = [str(switch) for switch in Switch]  # a list, because an item of `value` may be unhashable
    if not isinstance(value, list) or not all(name in known for name in cast("list[object]", value)):
        raise OAuthError("invalid_request", f"{member} is not a list of known faults: send a GET to list them.")
    return cast("list[str]", value)
