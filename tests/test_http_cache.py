"""The clock of a key set as a pure decision: no test here waits."""

from __future__ import annotations

from email.utils import format_datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.http_cache import (
    Freshness,
    State,
    TokenBucket,
    seconds_until_fetch_allowed,
    stage,
    stated_lifetime,
    suspects_rotation,
)
from asgi_mcp_auth.config import JWKSCacheSettings

T: Final = 1_800_000_000.0
LIVES: Final = JWKSCacheSettings()
FRESH, DUE, STALE, UNUSABLE = Freshness.FRESH, Freshness.DUE, Freshness.STALE, Freshness.UNUSABLE
DAY: Final = 86_400.0
JITTER: Final = st.floats(0, 1, exclude_max=True)


def held(age_limit: float | None = None, jitter: float = 0.0) -> State:
    """The state after a good fetch at T."""
    return State().succeeded(T, age_limit, jitter, LIVES)


def after_failures(count: int, jitter: float = 0.0) -> State:
    """The state after `count` failures in a row, each at T."""
    state = State()
    for _ in range(count):
        state = state.failed(T, jitter, LIVES)
    return state


STAGES = [
    pytest.param(State(), T, UNUSABLE, id="DC-9 nothing held yet"),
    pytest.param(State(), -1e9, UNUSABLE, id="DC-9 nothing held yet, any clock"),
    pytest.param(held(), T, FRESH, id="DC-8 fetched now"),
    pytest.param(held(), T + 599, DUE, id="DC-8 default of 10 minutes, before"),
    pytest.param(held(), T + 600, STALE, id="DC-8 default of 10 minutes, after"),
    pytest.param(held(), T + 600 + DAY - 1, STALE, id="DC-8 stale for 24 hours, before"),
    pytest.param(held(), T + 600 + DAY, UNUSABLE, id="DC-8 stale for 24 hours, after"),
    pytest.param(held(300), T + 299, DUE, id="DC-8 max-age 300, before"),
    pytest.param(held(300), T + 300, STALE, id="DC-8 max-age 300, after"),
    pytest.param(held(0), T + 59, DUE, id="DC-8 no-store clamped to a minute, before"),
    pytest.param(held(0), T + 60, STALE, id="DC-8 no-store clamped to a minute, after"),
    pytest.param(held(1e9), T + DAY - 1, DUE, id="DC-8 a long max-age clamped to a day, before"),
    pytest.param(held(1e9), T + DAY, STALE, id="DC-8 a long max-age clamped to a day, after"),
    pytest.param(held(600), T + 539, FRESH, id="DC-8 refreshed a tenth ahead, before"),
    pytest.param(held(600), T + 540, DUE, id="DC-8 refreshed a tenth ahead, after"),
    pytest.param(held(600, 0.5), T + 509, FRESH, id="DC-8 jitter of a half: three twentieths ahead, before"),
    pytest.param(held(600, 0.5), T + 510, DUE, id="DC-8 jitter of a half: three twentieths ahead, after"),
    pytest.param(held(), T - 1, STALE, id="DC-8 clock set back: stale, so refreshed"),
    pytest.param(held(), T - 10 * DAY, STALE, id="DC-8 clock set back by days"),
    pytest.param(held().failed(T + 700, 0, LIVES), T + 700, STALE, id="DC-8 a failed refresh keeps what is held"),
    pytest.param(held().failed(T + 9, 0, LIVES), T + 10, FRESH, id="DC-8 a failed refresh of fresh keys"),
]


@pytest.mark.parametrize(("state", "now", "expected"), STAGES)
def test_stages(state: State, now: float, expected: Freshness) -> None:
    assert stage(state, now) is expected


