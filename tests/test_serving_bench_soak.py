"""What a soak is held against, without a server."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from serving.bench import soak
from serving.bench.children import Tree
from serving.bench.soak import Sample, Soak

KINDS = ("good", "several", "hostile", "leaves", "no http")


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


def test_too_few_samples_have_no_trend():
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
