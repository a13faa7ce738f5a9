"""The exported files on held-out images: accuracy, calibration, agreement, and the time an image costs."""

import csv
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model import metrics
from model.shards import Record

Floats = npt.NDArray[np.float32]
HELD_OUT = ("val", "test", "drift")


def evaluate(probabilities: Mapping[str, Floats], records: Sequence[Record], labels: Sequence[str], *, bins: int) -> dict[str, Any]:
    """A report for each variant in `probabilities` (rows as `records`, all held-out splits), and how often the variants agree.

    Accuracy counts the test split alone. Agreement, and what the gate compares variants by (`held_out`), counts every row: a
    difference of variants is no matter of which images chose the epoch, and more images tell it better.
    """
    targets = np.array([labels.index(record.label) for record in records])
    test = np.array([record.split == "test" for record in records])
    report = {
        name: {**_variant(rows[test], targets[test], labels, bins=bins), "held_out": _accuracy(rows, targets, labels)}
        for name, rows in probabilities.items()
    }
    names = list(probabilities)
    top = {name: probabilities[name].argmax(axis=1) for name in names}
    agreement = {
        f"{one}/{other}": {"images": len(records), "same_top1": float((top[one] == top[other]).mean())}
        for index, one in enumerate(names)
        for other in names[index + 1 :]
    }
    return {"variants": report, "agreement": agreement}


def _accuracy(probabilities: Floats, targets: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
    recalls = metrics.recalls(metrics.confusion(probabilities, targets))
    return {"images": len(targets), "top1": metrics.top1(probabilities, targets), "recall": dict(zip(labels, recalls, strict=True))}


def _variant(probabilities: Floats, targets: npt.NDArray[np.int64], labels: Sequence[str], *, bins: int) -> dict[str, Any]:
    matrix = metrics.confusion(probabilities, targets)
    hits = int(matrix.diagonal().sum())
    chosen = np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)
    return {
        "images": len(targets),
        "top1": hits / len(targets),
        "top1_interval": metrics.wilson(hits, len(targets)),
        "macro_f1": metrics.macro_f1(matrix),
        "recall": dict(zip(labels, metrics.recalls(matrix), strict=True)),
        "ece": metrics.calibration_error(probabilities, targets, bins=bins),
        "nll": float(-np.log(chosen).mean()),
        "confusion": matrix.tolist(),
        "calibration": metrics.calibration_bins(probabilities, targets, bins=bins),
    }


def latency(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, Any]:
    """Median milliseconds of each call, taken in turns so that a busy moment of the machine hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {"median_ms": {name: statistics.median(values) for name, values in times.items()}, "cpu": cpu_name()}


def cpu_name() -> str:
    """The processor with the instruction sets that decide what INT8 costs."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine())
    sets = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f" {flag}" in info]
    return f"{name} ({', '.join(sets)})"


def write_predictions(path: Path, probabilities: Floats, records: Sequence[Record], labels: Sequence[str]) -> None:
    """A row an image: key, split, true class, predicted class, and the probability of each class."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["key", "split", "label", "predicted", *labels])
        for record, row in zip(records, probabilities, strict=True):
            rows.writerow([record.key, record.split, record.label, labels[int(row.argmax())], *(f"{value:.6f}" for value in row)])