WAITS = [
    pytest.param(State(), T, 0.0, id="DC-9 first fetch at once"),
    pytest.param(held(), T, 0.0, id="DC-8 no pause after a success"),
    pytest.param(after_failures(1), T, 1.0, id="DC-9 back-off of 1 s"),
    pytest.param(after_failures(1), T + 1, 0.0, id="DC-9 back-off over"),
    pytest.param(after_failures(2), T, 2.0, id="DC-9 back-off of 2 s"),
    pytest.param(after_failures(3), T, 4.0, id="DC-9 back-off of 4 s"),
    pytest.param(after_failures(5), T, 16.0, id="DC-9 back-off of 16 s"),
    pytest.param(after_failures(6), T, 30.0, id="DC-9 back-off of 30 s at most"),
    pytest.param(after_failures(5000), T, 30.0, id="DC-9 back-off after 5000 failures"),
    pytest.param(after_failures(1, 0.5), T, 1.05, id="DC-9 jitter of a half adds a twentieth"),
    pytest.param(held().failed(T + 40, 0, LIVES), T + 40, 1.0, id="DC-10 a failed refresh backs off"),
    pytest.param(after_failures(9).succeeded(T + 5, None, 0, LIVES), T + 5, 0.0, id="DC-9 a success ends the back-off"),
    pytest.param(
        after_failures(9).succeeded(T + 5, None, 0, LIVES).failed(T + 6, 0, LIVES),
        T + 6,
        1.0,
        id="DC-9 a success resets the back-off",
    ),
]


@pytest.mark.parametrize(("state", "now", "expected"), WAITS)
def test_seconds_until_a_fetch_is_allowed(state: State, now: float, expected: float) -> None:
    assert seconds_until_fetch_allowed(state, now) == pytest.approx(expected, abs=1e-6)


@pytest.mark.requirement("DC-9")
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), JITTER, st.floats(0, 1e7))
def test_a_clock_set_back_never_makes_the_pause_longer(failures: int, jitter: float, back: float) -> None:
    """A clock that is corrected by an hour does not stop fetches for an hour."""
    longest = LIVES.max_backoff * 1.1
    assert seconds_until_fetch_allowed(after_failures(failures, jitter), T - back) <= longest
    assert seconds_until_fetch_allowed(held().failed(T, jitter, LIVES), T - back) <= longest


@settings(deadline=None, max_examples=100)
@given(JITTER, st.one_of(st.none(), st.floats(0, 1e12)))
def test_refreshing_ahead_takes_a_tenth_to_a_fifth_of_a_life(jitter: float, age_limit: float | None) -> None:
    whole = min(max(600.0 if age_limit is None else age_limit, 60.0), DAY)
    state = held(age_limit, jitter)
    assert state.fresh_until - T == pytest.approx(whole)
    assert whole * 0.8 - 1e-3 <= state.refresh_from - T <= whole * 0.9 + 1e-3
    assert state.usable_until - state.fresh_until == pytest.approx(DAY)
    assert (state.fetched_at, state.failures, seconds_until_fetch_allowed(state, T)) == (T, 0, 0.0)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), JITTER)
def test_jitter_adds_at_most_a_tenth_to_a_pause(failures: int, jitter: float) -> None:
    whole = min(2.0 ** (failures - 1), 30.0)
    pause = seconds_until_fetch_allowed(after_failures(failures, jitter), T)
    assert whole - 1e-3 <= pause <= whole * 1.1 + 1e-3


def attempts(gaps: list[float], jitters: list[float]) -> list[float]:
    """When an upstream that always fails is asked, given when requests come; the first comes at T."""
    state, now, asked = State(), T, list[float]()
    for index, gap in enumerate([0.0, *gaps]):
        now += gap
        if not seconds_until_fetch_allowed(state, now):
            asked.append(now)
            state = state.failed(now, jitters[index % len(jitters)], LIVES)
    return asked


