"""The gate: whether a candidate may be packaged at all, and whether as INT8 or as fp32. Pure functions of measured reports."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One rule with what was measured, what was wanted and whether that holds."""

    name: str
    got: float
    wanted: str
    passed: bool


def judge(
    report: Mapping[str, Any],
    *,
    min_top1: float,
    min_macro_f1: float,
    min_class_recall: float,
    max_ece: float,
    max_int8_drop: float,
    max_int8_class_drop: float,
    min_int8_agreement: float,
    min_portable_agreement: float,
    max_int8_latency_ratio: float,
) -> dict[str, Any]:
    """The verdict on an evaluation report: {"passed", "variant", "reason", "quantisation": [rules], "accuracy": [rules]}.

    INT8 is chosen when it loses little against fp32, overall and in each class, and is faster by enough; else fp32, with the
    reason. The chosen variant must then meet the floors. A measurement that is missing or no number fails its rule.

    Raises: KeyError when the report lacks a variant or a class of it: a missing figure never passes.
    """
    fp32, int8 = report["variants"]["fp32"], report["variants"]["int8"]
    times = report["latency"]["median_ms"]
    before, after = fp32["held_out"], int8["held_out"]
    labels = sorted({label for variant in (fp32, int8, before, after) for label in variant["recall"]})
    drops = [before["recall"][label] - after["recall"][label] for label in labels]
    class_drop = max(drops, key=lambda drop: (math.isnan(drop), drop))  # one that is no number is the worst
    quantisation = [
        _at_most("INT8 top-1 drop", before["top1"] - after["top1"], max_int8_drop),
        _at_most("INT8 worst drop of one class's recall", class_drop, max_int8_class_drop),
        _at_least("INT8 agreement with fp32", report["agreement"]["fp32/int8"]["same_top1"], min_int8_agreement),
        _at_least(
            "INT8 agreement of CPUs with and without VNNI", report["agreement"]["int8/int8-avx2"]["same_top1"], min_portable_agreement
        ),
        _at_most("INT8 time of fp32's", times["int8"] / times["fp32"], max_int8_latency_ratio),
    ]
    failed = [rule for rule in quantisation if not rule.passed]
    variant = "fp32" if failed else "int8"
    chosen = report["variants"][variant]
    accuracy = [
        _at_least("top-1", chosen["top1"], min_top1),
        _at_least("macro-F1", chosen["macro_f1"], min_macro_f1),
        *(_at_least(f"recall of {label}", chosen["recall"][label], min_class_recall) for label in labels),
        _at_most("calibration error", chosen["ece"], max_ece),
    ]
    refused = [rule for rule in accuracy if not rule.passed]
    reason = f"{variant} is chosen" + (f" because {_words(failed)}" if failed else "")
    return {
        "passed": not refused,
        "variant": variant,
        "reason": reason + (f"; refused because {_words(refused)}" if refused else ""),
        "quantisation": [asdict(rule) for rule in quantisation],
        "accuracy": [asdict(rule) for rule in accuracy],
    }


def _at_least(name: str, got: float, floor: float) -> Rule:
    return Rule(name, got, f">= {floor:g}", got >= floor)


def _at_most(name: str, got: float, ceiling: float) -> Rule:
    return Rule(name, got, f"<= {ceiling:g}", got <= ceiling)


def _words(rules: list[Rule]) -> str:
    return ", ".join(f"{rule.name} is {rule.got:.4g}, wanted {rule.wanted}" for rule in rules)
