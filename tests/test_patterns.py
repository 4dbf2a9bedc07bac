"""Rules by name: what a pattern matches, which of several applies, and which of them tie."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._policy.patterns import Pattern, PatternTable, parse_pattern


def table(names: Iterable[str], *, templates: bool = True) -> PatternTable:
    rules = [parse_pattern(name, templates=templates) for name in names]
    return PatternTable([rule for rule in rules if rule is not None])


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        pytest.param(["a*", "ab*", "abc"], "abc", 2, id="RS-191 the exact name"),
        pytest.param(["a*", "ab*", "abc"], "abx", 1, id="RS-191 the longer pattern"),
        pytest.param(["a*", "ab*", "abc"], "ax", 0, id="RS-191 the shorter pattern"),
        pytest.param(["*"], "", 0, id="RS-191 a star matches nothing too"),
        pytest.param(["a*b"], "ab", 0, id="RS-191 with nothing between"),
        pytest.param(["ab*ba"], "aba", None, id="RS-191 beginning and end do not overlap"),
        pytest.param(["a*b*c"], "axbxbxc", 0, id="RS-191 the leftmost place will do"),
        pytest.param(["a*b*c"], "acb", None, id="RS-191 in order"),
        pytest.param(["*a*"], "A", None, id="RS-191 case"),
        pytest.param(["\u00e9*"], "e\u0301x", None, id="RS-191 no normalisation"),
        pytest.param(["a*"], "a\nb\0", 0, id="RS-191 any characters"),
        pytest.param(["a.c"], "abc", None, id="RS-191 no regular expression"),
        pytest.param(["x://{a}/z"], "x://1/z", 0, id="RS-191 a template"),
        pytest.param(["x://{a}/z"], "x://1/2/z", None, id="RS-191 an expression stays in its segment"),
        pytest.param(["x://{a}/*"], "x://1/2/z", 0, id="RS-191 a template with a star"),
        pytest.param(["x://{+a}"], "x://1/2", 0, id="RS-191 a reserved expansion"),
        pytest.param(["x://a{?q,r}"], "x://a?q=1/2", 0, id="RS-191 a query"),
        pytest.param(["x://{a*}"], "x://1/2", 0, id="RS-191 fastmcp's wildcard"),
        pytest.param(["x://{a}-{b}/c"], "x://1-2/c", 0, id="RS-191 two in a segment"),
        pytest.param(["x://{a}"], "x://{a}", 0, id="RS-191 the template itself"),
    ],
)
def test_the_rule_for_a_name(rules: list[str], name: str, expected: int | None) -> None:
    assert table(rules).find(name) == expected


@pytest.mark.parametrize("text", ["x://{", "x://}", "x://{}", "x://{a}{", "x://{+a}/b", "x://*/{a}"])
def test_templates_that_cannot_be_matched(text: str) -> None:
    assert parse_pattern(text, templates=True) is None


def test_braces_of_a_tool_are_letters() -> None:
    assert parse_pattern("{a}", templates=False) == "{a}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("file:///{a}/{b}", {0, 1, 2}, id="RS-192 whatever it may stand for"),
        pytest.param("file:///open/{b}", {1, 2}, id="RS-192 out of reach of one"),
        pytest.param("x://{a}", set[int](), id="RS-192 out of reach of all"),
        pytest.param("{+uri}", {0, 1, 2}, id="RS-192 anything"),
        pytest.param("file:///open/a", {1, 2}, id="RS-192 one URI"),
    ],
)
def test_the_rules_a_template_reaches(template: str, expected: set[int]) -> None:
    rules = ["file:///secret/*", "file:///*", "file:///open/a"]
    assert table(rules).reachable(template) == expected


def test_ties() -> None:
    assert list(table(["a*c", "ab*"]).ties()) == [("a*c", "ab*")]
    assert list(table(["a*", "b*", "aa*", "c*d", "abc"]).ties()) == []


LETTERS = "ab*"
GLOBS = st.text(LETTERS, max_size=6)
NAMES = ["".join(letters) for length in range(7) for letters in product("ab", repeat=length)]


def expression(glob: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, glob.split("*"))), re.DOTALL)


@settings(deadline=None, max_examples=300)
@given(GLOBS, st.text("ab", max_size=8))
def test_a_glob_matches_what_its_regular_expression_does(glob: str, name: str) -> None:
    matches = expression(glob).fullmatch(name) is not None
    assert Pattern(glob, glob).matches(name) is matches
    assert (table([glob], templates=False).find(name) == 0) is matches


@settings(deadline=None, max_examples=150)
@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4))
def test_two_globs_overlap_when_a_name_matches_both(one: str, two: str) -> None:
    both = expression(one), expression(two)
    expected = any(pattern.fullmatch(name) for name in NAMES for pattern in both[:1] if both[1].fullmatch(name))
    assert Pattern(one, one).could_match_the_same(Pattern(two, two)) is expected


@settings(deadline=None, max_examples=200)
@given(st.lists(GLOBS, max_size=5, unique=True), st.text("ab", max_size=6))
def test_the_heaviest_match_applies_and_only_a_tie_leaves_a_choice(rules: list[str], name: str) -> None:
    names = table(rules, templates=False)
    found = names.find(name)
    matching = [rule for rule in rules if expression(rule).fullmatch(name)]
    if found is None:
        assert not matching
        return
    heaviest = max(len(rule.replace("*", "")) for rule in matching)
    assert rules[found] == name or len(rules[found].replace("*", "")) == heaviest
    rivals = [rule for rule in matching if "*" in rule and len(rule.replace("*", "")) == heaviest]
    if name not in rules and len(rivals) > 1:
        assert {frozenset(tie) for tie in names.ties()} & {
            frozenset((one, two)) for one in rivals for two in rivals if one != two
        }


@settings(deadline=None, max_examples=300)
@given(st.text("ab/{}*+?:", max_size=12), st.text("ab/:", max_size=12))
def test_any_text_is_a_rule_or_none(text: str, name: str) -> None:
    rule = parse_pattern(text, templates=True)
    if rule is not None:
        found = PatternTable([rule])
        if found.find(name) == 0:
            assert found.reachable(name) == {0}
        assert found.reachable("{" + name + "}") == {0}


def test_matching_is_linear() -> None:
    rules = table(["a*" * 200 + "b", "*" * 300 + "c"], templates=False)
    start = time.perf_counter()
    assert rules.find("a" * 8000) is None
    assert rules.reachable("{a}a" * 128) == set()
    assert time.perf_counter() - start < 1.0  # with going back it would be hours
