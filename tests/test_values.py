"""`_values.dataclass` beside the standard one: the same to whoever uses the class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import (
    Allow,
    AuthServerConfig,
    Deny,
    NeedScopes,
    Principal,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
)
from asgi_mcp_auth import _values as values
from asgi_mcp_auth._oauth.http_cache import State
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.status import DocumentStatus, Status


class Body:
    """Of the classes that are compared below."""

    first: int
    second: str = "two"
    third: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    hidden: tuple[int, ...] = dataclasses.field(default=(), repr=False)

    @property
    def twice(self) -> int:
        return self.first * 2


def members() -> dict[str, Any]:
    return {name: member for name, member in vars(Body).items() if name not in ("__dict__", "__weakref__")}


ours: Any = values.dataclass(frozen=True, slots=True, kw_only=True)(type("Value", (), members()))
theirs: Any = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(type("Value", (), members()))

FIELDS = st.fixed_dictionaries(
    {"first": st.integers()},
    optional={
        "second": st.text(max_size=3),
        "third": st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        "hidden": st.tuples(st.integers()),
    },
)


def told(value: Any) -> tuple[Any, ...]:
    """All that can be told of a value whose class is not looked at."""
    read = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return repr(value), read, value.twice, dataclasses.asdict(value), dataclasses.astuple(value)


@given(FIELDS)
def test_values_are_told_alike(arguments: dict[str, Any]) -> None:
    assert told(ours(**arguments)) == told(theirs(**arguments))


@given(FIELDS, FIELDS)
def test_values_are_equal_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (ours(**one) == ours(**two)) is (theirs(**one) == theirs(**two))
    assert ours(**one) == ours(**one)
    assert ours(**one) != theirs(**one)
    assert ours(**one).__eq__(1) is NotImplemented


@given(FIELDS.map(lambda arguments: {**arguments, "third": ()}))
def test_values_are_hashed_alike(arguments: dict[str, Any]) -> None:
    assert hash(ours(**arguments)) == hash(theirs(**arguments))


@given(FIELDS, FIELDS)
def test_values_are_replaced_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert told(dataclasses.replace(ours(**one), **two)) == told(dataclasses.replace(theirs(**one), **two))


def test_what_cannot_be_hashed_is_told_alike() -> None:
    for kind in (ours, theirs):
        with pytest.raises(TypeError, match="unhashable type: 'dict'"):
            hash(kind(first=1))


def test_defaults_are_not_shared() -> None:
    assert ours(first=1).third is not ours(first=1).third


def described(kind: Any) -> tuple[Any, ...]:
    fields = [(field.name, field.type, field.default, field.kw_only) for field in dataclasses.fields(kind)]
    flags = repr(kind.__dataclass_params__)
    return inspect.signature(kind), kind.__slots__, kind.__match_args__, kind.__doc__, fields, flags


def test_classes_are_described_alike() -> None:
    assert described(ours) == described(theirs)
    assert not hasattr(ours(first=1), "__dict__")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(ours, "first", id="ours"),
        pytest.param(theirs, "first", id="theirs"),
        pytest.param(ours, "new", id="another attribute"),  # where theirs fails in a way of its own (Python 3.13)
        pytest.param(ours, "__class__", id="the class"),
    ],
)
def test_nothing_can_be_changed(kind: Any, name: str) -> None:
    value = kind(first=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(value, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete field '{name}'"):
        delattr(value, name)
    assert value == kind(first=1)


@pytest.mark.parametrize(
    ("nameless", "named", "message"),
    [
        pytest.param((1,), {}, r"^Value\(\) takes its arguments by name$", id="by position"),
        pytest.param((1,), {"first": 1}, r"^Value\(\) takes its arguments by name$", id="by position too"),
        pytest.param(
            (), {"first": 1, "frist": 2}, r"^Value\(\) got an unexpected keyword argument 'frist'$", id="misspelt"
        ),
        pytest.param(
            (), {"frist": 2}, r"^Value\(\) got an unexpected keyword argument 'frist'$", id="misspelt, missing"
        ),
        pytest.param((), {"second": ""}, r"^Value\(\) misses required arguments: 'first'$", id="missing"),
        pytest.param((), {"self": 1, "first": 1}, r"^Value\(\) got an unexpected keyword argument 'self'$", id="self"),
    ],
)
def test_wrong_arguments_are_refused(nameless: tuple[Any, ...], named: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ours(*nameless, **named)
    with pytest.raises(TypeError):
        theirs(*nameless, **named)


def test_standard_classes_may_inherit() -> None:
    for kind in (ours, theirs):
        made: Any = dataclasses.make_dataclass("More", [("more", int)], bases=(kind,), frozen=True, kw_only=True)
        assert repr(made(first=1, more=2)) == "More(first=1, second='two', third={}, more=2)"
        with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
            dataclasses.make_dataclass("More", [("more", int)], bases=(kind,))


@pytest.mark.parametrize("own", [pytest.param({}, id="all of its own"), pytest.param({"repr": False}, id="our repr")])
def test_what_is_no_field_of_a_class_that_inherits_is_left_alone(own: Any) -> None:
    """`ClassVar` and `InitVar` have no place in a value: it is copied, pickled and shown without them."""
    for kind in (ours, theirs):
        names: list[Any] = [("kept", ClassVar[int]), ("given", dataclasses.InitVar[int])]
        more: Any = dataclasses.make_dataclass("More", names, bases=(kind,), frozen=True, kw_only=True, **own)
        made = more(first=1, given=2)
        for other in (copy.copy(made), copy.deepcopy(made)):
            assert other == made
            assert repr(other) == "More(first=1, second='two', third={})".replace("More", type(made).__qualname__)


def test_a_value_in_itself_has_a_repr() -> None:
    for kind in (ours, theirs):
        inner: dict[str, Any] = {}
        inner["x"] = kind(first=1, third=inner)
        assert repr(inner["x"]) == "Value(first=1, second='two', third={'x': ...})"


def test_methods_of_a_class_itself_stay() -> None:
    class Own:
        name: str = "x"

        def __init__(self, name: str = "y") -> None:
            object.__setattr__(self, "name", name)

        def __repr__(self) -> str:
            return f"<{self.name}>"

    made: Any = values.dataclass(frozen=True, slots=True)(Own)
    assert (repr(made()), repr(made("z")), made.__match_args__) == ("<y>", "<z>", ("name",))
    assert str(inspect.signature(made)) == "(name: 'str' = 'y') -> 'None'"


VALUES = [
    AuthServerConfig(issuer="https://as.example", allowed_clients=["a"]),
    ResourceServerConfig(
        metadata=ResourceServerMetadata(resource="https://rs.example"), policy=ScopePolicy(default=["a"])
    ),
    JWKSCacheSettings(lifetime=100.0),
    ScopeRule(scopes=["a"], max_age=3),
    Principal(issuer="https://as.example", subject="alice", client_id=None),
    Allow(),
    Deny("because"),
    NeedScopes("a"),
    Requirement(needed=("a",), satisfied_by=(frozenset("a"),)),
    State(fetched_at=1.0),
    DocumentStatus(state="fresh", age=1.0),
    Status(at=1.0, issuers=(), resources=(), ready=True),
]


@pytest.mark.parametrize("value", [pytest.param(value, id=type(value).__name__) for value in VALUES])
def test_values_travel(value: Any) -> None:
    copies = [copy.copy(value), copy.deepcopy(value), dataclasses.replace(value)]
    copies += [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert other == value
        assert repr(other) == repr(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            other.more = 1


def test_a_class_is_shown_with_its_arguments() -> None:
    assert str(inspect.signature(ScopeRule)) == (
        "(*, scopes: 'Sequence[str]' = (), acr_values: 'Sequence[str]' = (), max_age: 'int | None' = None) -> None"
    )


def test_a_class_that_inherits_is_shown_with_arguments_of_its_own() -> None:
    def own_init(self: Any, first: int) -> None:
        raise NotImplementedError

    for kind in (ours, theirs):
        own: Any = type("Own", (kind,), {"__init__": own_init})
        names: list[Any] = [("more", int), ("given", dataclasses.InitVar[int])]
        more: Any = dataclasses.make_dataclass("More", names, bases=(kind,), frozen=True, kw_only=True)
        assert [*inspect.signature(own).parameters] == ["first"]
        assert [*inspect.signature(more).parameters] == ["first", "second", "third", "hidden", "more", "given"]


def test_a_class_without_names_is_refused() -> None:
    """Ours takes nothing by position, so a class that does brings its own constructor."""
    with pytest.raises(AssertionError):
        values.dataclass(frozen=True, slots=True)(type("Value", (), members()))
