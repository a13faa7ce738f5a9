"""The comparison: the limit and every server by turns, in rounds, and what the rounds say together.

A machine is never quiet for long. What is compared lies seconds apart, in an order that turns around from round to round, and is told
as ratios within a round: what hits all of them alike does not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

from serving.bench.cells import DRAIN_S, LIMIT, Cell, limit_cell, load_cell
from serving.bench.limit import Limit
from serving.bench.servers import Server

FIGURES = ("throughput_rps", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "load_cores")


@dataclass(frozen=True)
class Row:
    """What the rounds say together about one server under one load: medians; `of_limit` is the median, least and largest ratio."""

    name: str
    connections: int
    rounds: int
    throughput_rps: float
    of_limit: tuple[float, float, float]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_ms: float | None
    cpu_parts_ms: dict[str, float]
    load_cores: float
    memory_bytes: int | None


@dataclass(frozen=True)
class Cost:
    """A server held against the best of several others, within each round.

    `of_best` is the median, least and largest ratio of throughput to `best`, which has the highest median of the others; `added_p50_ms`
    is the median of what is added to the p50 of `fastest`, which has the lowest; `added_cpu_ms` the same of CPU an image, against `best`.
    """

    name: str
    connections: int
    rounds: int
    best: str
    of_best: tuple[float, float, float]
    fastest: str
    added_p50_ms: float
    added_cpu_ms: float


def compare(
    limit: Limit,
    servers: Sequence[Server],
    *,
    images: Sequence[Path],
    labels: Sequence[str],
    connections: Sequence[int],
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Cell]:
    """Every cell of every round; `tell` is called before each. A server too slow to answer what a cell sends is left out of it."""
    cells: list[Cell] = []
    for number in range(rounds):
        for count in connections:
            turn: list[Server | None] = [None, *servers]  # None is the limit
            for server in turn if number % 2 == 0 else turn[::-1]:
                tell(f"round {number + 1}: {server.name if server else LIMIT}, {count} connection{'s' * (count > 1)}")
                if server is None:
                    cells.append(limit_cell(limit, connections=count, number=number, seconds=seconds))
                elif not _too_slow(cells, server, count):
                    cells.append(load_cell(server, images, labels, connections=count, number=number, seconds=seconds))
    return cells


def summarise(cells: Sequence[Cell]) -> list[Row]:
    """A row for each server and load, in the order in which they were first measured, the limit first."""
    limits = {(cell.round, cell.connections): cell.throughput_rps for cell in cells if cell.name == LIMIT}
    names = list(dict.fromkeys([LIMIT, *(cell.name for cell in sorted(cells, key=lambda cell: cell.round))]))
    rows = []
    for name in names:
        for count in sorted({cell.connections for cell in cells if cell.name == name}):
            group = [cell for cell in cells if cell.name == name and cell.connections == count]
            ratios = [cell.throughput_rps / limits[cell.round, count] for cell in group]
            kinds = sorted({kind for cell in group for kind in cell.errors})
            rows.append(
                Row(
                    name=name,
                    connections=count,
                    rounds=len(group),
                    of_limit=(median(ratios), min(ratios), max(ratios)),
                    errors={kind: sum(cell.errors.get(kind, 0) for cell in group) for kind in kinds},
                    cpu_parts_ms={place: _median([cell.cpu_parts_ms.get(place) for cell in group]) for place in group[0].cpu_parts_ms},
                    memory_bytes=max((cell.memory_bytes or 0 for cell in group), default=0) or None,
                    **{figure: _median([getattr(cell, figure) for cell in group]) for figure in FIGURES},
                )
            )
    return rows


def costs(cells: Sequence[Cell], name: str, others: Sequence[str]) -> list[Cost]:
    """What server `name` costs against the best of `others`, for each number of connections."""
    found = []
    for count in sorted({cell.connections for cell in cells if cell.name == name}):
        of = {each: {cell.round: cell for cell in cells if (cell.name, cell.connections) == (each, count)} for each in (name, *others)}
        rounds = sorted(set.intersection(*map(set, of.values())))  # without those that one of them was too slow for
        if not rounds:
            continue
        best = max(others, key=lambda other: median(of[other][number].throughput_rps for number in rounds))
        fastest = min(others, key=lambda other: median(of[other][number].p50_ms for number in rounds))
        pairs = [(of[name][number], of[best][number], of[fastest][number]) for number in rounds]
        ratios = [own.throughput_rps / peer.throughput_rps for own, peer, _ in pairs]
        added = median(own.p50_ms - peer.p50_ms for own, _, peer in pairs)
        cpu = median((own.cpu_ms or 0.0) - (peer.cpu_ms or 0.0) for own, peer, _ in pairs)
        found.append(Cost(name, count, len(rounds), best, (median(ratios), min(ratios), max(ratios)), fastest, added, cpu))
    return found


def as_json(part: Cell | Cost | Row | Server) -> dict[str, Any]:
    """Its fields; what is no number becomes null, which JSON can hold."""
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in asdict(part).items()}


def _too_slow(cells: Sequence[Cell], server: Server, connections: int) -> bool:
    """Whether the last load on `server` says that what is in flight at the end of this one would take longer than we wait."""
    rates = [cell.throughput_rps for cell in cells if cell.name == server.name]
    return bool(rates) and connections > rates[-1] * DRAIN_S


def _median(values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None and not isnan(value)]
    return median(known) if known else None
