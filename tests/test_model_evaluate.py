"""The evaluation of variants: a report by hand, the table of predictions, and latency in turns."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from model.evaluate import cpu_name, evaluate, latency, write_predictions
from model.shards import Record

LABELS = ["crack", "pit"]


def record(number: int, label: str, split: str) -> Record:
    return Record(f"{number:016x}", label, split, number, "shard-00000.tar", 0, 1, 8, 8, "RGB", f"{label}/{number}.png")


RECORDS = [
    record(0, "crack", "test"),
    record(1, "pit", "test"),
    record(2, "crack", "val"),
    record(3, "pit", "test"),
    record(4, "crack", "test"),
    record(5, "pit", "drift"),
]
SURE = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.8, 0.2], [0.1, 0.9]], np.float32)
OTHER = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.8, 0.2], [0.1, 0.9]], np.float32)


def test_accuracy_counts_the_test_split_and_agreement_everything() -> None:
    report = evaluate({"fp32": SURE, "int8": OTHER}, RECORDS, LABELS, bins=10)
    fp32, int8 = report["variants"]["fp32"], report["variants"]["int8"]
    assert fp32["images"] == 4 and fp32["top1"] == 0.75 and int8["top1"] == 1.0
    assert fp32["confusion"] == [[2, 0], [1, 1]]
    assert fp32["recall"] == {"crack": 1.0, "pit": 0.5}
    assert fp32["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert fp32["ece"] == pytest.approx((0.1 + 0.4 + 0.6) / 4, abs=1e-6)  # bins of 0.9, of 0.8 twice, and of 0.6
    assert fp32["nll"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.8]).mean(), abs=1e-6)
    assert fp32["held_out"] == {
        "images": 6,
        "top1": pytest.approx(4 / 6),
        "recall": {"crack": pytest.approx(2 / 3), "pit": pytest.approx(2 / 3)},
    }
    assert int8["held_out"]["top1"] == 1.0
    assert report["agreement"] == {"fp32/int8": {"images": 6, "same_top1": pytest.approx(4 / 6)}}
    low, high = fp32["top1_interval"]
    assert low < 0.75 < high
    json.dumps(report, allow_nan=False)


def test_a_probability_of_zero_for_the_truth_is_a_finite_loss() -> None:
    certain = np.array([[0.0, 1.0]] * len(RECORDS), np.float32)
    assert np.isfinite(evaluate({"fp32": certain}, RECORDS, LABELS, bins=10)["variants"]["fp32"]["nll"])


def test_predictions_are_a_row_an_image(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.csv", SURE, RECORDS, LABELS)
    with (tmp_path / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    assert table[2] == {"key": f"{2:016x}", "split": "val", "label": "crack", "predicted": "pit", "crack": "0.300000", "pit": "0.700000"}


def test_latency_is_the_median_of_runs_taken_in_turns() -> None:
    order: list[str] = []

    def run(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds if len(order) % 7 else 0.05)  # now and then the machine is busy

    times = latency({"slow": lambda: run("slow", 0.004), "fast": lambda: run("fast", 0.001)}, repeats=9)
    assert order == ["slow", "fast"] * 10
    assert 4 <= times["median_ms"]["slow"] < 20 and 1 <= times["median_ms"]["fast"] < times["median_ms"]["slow"]
    assert times["cpu"] == cpu_name() and cpu_name()
