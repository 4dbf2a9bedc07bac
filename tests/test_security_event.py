"""Security Event Tokens and logout tokens as pure functions: what is accepted, and what an event is about."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from harness import ISS
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.security_event import (
    LOGOUT,
    EventRefusedError,
    EventSubject,
    SecurityEvent,
    check_event,
    check_logout,
    parse_event,
    parse_logout,
    subjects_of,
)
from asgi_mcp_auth.testing import Issuer

NOW = 1_800_000_000.0
US = frozenset({"https://mcp.example.com/events"})
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
ALICE = {"format": "iss_sub", "iss": ISS, "sub": "alice"}
NOTHING: dict[str, Any] = {}
SESSION_REVOKED = f"{CAEP}session-revoked"


def event(event_type: str = SESSION_REVOKED, payload: Any = None, **changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "iss": ISS,
        "aud": "https://mcp.example.com/events",
        "iat": NOW - 5,
        "jti": "e1",
        "sub_id": ALICE,
        "events": {event_type: NOTHING if payload is None else payload},
    } | changes
    return {name: value for name, value in claims.items() if value is not ...}


def checked(claims: dict[str, Any]) -> SecurityEvent:
    return check_event(claims, audiences=US, now=NOW, leeway=30)


@pytest.mark.requirement("RV-5")
@pytest.mark.parametrize(
    ("claims", "effect", "at"),
    [
        pytest.param(event(), "revoke", NOW - 5, id="session-revoked"),
        pytest.param(event(payload={"event_timestamp": NOW - 60}), "revoke", NOW - 60, id="its own time"),
        pytest.param(event(f"{CAEP}credential-change", {"change_type": "revoke"}), "revoke", NOW - 5, id="revoked"),
        pytest.param(event(f"{CAEP}credential-change", {"change_type": "delete"}), "revoke", NOW - 5, id="deleted"),
        pytest.param(event(f"{CAEP}credential-change", {"change_type": "create"}), "none", NOW - 5, id="created"),
        pytest.param(event(f"{RISC}account-disabled"), "revoke", NOW - 5, id="account-disabled"),
        pytest.param(event(f"{RISC}credential-compromise"), "revoke", NOW - 5, id="credential-compromise"),
        pytest.param(event(f"{CAEP}token-claims-change"), "changed", NOW - 5, id="token-claims-change"),
        pytest.param(event(f"{RISC}account-enabled"), "none", NOW - 5, id="account-enabled"),
        pytest.param(event("urn:example:own"), "none", NOW - 5, id="an unknown event"),
        pytest.param(
            event("https://schemas.openid.net/secevent/ssf/event-type/verification", {"state": "x"}),
            "verification",
            NOW - 5,
            id="verification",
        ),
        pytest.param(event(aud=["https://a.example", *US]), "revoke", NOW - 5, id="several audiences"),
    ],
)
def test_events_have_an_effect_and_a_time(claims: dict[str, Any], effect: str, at: float) -> None:
    found = checked(claims)
    assert (found.effect, found.at, found.token_id, found.issuer) == (effect, at, "e1", ISS)
    assert found.subjects == (() if effect == "verification" else (EventSubject("subject", "alice", ISS),))


@pytest.mark.requirement("RV-4")
@pytest.mark.parametrize(
    ("claims", "code"),
    [
        pytest.param(event(aud="https://other.example"), "invalid_audience", id="another audience"),
        pytest.param(event(aud=...), "invalid_audience", id="no audience"),
        pytest.param(event(aud={"x": 1}), "invalid_audience", id="an audience that is an object"),
        pytest.param(event(exp=NOW + 60), "invalid_request", id="an exp"),
        pytest.param(event(iat=...), "invalid_request", id="no iat"),
        pytest.param(event(iat="now"), "invalid_request", id="an iat that is no time"),
        pytest.param(event(iat=NOW + 31), "invalid_request", id="from the future"),
        pytest.param(event(jti=...), "invalid_request", id="no jti"),
        pytest.param(event(jti=""), "invalid_request", id="an empty jti"),
        pytest.param(event(jti="x" * 1025), "invalid_request", id="a long jti"),
        pytest.param(event(sub_id=...), "invalid_request", id="no subject"),
        pytest.param(event(sub_id="alice"), "invalid_request", id="a subject that is a string"),
        pytest.param(event(sub_id={}), "invalid_request", id="a subject without format"),
        pytest.param(event(sub_id={"format": "iss_sub", "iss": ISS}), "invalid_request", id="a subject cut off"),
        pytest.param(event(events=...), "invalid_request", id="no events"),
        pytest.param(event(events={}), "invalid_request", id="no event"),
        pytest.param(event(events=[SESSION_REVOKED]), "invalid_request", id="a list of events"),
        pytest.param(event(events={SESSION_REVOKED: {}, "urn:x": {}}), "invalid_request", id="two events"),
        pytest.param(event(events={SESSION_REVOKED: []}), "invalid_request", id="an event that is a list"),
        pytest.param(event(payload={"event_timestamp": NOW + 31}), "invalid_request", id="a time in the future"),
        pytest.param(event(payload={"event_timestamp": NOW * 1000}), "invalid_request", id="milliseconds"),
        pytest.param(event(payload={"event_timestamp": "x"}), "invalid_request", id="a time that is no number"),
    ],
)
def test_malformed_events_are_refused(claims: dict[str, Any], code: str) -> None:
    with pytest.raises(EventRefusedError) as refused:
        checked(claims)
    assert refused.value.code == code


@pytest.mark.requirement("RV-5")
@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(ALICE, [("subject", "alice", ISS)], id="iss_sub"),
        pytest.param({"format": "opaque", "id": "a1"}, [("subject", "a1", None)], id="opaque"),
        pytest.param({"format": "jwt_id", "iss": ISS, "jti": "j"}, [("token", "j", ISS)], id="jwt_id"),
        pytest.param({"format": "email", "email": "a@b.example"}, [("email", "a@b.example", None)], id="email"),
        pytest.param({"format": "phone_number", "phone_number": "+1"}, [], id="a format without a claim"),
        pytest.param(
            {"format": "aliases", "identifiers": [ALICE, {"format": "email", "email": "a@b.example"}]},
            [("subject", "alice", ISS), ("email", "a@b.example", None)],
            id="aliases",
        ),
        pytest.param({"format": "complex", "user": ALICE}, [("subject", "alice", ISS)], id="complex, a user"),
        pytest.param(
            {"format": "complex", "user": ALICE, "session": {"format": "opaque", "id": "s1"}},
            [("session", "s1", None)],
            id="complex, a session of a user",
        ),
        pytest.param(
            {"format": "complex", "user": ALICE, "session": {"format": "uri", "uri": "urn:x"}},
            [("subject", "alice", ISS)],
            id="complex, a session that cannot be used",
        ),
        pytest.param(
            {"format": "complex", "user": ALICE, "device": {"format": "opaque", "id": "d"}},
            [("subject", "alice", ISS)],
            id="complex, a device of a user",
        ),
        pytest.param(
            {"format": "complex", "tenant": {"format": "opaque", "id": "t"}}, [], id="complex, a tenant alone"
        ),
    ],
)
def test_subjects(subject: dict[str, Any], expected: list[tuple[str, str, str | None]]) -> None:
    assert [tuple(found) for found in subjects_of(subject)] == expected


def logout(**changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "iss": ISS,
        "aud": "client",
        "iat": NOW - 5,
        "exp": NOW + 100,
        "jti": "l1",
        "sub": "alice",
        "events": {LOGOUT: NOTHING},
    } | changes
    return {name: value for name, value in claims.items() if value is not ...}


@pytest.mark.requirement("RV-7")
@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param(logout(), ("subject", "alice"), id="sub"),
        pytest.param(logout(sid="s1"), ("subject", "alice"), id="sub and sid"),
        pytest.param(logout(sub=..., sid="s1"), ("session", "s1"), id="sid alone"),
        pytest.param(logout(exp=...), ("subject", "alice"), id="without exp"),
        pytest.param(logout(events={LOGOUT: {}, "urn:x": {}}), ("subject", "alice"), id="with another event"),
        pytest.param(logout(aud="other"), "invalid_audience", id="another client"),
        pytest.param(logout(iat=...), "invalid_request", id="no iat"),
        pytest.param(logout(iat=NOW + 31), "invalid_request", id="from the future"),
        pytest.param(logout(exp=NOW - 30), "invalid_request", id="expired"),
        pytest.param(logout(exp="x"), "invalid_request", id="an exp that is no time"),
        pytest.param(logout(jti=...), "invalid_request", id="no jti"),
        pytest.param(logout(nonce="n"), "invalid_request", id="a nonce"),
        pytest.param(logout(nonce=None), "invalid_request", id="a nonce that is null"),
        pytest.param(logout(sub=...), "invalid_request", id="neither sub nor sid"),
        pytest.param(logout(sub=5), "invalid_request", id="a sub that is a number"),
        pytest.param(logout(sid=""), "invalid_request", id="an empty sid"),
        pytest.param(logout(events=...), "invalid_request", id="no events"),
        pytest.param(logout(events={LOGOUT: True}), "invalid_request", id="an event that is no object"),
        pytest.param(logout(events={"urn:x": {}}), "invalid_request", id="another event"),
    ],
)
def test_logout_tokens(claims: dict[str, Any], expected: object) -> None:
    if isinstance(expected, str):
        with pytest.raises(EventRefusedError) as refused:
            check_logout(claims, clients=frozenset({"client"}), now=NOW, leeway=30)
        assert refused.value.code == expected
        return
    found = check_logout(claims, clients=frozenset({"client"}), now=NOW, leeway=30)
    [subject] = found.subjects
    assert ((subject.kind, subject.value), subject.issuer, found.effect) == (expected, ISS, "revoke")


@pytest.mark.requirement("RV-6")
def test_the_typ_tells_events_logout_tokens_and_access_tokens_apart() -> None:
    issuer = Issuer(ISS)
    tokens = {
        "event": issuer.event("us", SESSION_REVOKED, ALICE).encode(),
        "logout": issuer.logout_token("client", sub="alice").encode(),
        "access": issuer.mint("us").encode(),
        "garbage": b"a.b",
    }
    accepted = {"event": parse_event, "logout": parse_logout}
    for kind, parse in accepted.items():
        for name, token in tokens.items():
            if name == kind:
                assert parse(token).claims["iss"] == ISS
            else:
                with pytest.raises(EventRefusedError):
                    parse(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*event(), *logout(), "nonce", "sid"])
FORMATS = st.sampled_from(["iss_sub", "opaque", "jwt_id", "email", "complex", "aliases", "uri"])
MEMBERS = st.sampled_from(["iss", "sub", "id", "jti", "email", "user", "session", "identifiers"])


def with_format(name: str, members: dict[str, Any]) -> dict[str, Any]:
    return {"format": name, **members}


SUBJECTS = st.builds(with_format, FORMATS, st.dictionaries(MEMBERS, JSON | st.just(ALICE), max_size=3))


@given(st.dictionaries(NAMES, JSON, max_size=3), SUBJECTS)
def test_no_claims_crash_the_checks(changes: dict[str, Any], subject: dict[str, Any]) -> None:
    for claims in (event(sub_id=subject), event(**changes)):
        with suppress(EventRefusedError):
            assert all(one.value for one in checked(claims).subjects)
    with suppress(EventRefusedError):
        found = check_logout(logout(**changes), clients=frozenset({"client"}), now=NOW, leeway=30)
        assert all(one.value for one in found.subjects)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parsers(token: bytes) -> None:
    for parse in (parse_event, parse_logout):
        with pytest.raises(EventRefusedError):
            parse(token)
