"""Rules by name: exact names, `*` patterns and URI templates.

The most specific rule applies. An exact name is more specific than any pattern; of two patterns, the one with more
literal characters. Two patterns of equal weight that some name could match both are a tie, which a configuration must
not have. Names are compared as they are: no case folding, no Unicode normalisation. Matching is linear in the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ("ByEnds", "Pattern", "PatternTable", "parse_pattern")

T = TypeVar("T")

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_SIMPLE = re.compile(r"[A-Za-z0-9_.%]+")  # RFC 6570 section 2.3, a variable without an operator
_ANY = "*"


class Pattern(NamedTuple):
    """A name with wildcards.

    Attributes:
        text: What the user wrote.
        glob: The name with a `*` for each wildcard.
        template: Whether the name is a URI template: its wildcards do not match a `/`.
        open: Whether a template ends with an expression that matches any rest of the name, `/` included.
    """

    text: str
    glob: str
    template: bool = False
    open: bool = False

    @property
    def weight(self) -> int:
        """The number of literal characters that the user wrote."""
        literals = _EXPRESSION.sub("", self.text) if self.template else self.text
        return len(literals) - literals.count(_ANY)

    @property
    def head(self) -> str:
        """The beginning of every name that the pattern matches."""
        return self.glob.partition(_ANY)[0]

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches `name`."""
        if not self.template:
            return _glob(self.glob.split(_ANY), name)
        segments, given = self.glob.split("/"), name.split("/")
        if len(given) < len(segments) or (len(given) > len(segments) and not self.open):
            return False
        return all(_glob(segment.split(_ANY), part) for segment, part in zip(segments, given, strict=False))

    def could_match_the_same(self, other: Pattern) -> bool:
        """Return whether some name might match both; every wildcard counts as matching anything."""
        return _overlap(self.glob, other.glob)


def _glob(literals: list[str], name: str) -> bool:
    """Return whether the literals occur in order; the leftmost match of each is always good enough."""
    if len(literals) == 1:
        return name == literals[0]
    first, *middle, last = literals
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for literal in middle:
        found = name.find(literal, at, end)
        if found < 0:
            return False
        at = found + len(literal)
    return True


def _overlap(one: str, two: str) -> bool:
    """Return whether two `*` patterns have a name in common."""
    if _ANY not in one:
        return _glob(two.split(_ANY), one)
    if _ANY not in two:
        return _glob(one.split(_ANY), two)
    heads = one.partition(_ANY)[0], two.partition(_ANY)[0]
    tails = one.rpartition(_ANY)[2], two.rpartition(_ANY)[2]
    head, tail = min(map(len, heads)), min(map(len, tails))
    # Where beginnings and ends agree, one wildcard of each has room for all that the other has in its middle.
    return heads[0][:head] == heads[1][:head] and tails[0][len(tails[0]) - tail :] == tails[1][len(tails[1]) - tail :]


def parse_pattern(text: str, *, templates: bool) -> Pattern | str | None:
    """Return a rule's name: a `Pattern`, or the exact name as it is.

    Return None for a template that cannot be matched exactly.

    Args:
        text: What the user wrote; `*` matches any characters.
        templates: Whether `{name}` is a wildcard too: a URI template (RFC 6570). Expressions with operators, and `*`
            in addition to `{name}`, are accepted at the end only.
    """
    if templates and ("{" in text or "}" in text):
        return _parse_template(text)
    return Pattern(text, text) if _ANY in text else text


def _parse_template(text: str) -> Pattern | None:
    closed = text.removesuffix(_ANY)
    opens = closed != text
    literals, expressions = _EXPRESSION.split(closed)[::2], _EXPRESSION.split(closed)[1::2]
    if any(char in literal for literal in literals for char in "{}*"):
        return None
    if expressions and _SIMPLE.fullmatch(expressions[-1]) is None:
        # An expression with an operator, `{+path}` or `{?query}`, and fastmcp's `{path*}`.
        if opens or literals[-1] or not expressions.pop():
            return None
        literals.pop()
        opens = True
    if not all(map(_SIMPLE.fullmatch, expressions)):
        return None
    glob = _ANY.join(literals)
    return Pattern(text, glob + _ANY * opens, template=True, open=opens)


