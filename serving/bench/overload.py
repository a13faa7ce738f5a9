"""Overload: what becomes of a server when several times as many images come as it can answer, and whether that is good enough.

First its maximum, as a closed loop finds it; then an open loop at a multiple of that; then the maximum again, because a machine that
others share is never the same for long: the overload is held against the mean of both. Where even these few minutes see its speed
change, what an image costs the workers tells by how much.
"""

import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from serving.bench import children
from serving.bench.arrivals import REFUSED, RIGHT, Arrivals
from serving.bench.cells import Cell, Usage, drive, load_cell
from serving.bench.servers import Server
from serving.bench.verdicts import Verdict

CONNECTIONS = (16, 64)
ROUNDS, ROUND_S = 2, 4.0
LEAD_IN_S, DRAIN_S, REST_S = 3.0, 10.0, 2.0
MAX_CONNECTIONS = 4000
MIN_GOODPUT = 0.9  # of the maximum
MAX_REFUSAL_MS = 5.0
MAX_GROWTH = 0.05  # of the memory


@dataclass(frozen=True)
class Overload:
    """What was measured: closed loops before and after, the open loop in between, CPU by place in the tree, memory in bytes."""

    times: float
    rate_rps: float
    seconds: float
    objective_s: float
    before: list[Cell]
    after: list[Cell]
    open_loop: dict[str, Any]
    cpu_s: dict[str, float]
    others_cores: float
    memory_before: int | None
    memory_most: int | None
    memory_after: int | None

    @property
    def maximum_rps(self) -> float:
        """Right answers a second in closed loops, before and after."""
        return maximum([*self.before, *self.after])

    @property
    def goodput(self) -> float:
        """The goodput over the maximum."""
        return float(self.open_loop["goodput_rps"]) / self.maximum_rps

    @property
    def goodput_at_equal_speed(self) -> float | None:
        """As it would be, had the machine kept its speed: the CPU seconds that an image costs where most of them go tell that.

        None when the server's processes are not known.
        """
        closed = [cell for cell in busiest([*self.before, *self.after]) if cell.cpu_parts_ms]
        if not (closed and self.cpu_s and self.open_loop["right_in_all"]):
            return None
        workers = max(self.cpu_s, key=self.cpu_s.__getitem__)
        rates = [cell.throughput_rps for cell in closed]
        at_most_ms = fmean((cell.cpu_parts_ms.get(workers, 0.0) for cell in closed), rates)
        then_ms = 1e3 * self.cpu_s[workers] / self.open_loop["right_in_all"]
        return float(self.goodput * then_ms / at_most_ms)


def overload(
    server: Server,
    images: Sequence[Path],
    labels: Sequence[str],
    *,
    times: float,
    seconds: float,
    objective_s: float,
    tell: Callable[[str], None],
) -> Overload:
    """Find the server's maximum and send `times` as much for `seconds`.

    Raises: ValueError when the server answers nothing at all, or a load generator fails.
    """
    before = _closed(server, images, labels, tell=tell)
    if not (highest := maximum(before)):
        raise ValueError(f"{server.name} answered no image right in {ROUND_S:g} s: {before[-1].errors}")
    arrivals = Arrivals(
        host=server.host,
        port=server.port,
        path=server.path,
        images=[str(image) for image in images],
        labels=list(labels),
        rate_rps=times * highest,
        seconds=seconds,
        lead_in_s=LEAD_IN_S,
        drain_s=DRAIN_S,
        objective_s=objective_s,
        max_connections=MAX_CONNECTIONS,
    )
    tell(f"{arrivals.rate_rps:.0f} images a second for {seconds:g} s, {times:g} times its maximum of {highest:.0f}")
    memory_before, usage = _memory(server), Usage(server.pid)
    result, memory_most = drive("serving.bench.arrivals", asdict(arrivals), server)
    cpu_s, others_cores = usage.since()
    time.sleep(REST_S)
    return Overload(
        times=times,
        rate_rps=arrivals.rate_rps,
        seconds=seconds,
        objective_s=objective_s,
        before=before,
        open_loop=result,
        cpu_s=cpu_s,
        others_cores=others_cores,
        memory_before=memory_before,
        memory_most=memory_most or None,
        memory_after=_memory(server),
        after=_closed(server, images, labels, tell=tell),
    )


def judge(found: Overload) -> list[Verdict]:
    """The rules that a server under overload is held against."""
    run, objective_ms, highest = found.open_loop, 1e3 * found.objective_s, found.maximum_rps
    right, refused, errors = run[RIGHT], run[REFUSED], run["errors"]
    goodput, steady = found.goodput, found.goodput_at_equal_speed
    told = f"{run['goodput_rps']:.0f} of {highest:.0f} images/s ({goodput:.2f}{f', {steady:.2f} at equal speed' if steady else ''})"
    slowest, refusal = right["p99_ms"], refused["p99_ms"]
    verdicts = [
        Verdict("goodput", told, f">= {MIN_GOODPUT}", (steady or goodput) >= MIN_GOODPUT),
        Verdict("p99 of right answers", _ms(slowest), f"<= {objective_ms:g} ms", slowest is not None and slowest <= objective_ms),
        Verdict("refusals", f"{refused['count']} with 503 and Retry-After", "some", refused["count"] > 0),
        Verdict("p99 of a refusal", _ms(refusal), f"<= {MAX_REFUSAL_MS:g} ms", refusal is not None and refusal <= MAX_REFUSAL_MS),
        Verdict("anything else", ", ".join(f"{count} {kind}" for kind, count in errors.items()) or "nothing", "nothing", not errors),
    ]
    if found.memory_before and found.memory_after:
        growth = found.memory_after / found.memory_before - 1
        told = f"{found.memory_before / 1e6:.0f} to {found.memory_after / 1e6:.0f} MB ({growth:+.1%})"
        verdicts.append(Verdict("memory before and after", told, f"at most {MAX_GROWTH:+.0%}", growth <= MAX_GROWTH))
    return verdicts


def maximum(cells: Sequence[Cell]) -> float:
    """Right answers a second, in the mean of the busiest cells."""
    return fmean(cell.throughput_rps for cell in busiest(cells))


def busiest(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the number of connections that gives most right answers, in the mean of its rounds."""
    by_count = [[cell for cell in cells if cell.connections == count] for count in {cell.connections for cell in cells}]
    return max(by_count, key=lambda rounds: fmean(cell.throughput_rps for cell in rounds))


def objective_of(server: Server) -> float | None:
    """Seconds within which the server says that it answers, None when it says nothing of that."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        connection.request("GET", "/info")
        told = json.loads(connection.getresponse().read()).get("objective_s")
    finally:
        connection.close()
    return None if told is None else float(told)


def _closed(server: Server, images: Sequence[Path], labels: Sequence[str], *, tell: Callable[[str], None]) -> list[Cell]:
    cells = []
    for number in range(ROUNDS):
        for count in CONNECTIONS:
            tell(f"its maximum: {count} connections, round {number + 1}")
            cells.append(load_cell(server, images, labels, connections=count, number=number, seconds=ROUND_S))
    return cells


def _memory(server: Server) -> int | None:
    return children.pss_bytes(server.pid) or None if server.pid else None


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} ms"
