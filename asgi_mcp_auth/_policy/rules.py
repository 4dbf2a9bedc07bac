"""Compiling a `ScopePolicy`: what each request of one resource needs, and what its challenges name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from asgi_mcp_auth._mcp.messages import INVALID_PARAMS, Message, malformed
from asgi_mcp_auth._mcp.operations import IN_BODY_ONLY, LISTS, TARGETED, Asked, operation
from asgi_mcp_auth._oauth.grammar import NQCHAR, is_scope
from asgi_mcp_auth._policy.paths import PathRule, parse_rule
from asgi_mcp_auth._policy.patterns import Pattern, PatternTable, parse_pattern
from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, as_strings, show
from asgi_mcp_auth._policy.scopes import Requirement, ScopeHierarchy, StepUpRequirement
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.authorization import TargetKind
from asgi_mcp_auth.config import ScopePolicy, ScopeRule
from asgi_mcp_auth.errors import Forbidden, Reason

__all__ = (
    "CompiledPolicy",
    "OperationRules",
    "compile_operation_rules",
    "compile_policy",
    "compile_rule",
    "compile_scopes",
)

MAX_TEMPLATE_LENGTH = 512
_ACR = re.compile(f"[{NQCHAR}]+")
COMMON = frozenset((*LISTS, "initialize", "ping", "server/discover", "logging/setLevel", "subscriptions/listen"))
"""What a session needs before it does anything: never denied for having no rule."""

CompileScopes = Callable[[object, str, Problems], tuple[str, ...]]


def compile_rule(
    value: object, where: str, problems: Problems, scopes: CompileScopes
) -> tuple[tuple[str, ...], StepUpRequirement | None]:
    """What one rule asks for: a list of scopes, a `ScopeRule`, or a mapping with the fields of one."""
    table = as_mapping(value)
    if table is not None:
        if unknown := sorted(table.keys() - ScopeRule.__slots__):
            problems.add(where, f"{', '.join(map(show, unknown))} is not part of a rule.", "Remove it.")
        known = cast("dict[str, Any]", {name: table[name] for name in ScopeRule.__slots__ if name in table})
        value = ScopeRule(**known)
    if not isinstance(value, ScopeRule):
        return scopes(value, where, problems), None
    acr_values, max_age = as_strings(value.acr_values), cast("object", value.max_age)
    if acr_values is None or not all(map(_ACR.fullmatch, acr_values)):
        fix = "List them as printable ASCII without spaces."
        problems.add(f"{where}.acr_values", f"{show(value.acr_values)} are no acr values.", fix)
    if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0):
        problems.add(f"{where}.max_age", f"{show(max_age)} is no number of seconds.", "Give 0 or more.")
    strength = StepUpRequirement(tuple(acr_values or ()), value.max_age)
    return scopes(value.scopes, where, problems), strength if strength != StepUpRequirement() else None


class _Table(NamedTuple):
    """The rules of one kind."""

    names: PatternTable
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRules:
    """The rules of one resource for what is in a body."""

    targets: Mapping[TargetKind, _Table]
    methods: _Table
    deny_unlisted: bool
    public_methods: frozenset[str]
    headers_only: bool
    allow_batches: bool
    filter_lists: bool
    mark_reachable: bool

    @property
    def any(self) -> bool:
        """Whether there is anything that needs a body."""
        tables = (*self.targets.values(), self.methods)
        return self.deny_unlisted or bool(self.public_methods) or any(table.requirements for table in tables)

    def requirements(self, asked: Asked) -> list[Requirement] | Forbidden:
        """What an operation needs beside the baseline.

        Raises:
            MessageRefused: A resource's URI can be read in ways that have different rules (-32602).
        """
        method, kind, name, message = asked
        found: list[Requirement] = []
        listed = self.methods.names.find(method)
        if listed is not None:
            found.append(self.methods.requirements[listed])
        if kind is not None and name is not None:
            target = self._target(message, kind, name)
            found += [self.targets[kind].requirements[index] for index in target]
            unlisted = not target
        else:
            unlisted = listed is None and method not in COMMON and not method.startswith("notifications/")
        if unlisted and self.deny_unlisted:
            return Forbidden(Reason.OPERATION_NOT_LISTED, found=str(operation(asked, {})))
        return found

    def _target(self, message: Message, kind: TargetKind, name: str) -> list[int]:
        names = self.targets[kind].names
        index = names.find(name)
        found = [] if index is None else [index]
        if kind != "resource" or not self.targets[kind].requirements:
            return found
        from asgi_mcp_auth._mcp.resource_uris import is_usual, readings  # noqa: PLC0415 - loaded with the rule

        if is_usual(name):
            return found
        forms = readings(name)
        template = message.method == "completion/complete" and any("{" in form for form in forms or ())
        if template and len(name) > MAX_TEMPLATE_LENGTH:
            what = "a URI template that is too long"
            raise malformed(what, INVALID_PARAMS, message.message_id, description="Invalid params")
        if forms is None or not (template or all(names.find(form) == index for form in forms)):
            what = "an ambiguous URI"
            raise malformed(what, INVALID_PARAMS, message.message_id, description="Ambiguous resource URI")
        if template:  # its completions tell of every URI it stands for
            return sorted({*found, *(rule for form in forms for rule in names.reachable(form))})
        return found

    def listed(self, kind: TargetKind, name: str) -> Requirement | Forbidden | None:
        """What an entry of a list needs to be used; as `requirements`, and without an opinion on odd URIs."""
        table = self.targets[kind]
        index = table.names.find(name)
        if index is not None:
            return table.requirements[index]
        return Forbidden(Reason.OPERATION_NOT_LISTED, found=name) if self.deny_unlisted else None


def _table(
    rules: object, where: str, problems: Problems, hierarchy: ScopeHierarchy, scopes: CompileScopes, *, templates: bool
) -> _Table:
    names: list[Pattern | str] = []
    requirements: list[Requirement] = []
    for text, value in problems.mapping(rules, where).items():
        name = parse_pattern(text, templates=templates) if text else None
        if name is None:
            fix = "Write a name, a pattern with *, or a URI template with {operators} or * at its end only."
            problems.add(where, f"{show(text)} cannot be matched.", fix)
            continue
        needed, strength = compile_rule(value, f"{where}[{show(text)}]", problems, scopes)
        if templates:
            _warn_of_readings(name, where, problems)
        names.append(name)
        requirements.append(hierarchy.require(needed, strength=strength))
    table = PatternTable(names)
    for one, two in table.ties():
        fix = "Make one of them longer, or add the names that both match."
        problems.add(where, f"{show(one)} and {show(two)} are equally specific.", fix)
    return _Table(table, tuple(requirements))


def _warn_of_readings(name: Pattern | str, where: str, problems: Problems) -> None:
    from asgi_mcp_auth._mcp.resource_uris import is_usual, readings  # noqa: PLC0415 - few have rules for URIs

    if isinstance(name, str) and (odd := readings(name)) is not None and not is_usual(name):
        fix = f"Write it as servers look it up: one of {', '.join(map(show, sorted(odd)))}."
        problems.warn(where, f"{show(name)} can be read in several ways.", fix)


def compile_operation_rules(
    policy: ScopePolicy, hierarchy: ScopeHierarchy, where: str, problems: Problems, scopes: CompileScopes
) -> OperationRules:
    """Check and compile; what was a problem is left out of the result."""

    def table(name: str, *, templates: bool = False) -> _Table:
        return _table(getattr(policy, name), f"{where}.{name}", problems, hierarchy, scopes, templates=templates)

    for name in ("headers_only", "allow_batches", "filter_lists", "mark_reachable"):
        if not isinstance(getattr(policy, name), bool):
            problems.add(f"{where}.{name}", f"{show(getattr(policy, name))} is not a bool.", "Write True or False.")
    for name, values in (("unlisted", ("baseline", "deny")), ("scope_strategy", ("auto", "minimal", "cumulative"))):
        if getattr(policy, name) not in values:
            fix = f"Write one of {', '.join(map(show, values))}."
            problems.add(f"{where}.{name}", f"{show(getattr(policy, name))} is none of its values.", fix)
    public = problems.strings(policy.public_methods, f"{where}.public_methods")
    for method in public:
        if method in TARGETED or method in IN_BODY_ONLY or "*" in method:
            fix = "Name methods without a tool, resource or prompt: no rule for one would apply."
            problems.add(f"{where}.public_methods", f"{show(method)} cannot be public.", fix)
    if public and policy.headers_only:
        problems.add(f"{where}.public_methods", "headers_only reads no body.", "Choose one of the two.")
    if policy.mark_reachable and not policy.filter_lists:
        problems.add(f"{where}.mark_reachable", "It changes nothing without filter_lists.", "Set filter_lists=True.")
    return OperationRules(
        targets={
            "tool": table("tools"),
            "resource": table("resources", templates=True),
            "prompt": table("prompts"),
        },
        methods=table("rpc_methods"),
        deny_unlisted=policy.unlisted == "deny",
        public_methods=frozenset(public),
        headers_only=policy.headers_only is True,
        allow_batches=policy.allow_batches is True,
        filter_lists=policy.filter_lists is True,
        mark_reachable=policy.mark_reachable is True,
    )


# Real clients search a challenge for these with unanchored regular expressions.
MISLEADING = ("error=", "scope=", "resource_metadata=")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """The scopes of one resource; `requirements` belong to `rules`, one each, the baseline included."""

    hierarchy: ScopeHierarchy
    baseline: Requirement
    challenged: Requirement
    rules: tuple[PathRule, ...]
    requirements: tuple[Requirement, ...]
    operations: OperationRules
    non_mcp_paths: tuple[PathRule, ...]
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


_Needed = tuple[tuple[str, ...], StepUpRequirement | None]


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


def _non_mcp_paths(policy: ScopePolicy, where: str, problems: Problems) -> tuple[PathRule, ...]:
    rules = {text: parse_rule(text) for text in problems.strings(policy.non_mcp_paths, f"{where}.non_mcp_paths")}
    for text, rule in rules.items():
        if rule is None:
            fix = "Write '/path', '/path/*' or 'POST /path': a known method, the path decoded, no trailing slash."
            problems.add(f"{where}.non_mcp_paths", f"{show(text)} is not a path rule.", fix)
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
        non_mcp_paths=_non_mcp_paths(policy, where, problems),
        cumulative={"minimal": False, "cumulative": True}.get(policy.scope_strategy),
        known=hierarchy.require(default, asked, *ruled, *operated, hierarchy.scopes).needed,
    )
