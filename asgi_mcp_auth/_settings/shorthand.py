"""The shorthand for one resource, as the middleware's constructor, a file and the environment have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from asgi_mcp_auth.config import (
    AuthServerConfig,
    IssuerResolver,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from asgi_mcp_auth._settings.reader import Field

__all__ = ("one_resource", "shorthand_fields", "with_shorthand_names")

T = TypeVar("T")

PLACES = {
    "protected_resources[0].metadata.resource": "resource",
    "protected_resources[0].metadata.authorization_servers": "authorization_servers",
    "protected_resources[0].policy.default": "required_scopes",
}


def one_resource(
    resource: str = "",
    authorization_servers: Sequence[str | AuthServerConfig | IssuerResolver] = (),
    required_scopes: Sequence[str] = (),
) -> ResourceServerConfig:
    """The resource that the shorthand means."""
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=authorization_servers)
    return ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=required_scopes))


def with_shorthand_names(build: Callable[[], T]) -> T:
    """What `build` returns; its `ConfigurationError` comes in the shorthand's own names."""
    try:
        return build()
    except ConfigurationError as error:
        raise ConfigurationError(map(_relocated, error.problems)) from None


def _relocated(problem: Problem) -> Problem:
    for place, name in PLACES.items():
        if problem.where.startswith(place):
            return problem._replace(where=name + problem.where.removeprefix(place))
    return problem


def shorthand_fields() -> dict[str, Field]:
    """The settings of the shorthand by name."""
    from asgi_mcp_auth._settings.reader import fields_of  # noqa: PLC0415 - only who reads settings pays for it

    metadata, policy = fields_of(ResourceServerMetadata), fields_of(ScopePolicy)
    return {
        "resource": metadata["resource"]._replace(required=False),
        "authorization_servers": metadata["authorization_servers"],
        "required_scopes": policy["default"]._replace(name="required_scopes"),
    }
