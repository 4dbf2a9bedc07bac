"""Issuers that the configuration does not name: by a pattern, of a template's tenants, or by a resolver.

What a token claims as its issuer is anybody's writing. A pattern matches within one label of the host or one
segment of the path, never across them, so that it cannot be talked into another domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from asgi_mcp_auth._protocol.issuer import TrustedIssuer
from asgi_mcp_auth._protocol.patterns import ByEnds
from asgi_mcp_auth._protocol.problems import Problems, show
from asgi_mcp_auth._protocol.urls import parse_url
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver

__all__ = ("Allowance", "IssuerPattern", "OtherIssuers", "compile_pattern", "may_be_issuer")

LONGEST_ISSUER = 512
MINUTE = 60.0

LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}"  # no dot in front: neither `.` nor `..`
LEAST_FIXED_LABELS = 2


def may_be_issuer(claimed: object) -> bool:
    """Whether an `iss` is worth asking anybody about: a URL without query and fragment, of a sane length."""
    if type(claimed) is not str or len(claimed) > LONGEST_ISSUER:
        return False
    url = parse_url(claimed)
    return url is not None and url.query is None and url.fragment is None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPattern:
    """An allow-list pattern, and the rules for whoever matches it."""

    text: str
    expression: re.Pattern[str]
    trusted: TrustedIssuer

    def match(self, issuer: str) -> TrustedIssuer | None:
        """The rules for this issuer's tokens, if it matches."""
        if self.expression.fullmatch(issuer) is None:
            return None
        return replace(
            self.trusted,
            rules=replace(self.trusted.rules, issuer=issuer),
            config=replace(self.trusted.config, issuer=issuer, issuer_pattern=None),
        )


class OtherIssuers:
    """What admits issuers to one resource that its configuration does not name.

    Args:
        patterns: Tried in order.
        resolver: Asked about those that match none.
        compile: From the issuer and the resolver's configuration to the rules; raises `ConfigurationError`.
        new_per_minute: How many issuers the patterns may admit in a minute.
    """

    __slots__ = ("_by_ends", "compile", "new_per_minute", "patterns", "resolver")

    def __init__(
        self,
        *,
        patterns: tuple[IssuerPattern, ...],
        resolver: IssuerResolver | None,
        compile: Callable[[str, AuthServerConfig], TrustedIssuer],  # noqa: A002 - what it does
        new_per_minute: int,
    ) -> None:
        self.patterns = patterns
        self.resolver = resolver
        self.compile = compile
        self.new_per_minute = new_per_minute
        self._by_ends = ByEnds((pattern.text, order) for order, pattern in enumerate(patterns))

    def match(self, issuer: str) -> TrustedIssuer | None:
        """The rules of the first pattern that matches."""
        alike = sorted(order for candidates in self._by_ends.candidates(issuer) for order in candidates)
        return next((found for order in alike if (found := self.patterns[order].match(issuer)) is not None), None)


class Allowance:
    """So many a minute, saved up for a minute at most."""

    __slots__ = ("_level", "_per_minute", "_since")

    def __init__(self, per_minute: int) -> None:
        self._per_minute = float(per_minute)
        self._level = self._per_minute
        self._since = float("-inf")

    def take(self, now: float) -> float:
        """Take one: 0, or the seconds until there is one."""
        earned = max(0.0, now - self._since) / MINUTE * self._per_minute
        self._level, self._since = min(self._per_minute, self._level + earned), now
        if self._level < 1.0:
            return (1.0 - self._level) * MINUTE / self._per_minute
        self._level -= 1.0
        return 0.0


def compile_pattern(pattern: Any, where: str, problems: Problems) -> re.Pattern[str] | None:
    """An allow-list pattern as an expression: `*` stands for one whole label of the host or one segment of the path."""
    fix = "Write https://*.id.example.com or https://id.example.com/*/oauth: '*' for one whole label or segment."
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
        problems.add(where, f"In {show(pattern)} a '*' is only a part of a label or segment.", fix)
        return None
    fixed = labels[::-1].index("*") if "*" in labels else len(labels)
    if fixed < LEAST_FIXED_LABELS and "*" in labels:
        problems.add(where, f"{show(pattern)} would trust anybody who can register a domain.", "Name the domain.")
        return None
    hosts = r"\.".join(LABEL if label == "*" else re.escape(label) for label in labels)
    paths = "/".join(SEGMENT if segment == "*" else re.escape(segment) for segment in segments)
    return re.compile(f"https://{hosts}{re.escape(colon + port)}{paths}")
