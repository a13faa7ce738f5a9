"""The metrics against scikit-learn, published values, and values by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from model import metrics


def drawn(seed: int, *, count: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), count), rng.integers(0, classes, count)


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_shares_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, targets = drawn(seed)
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(probabilities, targets)
    assert np.array_equal(matrix, confusion_matrix(targets, predicted, labels=range(5)))
    assert metrics.top1(probabilities, targets) == pytest.approx(accuracy_score(targets, predicted))
    assert metrics.recalls(matrix) == pytest.approx(list(recall_score(targets, predicted, average=None)))
    assert metrics.macro_f1(matrix) == pytest.approx(f1_score(targets, predicted, average="macro"))


def test_a_class_without_images_has_no_recall_and_one_never_met_no_f1() -> None:
    probabilities, targets = np.eye(4)[[0, 0, 1, 2]], np.array([0, 1, 1, 0])
    matrix = metrics.confusion(probabilities, targets)
    assert matrix.tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    first, second, third, fourth = metrics.recalls(matrix)
    assert (first, second) == (0.5, 0.5) and math.isnan(third) and math.isnan(fourth)
    assert metrics.macro_f1(matrix) == pytest.approx((0.5 + 2 / 3 + 0 + 0) / 4)
    assert metrics.macro_f1(matrix) == pytest.approx(
        f1_score(targets, probabilities.argmax(axis=1), labels=range(4), average="macro", zero_division=0)
    )


def test_the_calibration_error_by_hand() -> None:
    confident = np.array([0.95, 0.85, 0.75, 0.72, 0.65, 0.55])
    probabilities = np.stack([confident, 1 - confident], axis=1)
    targets = np.array([0, 0, 1, 0, 1, 0])  # right, right, wrong, right, wrong, right
    gap_90, gap_80, gap_70, gap_60, gap_50 = abs(0.95 - 1), abs(0.85 - 1), abs(0.735 - 0.5), abs(0.65 - 0), abs(0.55 - 1)
    wanted = (gap_90 + gap_80 + 2 * gap_70 + gap_60 + gap_50) / 6
    assert metrics.calibration_error(probabilities, targets, bins=10) == pytest.approx(wanted)
    bins = metrics.calibration_bins(probabilities, targets, bins=10)
    assert [row["count"] for row in bins] == [1, 1, 2, 1, 1]
    assert bins[2] == pytest.approx({"count": 2, "confidence": 0.735, "accuracy": 0.5})


def test_certainty_lies_in_the_last_bin() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert metrics.calibration_error(probabilities, np.array([0, 0, 1, 1]), bins=15) == pytest.approx(0.25)
    assert [row["count"] for row in metrics.calibration_bins(probabilities, np.zeros(4, int), bins=15)] == [4]


def test_perfect_confidence_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 40000)
    targets = (rng.random(40000) > confidence).astype(int)  # class 0 is right as often as it is said to be
    assert metrics.calibration_error(np.stack([confidence, 1 - confidence], axis=1), targets, bins=15) < 0.01


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (10, 10, 0.7225, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(hits: int, count: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert metrics.wilson(hits, count) == pytest.approx((low, high), abs=6e-5)
