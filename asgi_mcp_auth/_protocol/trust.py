"""Compiling which authorization servers one resource trusts: named ones, tenants, patterns, a resolver."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from asgi_mcp_auth._protocol.admission import SEGMENT, IssuerPattern, OtherIssuers, compile_pattern
from asgi_mcp_auth._protocol.issuer import TrustedIssuer, compile_issuer
from asgi_mcp_auth._protocol.problems import Problems, as_list, show
from asgi_mcp_auth._protocol.urls import Url
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver

__all__ = ("MAX_PUBLISHED", "Trust", "compile_trust")

MAX_PUBLISHED = 100
PLACEHOLDER = re.compile(r"\{[A-Za-z_]+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The issuers that a resource names, and what admits others."""

    named: tuple[TrustedIssuer, ...]
    others: OtherIssuers | None


class _Compiler:
    """Compiles the entries of one list of authorization servers."""

    def __init__(
        self,
        resource: Url,
        where: str,
        problems: Problems,
        *,
        allow_http: bool,
        prefixes: Sequence[str],
        required: Sequence[str],
    ) -> None:
        self.where = where
        self.problems = problems
        self.named: list[TrustedIssuer] = []
        self._known: set[str] = set()
        self.patterns: list[IssuerPattern] = []
        self.resolvers: list[IssuerResolver] = []
        self._compile_issuer = partial(
            compile_issuer, resource=resource, allow_http=allow_http, own_scope_prefixes=prefixes, required=required
        )

    def add(self, server: object, place: str) -> None:
        if isinstance(server, str):
            server = AuthServerConfig(issuer=server)
        if callable(server) and not isinstance(server, type):
            self.resolvers.append(cast("IssuerResolver", server))
        elif not isinstance(server, AuthServerConfig):
            fix = "Give a URL, an AuthServerConfig, or a function from an issuer to one."
            self.problems.add(place, f"{show(server)} is not an issuer.", fix)
        elif server.issuer_pattern is not None:
            self._add_pattern(server, place)
        elif server.tenants or "{" in str(server.issuer):
            self._add_tenants(server, place)
        elif (issuer := self._compile_issuer(server, where=place, problems=self.problems)) is not None:
            self._add_named([issuer], place)

    def _add_named(self, issuers: Sequence[TrustedIssuer], place: str) -> None:
        for issuer in issuers:
            if issuer.rules.issuer in self._known:
                self.problems.add(place, f"The issuer {show(issuer.rules.issuer)} stands there twice.", "Remove one.")
            self._known.add(issuer.rules.issuer)
        self.named += issuers

    def _add_tenants(self, config: AuthServerConfig, place: str) -> None:
        """One issuer for each tenant of a template, all over one key set."""
        template = str(config.issuer)
        holes = PLACEHOLDER.findall(template)
        if len(holes) != 1 or template.count("{") != 1:
            fix = "Write one, as in https://login.example.com/{tenantid}/v2.0."
            self.problems.add(f"{place}.issuer", f"{show(template)} needs exactly one placeholder for a tenant.", fix)
            return
        tenants = list(dict.fromkeys(self.problems.strings(config.tenants, f"{place}.tenants")))
        bad = [tenant for tenant in tenants if not re.fullmatch(SEGMENT, tenant)]
        if bad or not tenants:
            fix = "List every tenant to trust: ids, without '/'."
            self.problems.add(f"{place}.tenants", f"Not usable: {show(bad) if bad else 'an empty list'}.", fix)
            return
        if config.metadata_url is None and config.jwks_uri is None and config.jwks is None:
            fix = "Set metadata_url= to the document whose issuer is the template, or jwks_uri=."
            self.problems.add(place, "A template has no well-known place of its own.", fix)
        if not isinstance(cast("object", config.tenant_claim), str) or not config.tenant_claim:
            self.problems.add(f"{place}.tenant_claim", f"{show(config.tenant_claim)} is no claim.", "Give its name.")
        first = replace(config, issuer=template.replace(holes[0], tenants[0]))
        compiled = self._compile_issuer(first, where=place, problems=self.problems)
        if compiled is None:
            return
        self._add_named(
            [
                replace(
                    compiled,
                    rules=replace(
                        compiled.rules,
                        issuer=template.replace(holes[0], tenant),
                        tenant=(config.tenant_claim, tenant),
                    ),
                    config=config,
                    template=template,
                )
                for tenant in tenants
            ],
            place,
        )

    def _add_pattern(self, config: AuthServerConfig, place: str) -> None:
        given = [name for name in ("issuer", "metadata", "metadata_url", "jwks_uri", "jwks") if getattr(config, name)]
        if given or config.tenants:
            told = ", ".join([*given, *(["tenants"] if config.tenants else [])])
            fix = "Each issuer that matches has its own, found by discovery."
            self.problems.add(f"{place}.issuer_pattern", f"It stands beside {told}.", fix)
            return
        pattern = config.issuer_pattern
        expression = compile_pattern(pattern, f"{place}.issuer_pattern", self.problems)
        if expression is None:
            return
        example = replace(config, issuer=str(pattern).replace("*", "x"))
        trusted = self._compile_issuer(example, where=place, problems=self.problems)
        if trusted is not None:
            self.patterns.append(
                IssuerPattern(text=str(pattern), expression=expression, trusted=replace(trusted, config=config))
            )

    def resolved(self, issuer: str, config: AuthServerConfig) -> TrustedIssuer:
        """The rules for what a resolver named. Raises `ConfigurationError`."""
        problems = Problems()
        where = f"the resolver's answer for {show(issuer)}"
        compiled = self._compile_issuer(config, where=where, problems=problems)
        if compiled is not None and compiled.rules.issuer != issuer:
            problems.add(
                where, f"It is of {show(compiled.rules.issuer)}.", "Answer for the issuer that was asked about."
            )
        if config.issuer_pattern is not None or config.tenants:
            problems.add(where, "It has a pattern or tenants.", "Answer for one issuer.")
        problems.raise_if_any()
        assert compiled is not None  # noqa: S101 - otherwise there is a problem
        return compiled


