"""Whether a figure grows: the slope of a straight line through it, and how far chance alone may have tilted that line."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean

BLOCKS = 10
STUDENT_T = 2.306  # two-sided 95 % at BLOCKS - 2 = 8 degrees of freedom; NIST/SEMATECH e-Handbook, section 1.3.6.7.2


@dataclass(frozen=True)
class Trend:
    """A slope a second, and the ends of its 95 % confidence interval."""

    slope: float
    low: float
    high: float


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend | None:
    """The trend of `values`, by least squares; None of less than 20 of them.

    Samples a second apart resemble one another, which would make the interval too narrow: the line goes through the means of ten blocks.
    """
    if len(values) < 2 * BLOCKS:
        return None
    x, y = _blocks(times_s), _blocks(values)
    mean_x, mean_y = fmean(x), fmean(y)
    spread = sum((one - mean_x) ** 2 for one in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    margin = STUDENT_T * sqrt(residual / (BLOCKS - 2) / spread)
    return Trend(slope, slope - margin, slope + margin)


def _blocks(values: Sequence[float]) -> list[float]:
    edges = [number * len(values) // BLOCKS for number in range(BLOCKS + 1)]
    return [fmean(values[start:end]) for start, end in pairwise(edges)]
