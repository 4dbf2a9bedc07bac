"""`_policy.scopes`: the hierarchy of scopes, and what a request needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._policy.scopes import Requirement, ScopeHierarchy, StepUpRequirement

FILES = ScopeHierarchy({"admin": ["files:write"], "files:write": ["files:read"], "owner": ["admin"]}, {})


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param("files:read", {"files:read", "files:write", "admin", "owner"}, id="RS-110 transitively"),
        pytest.param("admin", {"admin", "owner"}, id="RS-110 directly"),
        pytest.param("owner", {"owner"}, id="RS-110 nothing above"),
        pytest.param("other", {"other"}, id="RS-110 outside of the hierarchy"),
    ],
)
def test_what_satisfies_a_scope(scope: str, expected: set[str]) -> None:
    assert FILES.satisfying(scope) == expected


@pytest.mark.parametrize(
    ("needed", "granted", "expected"),
    [
        pytest.param([], [], True, id="nothing needed"),
        pytest.param(["files:read"], ["files:read"], True, id="the scope itself"),
        pytest.param(["files:read"], ["admin"], True, id="RS-110 implied through another"),
        pytest.param(["files:read"], ["owner"], True, id="RS-110 implied through two others"),
        pytest.param(["admin"], ["files:read"], False, id="RS-110 not the other way round"),
        pytest.param(["files:read", "mcp:read"], ["admin"], False, id="RS-110 all are needed"),
        pytest.param(["files:read", "mcp:read"], ["admin", "mcp:read"], True, id="RS-110 all are there"),
        pytest.param(["files:read"], ["FILES:READ"], False, id="RS-86 case matters"),
        pytest.param(["files:read"], ["files:rea", "files:readx"], False, id="whole scopes only"),
        pytest.param(["files:read"], [], False, id="nothing granted"),
    ],
)
def test_sufficiency(needed: list[str], granted: list[str], expected: bool) -> None:
    assert FILES.require(needed).met_by(granted) is expected
    assert FILES.require(needed).met_by(tuple(granted)) is expected


@pytest.mark.parametrize(
    ("implies", "expected"),
    [
        pytest.param({}, None, id="empty"),
        pytest.param({"a": ["b"], "b": ["c"]}, None, id="a chain"),
        pytest.param({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, None, id="a diamond"),
        pytest.param({"a": ["a"]}, {"a"}, id="RS-110 itself"),
        pytest.param({"a": ["b"], "b": ["a"]}, {"a", "b"}, id="RS-110 each other"),
        pytest.param({"a": ["b"], "b": ["c"], "c": ["a"]}, {"a", "b", "c"}, id="RS-110 round about"),
        pytest.param({"x": ["a"], "a": ["b"], "b": ["a"]}, {"a", "b"}, id="RS-110 a cycle beside its entrance"),
        pytest.param({"a": ["z", "b"], "b": ["y", "a"]}, {"a", "b"}, id="RS-110 among others"),
    ],
)
def test_cycles(implies: dict[str, list[str]], expected: set[str] | None) -> None:
    found = ScopeHierarchy(implies, {}).cycle()
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert set(found) <= expected
        assert found


def reachable(implies: dict[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(implies.get(start, ()))
    while waiting:
        scope = waiting.pop()
        if scope not in found:
            found.add(scope)
            waiting += implies.get(scope, ())
    return found


SMALL = st.sampled_from("abcde")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(SMALL, st.lists(SMALL, max_size=3), max_size=5), SMALL, st.sets(SMALL))
def test_the_hierarchy_is_reachability(implies: dict[str, list[str]], scope: str, granted: set[str]) -> None:
    hierarchy = ScopeHierarchy(implies, {})
    above = {name for name in implies if scope in reachable(implies, name)} | {scope}
    assert hierarchy.satisfying(scope) == above
    assert hierarchy.require([scope]).met_by(granted) is bool(above & granted)
    assert (hierarchy.cycle() is None) is not any(name in reachable(implies, name) for name in implies)


@pytest.mark.requirement("RS-111")
def test_one_requirement_for_all_groups_in_stable_order() -> None:
    """Each scope once, in the order of the groups."""
    requirement = FILES.require(["mcp:read", "a"], ["files:read", "mcp:read"], ["a", "z"])
    assert requirement.needed == ("mcp:read", "a", "files:read", "z")
    assert requirement.named == requirement.needed


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        pytest.param((["b", "a"],), ("b", "a"), id="RS-111 as configured, not sorted"),
        pytest.param((["b", "a"], ["a", "c"]), ("b", "a", "c"), id="RS-111 baseline and operation, each once"),
        pytest.param((["files:read"],), ("files:read",), id="RS-112 not what implies it"),
        pytest.param((["files:write", "files:read"],), ("files:write", "files:read"), id="RS-112 implied ones too"),
        pytest.param(((),), (), id="RS-111 nothing"),
        pytest.param((), (), id="RS-111 no groups"),
    ],
)
def test_what_a_challenge_names(groups: tuple[list[str], ...], expected: tuple[str, ...]) -> None:
    assert FILES.require(*groups).named == expected
    assert FILES.require(*groups) == FILES.require(*groups)


@pytest.mark.requirement("RS-111")
def test_request_scope_names_are_for_challenges_only() -> None:
    """Challenges name scopes as clients must request them; tokens are compared by their own names."""
    hierarchy = ScopeHierarchy({"admin": ["read"]}, {"read": "api://x/read", "other": "api://x/read"})
    requirement = hierarchy.require(["read", "write", "other"])
    assert requirement.named == ("api://x/read", "write")
    assert requirement.needed == ("read", "write", "other")
    assert requirement.met_by(["admin", "write", "other"])
    assert not requirement.met_by(["api://x/read", "write"])
    assert (hierarchy.request_name("read"), hierarchy.request_name("write")) == ("api://x/read", "write")


def test_an_empty_requirement_is_met_without_scopes() -> None:
    assert Requirement().met_by(())


def test_a_hierarchy_copies_its_arguments() -> None:
    implies, names = {"admin": ["read"]}, {"read": "r"}
    hierarchy = ScopeHierarchy(implies, names)
    implies["admin"].append("write")
    names["read"] = "x"
    assert hierarchy.satisfying("write") == {"write"}
    assert hierarchy.request_name("read") == "r"


NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("authenticated", "expected"),
    [
        pytest.param(NOW, True, id="RS-122 now"),
        pytest.param(NOW - 330, True, id="RS-122 the age and the leeway"),
        pytest.param(NOW - 331, False, id="RS-122 a second more"),
        pytest.param(NOW + 30, True, id="RS-122 a clock that is fast"),
        pytest.param(NOW + 31, False, id="RS-122 the future"),
        pytest.param(NOW + 3600, False, id="RS-122 an hour ahead"),
        pytest.param(NOW * 1000, False, id="RS-122 milliseconds"),
        pytest.param(10**400, False, id="RS-122 more than a float holds"),
        pytest.param(-(10**400), False, id="RS-122 less than a float holds"),
        pytest.param(float("nan"), False, id="RS-122 no number"),
        pytest.param(True, False, id="RS-122 a boolean"),
        pytest.param(str(NOW), False, id="RS-122 text"),
        pytest.param(None, False, id="RS-122 null"),
    ],
)
def test_how_long_ago_a_user_authenticated(authenticated: object, expected: bool) -> None:
    strength = StepUpRequirement(max_age=300)
    assert strength.met_by({"auth_time": authenticated}, float(NOW), 30.0) is expected
