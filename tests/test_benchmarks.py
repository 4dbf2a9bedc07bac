"""The helpers of `benchmarks/`: their results, and that a wrong answer is an error. No time is asserted."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from exchanges import FreshTokens, make_body, make_exchange, protected, trivial_app
from flood import garbage_of
from in_process import ALGORITHMS, bare_check
from least import Least
from measuring import (
    NOTHING,
    Case,
    Effort,
    Spread,
    WrongAnswerError,
    added,
    growth_exponent,
    measure,
    percentile,
    spread,
)
from reporting import Cell, Promise, Report, Table, as_json, as_markdown, as_text, fill, promises_table, show
from suite import IN_README, with_figures

from asgi_mcp_auth.testing import Issuer, SigningKey

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Spread(3, 3, 3)),
        ([1.0, 3.0], Spread(1.5, 2, 2.5)),
        ([5.0, 1.0, 3.0, 2.0, 4.0], Spread(2, 3, 4)),
        ([1.0, 1.0, 1.0, 1000.0, 1.0], Spread(1, 1, 1)),
    ],
    ids=["one", "two", "any order", "an outlier"],
)
def test_spread(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected


def test_added_is_the_difference_round_by_round() -> None:
    assert added([11.0, 102.0, 13.0], [1.0, 92.0, 3.0]) == Spread(10, 10, 10)
    with pytest.raises(ValueError, match="zip"):
        added([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)], ids=str)
def test_percentile(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


SIZES = (10, 100, 1000, 10_000)


@pytest.mark.parametrize(
    ("costs", "low", "high"),
    [
        ([7.0] * 4, 0, 0),
        ([math.log(size) for size in SIZES], 0.0, 0.31),
        ([10 + math.log(size) for size in SIZES], 0.0, 0.2),
        ([float(size) for size in SIZES], 1, 1),
        ([float(size**2) for size in SIZES], 2, 2),
        ([20 + size * 0.005 for size in SIZES], 0.2, 1),
    ],
    ids=["constant", "log", "constant + log", "linear", "quadratic", "linear that shows at the end"],
)
def test_growth_exponent(costs: list[float], low: float, high: float) -> None:
    exponent = growth_exponent(list(zip(map(float, SIZES), costs, strict=True)))
    assert low - 1e-9 <= exponent <= high + 1e-9


def test_growth_of_one_size_is_zero() -> None:
    assert growth_exponent([(10.0, 5.0)]) == 0


@pytest.mark.anyio
async def test_rounds_are_interleaved_and_prepared() -> None:
    log: list[str] = []

    def case(name: str, calls: int | None = None) -> Case:
        async def exchange() -> int:
            log.append(name)
            return 200

        return Case(name=name, exchange=exchange, prepare=lambda: log.append(f"prepare {name}"), calls=calls)

    times = await measure([NOTHING, case("a"), case("b", calls=1)], rounds=2, calls=2)
    one_round = ["prepare a", "a", "a", "prepare b", "b"]
    assert log == ["prepare a", "a", "prepare b", "b", *one_round, *one_round]
    assert {name: len(values) for name, values in times.items()} == {NOTHING.name: 2, "a": 2, "b": 2}


@pytest.mark.anyio
async def test_a_wrong_first_answer_is_an_error() -> None:
    refused = Case(name="refused", exchange=make_exchange(protected(Issuer())))
    with pytest.raises(WrongAnswerError, match="refused: answered 401, not 200"):
        await measure([refused], rounds=1, calls=1)


@pytest.mark.anyio
async def test_a_wrong_last_answer_of_a_round_is_an_error() -> None:
    issuer = Issuer()
    tokens = [
        issuer.mint("https://elsewhere.example.com"),
        issuer.mint("https://mcp.example.com/mcp", scope="mcp:read"),
    ]
    case = Case(name="turns", exchange=make_exchange(protected(issuer), tokens.pop))
    with pytest.raises(WrongAnswerError, match="turns: answered 401"):
        await measure([case], rounds=1, calls=1)


@pytest.mark.anyio
async def test_scopes_are_made_before_the_clock_starts() -> None:
    log: list[str] = []

    def token() -> str:
        log.append("scope")
        return "token"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        log.append("app")
        await trivial_app(scope, receive, send)

    await measure([Case(name="one", exchange=make_exchange(app, token))], rounds=1, calls=2)
    assert log == ["scope", "app", "scope", "scope", "app", "app"]


@pytest.mark.anyio
async def test_the_lower_bound_accepts_only_its_token() -> None:
    app = Least(trivial_app, "known")
    assert [await make_exchange(app, token)() for token in ("known", "other", None)] == [200, 401, 401]


@pytest.mark.anyio
async def test_two_cases_with_one_name_are_an_error() -> None:
    case = Case(name="same", exchange=make_exchange(trivial_app))
    with pytest.raises(ValueError, match="one name"):
        await measure([case, case], rounds=1, calls=1)


def test_fresh_tokens_never_repeat() -> None:
    issuer = Issuer(algorithms=("Ed25519",))
    tokens = FreshTokens.of(issuer, issuer.keys[0], 3)
    seen: set[str] = set()
    for _ in range(3):
        tokens.prepare()
        seen |= {tokens.next() for _ in range(3)}
    assert len(seen) == 9


@pytest.mark.parametrize("size", [200, 4096, 262_144])
def test_bodies_have_the_requested_size(size: int) -> None:
    body = make_body(size)
    assert abs(len(body) - size) <= size * 0.01 + 2
    assert json.loads(body)["params"]["name"] == "add"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_bare_checks_reject_another_signature(alg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control that accepts any signature would make every figure wrong."""
    issuer = Issuer(algorithms=(alg,))
    bare_check(issuer, issuer.keys[0])()
    monkeypatch.setattr(issuer.keys[0], "signature", SigningKey(alg).signature)
    with pytest.raises(InvalidSignature):
        bare_check(issuer, issuer.keys[0])()


