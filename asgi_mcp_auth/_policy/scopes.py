"""Scopes: their grammar (RFC 6749 section 3.3), the hierarchy over them, and what a request needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asgi_mcp_auth._oauth.json_types import is_number

__all__ = ("Requirement", "ScopeHierarchy", "StepUpRequirement")


class StepUpRequirement(NamedTuple):
    """A requirement on the user's authentication (RFC 9470).

    Attributes:
        acr_values: The accepted `acr` values; empty for any.
        max_age: The largest age of the authentication in seconds; None for any.
    """

    acr_values: tuple[str, ...] = ()
    max_age: int | None = None

    def met_by(self, claims: Mapping[str, object], now: float, leeway: float) -> bool:
        """Return whether a token's claims meet the requirement; False if a required claim is missing."""
        if self.acr_values and claims.get("acr") not in self.acr_values:
            return False
        if self.max_age is None:
            return True
        authenticated = claims.get("auth_time")
        # Comparisons only: an integer claim may be too large for arithmetic with a float.
        return is_number(authenticated) and now - leeway - self.max_age <= authenticated <= now + leeway


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """The scopes that a request needs, compiled.

    Attributes:
        needed: The scopes as tokens carry them.
        named: The scopes as clients must request them, for challenges.
        satisfied_by: For each needed scope, all scopes that satisfy it.
        alternatives: Sets of scopes of which one is needed too, each in the form of `satisfied_by`; empty for none.
            `needed` and `named` contain the first set.
        strength: How the user must have authenticated; None for no requirement.
    """

    needed: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    satisfied_by: tuple[frozenset[str], ...] = field(default=(), repr=False)
    strength: StepUpRequirement | None = None
    alternatives: tuple[tuple[frozenset[str], ...], ...] = field(default=(), repr=False)

    def met_by(self, granted: Iterable[str]) -> bool:
        """Return whether `granted`, with the scopes that it implies, covers every needed scope."""
        for satisfying in self.satisfied_by:  # all() over a generator costs twice as much here
            if satisfying.isdisjoint(granted):
                return False
        return not self.alternatives or any(
            not any(satisfying.isdisjoint(granted) for satisfying in alternative) for alternative in self.alternatives
        )


class ScopeHierarchy:
    """The scopes that include others, and the names by which clients must request scopes."""

    def __init__(self, implies: Mapping[str, Iterable[str]], request_scope_names: Mapping[str, str]) -> None:
        self._implies = {scope: tuple(included) for scope, included in implies.items()}
        self._request_scope_names = dict(request_scope_names)

    def cycle(self) -> tuple[str, ...] | None:
        """Return two scopes (or one) of a chain that leads back to its start; None if there is no such chain."""
        for start in self._implies:
            chain, seen = [start], set[str]()
            while chain:
                scope = chain.pop()
                for included in self._implies.get(scope, ()):
                    if included == start:
                        return (start, scope) if scope != start else (start,)
                    if included not in seen:
                        seen.add(included)
                        chain.append(included)
        return None

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope in the hierarchy."""
        return tuple(dict.fromkeys(s for scope, included in self._implies.items() for s in (scope, *included)))

    def satisfying(self, scope: str) -> frozenset[str]:
        """Return `scope` and every scope that includes it, directly or through others."""
        found = {scope}
        while True:
            more = {name for name, included in self._implies.items() if not found.isdisjoint(included)} - found
            if not more:
                return frozenset(found)
            found |= more

    def request_name(self, scope: str) -> str:
        """Return the name that clients must request to be granted `scope`."""
        return self._request_scope_names.get(scope, scope)

    def require(
        self,
        *groups: Iterable[str],
        any_of: Sequence[Sequence[str]] = (),
        strength: StepUpRequirement | None = None,
    ) -> Requirement:
        """Return the compiled union of `groups`, in stable order, and one of the sets `any_of`."""
        always = tuple(dict.fromkeys(scope for group in groups for scope in group))
        needed = tuple(dict.fromkeys((*always, *(any_of[0] if any_of else ()))))
        return Requirement(
            needed=needed,
            named=tuple(dict.fromkeys(self.request_name(scope) for scope in needed)),
            satisfied_by=tuple(map(self.satisfying, always)),
            strength=strength,
            alternatives=tuple(tuple(map(self.satisfying, scopes)) for scopes in any_of),
        )
