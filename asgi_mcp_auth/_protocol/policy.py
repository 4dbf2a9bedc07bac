"""Compiling a `ScopePolicy`: what each request of one resource needs, and what its challenges name."""

from __future__ import annotations

from asgi_mcp_auth._protocol.path_forms import PathRule, parse_rule
from asgi_mcp_auth._protocol.problems import Problems, as_list, show
from asgi_mcp_auth._protocol.rules import OperationRules, compile_operation_rules, compile_rule
from asgi_mcp_auth._protocol.scopes import Hierarchy, Requirement, Strength, is_scope
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import ScopePolicy

__all__ = ("CompiledPolicy", "compile_policy", "compile_scopes")

# Real clients search a challenge for these with unanchored regular expressions.
MISLEADING = ("error=", "scope=", "resource_metadata=")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """The scopes of one resource; `requirements` belong to `rules`, one each, the baseline included."""

    hierarchy: Hierarchy
    baseline: Requirement
    challenged: Requirement
    rules: tuple[PathRule, ...]
    requirements: tuple[Requirement, ...]
    operations: OperationRules
    plain_paths: tuple[PathRule, ...]
    cumulative: bool | None
    """Whether challenges name the granted scopes too; None for what the client's revision wants."""
    known: tuple[str, ...]
    """Every scope that the policy names, in its order."""


def compile_scopes(value: object, where: str, problems: Problems, *, published: bool = False) -> tuple[str, ...]:
    """A list of scope tokens, checked.

    `published` ones go into metadata or a challenge: `offline_access` is left out of them, because it is the
    client's own business (MCP 2026-07-28).
    """
    scopes = as_list(value)
    if scopes is None:
        problems.add(where, f"{show(value)} is not a list of scopes.", "Write a list of strings.")
        return ()
    for scope in scopes:
        if not is_scope(scope):
            fix = 'Use printable ASCII without spaces, `"` and `\\` (RFC 6749 section 3.3).'
            problems.add(where, f"{show(scope)} is not a scope.", fix)
    known = [scope for scope in scopes if isinstance(scope, str) and is_scope(scope)]
    for scope in known:
        if any(name in scope for name in MISLEADING):
            problems.warn(where, f"{show(scope)} looks like a parameter of a challenge.", "Clients will misread it.")
    if published and "offline_access" in known:
        problems.warn(where, "offline_access is not asked for.", "Remove it: clients add it themselves.")
        known.remove("offline_access")
    return tuple(known)


def _hierarchy(policy: ScopePolicy, where: str, problems: Problems) -> Hierarchy:
    implies: dict[str, tuple[str, ...]] = {}
    for scope, included in problems.mapping(policy.implies, f"{where}.implies").items():
        compile_scopes([scope], f"{where}.implies", problems)
        implies[scope] = compile_scopes(included, f"{where}.implies[{show(scope)}]", problems)
    wire_names: dict[str, str] = {}
    for scope, name in problems.mapping(policy.wire_names, f"{where}.wire_names").items():
        both = compile_scopes([scope, name], f"{where}.wire_names[{show(scope)}]", problems)
        wire_names.update([both] if len(both) == 2 else [])  # noqa: PLR2004 - a pair, if both are scopes
    hierarchy = Hierarchy(implies, wire_names)
    if (cycle := hierarchy.cycle()) is not None:
        fix = "Remove one of the two directions."
        problems.add(f"{where}.implies", f"{' and '.join(map(show, cycle))} imply themselves.", fix)
    return hierarchy


_Needed = tuple[tuple[str, ...], Strength | None]


def _rules(policy: ScopePolicy, where: str, problems: Problems) -> dict[PathRule, _Needed]:
    rules: dict[PathRule, _Needed] = {}
    for text, scopes in problems.mapping(policy.paths, f"{where}.paths").items():
        rule = parse_rule(text)
        if rule is None:
            fix = "Write '/path', '/path/*' or 'POST /path': a known method, the path decoded, no trailing slash."
            problems.add(f"{where}.paths", f"{show(text)} is not a path rule.", fix)
        elif rule in rules:
            problems.add(f"{where}.paths", f"{show(text)} stands there twice.", "Merge the two rules.")
        else:
            rules[rule] = compile_rule(scopes, f"{where}.paths[{show(text)}]", problems, compile_scopes)
    return rules


def _plain_paths(policy: ScopePolicy, where: str, problems: Problems) -> tuple[PathRule, ...]:
    rules = {text: parse_rule(text) for text in problems.strings(policy.plain_paths, f"{where}.plain_paths")}
    for text, rule in rules.items():
        if rule is None:
            fix = "Write '/path', '/path/*' or 'POST /path': a known method, the path decoded, no trailing slash."
            problems.add(f"{where}.plain_paths", f"{show(text)} is not a path rule.", fix)
    return tuple(rule for rule in rules.values() if rule is not None)


def compile_policy(policy: ScopePolicy, where: str, problems: Problems) -> CompiledPolicy:
    """Check and compile a policy; what was a problem is left out of the result."""
    hierarchy = _hierarchy(policy, where, problems)
    default = compile_scopes(policy.default, f"{where}.default", problems, published=True)
    asked = default
    if policy.challenge_scopes is not None:
        asked = compile_scopes(policy.challenge_scopes, f"{where}.challenge_scopes", problems, published=True)
    rules = _rules(policy, where, problems)
    operations = compile_operation_rules(policy, hierarchy, where, problems, compile_scopes)
    ruled = [scopes for scopes, _ in rules.values()]
    operated = [
        requirement.needed
        for table in (*operations.targets.values(), operations.methods)
        for requirement in table.requirements
    ]
    return CompiledPolicy(
        hierarchy=hierarchy,
        baseline=hierarchy.require(default),
        challenged=hierarchy.require(asked),
        rules=tuple(rules),
        requirements=tuple(hierarchy.require(default, more, strength=strength) for more, strength in rules.values()),
        operations=operations,
        plain_paths=_plain_paths(policy, where, problems),
        cumulative={"minimal": False, "cumulative": True}.get(policy.scope_strategy),
        known=hierarchy.require(default, asked, *ruled, *operated, hierarchy.scopes).needed,
    )
