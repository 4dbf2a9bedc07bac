"""What an `authorize=` hook is given and what it answers: `Operation`, and `Allow`, `Deny` or `NeedScopes`.

    async def authorize(auth_info, operation, request):
        if operation.tool == "purge" and "admin" not in auth_info.claims.get("roles", []):
            return Deny("only admins purge")
        return Allow()

Values only: the policy's own rules are applied before a hook is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, cast

from asgi_mcp_auth._oauth.grammar import is_scope

__all__ = ("Allow", "Deny", "NeedScopes", "Operation", "TargetKind")

TargetKind = Literal["tool", "resource", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that a JSON-RPC message asks the app to do.

    A message that names several resources (`subscriptions/listen`) is one operation for each. A call of a tool that
    reaches other targets (`ScopePolicy.proxies`) is followed by an operation for each target, a call of a fastmcp
    app's address by an operation for the tool, and a resource with a query or a fragment by the resource without them.

    Args:
        method: The JSON-RPC method.
        kind: What `name` names, or None for a method without a target.
        name: The tool, the prompt, or the resource's URI. The URI is as servers read it, without needless
            percent-encoding; a URI that servers read in several ways is refused before the hook is asked.
        message_id: The request's id; None for a notification.
        params: The message's `params` as they are in the body: read them, do not change them. Empty when only
            header fields were read (`headers_only`).
        header_params: The `Mcp-Param-*` fields, decoded, by lower-case name without the prefix. They are the
            client's word: deny on them, never allow because of them.
    """

    method: str
    kind: TargetKind | None = None
    name: str | None = None
    message_id: str | int | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    header_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType[str, str]({}), repr=False)

    @property
    def tool(self) -> str | None:
        """The tool's name, if a tool is called."""
        return self.name if self.kind == "tool" else None

    @property
    def resource(self) -> str | None:
        """The resource's URI, if a resource is read or watched."""
        return self.name if self.kind == "resource" else None

    @property
    def prompt(self) -> str | None:
        """The prompt's name, if a prompt is got."""
        return self.name if self.kind == "prompt" else None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of a tool or prompt; empty where there are none."""
        arguments = self.params.get("arguments")
        return cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}

    def __str__(self) -> str:
        return self.method if self.name is None else f"{self.method} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Nothing against it."""


@dataclass(frozen=True, slots=True)
class Deny:
    """No, and no scope would change that: a plain 403.

    Args:
        reason: Why, for the log. The caller does not read it.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class NeedScopes:
    """Only with these scopes as well: a 403 `insufficient_scope` that names them, beside what the policy asks for.

    Where the token has them all already, it is a denial: asking again would change nothing.

    Args:
        scopes: Names as tokens carry them; a lone string is one scope.

    Raises:
        ValueError: There is none, or one of them is not a scope (RFC 6749 section 3.3).
    """

    scopes: tuple[str, ...]

    def __init__(self, scopes: Iterable[str] | str) -> None:
        given = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        if not given or not all(map(is_scope, given)):
            msg = "NeedScopes wants one scope or more, each as RFC 6749 section 3.3 has it"
            raise ValueError(msg)
        object.__setattr__(self, "scopes", given)
