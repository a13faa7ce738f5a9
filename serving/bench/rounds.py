"""The comparison: the limit and every server by turns, in rounds, and what the rounds say together.

A machine is never quiet for long. What is compared lies seconds apart, in an order that turns around from round to round, and is told
as ratios within a round: what hits all of them alike does not count.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from serving.bench import children
from serving.bench.limit import Limit
from serving.bench.load import Load
from serving.bench.servers import Server

LIMIT = "in-process limit"
DRAIN_S = 30.0
MEMORY_EVERY_S = 1.0
MAX_REQUESTS = 1_000_000
FIGURES = ("throughput_rps", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "load_cores")


@dataclass(frozen=True)
class Cell:
    """One server (or the limit) under one load in one round. `others_cores` is what processes that are not ours took meanwhile."""

    name: str
    connections: int
    round: int
    throughput_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_ms: float | None
    load_cores: float
    others_cores: float
    memory_bytes: int | None


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
    load_cores: float
    memory_bytes: int | None


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
            turn: list[Server | None] = [None, *servers]
            for server in turn if number % 2 == 0 else reversed(turn):
                tell(f"round {number + 1}: {server.name if server else LIMIT}, {count} connection{'s' * (count > 1)}")
                if server is None:
                    cells.append(_limit_cell(limit, count, number, seconds))
                elif not _too_slow(cells, server, count):
                    cells.append(load_cell(server, images, labels, connections=count, number=number, seconds=seconds))
    return cells


def load_cell(
    server: Server, images: Sequence[Path], labels: Sequence[str], *, connections: int, number: int, seconds: float, lead_in_s: float = 0.5
) -> Cell:
    """What one load does to one server, its CPU and memory with it.

    Raises: ValueError when the load generator fails, with its last words.
    """
    load = Load(
        host=server.host,
        port=server.port,
        path=server.path,
        images=[str(image) for image in images],
        labels=list(labels) if server.checked else [],
        connections=connections,
        seconds=seconds,
        lead_in_s=lead_in_s,
        drain_s=DRAIN_S,
        max_requests=MAX_REQUESTS,
    )
    usage = _Usage(server.pid)
    result, memory = _drive(load, server)
    server_s, others_cores = usage.since()
    return Cell(
        name=server.name,
        connections=connections,
        round=number,
        **{key: result[key] for key in ("throughput_rps", "p50_ms", "p95_ms", "p99_ms", "errors", "load_cores")},
        cpu_ms=1e3 * server_s / result["answered"] if server.pid and result["answered"] else None,
        others_cores=others_cores,
        memory_bytes=memory or None,
    )


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
                    memory_bytes=max((cell.memory_bytes or 0 for cell in group), default=0) or None,
                    **{figure: _median([getattr(cell, figure) for cell in group]) for figure in FIGURES},
                )
            )
    return rows


def as_json(part: Cell | Row | Server) -> dict[str, Any]:
    """Its fields; what is no number becomes null, which JSON can hold."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in asdict(part).items()}


class _Usage:
    """CPU used since it was made: by a server's tree, and by everything on this machine that is neither it nor ours."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._at, self._before = time.monotonic(), self._now()

    def since(self) -> tuple[float, float]:
        """CPU seconds of the server, cores of others."""
        server, ours, machine = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return server, max(0.0, machine - ours) / (time.monotonic() - self._at)

    def _now(self) -> tuple[float, float, float]:
        server = children.cpu_s(self._pid) if self._pid else 0.0
        ours = children.cpu_s(os.getpid())
        inside = self._pid is None or children.is_ours(self._pid)
        return server, ours if inside else ours + server, children.machine_cpu_s()


def _limit_cell(limit: Limit, connections: int, number: int, seconds: float) -> Cell:
    usage = _Usage(None)
    run = limit.run_alone(seconds) if connections == 1 else limit.run(seconds)
    _, others_cores = usage.since()
    return Cell(LIMIT, connections, number, **asdict(run), errors={}, load_cores=0.0, others_cores=others_cores, memory_bytes=None)


def _too_slow(cells: Sequence[Cell], server: Server, connections: int) -> bool:
    """Whether the last load on `server` says that what is in flight at the end of this one would take longer than we wait."""
    rates = [cell.throughput_rps for cell in cells if cell.name == server.name]
    return bool(rates) and connections > rates[-1] * DRAIN_S


def _drive(load: Load, server: Server) -> tuple[dict[str, Any], int]:
    """What the load generator says, and the most memory that the server's tree was seen with."""
    process = children.start(
        [sys.executable, "-m", "serving.bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    memory, order = 0, json.dumps(asdict(load)).encode()
    try:
        while True:
            try:
                said, complaint = process.communicate(order, timeout=MEMORY_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                memory = max(memory, children.pss_bytes(server.pid) if server.pid else 0)
    finally:
        children.stop(process, patience_s=0)
    if process.returncode:
        reason = (complaint.decode(errors="replace").splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"the load generator for {server.name} failed: {reason}")
    memory = max(memory, children.pss_bytes(server.pid) if server.pid else 0)
    result: dict[str, Any] = json.loads(said)
    return result, memory


def _median(values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None and value == value]
    return median(known) if known else None
