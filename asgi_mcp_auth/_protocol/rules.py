"""Compiling the rules for operations of a `ScopePolicy`, and finding those that apply to what is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from asgi_mcp_auth._protocol.operations import IN_BODY_ONLY, LISTS, TARGETED, Asked, operation
from asgi_mcp_auth._protocol.patterns import Pattern, PatternTable, parse_pattern
from asgi_mcp_auth._protocol.problems import Problems, as_mapping, as_strings, show
from asgi_mcp_auth._protocol.rpc import INVALID_PARAMS, Message, malformed
from asgi_mcp_auth._protocol.scopes import Hierarchy, Requirement, Strength
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.authorization import TargetKind
from asgi_mcp_auth.config import ScopePolicy, ScopeRule
from asgi_mcp_auth.errors import Forbidden
from asgi_mcp_auth.reasons import Reason

__all__ = ("OperationRules", "compile_operation_rules", "compile_rule")

LONGEST_TEMPLATE = 512
_ACR = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
COMMON = frozenset((*LISTS, "initialize", "ping", "server/discover", "logging/setLevel", "subscriptions/listen"))
"""What a session needs before it does anything: never denied for having no rule."""

CompileScopes = Callable[[object, str, Problems], tuple[str, ...]]


def compile_rule(
    value: object, where: str, problems: Problems, scopes: CompileScopes
) -> tuple[tuple[str, ...], Strength | None]:
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
    strength = Strength(tuple(acr_values or ()), value.max_age)
    return scopes(value.scopes, where, problems), strength if strength != Strength() else None


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
        from asgi_mcp_auth._protocol.resource_uris import is_usual, readings  # noqa: PLC0415 - loaded with the rule

        if is_usual(name):
            return found
        forms = readings(name)
        template = message.method == "completion/complete" and any("{" in form for form in forms or ())
        if template and len(name) > LONGEST_TEMPLATE:
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
    rules: object, where: str, problems: Problems, hierarchy: Hierarchy, scopes: CompileScopes, *, templates: bool
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
    from asgi_mcp_auth._protocol.resource_uris import is_usual, readings  # noqa: PLC0415 - few have rules for URIs

    if isinstance(name, str) and (odd := readings(name)) is not None and not is_usual(name):
        fix = f"Write it as servers look it up: one of {', '.join(map(show, sorted(odd)))}."
        problems.warn(where, f"{show(name)} can be read in several ways.", fix)


def compile_operation_rules(
    policy: ScopePolicy, hierarchy: Hierarchy, where: str, problems: Problems, scopes: CompileScopes
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
