"""The rules of a `ScopePolicy` for operations: what each operation in a body needs, and which need no token."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any, Final, Literal, NamedTuple

from asgi_mcp_auth._compat.servers import loaded_proxies, local_name
from asgi_mcp_auth._mcp.messages import Message, malformed
from asgi_mcp_auth._mcp.operations import (
    IN_BODY_ONLY,
    LISTS,
    MAX_OPERATIONS,
    TARGETED,
    Argument,
    Asked,
    ambiguous,
    check_uris,
    proxied,
)
from asgi_mcp_auth._mcp.resource_uris import canonical, forms, is_usual, with_path, without_query
from asgi_mcp_auth._oauth.grammar import NQCHAR, is_scope
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._policy.patterns import Pattern, PatternTable, parse_pattern
from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, as_strings, show
from asgi_mcp_auth._policy.scopes import Requirement, ScopeHierarchy, StepUpRequirement
from asgi_mcp_auth.authorization import TargetKind
from asgi_mcp_auth.config import ScopePolicy, ScopeRule
from asgi_mcp_auth.errors import Forbidden, Reason

__all__ = (
    "Needed",
    "OperationRules",
    "compile_operation_rules",
    "compile_rule",
    "compile_scopes",
)

MAX_PROXY_DEPTH = 4  # a tool that calls a tool that calls a tool …
MAX_NAMESPACE_PARTS = 4
MAX_AGE = 315_360_000  # ten years
_ACR = re.compile(f"[{NQCHAR}]+")
_ARGUMENT = re.compile(r"([^.\[\]]+)(\[\])?")
COMMON = frozenset((*LISTS, "initialize", "ping", "server/discover", "logging/setLevel", "subscriptions/listen"))
"""What a session needs before it does anything: never denied for having no rule."""

_KINDS: Final[Mapping[str, TargetKind]] = {"tool": "tool", "resource": "resource", "prompt": "prompt"}
OPENING: Final = ("initialize", "notifications/initialized", "server/discover", "ping", *LISTS)
"""What a client without a token needs before it can call a public target."""
ANNOTATIONS: Final = ("required_scopes", "security_schemes")


class Needed(NamedTuple):
    """What one rule needs: scopes, one of several sets of scopes, and the user's authentication."""

    scopes: tuple[str, ...] = ()
    any_of: tuple[tuple[str, ...], ...] = ()
    strength: StepUpRequirement | None = None


def compile_rule(value: object, where: str, problems: Problems) -> Needed:
    """Return what one rule needs, from a list of scopes, a `ScopeRule`, or a mapping with the fields of one."""
    table = as_mapping(value)
    if table is not None:
        if unknown := sorted(table.keys() - ScopeRule.__slots__):
            problems.add(where, f"{', '.join(map(show, unknown))} is not part of a rule.", "Remove it.")
        known: dict[str, Any] = {name: table[name] for name in ScopeRule.__slots__ if name in table}
        value = ScopeRule(**known)
    if not isinstance(value, ScopeRule):
        return Needed(compile_scopes(value, where, problems))
    acr_values, max_age = as_strings(value.acr_values), unchecked(value.max_age)
    if acr_values is None or not all(map(_ACR.fullmatch, acr_values)):
        fix = "List them as printable ASCII without spaces."
        problems.add(f"{where}.acr_values", f"{show(value.acr_values)} are no acr values.", fix)
    counts = isinstance(max_age, int) and not isinstance(max_age, bool) and 0 <= max_age <= MAX_AGE
    if max_age is not None and not counts:
        problems.add(f"{where}.max_age", f"{show(max_age)} is no number of seconds.", f"Set 0 to {MAX_AGE}.")
    strength = StepUpRequirement(tuple(acr_values or ()), value.max_age)
    alternatives = as_list(value.any_of)
    if alternatives is None or not all(map(as_list, alternatives)):
        fix = "Write a list of lists of scopes, none of them empty."
        problems.add(f"{where}.any_of", f"{show(value.any_of)} are no alternatives.", fix)
        alternatives = []
    return Needed(
        compile_scopes(value.scopes, where, problems),
        tuple(compile_scopes(scopes, f"{where}.any_of", problems) for scopes in alternatives),
        strength if strength != StepUpRequirement() else None,
    )