def test_the_attempts_of_an_outage_under_constant_load() -> None:
    """Design section 4, upstream attempts: 6 in the first minute, then 2 a minute."""
    asked = attempts([0.25] * 4 * 200, [0.0])
    assert [time - T for time in asked] == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.one_of(st.floats(0.0, 2.0), st.floats(0, 40)), min_size=20, max_size=400),
    st.lists(JITTER, min_size=1, max_size=7),
)
def test_an_outage_is_asked_at_most_six_times_in_the_first_minute_then_twice_a_minute(
    gaps: list[float], jitters: list[float]
) -> None:
    asked = attempts(gaps, jitters)
    assert asked[0] == T
    assert sum(time < T + 60 for time in asked) <= 6
    for start in asked[6:]:
        assert sum(start <= time < start + 60 - 1e-3 for time in asked) <= 2


@pytest.mark.requirement("DC-10", "RS-77")
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5), st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans()), min_size=10, max_size=200))
def test_a_token_bucket_allows_its_rate_and_a_burst_of_one_minute(
    per_minute: int, steps: list[tuple[float, bool]]
) -> None:
    """2 fetches a minute, burst 2, is at most 4 in any minute; unused tokens may be given back."""
    bucket, now, taken = TokenBucket(per_minute), T, list[float]()
    for gap, used in steps:
        now += gap
        wait = bucket.take(now)
        if wait:
            assert 0 < wait <= 60 / per_minute
        elif used:
            taken.append(now)
        else:
            bucket.give_back()
    for index, start in enumerate(taken):
        for count, time in enumerate(taken[index:], 1):
            assert count <= per_minute + (time - start) * per_minute / 60 + 1e-3


@settings(deadline=None, max_examples=200)
@given(st.integers(-(10**6), 10**6), st.one_of(st.none(), st.floats(0, 1e6)), JITTER, st.integers(0, 8))
def test_the_stages_follow_each_other_and_a_failure_moves_none(
    offset: int, age_limit: float | None, jitter: float, failures: int
) -> None:
    state = held(age_limit, jitter)
    before = stage(state, T + offset)
    for _ in range(failures):
        state = state.failed(T + offset, jitter, LIVES)
    assert stage(state, T + offset) is before
    order = [FRESH, DUE, STALE, UNUSABLE]
    if offset >= 0:
        assert order.index(stage(state, T + offset + 1)) >= order.index(before)
    else:
        assert before is STALE


ROTATION = [
    pytest.param(State(), T, True, id="RS-77 nothing held: any iat is newer"),
    pytest.param(held(), None, False, id="RS-77 no iat"),
    pytest.param(held(), T - 3600, False, id="RS-77 iat before the fetch"),
    pytest.param(held(), T - 30, False, id="RS-77 iat a leeway before the fetch"),
    pytest.param(held(), T - 29, True, id="RS-77 iat within the leeway of the fetch"),
    pytest.param(held(), T + 1, True, id="RS-77 iat after the fetch"),
    pytest.param(held().failed(T + 99, 0, LIVES), T + 50, True, id="RS-77 a failed fetch in between does not count"),
]


@pytest.mark.parametrize(("state", "issued_at", "expected"), ROTATION)
def test_a_token_newer_than_the_keys_suggests_a_rotation(state: State, issued_at: float | None, expected: bool) -> None:
    assert suspects_rotation(state, issued_at, 30.0) is expected


MAX_AGE = [
    pytest.param(None, None, None, id="DC-8 no headers"),
    pytest.param("", None, None, id="DC-8 empty"),
    pytest.param("public", None, None, id="DC-8 no max-age"),
    pytest.param("max-age=300", None, 300.0, id="DC-8 max-age"),
    pytest.param("public, MAX-AGE=300 , must-revalidate", None, 300.0, id="DC-8 among others, any case"),
    pytest.param('max-age="300"', None, 300.0, id="DC-8 quoted"),
    pytest.param("max-age=300", "100", 200.0, id="DC-8 less the age"),
    pytest.param("max-age=300", "400", 0.0, id="DC-8 older than its age"),
    pytest.param("max-age=300", "-5", 300.0, id="DC-8 negative age"),
    pytest.param("max-age=300", "soon", 300.0, id="DC-8 malformed age"),
    pytest.param("max-age=300", "٣", 300.0, id="DC-8 age in Arabic digits"),
    pytest.param("max-age=-1", None, None, id="DC-8 negative max-age"),
    pytest.param("max-age=1.5", None, None, id="DC-8 fractional max-age"),
    pytest.param("max-age=٣", None, None, id="DC-8 max-age in Arabic digits"),
    pytest.param("max-age=" + "9" * 5000, None, 999_999_999_999.0, id="DC-8 thousands of digits"),
    pytest.param("max-age=300", "9" * 5000, 0.0, id="DC-8 an age of thousands of digits"),
    pytest.param("max-age", None, None, id="DC-8 without a value"),
    pytest.param("s-maxage=300", None, None, id="DC-8 s-maxage is for shared caches"),
    pytest.param("max-age=300, no-store", None, 0.0, id="DC-8 no-store"),
    pytest.param("no-cache, max-age=300", None, 0.0, id="DC-8 no-cache"),
]