@pytest.mark.anyio
async def test_garbage_is_rejected_and_never_repeats() -> None:
    issuer = Issuer()
    app = protected(issuer)
    kinds = garbage_of(issuer)
    assert len({make() for make in kinds for _ in range(3)}) == 3 * len(kinds)
    for make in kinds:
        assert await make_exchange(app, make)() in (400, 401, 503)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, ""),
        ("text", "text"),
        (0.0, "0"),
        (0.01234, "0.012"),
        (9.876, "9.88"),
        (123.4, "123"),
        (-4.567, "-4.57"),
        (12345.6, "12,346"),
        (Spread(1, 2, 3), "2.00 (1.00 … 3.00)"),
    ],
    ids=repr,
)
def test_cells(cell: Cell, expected: str) -> None:
    assert show(cell) == expected


REPORT = Report(
    name="one",
    tables=[Table(title="t", columns=("case", "µs"), rows=[("a|b", Spread(1, 2, 3)), ("c", None)])],
    promises=[
        Promise(name="kept", limit=3, measured=Spread(1, 2, 9), unit="µs"),
        Promise(name="broken", limit=3, measured=Spread(1, 2, 9), unit="%", at_least=True, floor=Spread(2, 2, 2)),
    ],
    notes=["A note."],
)


def test_a_report_as_text_markdown_and_json() -> None:
    assert as_text(REPORT).splitlines()[:4] == ["== one", "", "t", "case                  µs"]
    assert "| a\\|b | 2.00 (1.00 … 3.00) |\n| c |  |" in as_markdown(REPORT)
    read = json.loads(as_json([REPORT], {"python": "3"}))
    assert read["machine"] == {"python": "3"}
    assert read["reports"][0]["tables"][0]["rows"][0] == ["a|b", {"low": 1, "median": 2, "high": 3}]


def test_targets_are_reported_as_met_or_not() -> None:
    rows = promises_table([REPORT]).tables[0].rows
    assert [(row[0], row[1], *row[3:]) for row in rows] == [
        ("kept", "≤ 3.00 µs", "yes", None),
        ("broken", "≥ 3.00 %", "no", Spread(2, 2, 2)),
    ]
    assert not promises_table([]).tables


def test_fill_replaces_the_text_between_the_markers() -> None:
    text = "a\n<!-- benchmarks one -->\nold\n<!-- end -->\nb\n<!-- benchmarks two -->\n<!-- end -->\n"
    filled = fill(text, "one", "new")
    assert filled == text.replace("\nold\n", "\n\nnew\n\n")
    assert fill(filled, "one", "new") == filled
    with pytest.raises(ValueError, match="There is no <!-- benchmarks three -->"):
        fill(text, "three", "new")


def test_the_readme_has_markers_for_its_reports() -> None:
    reports = [Report(name=name, tables=REPORT.tables) for name in IN_README]
    filled = with_figures((BENCHMARKS / "README.md").read_text("utf-8"), reports, {"python": "3"})
    assert filled.count("a\\|b") == len(IN_README)


def test_effort() -> None:
    assert (Effort().of(30, 2), Effort(smoke=True).of(30, 2)) == (30, 2)


@pytest.mark.parametrize("name", ["in_process", "growth", "memory", "peers", "end_to_end", "flood"])
def test_each_benchmark_states_its_measured_region_and_its_control(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((BENCHMARKS / f"{name}.py").read_text("utf-8"))) or ""
    assert "Measured region" in docstring
    assert "control" in docstring or "the bare app" in docstring
