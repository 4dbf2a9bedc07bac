"""What the middleware's constructor takes: the shorthand for one resource, and an app with habits of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import (
    AuthServerConfig,
    IssuerResolver,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("auth_for_one", "own_root_path")

PLACES = {
    "protected_resources[0].metadata.resource": "resource",
    "protected_resources[0].metadata.authorization_servers": "authorization_servers",
    "protected_resources[0].policy.default": "required_scopes",
}


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
    metadata = ResourceServerMetadata(resource=resource or "", authorization_servers=authorization_servers)
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=required_scopes))
    try:
        return MCPAuth(config, **options)
    except ConfigurationError as error:
        raise ConfigurationError(map(_relocated, error.problems)) from None


def _relocated(problem: Problem) -> Problem:
    for place, name in PLACES.items():
        if problem.where.startswith(place):
            return problem._replace(where=name + problem.where.removeprefix(place))
    return problem