class ByEnds(Generic[T]):
    """Values by the literals that a text with `*` begins and ends with.

    Finding the values for a name costs a look-up for each pair of lengths, not a comparison for each value.
    """

    def __init__(self, values: Iterable[tuple[str, T]]) -> None:
        self._values: dict[tuple[str, str], list[T]] = {}
        for glob, value in values:
            ends = glob.partition(_ANY)[0], glob.rpartition(_ANY)[2]
            self._values.setdefault(ends, []).append(value)
        self._lengths = tuple(sorted({(len(head), len(tail)) for head, tail in self._values}))

    def candidates(self, name: str) -> Iterator[list[T]]:
        """Yield the values whose texts begin and end like `name`, in their order for each pair of ends."""
        length = len(name)
        for head, tail in self._lengths:
            if head + tail <= length:
                found = self._values.get((name[:head], name[length - tail :]))
                if found is not None:
                    yield found


class PatternTable:
    """Names and patterns, each with the index of its rule, for looking up by name.

    Args:
        rules: The name or pattern of each rule.
        spellings: More names and patterns of these rules, each with the index of its rule. A rule's own name wins.
    """

    def __init__(self, rules: Iterable[Pattern | str], spellings: Iterable[tuple[Pattern | str, int]] = ()) -> None:
        listed = [(rule, index) for index, rule in enumerate(rules)]
        listed += spellings
        self._exact: dict[str, int] = {}
        patterns: dict[Pattern, int] = {}
        for rule, index in listed:
            if isinstance(rule, str):
                self._exact.setdefault(rule, index)
            else:
                patterns.setdefault(rule, index)
        self._patterns = sorted(patterns.items(), key=lambda item: -item[0].weight)
        self._by_ends = ByEnds((pattern.glob, (pattern.weight, pattern, index)) for pattern, index in self._patterns)

    def find(self, name: str) -> int | None:
        """Return the index of the most specific rule for `name`."""
        index = self._exact.get(name)
        if index is not None or not self._patterns:
            return index
        best = -1
        for alike in self._by_ends.candidates(name):
            for weight, pattern, candidate in alike:
                if weight <= best:  # they are sorted by weight
                    break
                if pattern.matches(name):
                    best, index = weight, candidate
                    break
        return index

    def find_exact(self, name: str) -> int | None:
        """Return the index of the rule with exactly this name."""
        return self._exact.get(name)

    def reachable(self, template: str) -> set[int]:
        """Return the rules for any URI that a template might expand to."""
        wanted = _EXPRESSION.sub(_ANY, template)
        exact = {index for name, index in self._exact.items() if _overlap(wanted, name)}
        return exact | {index for pattern, index in self._patterns if _overlap(wanted, pattern.glob)}

    def ending_with(self, tail: str) -> set[int]:
        """Return the rules whose exact names end with `tail`."""
        return {index for name, index in self._exact.items() if name.endswith(tail)}

    def ties(self) -> Iterator[tuple[str, str]]:
        """Yield pairs of patterns of two rules, equally specific, that some name could match both."""
        found: dict[tuple[str, str], None] = {}
        alike: dict[tuple[int, str], list[Pattern]] = {}  # those that can tie begin alike
        for one in sorted((pattern for pattern, _ in self._patterns), key=lambda pattern: len(pattern.head)):
            for length in range(len(one.head) + 1):
                for two in alike.get((one.weight, one.head[:length]), ()):
                    if one.could_match_the_same(two):
                        found[two.text, one.text] = None
            alike.setdefault((one.weight, one.head), []).append(one)
        yield from (pair for pair in found if pair[0] != pair[1])