def compile_trust(
    servers: object,
    resource: Url,
    where: str,
    problems: Problems,
    *,
    allow_http: bool,
    prefixes: Sequence[str],
    required: Sequence[str],
    new_per_minute: int,
) -> Trust:
    """Compile a list of authorization servers; at least one has to be named, for clients to find."""
    listed = as_list(servers)
    if not listed:
        fix = "List at least one issuer: MCP requires it (authorization server discovery)."
        what = "There is none." if listed is not None else f"{show(servers)} is not a list of servers."
        problems.add(where, what, fix)
        return Trust(named=(), others=None)
    compiler = _Compiler(resource, where, problems, allow_http=allow_http, prefixes=prefixes, required=required)
    before = len(problems.found)
    for index, server in enumerate(listed):
        compiler.add(server, f"{where}[{index}]")
    if len(compiler.resolvers) > 1:
        problems.add(where, "There is more than one resolver.", "Make one that asks the others.")
    if not compiler.named and len(problems.found) == before:
        fix = "Name at least one issuer: clients find it in the metadata, and they cannot use a pattern."
        problems.add(where, "There is no issuer to publish.", fix)
    if len(compiler.named) > MAX_PUBLISHED:
        fix = "Put the ones that clients should log in at first."
        problems.warn(where, f"Only the first {MAX_PUBLISHED} of {len(compiler.named)} issuers are published.", fix)
    others = None
    if compiler.patterns or compiler.resolvers:
        others = OtherIssuers(
            patterns=tuple(compiler.patterns),
            resolver=next(iter(compiler.resolvers), None),
            compile=compiler.resolved,
            new_per_minute=new_per_minute,
        )
    return Trust(named=tuple(compiler.named), others=others)
