"""`decisions`: what operators read of refusals, how often, and what they never read."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from harness import ISS, Clock, RecordingApp, bearer, call, protect
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import Decision
from asgi_mcp_auth.decisions import RecordBudget, RefusalLog
from asgi_mcp_auth.errors import (
    BadRequest,
    InsufficientScope,
    InvalidToken,
    Misdirected,
    NoCredential,
    OriginNotAllowed,
    Reason,
    Refusal,
    Unavailable,
)
from asgi_mcp_auth.testing import Issuer

NAME = "asgi_mcp_auth.decisions"
URL = "https://mcp.example.com/mcp"


def refused(refusal: Refusal, method: str = "POST", url: str = URL) -> Decision:
    return Decision("refused", method, url, status=refusal.status, refusal=refusal)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == NAME]


@pytest.mark.parametrize(
    ("refusal", "level", "message"),
    [
        pytest.param(
            NoCredential(Reason.NO_CREDENTIAL),
            logging.DEBUG,
            f"401 no_credential: POST {URL} ",
            id="RS-13 every client",
        ),
        pytest.param(
            NoCredential(Reason.UNSUPPORTED_SCHEME, found="basic"),
            logging.DEBUG,
            f"401 unsupported_scheme: POST {URL} found=basic",
            id="RS-13 another scheme",
        ),
        pytest.param(
            BadRequest(Reason.MULTIPLE_AUTHORIZATION, found="2 lines"),
            logging.WARNING,
            f'400 multiple_authorization: POST {URL} found="2 lines"',
            id="RS-12 malformed",
        ),
        pytest.param(
            InvalidToken(Reason.WRONG_AUDIENCE, issuer=ISS, kid="k", alg="RS256", expected=URL, found="x\ny"),
            logging.WARNING,
            f"401 wrong_audience: POST {URL} issuer={ISS} kid=k alg=RS256 expected={URL} found=x\\ny",
            id="RS-39 everything for the operator, escaped",
        ),
        pytest.param(
            InsufficientScope(required=("a", "b"), found="c"),
            logging.WARNING,
            f'403 insufficient_scope: POST {URL} expected="a b" found=c',
            id="RS-42 scopes",
        ),
        pytest.param(
            OriginNotAllowed(Reason.ORIGIN_NOT_ALLOWED, found="https://evil.example"),
            logging.WARNING,
            f"403 origin_not_allowed: POST {URL} found=https://evil.example",
            id="RS-220 origin",
        ),
        pytest.param(
            Misdirected(Reason.HOST_NOT_ALLOWED, found=""),
            logging.WARNING,
            f"421 host_not_allowed: POST {URL} found=",
            id="RS-223 host",
        ),
        pytest.param(
            Unavailable(Reason.KEYS_UNAVAILABLE, issuer=ISS, retry_after=3),
            logging.ERROR,
            f"503 keys_unavailable: POST {URL} issuer={ISS}",
            id="RS-6 we cannot know",
        ),
    ],
)
def test_one_record(refusal: Refusal, level: int, message: str, caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.DEBUG, NAME)
    RefusalLog(clock)(refused(refusal))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage(), record.name) == (level, message, NAME)


ATTRIBUTES = ("reason", "issuer", "kid", "alg", "expected", "found", "suppressed")


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        pytest.param(
            InvalidToken(Reason.UNKNOWN_KID, issuer=ISS, kid="k", alg="RS256", expected="a", found="b"),
            ["unknown_kid", ISS, "k", "RS256", "a", "b", 0],
            id="all known",
        ),
        pytest.param(
            InvalidToken(Reason.BAD_SIGNATURE), ["bad_signature", None, None, None, None, None, 0], id="none known"
        ),
    ],
)
def test_a_record_has_every_attribute(
    refusal: Refusal, expected: list[object], caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """A formatter with `%(issuer)s` works for every record."""
    RefusalLog(clock)(refused(refusal))
    (record,) = caplog.records
    assert [getattr(record, name, "missing") for name in ATTRIBUTES] == expected


def test_what_is_no_refusal_is_not_told(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.DEBUG, NAME)
    log = RefusalLog(clock)
    for outcome in ("allowed", "public", "metadata", "preflight"):
        log(Decision(outcome, "GET", URL))
    assert caplog.records == []


def test_levels_that_nobody_listens_to(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.ERROR, NAME)
    log = RefusalLog(clock)
    log(refused(InvalidToken(Reason.BAD_SIGNATURE)))
    log(refused(NoCredential(Reason.NO_CREDENTIAL)))
    log(refused(Unavailable(Reason.HOOK_FAILED)))
    assert told(caplog) == [f"503 hook_failed: POST {URL} "]


def test_a_flood_is_counted_and_not_told(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = RefusalLog(clock, most=3, seconds=60)
    flood = refused(InvalidToken(Reason.BAD_SIGNATURE))
    line = f"401 bad_signature: POST {URL} "
    for _ in range(10):
        log(flood)
        clock.now += 1
    assert told(caplog) == [line, line, f"{line} (no more of these for 58 s)"]
    clock.now += 49
    log(flood)  # 59 s after the first
    assert len(told(caplog)) == 3
    clock.now += 1
    log(flood)
    log(flood)
    assert told(caplog)[3:] == [f"{line} (8 more like it before)", line]
    assert [getattr(record, "suppressed", None) for record in caplog.records] == [0, 0, 0, 8, 0]


def test_each_reason_has_its_own_measure(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = RefusalLog(clock, most=1)
    for _ in range(3):
        log(refused(InvalidToken(Reason.BAD_SIGNATURE)))
        log(refused(InvalidToken(Reason.TOKEN_EXPIRED)))
    silent = "(no more of these for 60 s)"
    assert told(caplog) == [f"401 bad_signature: POST {URL}  {silent}", f"401 token_expired: POST {URL}  {silent}"]


def test_the_ordinary_measure(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = RefusalLog(clock)
    for _ in range(1000):
        log(refused(InvalidToken(Reason.BAD_SIGNATURE)))
    assert len(told(caplog)) == 20


def test_a_clock_that_is_set_back_does_not_silence_the_log(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = RefusalLog(clock, most=1)
    log(refused(InvalidToken(Reason.BAD_SIGNATURE)))
    clock.now -= 86_400
    log(refused(InvalidToken(Reason.BAD_SIGNATURE)))
    assert len(told(caplog)) == 2


def test_a_spent_budget_is_asked_before_a_record_is_built(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """What is asked about and not written is counted, and once."""
    log = RefusalLog(clock, most=2)
    refusal = InvalidToken(Reason.BAD_SIGNATURE)
    built = 0
    for _ in range(10):
        if log.wants(refusal):
            built += 1
            log(refused(refusal))
    assert built == len(told(caplog)) == 2
    clock.now += 60
    assert log.wants(refusal)
    log(refused(refusal))
    assert told(caplog)[2] == f"401 bad_signature: POST {URL}  (8 more like it before)"


@pytest.mark.parametrize(
    ("refusal", "level", "expected"),
    [
        pytest.param(None, logging.DEBUG, False, id="no refusal"),
        pytest.param(NoCredential(Reason.NO_CREDENTIAL), logging.INFO, False, id="a level that is off"),
        pytest.param(NoCredential(Reason.NO_CREDENTIAL), logging.DEBUG, True, id="a level that is on"),
    ],
)
def test_no_record_is_wanted_that_would_not_be_written(
    refusal: Refusal | None, level: int, expected: bool, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(level, NAME)
    assert RefusalLog(clock).wants(refusal) is expected


@pytest.mark.anyio
async def test_a_flood_of_garbage_builds_twenty_decisions(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    class Counted(Decision):
        def __new__(cls, *args: Any, **fields: Any) -> Any:
            built.append(args[0])
            return Decision(*args, **fields)

    monkeypatch.setattr("asgi_mcp_auth._telemetry.reporting.Decision", Counted)
    guarded = protect(issuer, RecordingApp())
    for number in range(100):
        assert (await call(guarded, headers=bearer(f"garbage{number}"))).status == 401
    assert built == ["refused"] * 20


# --- The budget of records ---


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30), st.booleans()), max_size=80))
def test_a_budget_grants_at_most_so_many_records_in_a_window_and_counts_the_rest(
    steps: list[tuple[str, float, bool]],
) -> None:
    clock = Clock(0.0)
    budget = RecordBudget(clock, most=3, seconds=60)
    granted: dict[str, list[float]] = {"a": [], "b": []}
    asked, reported = dict.fromkeys("ab", 0), dict.fromkeys("ab", 0)
    for kind, pause, asks_first in steps:
        clock.now += pause
        asked[kind] += 1
        grant = None if asks_first and budget.suppress(kind) else budget.take(kind)
        if grant is not None:
            granted[kind].append(clock.now)
            reported[kind] += grant.suppressed
            if grant.suppressed:  # a new window: all that was suppressed is reported
                assert len(granted[kind]) + reported[kind] == asked[kind]
    for kind, times in granted.items():
        assert len(times) + reported[kind] <= asked[kind]
        for first in times:
            assert sum(first <= time < first + 60 for time in times) <= 2 * 3  # the ends of two windows


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_a_record_is_one_line_whatever_came(method: str, url: str, found: str, kid: str) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    vars(handler)["emit"] = records.append
    logger = logging.getLogger(NAME)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    RefusalLog(Clock())(refused(InvalidToken(Reason.UNKNOWN_KID, found=found, kid=kid), method, url))
    logger.removeHandler(handler)
    logger.propagate = propagate
    (record,) = records
    message = record.getMessage()
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 5 * 128


@pytest.mark.requirement("RS-14")
def test_a_decision_shows_no_token() -> None:
    """A decision is made of what may be logged."""
    refusal = InvalidToken(Reason.BAD_SIGNATURE, kid="k")
    decision = refused(refusal)
    assert decision.reason is Reason.BAD_SIGNATURE
    assert Decision("public", "GET", URL).reason is None
    assert repr(decision).startswith(f"Decision(outcome='refused', method='POST', path='{URL}', resource=None")
    assert "<InvalidToken 401 bad_signature>" in repr(decision)


def test_a_record_names_the_path_as_called_and_the_resource(caplog: pytest.LogCaptureFixture) -> None:
    """Behind a proxy or a mount, the resource's origin and the path are no URL that a client called."""
    refusal = InvalidToken(Reason.BAD_SIGNATURE, kid="k")
    RefusalLog(Clock())(Decision("refused", "POST", "/below/mcp", URL, status=401, refusal=refusal))
    assert told(caplog) == [f"401 bad_signature: POST /below/mcp resource={URL} kid=k"]
    assert vars(caplog.records[-1])["resource"] == URL
