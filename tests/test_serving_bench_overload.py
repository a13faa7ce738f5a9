"""What an overload is held against, without a server."""

from dataclasses import replace
from typing import Any

import pytest

from serving.bench import overload
from serving.bench.cells import Cell

CELL = Cell("ours", 16, 0, 100.0, 1.0, 2.0, 3.0, {}, 10.0, {}, 0.1, 0.0, 100)
OPEN_LOOP = {
    "goodput_rps": 95.0, "load_cores": 0.2, "right_in_all": 6000,
    "right": {"count": 5700, "p99_ms": 900.0}, "refused": {"count": 12000, "p50_ms": 1.0, "p99_ms": 4.0}, "errors": {},
}  # fmt: skip
OVERLOAD = overload.Overload(
    times=3, rate_rps=300, seconds=60, objective_s=1.0, before=[CELL], after=[CELL], open_loop=OPEN_LOOP, cpu_s={}, others_cores=0.0,
    memory_before=500_000_000, memory_most=520_000_000, memory_after=505_000_000,
)  # fmt: skip


def failed(verdicts: list[Any]) -> list[str]:
    return [verdict.name for verdict in verdicts if not verdict.passed]


def test_an_overload_that_is_held_passes():
    assert failed(overload.judge(OVERLOAD)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"goodput_rps": 89.0}, "goodput"),
        ({"right": {"count": 1, "p99_ms": 1001.0}}, "p99 of right answers"),
        ({"right": {"count": 0, "p99_ms": None}}, "p99 of right answers"),
        ({"refused": {"count": 9, "p50_ms": 1.0, "p99_ms": 5.1}}, "p99 of a refusal"),
        ({"errors": {"closed": 1}}, "anything else"),
    ],
)
def test_an_overload_that_is_not_held_fails(changes, name):
    assert failed(overload.judge(replace(OVERLOAD, open_loop=OPEN_LOOP | changes))) == [name]


def test_memory_that_stays_after_an_overload_fails():
    assert failed(overload.judge(replace(OVERLOAD, memory_after=530_000_000))) == ["memory before and after"]


def test_the_maximum_is_the_mean_at_the_best_number_of_connections():
    cells = [replace(CELL, connections=count, throughput_rps=rate) for count, rate in ((16, 90), (16, 100), (64, 120), (64, 60))]
    assert overload.maximum(cells) == 95
    assert replace(OVERLOAD, before=cells, after=[replace(CELL, throughput_rps=110)]).maximum_rps == 100


def test_a_machine_that_became_slower_is_not_the_servers_fault():
    quick, slow = (
        replace(CELL, throughput_rps=rate, cpu_parts_ms={"door": 1.0, "door > worker": cost}) for rate, cost in ((120.0, 7.0), (80.0, 9.5))
    )
    found = replace(OVERLOAD, before=[quick], after=[slow], cpu_s={"door": 12.0, "door > worker": 60.0})  # 10 ms an image
    assert found.goodput == 0.95
    assert found.goodput_at_equal_speed == pytest.approx(0.95 * 10 / 8)
    worse = replace(found, open_loop=OPEN_LOOP | {"goodput_rps": 71.0})  # 0.71 x 1.25 = 0.89
    assert failed(overload.judge(worse)) == ["goodput"]
    assert failed(overload.judge(replace(worse, open_loop=worse.open_loop | {"goodput_rps": 73.0}))) == []


def test_of_a_server_elsewhere_in_the_machine_the_speed_is_not_known():
    assert OVERLOAD.goodput_at_equal_speed is None
