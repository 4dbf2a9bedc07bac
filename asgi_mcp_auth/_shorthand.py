"""What the middleware's constructor takes: the shorthand for one resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_mcp_auth._settings.shorthand import one_resource, with_shorthand_names
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver

__all__ = ("auth_for_one",)


def auth_for_one(
    resource: str | None,
    authorization_servers: Sequence[str | AuthServerConfig | IssuerResolver],
    required_scopes: Sequence[str],
    options: Mapping[str, Any],
) -> MCPAuth:
    """Compile the shorthand. Raises `ConfigurationError`, in the shorthand's own names."""
    config = one_resource(resource or "", authorization_servers, required_scopes)
    return with_shorthand_names(lambda: MCPAuth(config, **options))
