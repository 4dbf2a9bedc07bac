"""The shorthand for one resource: its arguments as a `ResourceServerConfig`, and problems in its own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("SHORTHAND", "from_shorthand")

T = TypeVar("T")

# The field of the policy that each argument sets.
POLICY_FIELDS = {"required_scopes": "default", "tools": "tools", "public_tools": "public_tools"}
SHORTHAND = ("resource", "authorization_servers", "policy", *POLICY_FIELDS)
METADATA = "protected_resources[0].metadata."
POLICY = "protected_resources[0].policy"


def from_shorthand(make: Callable[..., T], arguments: Mapping[str, object]) -> T:
    """Make an `MCPAuth` of the shorthand arguments and further options.

    Raises:
        ConfigurationError: Every problem, in the names of the shorthand.
    """
    short = {name: arguments[name] for name in SHORTHAND if name in arguments}
    options = {name: value for name, value in arguments.items() if name not in SHORTHAND}
    found: list[Problem] = []
    config = _one_resource(short, found)
    try:
        made = make(config, **options)
    except ConfigurationError as error:
        raise ConfigurationError([*found, *(_renamed(problem, short) for problem in error.problems)]) from None
    if found:
        raise ConfigurationError(found)
    return made


def _one_resource(short: Mapping[str, Any], found: list[Problem]) -> ResourceServerConfig:
    metadata = ResourceServerMetadata(
        resource=short.get("resource") or "", authorization_servers=short.get("authorization_servers", ())
    )
    policy = unchecked(short.get("policy", ScopePolicy()))
    if not isinstance(policy, ScopePolicy):
        found.append(Problem("policy", "The value is not a ScopePolicy.", "Pass policy=ScopePolicy(...)."))
        policy = ScopePolicy()
    for name, field in POLICY_FIELDS.items():
        if name not in short:
            continue
        if getattr(policy, field):
            fix = f"Remove {name}=, or policy.{field}."
            found.append(Problem(name, f"Pass either {name}= or policy=ScopePolicy({field}=…), not both.", fix))
        policy = replace(policy, **{field: short[name]})
    return ResourceServerConfig(metadata=metadata, policy=policy)


def _renamed(problem: Problem, short: Mapping[str, object]) -> Problem:
    where = problem.where
    for name, field in POLICY_FIELDS.items():
        prefix = f"{POLICY}.{field}"
        if where.startswith(prefix) and (name in short or "policy" not in short):
            return problem._replace(where=name + where.removeprefix(prefix))
    return problem._replace(where=where.removeprefix(METADATA).replace(POLICY, "policy", 1))
