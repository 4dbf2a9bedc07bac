"""The authorization servers that one resource trusts, compiled: named issuers, tenants, patterns and a resolver.

A token's `iss` is attacker-controlled until the signature is verified. A pattern therefore matches within one label of
the host or one segment of the path, and never across a separator, so that no pattern can match another domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth._policy.patterns import ByEnds
from asgi_mcp_auth._policy.problems import Problems, as_list, show
from asgi_mcp_auth._policy.trusted_issuer import (
    MAX_ISSUER_LENGTH,
    IssuerContext,
    TrustedIssuer,
    compile_issuer,
    compile_token_issuers,
)
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver

__all__ = (
    "MAX_PUBLISHED",
    "IssuerPattern",
    "IssuerSet",
    "OtherIssuers",
    "compile_issuer_set",
    "compile_pattern",
    "may_be_issuer",
)


LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}"  # no dot in front: neither `.` nor `..`
MIN_FIXED_LABELS = 2
MAX_PRELOAD = 1000


def _is_resolver(server: object) -> TypeGuard[IssuerResolver]:
    return callable(server) and not isinstance(server, type)


def may_be_issuer(claimed: object) -> TypeGuard[str]:
    """Return whether an `iss` can be an issuer (RFC 8414 section 2): a URL without query and fragment, not too long."""
    if type(claimed) is not str or len(claimed) > MAX_ISSUER_LENGTH:
        return False
    url = parse_url(claimed)
    return url is not None and url.query is None and url.fragment is None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPattern:
    """An allow-list pattern, and the rules for tokens of the issuers that match it."""

    text: str
    expression: re.Pattern[str]
    trusted: TrustedIssuer

    def match(self, issuer: str) -> TrustedIssuer | None:
        """Return the rules for this issuer's tokens, or None if the issuer does not match."""
        if self.expression.fullmatch(issuer) is None:
            return None
        return replace(
            self.trusted,
            rules=replace(self.trusted.rules, issuer=issuer),
            identifier=issuer,
            config=replace(self.trusted.config, issuer=issuer, issuer_pattern=None, preload=()),
        )


class OtherIssuers:
    """The patterns and the resolver that admit issuers which the configuration of a resource does not name.

    Args:
        patterns: The patterns; the first that matches decides.
        resolver: Called with an issuer that matches no pattern; None for no resolver.
        compile: Compiles the configuration that the resolver returned for an issuer; raises `ConfigurationError`.
    """

    __slots__ = ("_by_ends", "compile", "patterns", "resolver")

    def __init__(
        self,
        *,
        patterns: tuple[IssuerPattern, ...],
        resolver: IssuerResolver | None,
        compile: Callable[[str, AuthServerConfig], TrustedIssuer],  # noqa: A002 - what it does
    ) -> None:
        self.patterns = patterns
        self.resolver = resolver
        self.compile = compile
        self._by_ends = ByEnds((pattern.text, order) for order, pattern in enumerate(patterns))

    def match(self, issuer: str) -> TrustedIssuer | None:
        """Return the rules of the first pattern that matches, or None."""
        alike = sorted(order for candidates in self._by_ends.candidates(issuer) for order in candidates)
        return next((found for order in alike if (found := self.patterns[order].match(issuer)) is not None), None)


def compile_pattern(pattern: object, where: str, problems: Problems) -> re.Pattern[str] | None:
    """Compile an allow-list pattern: `*` matches one whole label of the host or one whole segment of the path.

    Return None, with a problem added, if the pattern is malformed or would match hosts of any domain.
    """
    fix = "Write https://*.id.example.com or https://id.example.com/*/oauth: '*' is one whole label or segment."
    if not isinstance(pattern, str) or "*" not in pattern:
        problems.add(where, f"{show(pattern)} is no pattern.", fix)
        return None
    url = parse_url(pattern.replace("*", "x"))
    if url is None or url.query is not None or url.fragment is not None or url.scheme != "https":
        problems.add(where, f"{show(pattern)} is not an https URL with '*'.", fix)
        return None
    authority, slash, path = pattern.removeprefix("https://").partition("/")
    host, colon, port = authority.partition(":")
    labels, segments = host.split("."), (slash + path).split("/")
    if any("*" in part and part != "*" for part in (*labels, *segments)) or "*" in port:
        problems.add(where, f"In {show(pattern)} a '*' is only part of a label or segment.", fix)
        return None
    fixed = labels[::-1].index("*") if "*" in labels else len(labels)
    if fixed < MIN_FIXED_LABELS and "*" in labels:
        fix = "Write at least the last two labels of the host without '*'."
        problems.add(where, f"{show(pattern)} trusts everyone who can register a domain.", fix)
        return None
    hosts = r"\.".join(LABEL if label == "*" else re.escape(label) for label in labels)
    paths = "/".join(SEGMENT if segment == "*" else re.escape(segment) for segment in segments)
    return re.compile(f"https://{hosts}{re.escape(colon + port)}{paths}")


