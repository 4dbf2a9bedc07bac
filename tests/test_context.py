"""`context`: identity cannot be changed, principals are stable, `current_auth()`."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import sys
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
from harness import ISS, R
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import AuthInfo, Principal, current_auth
from asgi_mcp_auth._asgi.identity import AuthenticatedUser
from asgi_mcp_auth.context import copy_json, current_auth_var

NOTHING: list[str] = []
ORDERED: OrderedDict[str, Any] = OrderedDict(b=["c"])
CLAIMS: dict[str, Any] = {
    "iss": ISS,
    "sub": "alice",
    "aud": [R, "https://other.example"],
    "cnf": {"jkt": "x", "deep": [{"deeper": []}]},
    "roles": ["a"],
    "n": 1,
    "none": None,
}


def info(**changes: Any) -> AuthInfo:
    fields: dict[str, Any] = {
        "issuer": ISS,
        "subject": "alice",
        "client_id": "c1",
        "scopes": ["mcp:read"],
        "audience": [R],
        "resource": R,
        "expires_at": 1_800_000_300.0,
        "claims": copy.deepcopy(CLAIMS),
        "token": "eyJ.secret.token",
    }
    return AuthInfo(**(fields | changes))


PUBLIC = ("issuer", "subject", "client_id", "scopes", "audience", "resource", "expires_at", "claims", "token")


@pytest.mark.parametrize("name", [*PUBLIC, "principal", "_claims", "_nested", "new"])
def test_nothing_can_be_set_or_deleted(name: str) -> None:
    caller = info()
    with pytest.raises(AttributeError, match="immutable"):
        setattr(caller, name, "x")
    with pytest.raises(AttributeError, match="immutable"):
        delattr(caller, name)
    assert caller == info()


def spoil(value: object) -> None:
    """Change whatever can be changed."""
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        for member in list(members.values()):
            spoil(member)
        members["evil"] = True
        members.pop("sub", None)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        for item in items:
            spoil(item)
        items.append("evil")
    elif isinstance(value, set):
        cast("set[object]", value).add("evil")


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(CLAIMS, id="plain JSON"),
        pytest.param({"a": ORDERED}, id="a verifier's OrderedDict"),
        pytest.param({"a": defaultdict(list, b=["c"])}, id="a verifier's defaultdict"),
        pytest.param(OrderedDict([("a", ORDERED)]), id="an OrderedDict as the claims themselves"),
        pytest.param({"a": ({"b": 1}, NOTHING)}, id="a verifier's tuple"),
    ],
)
def test_nothing_reachable_can_be_changed(claims: dict[str, Any]) -> None:
    before = copy.deepcopy(claims)
    caller = info(claims=claims)
    for name in PUBLIC:
        spoil(getattr(caller, name))
    for value in list(caller.claims.values()):
        spoil(list(value) if isinstance(value, tuple) else value)  # pyright: ignore[reportUnknownArgumentType]
    assert json.dumps(caller.claims) == json.dumps(before)


def test_nothing_changes_with_what_it_was_made_from() -> None:
    claims, scopes, audience = copy.deepcopy(CLAIMS), ["mcp:read"], [R]
    caller = info(claims=claims, scopes=scopes, audience=audience)
    spoil(claims)
    spoil(scopes)
    spoil(audience)
    assert (caller.claims, caller.scopes, caller.audience) == (CLAIMS, ("mcp:read",), (R,))


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickled]


@pytest.mark.requirement("RS-216")
@pytest.mark.parametrize("copied", COPIES)
def test_it_can_be_copied_and_sent_to_another_process(copied: Callable[[Any], Any]) -> None:
    """By apps that copy their state, or hand work on."""
    caller = info()
    assert copied(caller) == caller
    assert copied({"caller": caller})["caller"].claims == CLAIMS


def test_claims_are_a_fresh_copy_each_time() -> None:
    caller = info()
    first, second = caller.claims, caller.claims
    assert first == second == CLAIMS
    assert first is not second
    assert first["cnf"] is not second["cnf"]
    assert first["cnf"]["deep"][0] is not second["cnf"]["deep"][0]


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(R, R, id="a text stays one"),
        pytest.param([R, "x"], (R, "x"), id="a list becomes a tuple"),
        pytest.param((), (), id="empty"),
    ],
)
def test_audience(audience: Any, expected: Any) -> None:
    assert info(audience=audience).audience == expected


def test_only_issuer_and_subject_are_required() -> None:
    caller = AuthInfo(issuer=ISS, subject="alice")
    values = [getattr(caller, name) for name in PUBLIC]
    assert values == [ISS, "alice", None, (), None, None, None, {}, None]


def as_json(value: object) -> str:
    return json.dumps(value, default=repr)


@pytest.mark.parametrize("show", [repr, str, "{}".format, as_json])
def test_no_repr_shows_the_token(show: Callable[[object], str]) -> None:
    shown = show(info())
    assert "secret" not in shown
    assert "jkt" not in shown
    expected = f"AuthInfo(issuer='{ISS}', subject='alice', client_id='c1', scopes=('mcp:read',), resource='{R}')"
    assert expected in shown


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("issuer", "https://other.example"),
        ("subject", "bob"),
        ("client_id", None),
        ("scopes", ("a", "b")),
        ("audience", None),
        ("resource", "https://x.example"),
        ("expires_at", 5.0),
        ("claims", {"a": [1]}),
        ("token", None),
    ],
)
def test_a_changed_copy(change: str, value: Any) -> None:
    caller = info()
    if sys.version_info >= (3, 13):
        changed: Any = copy.replace(caller, **{change: value})
    else:
        changed = caller.__replace__(**{change: value})
    assert isinstance(changed, AuthInfo)
    assert [getattr(changed, name) == getattr(caller, name) for name in PUBLIC] == [name != change for name in PUBLIC]
    assert getattr(changed, change) == value
    assert changed != caller
    assert caller == info()


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert info() == info()
    assert hash(info()) == hash(info())
    assert hash(info(claims={})) == hash(info())
    assert info() != "alice"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        *(("issuer", value) for value in ("", None, 5, b"x")),
        *(("subject", value) for value in ("", None, 5)),
        *(("client_id", value) for value in ("", 5)),
        ("scopes", ["a", None]),
        *(("expires_at", value) for value in ("5", math.nan, math.inf, -math.inf, 10**400)),
    ],
)
def test_an_identity_that_cannot_be_right_is_not_made(change: str, value: Any) -> None:
    with pytest.raises(ValueError, match=change):
        info(**{change: value})


def test_an_identity_and_its_user_are_freed_without_the_garbage_collector() -> None:
    """A cycle between the two would keep tokens that left the cache until the collector runs."""

    class Claim(str):
        __slots__ = ("__weakref__",)

    claim = Claim("x")
    freed = weakref.ref(claim)
    gc.disable()
    try:
        user = AuthenticatedUser(info(claims={"a": claim}))
        del claim
        assert freed() is not None
        del user
        assert freed() is None
    finally:
        gc.enable()


# --- principals -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("RS-87")
def test_the_principal_is_the_triple() -> None:
    assert info().principal == Principal(issuer=ISS, subject="alice", client_id="c1")
    assert info(token=None, expires_at=1, claims={}, scopes=()).principal == info().principal


@pytest.mark.parametrize(
    ("subject", "client_id", "expected"),
    [
        pytest.param("c1", "c1", True, id="RS-87 client credentials"),
        pytest.param("alice", "c1", False, id="RS-87 a person"),
        pytest.param("alice", None, False, id="RS-87 no client named"),
    ],
)
def test_is_client(subject: str, client_id: str | None, expected: bool) -> None:
    assert Principal(issuer=ISS, subject=subject, client_id=client_id).is_client is expected


@pytest.mark.requirement("RS-216")
def test_the_key_never_changes() -> None:
    """Applications keep it in databases, so the very digits are a promise."""
    principal = Principal(issuer=ISS, subject="alice", client_id="c1")
    assert principal.key == "bc461dfb114af8473df6cc3942a329bec09a20ef2318895216626e66b4bc97af"


parts = st.text(max_size=10)
principals = st.builds(Principal, issuer=parts, subject=parts, client_id=st.none() | parts)


@pytest.mark.requirement("RS-87", "RS-216")
@settings(max_examples=200, deadline=None)
@given(principals, principals)
def test_keys_are_equal_exactly_for_equal_principals(one: Principal, other: Principal) -> None:
    """No separator can be smuggled from one part into the next."""
    assert (one.key == other.key) is (one == other)
    assert len(one.key) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((ISS, "a", "b"), (ISS, "b", "a"), id="RS-216 exchanged"),
        pytest.param((ISS, "a", None), (ISS, "a", "None"), id="RS-216 none is not a name"),
        pytest.param((ISS, "a", None), (ISS, "a", ""), id="RS-216 none is not empty"),
        pytest.param((ISS, 'a","b', "c"), (ISS, "a", 'b","c'), id="RS-216 separators inside"),
        pytest.param(("https://a.example", "s", "c"), ("https://b.example", "s", "c"), id="RS-87 two issuers"),
    ],
)
def test_different_principals(one: tuple[str, str, str | None], other: tuple[str, str, str | None]) -> None:
    keys = {Principal(issuer=i, subject=s, client_id=c).key for i, s, c in (one, other)}
    assert len(keys) == 2


def test_a_principal_is_immutable() -> None:
    principal: Any = info().principal
    with pytest.raises(AttributeError):
        principal.subject = "bob"
    assert {principal: 1}[info().principal] == 1


# --- current_auth ---------------------------------------------------------------------------------------------------


def test_current_auth() -> None:
    assert current_auth() is None
    caller = info()
    reset = current_auth_var.set(caller)
    assert current_auth() is caller
    current_auth_var.reset(reset)
    assert current_auth() is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_copy_json(value: Any) -> None:
    copied = copy_json(value)
    assert copied == value
    before = copy.deepcopy(value)
    spoil(copied)
    assert value == before