@pytest.mark.parametrize(("cache_control", "age", "expected"), MAX_AGE)
def test_the_freshness_that_headers_state(cache_control: str | None, age: str | None, expected: float | None) -> None:
    assert stated_lifetime(cache_control, age, None, None) == expected


NOON, QUARTER_PAST = "Mon, 23 Nov 2026 12:00:00 GMT", "Mon, 23 Nov 2026 12:15:00 GMT"
EXPIRES = [
    pytest.param(None, None, QUARTER_PAST, NOON, 900.0, id="DC-8 Expires less Date"),
    pytest.param(None, "100", QUARTER_PAST, NOON, 800.0, id="DC-8 Expires less Date less Age"),
    pytest.param("max-age=5", None, QUARTER_PAST, NOON, 5.0, id="DC-8 max-age goes before Expires"),
    pytest.param("no-store", None, QUARTER_PAST, NOON, 0.0, id="DC-8 no-store goes before Expires"),
    pytest.param(None, None, NOON, QUARTER_PAST, 0.0, id="DC-8 Expires is past"),
    pytest.param(None, None, "0", NOON, 0.0, id="DC-8 Expires is no date"),
    pytest.param(None, None, QUARTER_PAST, None, 0.0, id="DC-8 Expires without a Date"),
    pytest.param(None, None, None, NOON, None, id="DC-8 a Date alone"),
    pytest.param(None, None, "Mon, 23 Nov 99999999999 12:00:00 GMT", NOON, 0.0, id="DC-8 a year beyond years"),
]


@pytest.mark.parametrize(("cache_control", "age", "expires", "date", "expected"), EXPIRES)
def test_the_freshness_that_dates_state(
    cache_control: str | None, age: str | None, expires: str | None, date: str | None, expected: float | None
) -> None:
    assert stated_lifetime(cache_control, age, expires, date) == expected


@settings(deadline=None, max_examples=200)
@given(st.none() | st.text(max_size=80), st.none() | st.text(max_size=80) | st.datetimes().map(format_datetime))
def test_any_dates_give_seconds_or_nothing(expires: str | None, date: str | None) -> None:
    for one, other in ((expires, date), (date, expires)):
        seconds = stated_lifetime(None, None, one, other)
        assert seconds is None or 0.0 <= seconds < 1e12


@settings(deadline=None, max_examples=200)
@given(
    st.none() | st.text(max_size=30) | st.text(alphabet='max-ge=0123, "no', max_size=30).map("max-age=".__add__),
    st.none() | st.text(max_size=10),
)
def test_any_headers_give_seconds_or_nothing(cache_control: str | None, age: str | None) -> None:
    seconds = stated_lifetime(cache_control, age, None, None)
    assert seconds is None or 0.0 <= seconds < 1e12


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(0.5, True, id="RS-77 issuers round iat down"),
        pytest.param(1.0, False, id="RS-77 a second before the fetch"),
        pytest.param(30.0, False, id="RS-77 long before the fetch"),
    ],
)
def test_without_leeway_a_second_remains_for_rounding(before: float, expected: bool) -> None:
    assert suspects_rotation(held(), T - before, 0.0) is expected
