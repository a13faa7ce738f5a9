"""The in-process limit: what this machine can do with an archive's own handler, decoding included, when there is no server.

A process a CPU, one thread each, run batches; or, as for a server's lone connection, one process takes image after image, each on all
CPUs. Each process is this file, `python -m serving.bench.limit`: a JSON object a line in, one out.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from serving.bench import children
from serving.bench.load import percentile

BATCHES = (8, 4, 1)
START_AFTER_S = 0.1  # so that every process has its order before any begins


@dataclass(frozen=True)
class Run:
    """Images a second of all processes together, milliseconds of a batch, CPU milliseconds of an image."""

    throughput_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Answers:
    """What the handler answers in process: the label of each image; and what OpenVINO says it can use of this CPU."""

    labels: tuple[str, ...]
    capabilities: tuple[str, ...]


class Limit:
    """The processes of one archive, ready and waiting. `started` makes it."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self.batch = BATCHES[0]

    def answers(self) -> Answers:
        """What the handler answers.

        Raises: ValueError when the handler does not come up, or refuses one of the images, with its reason.
        """
        replies = [_read(process) for process in self._processes]
        return Answers(tuple(replies[0]["labels"]), tuple(replies[0]["capabilities"]))

    def choose_batch(self, seconds: float) -> dict[int, float]:
        """Images a second with each batch size, each run twice for `seconds` in turns; the best is used from now on."""
        rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        for _ in range(2):
            for batch, runs in rates.items():
                runs.append(self.run(seconds, batch=batch).throughput_rps)
        found = {batch: median(runs) for batch, runs in rates.items()}
        self.batch = max(found, key=found.__getitem__)
        return found

    def run(self, seconds: float, *, batch: int | None = None) -> Run:
        """All processes together, started at one moment."""
        return self._order(self._processes, seconds, batch=batch or self.batch, alone=False)

    def run_alone(self, seconds: float) -> Run:
        """One process, one image after the other, each on all CPUs."""
        return self._order(self._processes[:1], seconds, batch=1, alone=True)

    def _order(self, processes: Sequence[subprocess.Popen[bytes]], seconds: float, *, batch: int, alone: bool) -> Run:
        at = time.monotonic() + START_AFTER_S
        for process in processes:
            _write(process, {"seconds": seconds, "batch": batch, "alone": alone, "at": at})
        replies = [_read(process) for process in processes]
        times = sorted(took for reply in replies for took in reply["times"])
        return Run(
            throughput_rps=sum(reply["images"] / reply["wall_s"] for reply in replies),
            p50_ms=1e3 * percentile(times, 50),
            p95_ms=1e3 * percentile(times, 95),
            p99_ms=1e3 * percentile(times, 99),
            cpu_ms=1e3 * sum(reply["cpu_s"] for reply in replies) / sum(reply["images"] for reply in replies),
        )


@contextmanager
def started(folder: Path, images: Sequence[Path], *, cpus: int) -> Iterator[Limit]:
    """The limit of the archive unpacked in `folder` over `images`, with a process for each of `cpus`; all end with the context."""
    processes = []
    try:
        for number in range(cpus):
            process = children.start(
                [sys.executable, "-m", "serving.bench.limit"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            processes.append(process)
            lone_threads = cpus if number == 0 else 1
            _write(process, {"folder": str(folder), "images": [str(image) for image in images], "lone_threads": lone_threads})
        yield Limit(processes)
    finally:
        for process in processes:
            children.stop(process, patience_s=0)


def _write(process: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    reply: dict[str, Any] = json.loads(process.stdout.readline() or b'{"error": "its process ended without a word"}')
    if "error" in reply:
        raise ValueError(f"the archive's handler does not run in process: {reply['error']}")
    return reply


def _serve_orders() -> None:
    """What each process does: load, answer every image once, then run as ordered until stdin ends."""
    orders, replies = sys.stdin, sys.stdout
    first = json.loads(orders.readline())
    with redirect_stdout(sys.stderr):
        try:
            handler = _open(Path(first["folder"]), lone_threads=first["lone_threads"])
            images = [Path(image).read_bytes() for image in first["images"]]
            reply: dict[str, Any] = {"labels": [_label(handler, path, image) for path, image in zip(first["images"], images, strict=True)]}
            reply["capabilities"] = _capabilities()
        except Exception as error:  # whatever it is, the process that waits must hear it
            reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), file=replies, flush=True)
    if "error" in reply:
        return
    for line in orders:
        print(json.dumps(_run(handler, images, **json.loads(line))), file=replies, flush=True)


def _open(folder: Path, *, lone_threads: int) -> Any:
    from serving.archive import load_handler

    handler = load_handler(folder, threads=1)
    if lone_threads > 1:
        handler.open(folder, threads=1, lone_threads=lone_threads)
    return handler


def _label(handler: Any, path: str, image: bytes) -> str:
    (status, body), *_ = handler.classify([image])[0]
    answer: dict[str, Any] = json.loads(body)
    if status != 200:
        raise ValueError(f"it refuses {path}: {answer['message']}")
    return max(answer, key=answer.__getitem__)


def _capabilities() -> list[str]:
    from serving.handler.engine import core

    return list(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _run(handler: Any, images: Sequence[bytes], *, seconds: float, batch: int, alone: bool, at: float) -> dict[str, Any]:
    """Batch after batch from the moment `at` of the monotonic clock, which all processes share; the last batch is finished."""
    time.sleep(max(0.0, at - time.monotonic()))
    times: list[float] = []
    begin, used = time.perf_counter(), time.process_time()
    now = begin
    while now < begin + seconds:
        first = len(times) * batch
        handler.classify([images[(first + index) % len(images)] for index in range(batch)], alone=alone)
        before, now = now, time.perf_counter()
        times.append(now - before)
    return {"images": len(times) * batch, "times": times, "wall_s": now - begin, "cpu_s": time.process_time() - used}


if __name__ == "__main__":
    _serve_orders()
