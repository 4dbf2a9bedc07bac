"""The values of an `authorize=` hook: it receives an `Operation` and returns `Allow`, `Deny` or `NeedScopes`.

    async def authorize(auth_info, operation, request):
        if operation.tool == "purge" and "admin" not in auth_info.claims.get("roles", []):
            return Deny("only administrators may purge")
        return Allow()

The rules of the scope policy are applied before the hook is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.json_types import is_object
from asgi_mcp_auth.errors import printable

__all__ = ("Allow", "Deny", "NeedScopes", "Operation", "TargetKind")

TargetKind = Literal["tool", "resource", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation that a JSON-RPC message requests from the app.

    A message that names several resources (`subscriptions/listen`) contains one operation for each. Some operations are
    followed by the operations that they cause: a call of a tool that reaches other targets (`ScopePolicy.proxies`) by
    one for each target, a call of a fastmcp app's address by one for the tool, and a resource with a query or a
    fragment by the resource without them.

    Args:
        method: The JSON-RPC method.
        kind: The kind of the target; None for a method without a target.
        name: The name of the tool or prompt, or the URI of the resource; None for a method without a target. The URI is
            in the form that servers read, without needless percent-encoding. A URI that servers read in several ways is
            rejected before the hook is called.
        message_id: The id of the message; None for a notification.
        params: The `params` of the message, as they are in the body. Do not change them. Empty if only header fields
            were read (`headers_only`).
        header_params: The decoded `Mcp-Param-*` header fields, by lower-case name without the prefix. Clients choose
            them freely: a hook may deny because of them, but must never allow because of them.
    """

    method: str
    kind: TargetKind | None = None
    name: str | None = None
    message_id: str | int | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    header_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType[str, str]({}), repr=False)

    @property
    def tool(self) -> str | None:
        """The name of the tool; None if the target is not a tool."""
        return self.name if self.kind == "tool" else None

    @property
    def resource(self) -> str | None:
        """The URI of the resource; None if the target is not a resource."""
        return self.name if self.kind == "resource" else None

    @property
    def prompt(self) -> str | None:
        """The name of the prompt; None if the target is not a prompt."""
        return self.name if self.kind == "prompt" else None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the tool or prompt; empty if there are none."""
        arguments = self.params.get("arguments")
        return arguments if is_object(arguments) else {}

    def __str__(self) -> str:
        return self.method if self.name is None else f"{self.method} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The operation is allowed."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The operation is denied, and another scope would not change that: a 403 without a challenge.

    Args:
        reason: The reason, for the log; it is not sent to the caller.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class NeedScopes:
    """The operation needs more scopes: a 403 `insufficient_scope` that names them and the scopes of the policy.

    If the token already has all of these scopes, the operation is denied, because requesting them again would not help.

    Args:
        scopes: The scopes as tokens carry them; a string is one scope.

    Raises:
        ValueError: There is no scope, or a value is not a scope (RFC 6749 section 3.3).
    """

    scopes: tuple[str, ...]

    def __init__(self, scopes: Iterable[str] | str) -> None:
        given = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        if not given or not all(map(is_scope, given)):
            msg = f"NeedScopes: {printable(given)} is not a list of scopes. Pass one or more; a scope has no spaces."
            raise ValueError(msg)
        object.__setattr__(self, "scopes", given)
