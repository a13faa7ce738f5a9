"""The gate: what may be packaged, in which form, and the words for it."""

import copy
import math
from typing import Any

import pytest

from model.gate import judge

FLOORS: dict[str, float] = {
    "min_top1": 0.95,
    "min_macro_f1": 0.95,
    "min_class_recall": 0.85,
    "max_ece": 0.15,
    "max_int8_drop": 0.003,
    "max_int8_class_drop": 0.05,
    "min_int8_agreement": 0.99,
    "min_portable_agreement": 0.99,
    "max_int8_latency_ratio": 0.9,
}


def variant(top1: float = 0.98, **recall: float) -> dict[str, Any]:
    every = {"crack": 0.98, "pit": 0.98, "scratch": 0.98} | recall
    return {"top1": top1, "macro_f1": top1, "recall": every, "ece": 0.05, "held_out": {"top1": top1, "recall": dict(every)}}


def agreement(with_fp32: float, without_vnni: float) -> dict[str, Any]:
    return {"fp32/int8": {"images": 900, "same_top1": with_fp32}, "int8/int8-avx2": {"images": 900, "same_top1": without_vnni}}


def report(**changes: Any) -> dict[str, Any]:
    """A good candidate; `changes` go to the variant, agreement or latency that they name as `int8__top1`."""
    good: dict[str, Any] = {
        "variants": {"fp32": variant(), "int8": variant()},
        "agreement": agreement(0.998, 1.0),
        "latency": {"median_ms": {"fp32": 4.0, "int8": 2.0}},
    }
    return copy.deepcopy(good | changes)


def failed(verdict: dict[str, Any]) -> list[str]:
    return [rule["name"] for rule in verdict["quantisation"] + verdict["accuracy"] if not rule["passed"]]


def test_a_good_candidate_passes_as_int8() -> None:
    verdict = judge(report(), **FLOORS)
    assert verdict["passed"] and verdict["variant"] == "int8" and verdict["reason"] == "int8 is chosen"
    assert failed(verdict) == []
    assert {"name": "recall of pit", "got": 0.98, "wanted": ">= 0.85", "passed": True} in verdict["accuracy"]


def test_a_candidate_that_is_bad_in_one_class_only_is_refused_though_its_top1_passes() -> None:
    candidate = report(variants={name: variant(0.97, pit=0.8) for name in ("fp32", "int8")})
    verdict = judge(candidate, **FLOORS)
    assert not verdict["passed"] and failed(verdict) == ["recall of pit"]
    assert "refused because recall of pit is 0.8, wanted >= 0.85" in verdict["reason"]


def test_int8_that_loses_one_class_is_not_chosen_though_its_top1_holds() -> None:
    verdict = judge(report(variants={"fp32": variant(), "int8": variant(pit=0.9)}), **FLOORS)
    assert verdict["passed"] and verdict["variant"] == "fp32"
    assert verdict["reason"] == "fp32 is chosen because INT8 worst drop of one class's recall is 0.08, wanted <= 0.05"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"latency": {"median_ms": {"fp32": 2.0, "int8": 1.9}}}, "INT8 time of fp32's"),
        ({"latency": {"median_ms": {"fp32": 2.0, "int8": 3.0}}}, "INT8 time of fp32's"),
        ({"variants": {"fp32": variant(), "int8": variant(0.976)}}, "INT8 top-1 drop"),
        ({"agreement": agreement(0.98, 1.0)}, "INT8 agreement with fp32"),
        ({"agreement": agreement(1.0, 0.9)}, "INT8 agreement of CPUs with and without VNNI"),
    ],
)  # fmt: skip
def test_int8_that_is_slow_or_strays_gives_way_to_fp32_with_the_reason(changes: dict[str, Any], rule: str) -> None:
    verdict = judge(report(**changes), **FLOORS)
    assert verdict["passed"] and verdict["variant"] == "fp32"
    assert failed(verdict) == [rule]
    assert verdict["reason"].startswith(f"fp32 is chosen because {rule} is ")


def test_the_floors_are_those_of_the_chosen_variant() -> None:
    candidate = report(variants={"fp32": variant(0.94), "int8": variant(0.96)})
    assert judge(candidate, **FLOORS)["passed"]
    candidate["latency"]["median_ms"]["int8"] = 9.0
    verdict = judge(candidate, **FLOORS)
    assert not verdict["passed"] and "refused because top-1 is 0.94" in verdict["reason"]


@pytest.mark.parametrize("limit", FLOORS)
def test_a_figure_on_the_limit_passes_and_beyond_it_fails(limit: str) -> None:
    exact = {
        "min_top1": 0.98, "min_macro_f1": 0.98, "min_class_recall": 0.98, "max_ece": 0.05, "max_int8_drop": 0.0,
        "max_int8_class_drop": 0.0, "min_int8_agreement": 0.998, "min_portable_agreement": 1.0, "max_int8_latency_ratio": 0.5,
    }  # fmt: skip
    assert failed(judge(report(), **exact)) == []
    beyond = exact[limit] + (1e-9 if limit.startswith("min") else -1e-9)
    assert failed(judge(report(), **{**exact, limit: beyond}))


PLACES = [
    ("variants", "int8", "top1"),
    ("variants", "int8", "macro_f1"),
    ("variants", "int8", "ece"),
    ("variants", "int8", "recall", "pit"),
    ("variants", "int8", "held_out", "top1"),
    ("variants", "fp32", "held_out", "top1"),
    ("variants", "int8", "held_out", "recall", "crack"),
    ("variants", "int8", "held_out", "recall", "scratch"),
    ("variants", "fp32", "held_out", "recall", "pit"),
    ("agreement", "fp32/int8", "same_top1"),
    ("agreement", "int8/int8-avx2", "same_top1"),
    ("latency", "median_ms", "int8"),
    ("latency", "median_ms", "fp32"),
]


@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_a_figure_that_is_no_number_never_passes(place: tuple[str, ...]) -> None:
    candidate = report()
    inner: Any = candidate
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = math.nan
    assert len(failed(judge(candidate, **FLOORS))) == 1


@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_a_figure_that_is_missing_raises(place: tuple[str, ...]) -> None:
    candidate = report()
    inner: Any = candidate
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    with pytest.raises(KeyError, match=place[-1]):
        judge(candidate, **FLOORS)


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_a_missing_variant_raises(name: str) -> None:
    candidate = report()
    del candidate["variants"][name]
    with pytest.raises(KeyError, match=name):
        judge(candidate, **FLOORS)