MAX_PUBLISHED = 100
PLACEHOLDER = re.compile(r"\{[A-Za-z_]+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSet:
    """The issuers that a resource trusts: named ones, those that patterns preload, and what admits others."""

    named: tuple[TrustedIssuer, ...]
    preloaded: tuple[TrustedIssuer, ...]
    others: OtherIssuers | None

    @property
    def published(self) -> tuple[str, ...]:
        """The issuer identifiers to name to clients, in the order of the configuration."""
        return tuple(dict.fromkeys(trusted.identifier for trusted in self.named if trusted.config.publish))


class _Compiler:
    """Compiler of the entries of one list of authorization servers."""

    def __init__(self, context: IssuerContext, problems: Problems) -> None:
        self._context = context
        self.problems = problems
        self.named: list[TrustedIssuer] = []
        self.preloaded: list[TrustedIssuer] = []
        self._known: set[str] = set()
        self.patterns: list[IssuerPattern] = []
        self.resolvers: list[IssuerResolver] = []

    def add(self, server: object, place: str) -> None:
        if isinstance(server, str):
            server = AuthServerConfig(issuer=server)
        if _is_resolver(server):
            self.resolvers.append(server)
        elif not isinstance(server, AuthServerConfig):
            fix = "Pass a URL, an AuthServerConfig, or a function from an issuer to an AuthServerConfig."
            self.problems.add(place, f"{show(server)} is not an issuer.", fix)
        elif server.issuer_pattern is not None:
            self._add_pattern(server, place)
        elif server.tenants or "{" in str(server.issuer):
            self._add_tenants(server, place)
        else:
            self._add_unique(self.named, self._compile_named(server, place, self.problems), place)
        if isinstance(server, AuthServerConfig) and server.preload and server.issuer_pattern is None:
            fix = "Remove it: a named issuer's keys are fetched at start in any case."
            self.problems.add(f"{place}.preload", "preload= is set without issuer_pattern=.", fix)

    def _compile_named(self, config: AuthServerConfig, place: str, problems: Problems) -> list[TrustedIssuer]:
        """Return one trusted issuer for each value of `iss` that the issuer's tokens may carry."""
        trusted = compile_issuer(config, self._context, place, problems)
        token_issuers = compile_token_issuers(config, place, problems)
        if trusted is None:
            return []
        values = token_issuers or [trusted.identifier]
        return [replace(trusted, rules=replace(trusted.rules, issuer=value)) for value in values]

    def _add_unique(self, listed: list[TrustedIssuer], issuers: Sequence[TrustedIssuer], place: str) -> None:
        listed += issuers
        for issuer in issuers:
            if issuer.rules.issuer in self._known:
                what = f"Issuer {show(issuer.rules.issuer)} is listed more than once."
                self.problems.add(place, what, "Remove one of them, or the value from one of the token_issuers=.")
            self._known.add(issuer.rules.issuer)

    def _add_tenants(self, config: AuthServerConfig, place: str) -> None:
        """Add one issuer for each tenant of a template; all of them share one key set."""
        template = str(config.issuer)
        holes = PLACEHOLDER.findall(template)
        if len(holes) != 1 or template.count("{") != 1:
            fix = "Write exactly one placeholder, as in https://login.example.com/{tenantid}/v2.0."
            what = f"{show(template)} needs exactly one placeholder for the tenant."
            self.problems.add(f"{place}.issuer", what, fix)
            return
        tenants = list(dict.fromkeys(self.problems.strings(config.tenants, f"{place}.tenants")))
        bad = [tenant for tenant in tenants if not re.fullmatch(SEGMENT, tenant)]
        if bad or not tenants:
            fix = "List the id of every tenant to trust; an id has no '/'."
            self.problems.add(f"{place}.tenants", f"Not usable: {show(bad) if bad else 'an empty list'}.", fix)
            return
        if config.metadata_url is None and config.jwks_uri is None and config.jwks is None:
            fix = "Set metadata_url= to the document whose issuer is the template, or jwks_uri=."
            self.problems.add(place, "A template has no well-known URL of its own.", fix)
        if not isinstance(unchecked(config.tenant_claim), str) or not config.tenant_claim:
            what = f"{show(config.tenant_claim)} is not the name of a claim."
            self.problems.add(f"{place}.tenant_claim", what, "Set the name of the claim, 'tid' for example.")
        compile_token_issuers(config, place, self.problems)
        first = replace(config, issuer=template.replace(holes[0], tenants[0]))
        compiled = compile_issuer(first, self._context, place, self.problems)
        if compiled is None:
            return
        issuers: list[TrustedIssuer] = []
        for tenant in tenants:
            issuer = template.replace(holes[0], tenant)
            rules = replace(compiled.rules, issuer=issuer, tenant=(config.tenant_claim, tenant))
            issuers.append(replace(compiled, rules=rules, identifier=issuer, config=config, template=template))
        self._add_unique(self.named, issuers, place)

    def _add_pattern(self, config: AuthServerConfig, place: str) -> None:
        alone = ("issuer", "metadata", "metadata_url", "jwks_uri", "jwks", "tenants")
        if given := [f"{name}=" for name in alone if getattr(config, name)]:
            what = f"issuer_pattern= is set together with {', '.join(given)}."
            fix = "Set only one of them: the metadata of each issuer that matches is discovered."
            self.problems.add(f"{place}.issuer_pattern", what, fix)
            return
        compile_token_issuers(config, place, self.problems)
        text = str(config.issuer_pattern)
        expression = compile_pattern(config.issuer_pattern, f"{place}.issuer_pattern", self.problems)
        if expression is None:
            return
        example = replace(config, issuer=text.replace("*", "x"))
        trusted = compile_issuer(example, self._context, place, self.problems)
        if trusted is None:
            return
        pattern = IssuerPattern(text=text, expression=expression, trusted=replace(trusted, config=config))
        self.patterns.append(pattern)
        self._add_preloaded(pattern, config, f"{place}.preload")

    def _add_preloaded(self, pattern: IssuerPattern, config: AuthServerConfig, place: str) -> None:
        issuers = list(dict.fromkeys(self.problems.strings(config.preload, place)))
        if len(issuers) > MAX_PRELOAD:
            fix = "List the issuers that matter most; others are admitted on first use."
            self.problems.add(place, f"{len(issuers)} issuers are listed; the limit is {MAX_PRELOAD}.", fix)
            return
        matching = {issuer: pattern.match(issuer) for issuer in issuers}
        if foreign := [issuer for issuer, trusted in matching.items() if trusted is None]:
            what = f"{show(foreign)} does not match the pattern {show(pattern.text)}."
            self.problems.add(place, what, "List issuers that match it, exactly as tokens carry them in `iss`.")
        self._add_unique(self.preloaded, [trusted for trusted in matching.values() if trusted is not None], place)

    def resolved(self, issuer: str, config: AuthServerConfig) -> TrustedIssuer:
        """Return the compiled configuration that a resolver returned for `issuer`.

        Raises:
            ConfigurationError: The configuration is not usable, or is for another issuer.
        """
        problems = Problems()
        where = f"the resolver's answer for {show(issuer)}"
        found = self._compile_named(config, where, problems)
        answer = next((trusted for trusted in found if trusted.rules.issuer == issuer), None)
        if found and answer is None:
            what = f"It names the issuer {show(' '.join(trusted.rules.issuer for trusted in found))}."
            problems.add(where, what, "Return the configuration of the issuer that the resolver was called with.")
        if config.issuer_pattern is not None or config.tenants or config.preload:
            fix = "Return a configuration of one issuer."
            problems.add(where, "It sets issuer_pattern=, tenants= or preload=.", fix)
        problems.raise_if_any()
        assert answer is not None  # noqa: S101 - otherwise there is a problem
        return answer


def compile_issuer_set(servers: object, context: IssuerContext, where: str, problems: Problems) -> IssuerSet:
    """Return a list of authorization servers compiled. At least one must be named: clients find it in the metadata."""
    listed = as_list(servers)
    if not listed:
        fix = "List at least one issuer: MCP requires it (authorization server discovery)."
        what = "The list is empty." if listed is not None else f"{show(servers)} is not a list of servers."
        problems.add(where, what, fix)
        return IssuerSet(named=(), preloaded=(), others=None)
    compiler = _Compiler(context, problems)
    before = len(problems.found)
    for index, server in enumerate(listed):
        compiler.add(server, f"{where}[{index}]")
    if len(compiler.resolvers) > 1:
        problems.add(where, "There is more than one resolver.", "Pass one function that calls the others.")
    others = None
    if compiler.patterns or compiler.resolvers:
        others = OtherIssuers(
            patterns=tuple(compiler.patterns),
            resolver=next(iter(compiler.resolvers), None),
            compile=compiler.resolved,
        )
    trust = IssuerSet(named=tuple(compiler.named), preloaded=tuple(compiler.preloaded), others=others)
    if not trust.published and len(problems.found) == before:
        fix = (
            "Name at least one issuer without publish=False: clients find it in the metadata, and cannot use a pattern."
        )
        problems.add(where, "There is no issuer to publish.", fix)
    if len(trust.published) > MAX_PUBLISHED:
        fix = "Put the ones that clients should log in at first."
        problems.warn(where, f"Only the first {MAX_PUBLISHED} of {len(trust.published)} issuers are published.", fix)
    return trust
