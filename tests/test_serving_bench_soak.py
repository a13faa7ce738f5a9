"""What a soak and an overload are held against, and the slope of a line, without servers."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import scipy.stats

from serving.bench import overload, soak
from serving.bench.cells import Cell
from serving.bench.children import Tree
from serving.bench.soak import Sample, Soak
from serving.bench.trend import BLOCKS, STUDENT_T, trend

KINDS = ("good", "several", "hostile", "leaves", "no http")
CELL = Cell("ours", 16, 0, 100.0, 1.0, 2.0, 3.0, {}, 10.0, {}, 0.1, 0.0, 100)
OPEN_LOOP = {
    "goodput_rps": 95.0, "right": {"count": 5700, "p99_ms": 900.0}, "refused": {"count": 12000, "p50_ms": 1.0, "p99_ms": 4.0}, "errors": {},
}  # fmt: skip
OVERLOAD = overload.Overload(
    times=3, rate_rps=300, seconds=60, objective_s=1.0, before=[CELL], after=[CELL], open_loop=OPEN_LOOP, cpu_s={}, others_cores=0.0,
    memory_before=500_000_000, memory_most=520_000_000, memory_after=505_000_000,
)  # fmt: skip


def quiet(count: int = 600, **changes: Any) -> Soak:
    """A soak in which nothing grows: samples move up and down by turns."""
    samples = [Sample(float(number), Tree((500 << 20) + 4096 * (number % 2), 90, 60, frozenset({1, 2, 3}))) for number in range(count)]
    outcomes = Counter({(kind, "right"): 100 for kind in KINDS})
    return replace(Soak(samples, outcomes, {}, False), **changes)


def growing(**slopes: float) -> Soak:
    """The same with something more each second."""
    found = quiet()
    return replace(
        found,
        samples=[
            replace(one, tree=replace(one.tree, **{key: getattr(one.tree, key) + slope * one.at_s for key, slope in slopes.items()}))
            for one in found.samples
        ],
    )


def failed(verdicts: list[Any]) -> list[str]:
    return [verdict.name for verdict in verdicts if not verdict.passed]


def test_the_slope_and_its_interval_are_those_of_least_squares():
    times = [float(number) for number in range(200)]
    values = [0.5 * at + (7 * at) % 13 for at in times]
    blocks = [(times[start : start + 20], values[start : start + 20]) for start in range(0, 200, 20)]
    expected = scipy.stats.linregress([sum(x) / 20 for x, _ in blocks], [sum(y) / 20 for _, y in blocks])
    found = trend(times, values)
    assert found is not None and found.slope == pytest.approx(expected.slope)
    assert (found.high - found.low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, 8) * expected.stderr, rel=1e-3)
    assert (BLOCKS, pytest.approx(STUDENT_T, abs=1e-3)) == (10, scipy.stats.t.ppf(0.975, 8))


def test_too_few_samples_have_no_trend():
    assert trend([1.0] * 19, [1.0] * 19) is None
    assert failed(soak.judge(quiet(30))) == ["growth of memory", "growth of files", "growth of threads"]


def test_a_quiet_soak_holds():
    assert failed(soak.judge(quiet())) == []


@pytest.mark.parametrize(
    ("slopes", "name"),
    [({"memory_bytes": 2 * (1 << 20) / 600}, "memory"), ({"files": 2 / 600}, "files"), ({"threads": 2 / 600}, "threads")],
)
def test_what_grows_by_more_than_may_be_fails(slopes, name):
    assert failed(soak.judge(growing(**slopes))) == [f"growth of {name}"]
    assert failed(soak.judge(growing(**{key: slope / 4 for key, slope in slopes.items()}))) == []


def test_a_replaced_process_fails():
    found = quiet()
    samples = [*found.samples[:-1], Sample(600.0, replace(found.samples[-1].tree, pids=frozenset({1, 2, 4})))]
    assert failed(soak.judge(replace(found, samples=samples))) == ["processes"]


@pytest.mark.parametrize(
    ("kind", "outcome", "names"),
    [
        ("good", "wrong label", ["good, as must be"]),
        ("good", "500", ["good, as must be", "5xx"]),
        ("hostile", "200", ["hostile, as must be"]),
        ("leaves", "no answer: ConnectionRefusedError", ["leaves, as must be"]),
        ("good", "503 with Retry-After", []),
    ],
)
def test_an_answer_that_is_not_what_it_must_be_fails(kind, outcome, names):
    found = quiet()
    assert failed(soak.judge(replace(found, outcomes=found.outcomes + Counter({(kind, outcome): 1})))) == names


def test_traffic_of_which_nothing_came_fails():
    assert "good, as must be" in failed(soak.judge(quiet(outcomes=Counter())))


def test_a_report_holds_a_few_hundred_samples_of_a_long_soak():
    columns = soak.as_json(quiet(10_000))["samples"]
    assert {len(column) for column in columns.values()} == {295} and columns["at_s"][1] == 34


def test_an_overload_that_is_held_passes():
    assert failed(overload.judge(OVERLOAD)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"goodput_rps": 89.0}, "goodput"),
        ({"right": {"count": 1, "p99_ms": 1001.0}}, "p99 of right answers"),
        ({"right": {"count": 0, "p99_ms": None}}, "p99 of right answers"),
        ({"refused": {"count": 9, "p50_ms": 1.0, "p99_ms": 5.1}}, "p99 of a refusal"),
        ({"errors": {"closed": 1}}, "anything else"),
    ],
)
def test_an_overload_that_is_not_held_fails(changes, name):
    assert failed(overload.judge(replace(OVERLOAD, open_loop=OPEN_LOOP | changes))) == [name]


def test_memory_that_stays_after_an_overload_fails():
    assert failed(overload.judge(replace(OVERLOAD, memory_after=530_000_000))) == ["memory before and after"]


def test_the_maximum_is_the_mean_at_the_best_number_of_connections():
    cells = [replace(CELL, connections=count, throughput_rps=rate) for count, rate in ((16, 90), (16, 100), (64, 120), (64, 60))]
    assert overload.maximum(cells) == 95
    assert replace(OVERLOAD, before=cells, after=[replace(CELL, throughput_rps=105)]).maximum_rps == 100
