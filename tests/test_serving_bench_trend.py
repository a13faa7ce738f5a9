"""The slope of a line and its interval."""

import pytest
import scipy.stats

from serving.bench.trend import BLOCKS, STUDENT_T, trend


def test_the_slope_and_its_interval_are_those_of_least_squares():
    times = [float(number) for number in range(200)]
    values = [0.5 * at + (7 * at) % 13 for at in times]
    blocks = [(times[start : start + 20], values[start : start + 20]) for start in range(0, 200, 20)]
    expected = scipy.stats.linregress([sum(x) / 20 for x, _ in blocks], [sum(y) / 20 for _, y in blocks])
    found = trend(times, values)
    assert found is not None and found.slope == pytest.approx(expected.slope)
    assert (found.high - found.low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, 8) * expected.stderr, rel=1e-3)
    assert (BLOCKS, pytest.approx(STUDENT_T, abs=1e-3)) == (10, scipy.stats.t.ppf(0.975, 8))


def test_too_few_values_have_no_trend():
    assert trend([1.0] * 19, [1.0] * 19) is None
