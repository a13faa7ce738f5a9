"""How good predictions are: pure functions of probabilities (N, K), each row summing to 1, and targets (N,) in 0..K-1."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


def confusion(probabilities: Floats, targets: Ints) -> npt.NDArray[np.int64]:
    """Counts (K, K): row the true class, column the predicted one."""
    classes = probabilities.shape[1]
    pairs = targets * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def top1(probabilities: Floats, targets: Ints) -> float:
    """Share of images whose most probable class is the true one."""
    return float((probabilities.argmax(axis=1) == targets).mean())


def recalls(matrix: npt.NDArray[np.int64]) -> list[float]:
    """Recall of each class from its row of a confusion matrix; nan for a class without images."""
    return [float(row[index] / row.sum()) if row.sum() else math.nan for index, row in enumerate(matrix)]


def macro_f1(matrix: npt.NDArray[np.int64]) -> float:
    """Mean over the classes of the harmonic mean of precision and recall; a class never met and never predicted counts as 0."""
    hits = matrix.diagonal()
    return float(np.mean(2 * hits / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)))


def calibration_bins(probabilities: Floats, targets: Ints, *, bins: int) -> list[dict[str, float]]:
    """Images, mean confidence and accuracy of each non-empty bin of equal width over the top-1 probability."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"count": int(mask.sum()), "confidence": float(confidence[mask].mean()), "accuracy": float(right[mask].mean())}
        for mask in (number == index for index in range(bins))
        if mask.any()
    ]


def calibration_error(probabilities: Floats, targets: Ints, *, bins: int) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal-width bins (Guo et al. 2017, equation 3)."""
    rows = calibration_bins(probabilities, targets, bins=bins)
    return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(targets)


def wilson(hits: int, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share of `hits` in `count` trials (Wilson 1927)."""
    share, spread = hits / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