class _Table(NamedTuple):
    """The rules of one kind; `rules` are the names and patterns as written, in the order of `requirements`."""

    names: PatternTable
    requirements: tuple[Requirement, ...]
    rules: tuple[Pattern | str, ...]

    def specificity(self, name: str) -> tuple[float, str] | None:
        """Return how specific the rule for a name is, and its text; None for no rule. An exact name has no text."""
        index = self.names.find(name)
        if index is None:
            return None
        rule = self.rules[index]
        return (inf, "") if isinstance(rule, str) else (rule.weight, rule.text)


class _Proxy(NamedTuple):
    """A tool that reaches other targets: those that its arguments name, or anything."""

    arguments: tuple[Argument, ...]
    anything: bool


class _Proxies:
    """Proxy tools by name, and by the end of a name that begins with the namespace of a mounted server."""

    def __init__(self, proxies: Mapping[str, _Proxy]) -> None:
        self._exact = {name: proxy for name, proxy in proxies.items() if not name.startswith("*")}
        self._by_tail = {name[1:]: proxy for name, proxy in proxies.items() if name.startswith("*")}
        self._tails = tuple(self._by_tail)

    def find(self, tool: str) -> tuple[_Proxy, str] | None:
        """Return the proxy that `tool` may be, and the namespace before its name; an exact name has none."""
        exact = self._exact.get(tool)
        if exact is not None:
            return exact, ""
        if not tool.endswith(self._tails):
            return None
        tail = max((tail for tail in self._tails if tool.endswith(tail)), key=len)
        return self._by_tail[tail], tool.removesuffix(tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRules:
    """The rules of one resource for what is in a body."""

    targets: Mapping[TargetKind, _Table]
    methods: _Table
    proxies: _Proxies
    deny_unlisted: bool
    public_targets: Mapping[TargetKind, _Table]
    public_methods: frozenset[str]
    challenge_style: Literal["http", "tool_result", "auto"]
    headers_only: bool
    allow_batches: bool
    filter_lists: bool
    annotate_lists: frozenset[str]

    @property
    def any(self) -> bool:
        """Whether there is anything that needs a body."""
        tables = (*self.targets.values(), self.methods)
        return self.deny_unlisted or bool(self.public_methods) or any(table.requirements for table in tables)

    @property
    def has_public_targets(self) -> bool:
        """Whether some tools, resources or prompts need no token."""
        return any(table.rules for table in self.public_targets.values())

    @property
    def public_names(self) -> tuple[str, ...]:
        """Everything that needs no token, for people: kinds with their names, then methods."""
        targets = [
            f"{kind} {rule if isinstance(rule, str) else rule.text}"
            for kind, table in self.public_targets.items()
            for rule in table.rules
        ]
        return (*targets, *(f"method {method}" for method in sorted(self.public_methods)))

    def is_public(self, asked: Asked) -> bool:
        """Return whether an operation, under this name, needs no token.

        `resolve` yields every name under which an operation runs. A request needs no token only if all are public.
        """
        method, kind, name, _ = asked
        if kind is None or name is None:
            return method in self.public_methods
        if kind != "resource":
            return self.is_listed_public(kind, name)
        if method == "completion/complete" and "{" in name:
            return False  # its completions reveal every URI that the template expands to
        spellings = [with_path(name)] if is_usual(name) else forms(name) or ()
        each = [form for spelling in spellings for form in (spelling, *without_query(spelling))]
        return bool(each) and all(self.is_listed_public(kind, form) for form in each)

    def is_listed_public(self, kind: TargetKind, name: str) -> bool:
        """Return whether a target is listed as public, and no rule for it is more specific than the listing.

        Tools that may run any other tool are never public: the tool that runs is not known before the call.
        """
        listed = self.public_targets[kind].specificity(name)
        if listed is None or (kind == "tool" and self._may_run_others(name)):
            return False
        rule = self.targets[kind].specificity(name)
        return rule is None or rule == listed or rule[0] < listed[0]

    def _may_run_others(self, tool: str) -> bool:
        proxy = self.proxies.find(tool)
        opaque = proxy is not None and (proxy[0].anything or (proxy[0].arguments and _too_nested(proxy[1])))
        return bool(opaque) or local_name(tool) is not None

    def resolve(self, asked: list[Asked], *, hooked: bool = False) -> list[Asked]:
        """Return what a body asks for under every name that leads there, with what it reaches through proxy tools.

        Args:
            asked: What the body asks for by its own words.
            hooked: Whether a hook is asked about each operation; see `check_uris`.

        Raises:
            MessageRefused: A proxy tool names no target, or there is too much to check.
        """
        found, reached = asked, self._behind(asked)
        for _ in range(MAX_PROXY_DEPTH):
            if not reached:
                looked_up = hooked or self.targets["resource"].requirements or self.public_targets["resource"].rules
                return check_uris(found, hooked=hooked) if looked_up else found
            found = [*found, *reached]
            if len(found) > MAX_OPERATIONS:
                break
            reached = self._behind(reached)
        what = "too many operations through proxy tools"
        raise malformed(what, message_id=found[0][3].message_id)

    def _behind(self, asked: list[Asked]) -> list[Asked]:
        """Return what calls of tools run under another name, and the targets that they reach through proxy tools."""
        found: list[Asked] = []
        for one in asked:
            method, kind, name, message = one
            if kind != "tool" or name is None:
                continue
            local = local_name(name) if name.startswith("__") else None
            if local is not None:
                found.append((method, kind, local, message._replace(params={**message.params, "name": local})))
            proxy = self.proxies.find(name)
            if proxy is not None and not self.headers_only:
                found += _through(one, *proxy)
        return found

    def requirements(self, asked: Asked) -> list[Requirement] | Forbidden:
        """Return what an operation needs in addition to the baseline.

        Raises:
            MessageRefused: A resource's URI can be read in ways that have different rules (-32602).
        """
        method, kind, name, message = asked
        found: list[Requirement] = []
        rule = self.methods.names.find(method)
        if rule is not None:
            found.append(self.methods.requirements[rule])
        if kind is None or name is None:
            listed = rule is not None or method in COMMON or method.startswith("notifications/")
        elif kind == "resource":
            listed, rules = self._resource(message, name)
            found += [self.targets[kind].requirements[index] for index in rules]
        else:
            rule = self.targets[kind].names.find(name)
            listed = rule is not None
            if rule is not None:
                found.append(self.targets[kind].requirements[rule])
            if kind == "tool":
                found += self._reached_by(name)
        if not listed and self.deny_unlisted and not self.is_public(asked):
            return Forbidden(Reason.OPERATION_NOT_LISTED, found=method if name is None else f"{method} {name}")
        return found

    def _reached_by(self, tool: str) -> list[Requirement]:
        """Return what a tool needs because of the targets that it may reach: the rules of all of them, or none."""
        names, requirements, _ = self.targets["tool"]
        proxy = self.proxies.find(tool)
        if proxy is not None:
            anything = proxy[0].anything and names.find_exact(tool) is None
            if anything or (proxy[0].arguments and (self.headers_only or _too_nested(proxy[1]))):
                return [one for table in self.targets.values() for one in table.requirements]
        local = local_name(tool)
        if local is None:
            return []
        if names.find_exact(local) is None and names.find_exact(tool) is None:
            return [*requirements]  # the tool may be listed under another name (fastmcp's Namespace, ToolTransform)
        return [requirements[index] for index in sorted(names.ending_with(f"_{local}"))]

    def _resource(self, message: Message, uri: str) -> tuple[bool, list[int]]:
        """Return whether a resource has a rule of its own, and all rules that apply to it."""
        if not self.targets["resource"].requirements:
            return False, []
        if is_usual(uri):
            return self._uri_rules(with_path(uri))
        if message.method == "completion/complete":
            templates = forms(uri, wildcards=True) or ()
            if any("{" in template for template in templates):  # its completions reveal every URI that it expands to
                names = self.targets["resource"].names
                reachable = {
                    index
                    for template in templates
                    for whole in (template, *without_query(template))
                    for index in names.reachable(whole)
                }
                return bool(reachable), sorted(reachable)
        rules = [self._uri_rules(form) for form in forms(uri) or ()]
        if not rules or any(self._meaning(other) != self._meaning(rules[0]) for other in rules[1:]):
            raise ambiguous(message)
        return rules[0]

    def _uri_rules(self, form: str) -> tuple[bool, list[int]]:
        """Return whether a canonical URI has a rule, and its rules and those of the URI without its query.

        fastmcp ignores query and fragment when it matches a template, so all of these rules add up.
        """
        names = self.targets["resource"].names
        rule = names.find(form)
        found = {rule, *map(names.find, without_query(form))}
        return rule is not None, sorted(index for index in found if index is not None)

    def _meaning(self, rules: tuple[bool, list[int]]) -> object:
        """Return what rules come to, so that two rules with the same scopes are the same."""
        listed, indexes = rules
        needed = [self.targets["resource"].requirements[index] for index in indexes]
        means = frozenset(
            (frozenset(one.needed), frozenset(one.alternatives), one.strength)
            for one in needed
            if one.needed or one.strength
        )
        return listed and self.deny_unlisted, means

    def listed(self, kind: TargetKind, name: str) -> list[Requirement] | Forbidden:
        """Return what an entry of a list needs to be used; as `requirements`, but unusual URIs are not refused."""
        table = self.targets[kind]
        if kind == "resource":
            name = with_path(canonical(name, wildcards="{" in name))
            listed, rules = self._uri_rules(name)
        else:
            rule = table.names.find(name)
            listed, rules = rule is not None, [] if rule is None else [rule]
        if not listed and self.deny_unlisted and not self.is_listed_public(kind, name):
            return Forbidden(Reason.OPERATION_NOT_LISTED, found=name)
        return [table.requirements[index] for index in rules] + (self._reached_by(name) if kind == "tool" else [])


def _through(asked: Asked, proxy: _Proxy, namespace: str) -> Iterator[Asked]:
    """Yield the targets that a call of a proxy tool names, also as they are called above the mount of its server."""
    given = asked[3].params.get("arguments")
    if not proxy.arguments:
        return
    if namespace and not (isinstance(given, dict) and proxy.arguments[0].path[0][0] in given):
        return  # another tool whose name ends like a proxy's: the proxy itself has no default for this argument
    for inner in proxied(asked, proxy.arguments):
        yield inner
        if namespace:
            yield from _in_namespace(inner, namespace)


def _in_namespace(asked: Asked, namespace: str) -> Iterator[Asked]:
    """Yield the names that the target of a mounted server has above the mount (fastmcp's Namespace)."""
    method, kind, name, message = asked
    if kind != "resource":
        yield method, kind, f"{namespace}_{name}", message
        return
    scheme, separator, path = (name or "").partition("://")
    first, *parts = namespace.split("_")
    if separator and len(parts) < MAX_NAMESPACE_PARTS:
        for joints in product("_/", repeat=len(parts)):  # `a_b` may be one namespace, or one inside another
            inside = first + "".join(joint + part for joint, part in zip(joints, parts, strict=True))
            yield method, kind, f"{scheme}://{inside}/{path}", message


def _too_nested(namespace: str) -> bool:
    return namespace.count("_") >= MAX_NAMESPACE_PARTS


def _public_table(
    kind: TargetKind, policy: ScopePolicy, where: str, problems: Problems, hierarchy: ScopeHierarchy
) -> _Table:
    """Compile a list of public targets: a table whose rules need nothing."""
    option = f"{where}.public_{kind}s"
    listed = problems.strings(getattr(policy, f"public_{kind}s"), option)
    if listed and policy.headers_only:
        problems.add(option, "headers_only reads no body.", "Remove one of the two.")
    for name in listed if kind == "tool" else ():
        if local_name(name) is not None:
            fix = "List the name that tools/list shows. A call by the address needs a token."
            problems.add(option, f"{show(name)} is an address of fastmcp and cannot be public.", fix)
    rules = dict.fromkeys(listed, ())
    return _table(rules, option, problems, hierarchy, templates=kind == "resource", may_tie=True)


def _table(
    rules: object,
    where: str,
    problems: Problems,
    hierarchy: ScopeHierarchy,
    *,
    templates: bool,
    may_tie: bool = False,
) -> _Table:
    names: list[Pattern | str] = []
    spellings: list[tuple[Pattern | str, int]] = []
    requirements: list[Requirement] = []
    for text, value in problems.mapping(rules, where).items():
        name = parse_pattern(text, templates=templates) if text else None
        if name is None:
            fix = "Write a name, a pattern with *, or a URI template with {operators} or * at its end only."
            problems.add(where, f"{show(text)} cannot be matched.", fix)
            continue
        needed = compile_rule(value, f"{where}[{show(text)}]", problems)
        if templates:
            name, *others = _uri_spellings(name, text, where, problems)
            spellings += [(other, len(names)) for other in others]
        if isinstance(name, str) and name in names:
            problems.add(where, f"{show(text)} is the same resource as another rule.", "Merge the two rules.")
        names.append(name)
        requirements.append(hierarchy.require(needed.scopes, any_of=needed.any_of, strength=needed.strength))
    table = PatternTable(names, spellings)
    for one, two in () if may_tie else table.ties():
        fix = "Make one of them longer, or add the names that both match."
        problems.add(where, f"{show(one)} and {show(two)} are equally specific.", fix)
    return _Table(table, tuple(requirements), tuple(names))


def _uri_spellings(name: Pattern | str, text: str, where: str, problems: Problems) -> list[Pattern | str]:
    """Return a rule in the canonical form of URIs, then in the other forms that it may have to match."""
    if isinstance(name, str):
        read = forms(name)
        if read is None and not is_usual(name):
            fix = "Write the URI as RFC 3986 has it, with percent-encoding."
            problems.warn(where, f"{show(text)} is refused in requests: servers disagree how to read it.", fix)
        return [canonical(name), *(read or ())]
    whole = canonical(name.glob, wildcards=True)
    if name.template:
        return [name._replace(glob=whole if name.open else with_path(whole))]
    globs = dict.fromkeys((name.glob, whole, with_path(whole)))
    if "/" not in name.glob.replace("://", "", 1) and not name.glob.endswith("*"):
        globs[f"{name.glob}/"] = None  # a pattern for a whole URI without a path
    return [name._replace(glob=glob) for glob in globs]


def _proxies(policy: ScopePolicy, loaded: frozenset[str], where: str, problems: Problems) -> _Proxies:
    proxies: dict[str, _Proxy] = {}
    given = problems.mapping(policy.proxies, f"{where}.proxies")
    for tool, arguments in {**loaded_proxies(loaded), **given}.items():
        place = f"{where}.proxies[{show(tool)}]"
        if not tool.strip("*") or "*" in tool[1:]:
            problems.add(place, f"{show(tool)} is not a tool.", "Write a name, or * and the end of a name.")
        found: list[Argument] = []
        anything = False
        for argument, kind in problems.mapping(arguments, place).items():
            steps = [_ARGUMENT.fullmatch(step) for step in argument.split(".")]
            target = _KINDS.get(kind) if isinstance(kind, str) else None
            if kind == "any":
                anything = True
            elif target is None:
                fix = "Write 'tool', 'resource', 'prompt' or 'any'."
                problems.add(f"{place}[{show(argument)}]", f"{show(kind)} is no kind of target.", fix)
            elif None in steps:
                fix = "Write the argument's name, or a path such as 'calls[].tool'."
                problems.add(place, f"{show(argument)} is not an argument.", fix)
            else:
                path = tuple((step[1], step[2] is not None) for step in steps if step is not None)
                found.append(Argument(target, path))
        proxies[tool] = _Proxy(tuple(found), anything)
    return _Proxies(proxies)


def _check_choices(policy: ScopePolicy, where: str, problems: Problems) -> None:
    """Check the options that have a few values, and that no two of them exclude each other."""
    for name in ("headers_only", "allow_batches", "filter_lists"):
        if not isinstance(getattr(policy, name), bool):
            problems.add(f"{where}.{name}", f"{show(getattr(policy, name))} is not a bool.", "Write True or False.")
    for name, values in (
        ("unlisted", ("baseline", "deny")),
        ("scope_strategy", ("auto", "minimal", "cumulative")),
        ("challenge_style", ("http", "tool_result", "auto")),
    ):
        if getattr(policy, name) not in values:
            fix = f"Write one of {', '.join(map(show, values))}."
            problems.add(f"{where}.{name}", f"{show(getattr(policy, name))} is none of its values.", fix)
    if policy.public_methods and policy.headers_only:
        problems.add(f"{where}.public_methods", "headers_only reads no body.", "Remove one of the two.")
    if policy.filter_lists and policy.headers_only:
        fix = "Remove one of the two: a response is known as a list by the id in the body."
        problems.add(f"{where}.filter_lists", "headers_only reads no body.", fix)
    annotations = policy.annotate_lists if isinstance(policy.annotate_lists, Collection) else ()
    if "required_scopes" in annotations and not policy.filter_lists:
        what = "'required_scopes' changes nothing without filter_lists."
        problems.add(f"{where}.annotate_lists", what, "Set filter_lists=True.")
    if "security_schemes" in annotations and policy.headers_only:
        fix = "Remove one of the two: a response is known as a list by the id in the body."
        problems.add(f"{where}.annotate_lists", "headers_only reads no body.", fix)


def _public_methods(policy: ScopePolicy, where: str, problems: Problems) -> frozenset[str]:
    methods = problems.strings(policy.public_methods, f"{where}.public_methods")
    for method in methods:
        if method in TARGETED or method in IN_BODY_ONLY or "*" in method:
            fix = "Name methods without a tool, resource or prompt: no rule for one would apply."
            problems.add(f"{where}.public_methods", f"{show(method)} cannot be public.", fix)
    return frozenset(methods)


def _check_public_tools(rules: OperationRules, where: str, problems: Problems) -> None:
    for name in rules.public_targets["tool"].rules:
        proxy = rules.proxies.find(name) if isinstance(name, str) else None
        if proxy is not None and proxy[0].anything:
            fix = f"Remove it, or set proxies={{{show(name)}: {{}}}} if the tool runs nothing but itself."
            what = f"{show(name)} can run every tool of the server, so it cannot be public."
            problems.add(f"{where}.public_tools", what, fix)


def _annotations(policy: ScopePolicy, where: str, problems: Problems) -> frozenset[str]:
    given = policy.annotate_lists
    names = problems.strings(list(given) if isinstance(given, (set, frozenset)) else given, f"{where}.annotate_lists")
    for name in names:
        if name not in ANNOTATIONS:
            fix = f"Write {', '.join(map(show, ANNOTATIONS))}."
            problems.add(f"{where}.annotate_lists", f"{show(name)} is none of its values.", fix)
    return frozenset(names)


def compile_operation_rules(
    policy: ScopePolicy, hierarchy: ScopeHierarchy, where: str, problems: Problems, loaded: frozenset[str]
) -> OperationRules:
    """Check and compile; anything that is a problem is left out of the result."""

    def table(name: str, *, templates: bool = False) -> _Table:
        return _table(getattr(policy, name), f"{where}.{name}", problems, hierarchy, templates=templates)

    _check_choices(policy, where, problems)
    methods = table("rpc_methods")
    public: dict[TargetKind, _Table] = {
        kind: _public_table(kind, policy, where, problems, hierarchy) for kind in _KINDS.values()
    }
    opening = OPENING if any(listed.rules for listed in public.values()) else ()
    rules = OperationRules(
        targets={
            "tool": table("tools"),
            "resource": table("resources", templates=True),
            "prompt": table("prompts"),
        },
        methods=methods,
        proxies=_proxies(policy, loaded, where, problems),
        deny_unlisted=policy.unlisted == "deny",
        public_targets=public,
        public_methods=_public_methods(policy, where, problems).union(
            method for method in opening if methods.names.find(method) is None
        ),
        challenge_style=policy.challenge_style,
        headers_only=policy.headers_only is True,
        allow_batches=policy.allow_batches is True,
        filter_lists=policy.filter_lists is True,
        annotate_lists=_annotations(policy, where, problems),
    )
    _check_public_tools(rules, where, problems)
    return rules


# Clients search a challenge for these parameters with unanchored regular expressions (tests/test_npm_clients.py).
MISLEADING = ("error=", "scope=", "resource_metadata=")


def compile_scopes(value: object, where: str, problems: Problems, *, published: bool = False) -> tuple[str, ...]:
    """Return the scope tokens of a list; report anything else as a problem.

    Published scopes go into metadata or a challenge. `offline_access` is left out there: clients add it themselves
    (MCP 2026-07-28).
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
