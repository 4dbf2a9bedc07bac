"""What the middleware's constructor takes: the shorthand for one resource, and an app with habits of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_mcp_auth._protocol.shorthand import one_resource, told_in_shorthand
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver

__all__ = ("auth_for_one", "own_root_path")


def own_root_path(app: object) -> str:
    """The root path that `FastAPI(root_path=...)` sets below the middleware, where it is cut off the path all the same.

    Only FastAPI's: Quart's attribute of that name is a folder.
    """
    is_fastapi = any(base.__module__.startswith("fastapi.") for base in type(app).__mro__)
    return str(getattr(app, "root_path", "")) if is_fastapi else ""


def auth_for_one(
    resource: str | None,
    authorization_servers: Sequence[str | AuthServerConfig | IssuerResolver],
    required_scopes: Sequence[str],
    options: Mapping[str, Any],
) -> MCPAuth:
    """Compile the shorthand. Raises `ConfigurationError`, in the shorthand's own names."""
    config = one_resource(resource or "", authorization_servers, required_scopes)
    return told_in_shorthand(lambda: MCPAuth(config, **options))
