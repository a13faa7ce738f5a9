"""A soak: a server under mixed traffic for a long time, what its processes hold each second, and whether that grows."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.bench import children
from serving.bench.hostile import Body
from serving.bench.servers import Server
from serving.bench.traffic import RIGHT, STATED_503, Good, Traffic
from serving.bench.trend import Trend, trend
from serving.bench.verdicts import Verdict

SAMPLE_S = 1.0
POINTS = 300  # at most so many are kept for the report
TEN_MINUTES_S = 600.0
MAX_GROWTH = {"memory_bytes": 1 << 20, "files": 1.0, "threads": 1.0}  # in ten minutes
FIGURES = tuple(MAX_GROWTH)


@dataclass(frozen=True)
class Sample:
    """What the server's processes held at one moment, `at_s` seconds after the traffic began."""

    at_s: float
    tree: children.Tree


@dataclass(frozen=True)
class Soak:
    """What was seen: samples in order, counts of what was sent and what came of it, hostile bodies that were answered otherwise."""

    samples: list[Sample]
    outcomes: Counter[tuple[str, str]]
    examples: dict[str, str]
    interrupted: bool

    def trends(self) -> dict[str, Trend | None]:
        """How each figure grows a second, over the second half: the first is the warm-up."""
        half = self.samples[len(self.samples) // 2 :]
        times = [sample.at_s for sample in half]
        return {figure: trend(times, [getattr(sample.tree, figure) for sample in half]) for figure in FIGURES}

    def columns(self) -> dict[str, list[float]]:
        """The samples, thinned to a few hundred, by figure."""
        some = self.samples[:: -(-len(self.samples) // POINTS) or 1]
        figures = {figure: [getattr(sample.tree, figure) for sample in some] for figure in FIGURES}
        return {"at_s": [round(sample.at_s, 1) for sample in some], **figures}


def soak(
    server: Server, good: Sequence[Good], hostile: Sequence[Body], *, seconds: float, connections: int, tell: Callable[[str], None]
) -> Soak:
    """Drive `server` for `seconds`, or until Ctrl-C (KeyboardInterrupt), which loses nothing of what was seen.

    Raises: ValueError for a server whose process is not known.
    """
    if server.pid is None:
        raise ValueError(f"the process of {server.name} is not known: a soak must see what it holds")
    traffic = Traffic(server, good, hostile, connections=connections, seed=1)
    samples: list[Sample] = []
    begin = time.monotonic()
    traffic.start()
    interrupted = False
    try:
        while (now := time.monotonic() - begin) < seconds:
            samples.append(Sample(now, children.tree(server.pid)))
            memory = _amount("memory_bytes", samples[-1].tree.memory_bytes)
            tell(f"{now / 60:.0f} of {seconds / 60:g} minutes, {traffic.outcomes.total()} requests, {memory}")
            time.sleep(max(0.0, begin + len(samples) * SAMPLE_S - time.monotonic()))
    except KeyboardInterrupt:
        interrupted = True
    traffic.stop()
    return Soak(samples, traffic.outcomes, traffic.examples, interrupted)


def judge(found: Soak) -> list[Verdict]:
    """The rules that a soak is held against."""
    return [
        *(_grows(figure, slope) for figure, slope in found.trends().items()),
        _workers(found.samples),
        *(_answers(kind, found.outcomes) for kind in ("good", "several", "hostile", "leaves", "no http")),
        _server_errors(found.outcomes),
    ]


def _grows(figure: str, slope: Trend | None) -> Verdict:
    name, wanted = f"growth of {figure.removesuffix('_bytes')}", f"within chance, or < {_amount(figure, MAX_GROWTH[figure])} in 10 minutes"
    if slope is None:
        return Verdict(name, "too few samples to say", wanted, False)
    in_ten, low, high = (TEN_MINUTES_S * value for value in (slope.slope, slope.low, slope.high))
    got = f"{_amount(figure, in_ten)} in 10 minutes ({_amount(figure, low)} to {_amount(figure, high)})"
    return Verdict(name, got, wanted, low <= 0 or in_ten < MAX_GROWTH[figure])


def _amount(figure: str, value: float) -> str:
    return f"{value / (1 << 20):.2f} MiB" if figure == "memory_bytes" else f"{value:.2f}"


def _workers(samples: Sequence[Sample]) -> Verdict:
    first = samples[0].tree.pids
    changed = sum(bool(sample.tree.pids ^ first) for sample in samples)
    return Verdict("processes", f"{len(first)}, other ones in {changed} of {len(samples)} samples", "the same all the time", changed == 0)


def _answers(kind: str, outcomes: Counter[tuple[str, str]]) -> Verdict:
    of_kind = {outcome: count for (sent, outcome), count in outcomes.items() if sent == kind}
    others = {outcome: count for outcome, count in of_kind.items() if outcome != RIGHT}
    told = [f"{of_kind.get(RIGHT, 0)} of {sum(of_kind.values())}", *(f"{count} {outcome}" for outcome, count in sorted(others.items()))]
    return Verdict(f"{kind}, as must be", ", ".join(told), f"all but {STATED_503}", RIGHT in of_kind and not others.keys() - {STATED_503})


def _server_errors(outcomes: Counter[tuple[str, str]]) -> Verdict:
    found = {outcome: count for (_, outcome), count in outcomes.items() if outcome.startswith("5") and outcome != STATED_503}
    told = ", ".join(f"{count} {outcome}" for outcome, count in found.items())
    return Verdict("5xx", told or "none", f"none but {STATED_503}", not found)


def as_json(found: Soak) -> dict[str, Any]:
    """What the report holds of it."""
    counts: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(found.outcomes.items()):
        counts.setdefault(kind, {})[outcome] = count
    return {
        "seconds": found.samples[-1].at_s,
        "interrupted": found.interrupted,
        "requests": counts,
        "hostile_answered_otherwise": found.examples,
        "trends_per_second": {figure: slope and [slope.slope, slope.low, slope.high] for figure, slope in found.trends().items()},
        "samples": found.columns(),
    }
