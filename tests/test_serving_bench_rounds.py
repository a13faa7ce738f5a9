"""Order and arithmetic of the comparison, without servers."""

import json
from dataclasses import replace
from typing import Any

import pytest

from serving.bench import rounds
from serving.bench.cells import LIMIT, Cell
from serving.bench.limit import Run
from serving.bench.rounds import as_json, compare, costs, summarise
from serving.bench.servers import Server

CELL = Cell("ours", 16, 0, 90.0, 1.0, 2.0, 3.0, {}, 10.0, {"python": 1.0, "python > java": 9.0}, 0.1, 0.0, 100)
SERVER = Server("ours", "127.0.0.1", 1, "/predictions/m", None, 2.0, True)


class FakeLimit:
    def run(self, seconds: float) -> Run:
        return Run(100.0, 1.0, 1.0, 1.0, 9.0)

    def run_alone(self, seconds: float) -> Run:
        return Run(50.0, 1.0, 1.0, 1.0, 18.0)


def cell(name: str, number: int, rate: float, **changes: Any) -> Cell:
    return replace(CELL, name=name, round=number, throughput_rps=rate, **changes)


def test_ratios_are_taken_within_a_round():
    cells = [cell(LIMIT, 0, 200), cell("ours", 0, 180), cell(LIMIT, 1, 100), cell("ours", 1, 95), cell("ours", 2, 40), cell(LIMIT, 2, 80)]
    limit, ours = summarise(cells)
    assert limit.of_limit == (1, 1, 1)
    assert ours.of_limit == pytest.approx((0.9, 0.5, 0.95))
    assert ours.throughput_rps == 95 and ours.rounds == 3


def test_errors_add_up_and_memory_is_the_peak():
    cells = [
        cell(LIMIT, 0, 1, cpu_ms=None), cell(LIMIT, 1, 1),
        cell("ours", 0, 1, errors={"503": 2}, memory_bytes=300), cell("ours", 1, 1, errors={"503": 1, "wrong": 4}, memory_bytes=200),
    ]  # fmt: skip
    ours = summarise(cells)[1]
    assert ours.errors == {"503": 3, "wrong": 4}
    assert ours.memory_bytes == 300
    assert ours.cpu_parts_ms == {"python": 1.0, "python > java": 9.0}


def test_a_server_that_answered_nothing_has_no_figures_and_is_json_all_the_same():
    nan = float("nan")
    cells = [cell(LIMIT, 0, 10), cell("ours", 0, 0, p50_ms=nan, p95_ms=nan, p99_ms=nan, cpu_ms=None, memory_bytes=None)]
    row = summarise(cells)[1]
    assert (row.p50_ms, row.cpu_ms, row.memory_bytes, row.throughput_rps) == (None, None, None, 0)
    assert "NaN" not in json.dumps([as_json(row), as_json(cells[1])])


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Images a second that the load finds, by server."""
    rates = {"ours": 90.0, "slow": 1.0}

    def load_cell(server: Server, images: Any, labels: Any, *, connections: int, number: int, seconds: float) -> Cell:
        return cell(server.name, number, rates[server.name], connections=connections)

    monkeypatch.setattr(rounds, "load_cell", load_cell)
    return rates


def order(cells: list[Cell]) -> list[tuple[int, int, str]]:
    return [(cell.round, cell.connections, cell.name) for cell in cells]


def test_limit_and_servers_take_turns_and_the_order_turns_around(driven):
    cells = compare(FakeLimit(), [SERVER], images=[], labels=[], connections=[1, 16], rounds=2, seconds=0.01, tell=lambda text: None)
    assert order(cells) == [
        (0, 1, LIMIT), (0, 1, "ours"), (0, 16, LIMIT), (0, 16, "ours"),
        (1, 1, "ours"), (1, 1, LIMIT), (1, 16, "ours"), (1, 16, LIMIT),
    ]  # fmt: skip


def test_one_connection_is_held_against_one_image_at_a_time(driven):
    cells = compare(FakeLimit(), [SERVER], images=[], labels=[], connections=[1, 16], rounds=1, seconds=0.01, tell=lambda text: None)
    assert [row.of_limit[0] for row in summarise(cells)] == [1, 1, 90 / 50, 90 / 100]


def test_a_server_too_slow_for_a_load_is_left_out_of_it(driven):
    slow = replace(SERVER, name="slow")
    cells = compare(FakeLimit(), [slow], images=[], labels=[], connections=[1, 16, 64], rounds=1, seconds=0.01, tell=lambda text: None)
    assert [cell.connections for cell in cells if cell.name == "slow"] == [1, 16]


def test_the_cost_is_held_against_the_best_of_the_others_within_a_round():
    rates = {"ours": (95, 45, 99), "small batches": (80, 70, 80), "large batches": (100, 50, 90)}
    p50 = {"ours": (12, 22, 13), "small batches": (10, 20, 10), "large batches": (15, 25, 15)}
    cells = [
        cell(name, number, rates[name][number], p50_ms=p50[name][number], connections=count, cpu_ms=10.5 if name == "ours" else 10.0)
        for count in (1, 16) for number in range(3) for name in rates
    ]  # fmt: skip
    one, sixteen = costs(cells, "ours", ["small batches", "large batches"])
    assert (one.connections, sixteen.connections, sixteen.rounds) == (1, 16, 3)
    assert (sixteen.best, sixteen.fastest) == ("large batches", "small batches")
    assert sixteen.of_best == pytest.approx((0.95, 0.9, 1.1))
    assert (one.added_p50_ms, one.added_cpu_ms) == (2, 0.5)


def test_a_round_that_a_server_was_too_slow_for_is_left_out_of_the_cost():
    cells = [cell("ours", 0, 90), cell("peer", 0, 100), cell("ours", 1, 50), cell("ours", 0, 90, connections=64)]
    (cost,) = costs(cells, "ours", ["peer"])
    assert (cost.connections, cost.rounds, cost.of_best) == (16, 1, (0.9, 0.9, 0.9))
