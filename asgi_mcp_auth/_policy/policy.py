"""Compile a `ScopePolicy`: what each request to one resource needs, and what its challenges name."""

from __future__ import annotations

from dataclasses import dataclass

from asgi_mcp_auth._policy.paths import PathRule, parse_rule
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._policy.rules import Needed, OperationRules, compile_operation_rules, compile_rule, compile_scopes
from asgi_mcp_auth._policy.scopes import Requirement, ScopeHierarchy
from asgi_mcp_auth.config import ScopePolicy

__all__ = ("CompiledPolicy", "compile_policy")

PATH_RULE = "Write '/path', '/path/*' or 'POST /path': a known method, the path decoded, no trailing slash."


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """The scopes of one resource.

    Attributes:
        baseline: What every request needs.
        challenged: What the challenge of a first 401 names.
        rules: The path rules.
        requirements: What each path rule needs, the baseline included.
        operations: The rules for what is in a body.
        non_mcp_paths: The paths whose bodies are not read.
        cumulative: Whether challenges name the granted scopes too; None: as the client's revision expects.
        known: Every scope that the policy names, in its order.
    """

    hierarchy: ScopeHierarchy
    baseline: Requirement
    challenged: Requirement
    rules: tuple[PathRule, ...]
    requirements: tuple[Requirement, ...]
    operations: OperationRules
    non_mcp_paths: tuple[PathRule, ...]
    cumulative: bool | None
    known: tuple[str, ...]


def _hierarchy(policy: ScopePolicy, where: str, problems: Problems) -> ScopeHierarchy:
    implies: dict[str, tuple[str, ...]] = {}
    for scope, included in problems.mapping(policy.implies, f"{where}.implies").items():
        compile_scopes([scope], f"{where}.implies", problems)
        implies[scope] = compile_scopes(included, f"{where}.implies[{show(scope)}]", problems)
    request_scope_names: dict[str, str] = {}
    for scope, name in problems.mapping(policy.request_scope_names, f"{where}.request_scope_names").items():
        both = compile_scopes([scope, name], f"{where}.request_scope_names[{show(scope)}]", problems)
        request_scope_names.update([both] if len(both) == 2 else [])  # noqa: PLR2004 - a pair, if both are scopes
    hierarchy = ScopeHierarchy(implies, request_scope_names)
    if (cycle := hierarchy.cycle()) is not None:
        fix = "Remove one of the two directions."
        problems.add(f"{where}.implies", f"{' and '.join(map(show, cycle))} imply themselves.", fix)
    return hierarchy


def _rules(policy: ScopePolicy, where: str, problems: Problems) -> dict[PathRule, Needed]:
    rules: dict[PathRule, Needed] = {}
    for text, scopes in problems.mapping(policy.paths, f"{where}.paths").items():
        rule = parse_rule(text)
        if rule is None:
            problems.add(f"{where}.paths", f"{show(text)} is not a path rule.", PATH_RULE)
        elif rule in rules:
            problems.add(f"{where}.paths", f"{show(text)} is listed more than once.", "Merge the two rules.")
        else:
            rules[rule] = compile_rule(scopes, f"{where}.paths[{show(text)}]", problems)
    return rules


def compile_policy(policy: ScopePolicy, where: str, problems: Problems, loaded: frozenset[str]) -> CompiledPolicy:
    """Check and compile a policy; anything that is a problem is left out of the result.

    `loaded` contains the modules of `_compat.servers.MODULES` that are loaded.
    """
    hierarchy = _hierarchy(policy, where, problems)
    default = compile_scopes(policy.default, f"{where}.default", problems, published=True)
    asked = default
    if policy.challenge_scopes is not None:
        asked = compile_scopes(policy.challenge_scopes, f"{where}.challenge_scopes", problems, published=True)
    rules = _rules(policy, where, problems)
    operations = compile_operation_rules(policy, hierarchy, where, problems, loaded)
    ruled = [scopes for needed in rules.values() for scopes in (needed.scopes, *needed.any_of)]
    of_operations = [
        requirement
        for table in (*operations.targets.values(), operations.methods)
        for requirement in table.requirements
    ]
    operated = [requirement.needed for requirement in of_operations]
    operated += [tuple(sorted(one)) for rule in of_operations for scopes in rule.alternatives for one in scopes]
    return CompiledPolicy(
        hierarchy=hierarchy,
        baseline=hierarchy.require(default),
        challenged=hierarchy.require(asked),
        rules=tuple(rules),
        requirements=tuple(
            hierarchy.require(default, needed.scopes, any_of=needed.any_of, strength=needed.strength)
            for needed in rules.values()
        ),
        operations=operations,
        non_mcp_paths=problems.parsed(
            policy.non_mcp_paths, f"{where}.non_mcp_paths", parse_rule, "a path rule", PATH_RULE
        ),
        cumulative={"minimal": False, "cumulative": True}.get(policy.scope_strategy),
        known=hierarchy.require(default, asked, *ruled, *operated, hierarchy.scopes).needed,
    )
