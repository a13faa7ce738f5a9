"""How many images may be in the system: by hand, from Little's law."""

import pytest

from serving.front_door.admission import Admission


def admission(objective_s: float = 2.0) -> Admission:
    return Admission(objective_s, least=48, most=256)


def work(bound: Admission, *, rate: float, seconds: float, start: float = 100.0) -> None:
    """Batches of 8 at `rate` images a second for `seconds`, with others waiting all the time."""
    bound.answered(8, now=start, waiting=True)
    for batch in range(1, int(seconds * rate / 8) + 1):
        bound.answered(8, now=start + 8 * batch / rate, waiting=True)


def test_until_the_rate_is_known_workers_do_what_they_did_with_their_quickest_batch() -> None:
    bound = admission()
    assert bound.limit == 48
    bound.batch(1, 0.02)
    assert bound.limit == 80  # 0.8 x 2 s x 50
    bound.batch(16, 0.16)
    bound.batch(1, 0.02)
    work(bound, rate=80, seconds=0.4)
    assert bound.limit == 160 and bound.wait_s(50) == 0  # 0.8 x 2 s x 100
    work(known := admission(), rate=80, seconds=10)
    known.batch(16, 0.16)
    assert known.limit == pytest.approx(128, abs=1)


def test_the_bound_is_what_is_answered_within_four_fifths_of_the_objective() -> None:
    bound = admission()
    work(bound, rate=80, seconds=10)
    assert bound.limit == pytest.approx(80 * 2 * 0.8, abs=1)
    assert bound.wait_s(40) == pytest.approx(0.5, rel=0.02)
    work(short := admission(0.75), rate=100, seconds=10)
    assert short.limit == pytest.approx(100 * 0.75 * 0.8, abs=1)


@pytest.mark.parametrize(("rate", "expected"), [(8, 48), (1000, 256)])
def test_the_bound_stays_between_what_keeps_workers_busy_and_what_memory_takes(rate: float, expected: int) -> None:
    bound = admission()
    work(bound, rate=rate, seconds=10)
    assert bound.limit == expected


def test_a_worker_that_became_slower_is_known_after_a_few_seconds() -> None:
    bound = admission()
    work(bound, rate=100, seconds=10)
    work(bound, rate=50, seconds=8, start=110.0)
    assert 80 <= bound.limit <= 93  # 0.8 x 2 s x 50, and e^-2 of what was before


def test_pauses_do_not_make_a_worker_slow() -> None:
    bound = admission()
    for second in range(20):
        work(bound, rate=80, seconds=1, start=100.0 + 10 * second)
        bound.answered(8, now=101.1 + 10 * second, waiting=False)
    assert bound.limit == pytest.approx(128, abs=2)
