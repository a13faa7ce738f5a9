"""One measurement: a server, or the limit, under one load, with the CPU and memory that it took."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.bench import children
from serving.bench.limit import Limit
from serving.bench.load import Load
from serving.bench.servers import Server

LIMIT = "in-process limit"
LEAD_IN_S = 0.5
DRAIN_S = 30.0
MEMORY_EVERY_S = 1.0
MAX_REQUESTS = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One server (or the limit) under one load in one round: CPU milliseconds are those of one image, in all and by place in its tree.

    `others_cores` is what processes that are not ours took meanwhile.
    """

    name: str
    connections: int
    round: int
    throughput_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_ms: float | None
    cpu_parts_ms: dict[str, float]
    load_cores: float
    others_cores: float
    memory_bytes: int | None


def limit_cell(limit: Limit, *, connections: int, number: int, seconds: float) -> Cell:
    """What the machine does without a server; for one connection, one image at a time."""
    usage = Usage(None)
    run = limit.run_alone(seconds) if connections == 1 else limit.run(seconds)
    return Cell(
        name=LIMIT,
        connections=connections,
        round=number,
        **asdict(run),
        errors={},
        cpu_parts_ms={},
        load_cores=0.0,
        others_cores=usage.since()[1],
        memory_bytes=None,
    )


def load_cell(server: Server, images: Sequence[Path], labels: Sequence[str], *, connections: int, number: int, seconds: float) -> Cell:
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
        lead_in_s=LEAD_IN_S,
        drain_s=DRAIN_S,
        max_requests=MAX_REQUESTS,
    )
    usage = Usage(server.pid)
    result, memory = drive("serving.bench.load", asdict(load), server)
    server_s, others_cores = usage.since()
    parts = {place: 1e3 * used / result["answered"] for place, used in server_s.items()} if result["answered"] else {}
    return Cell(
        name=server.name,
        connections=connections,
        round=number,
        **{key: result[key] for key in ("throughput_rps", "p50_ms", "p95_ms", "p99_ms", "errors", "load_cores")},
        cpu_ms=sum(parts.values()) if parts else None,
        cpu_parts_ms=parts,
        others_cores=others_cores,
        memory_bytes=memory or None,
    )


class Usage:
    """CPU used since it was made: by the tree of `pid`, and by everything on this machine that is neither it nor ours."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._at, self._before = time.monotonic(), self._now()

    def since(self) -> tuple[dict[str, float], float]:
        """CPU seconds of the server by place in its tree, cores of others."""
        server, ours, machine = self._now()
        server_before, ours_before, machine_before = self._before
        others_s = machine - machine_before - (ours - ours_before)
        used = {place: seconds - server_before.get(place, 0.0) for place, seconds in server.items()}
        return used, max(0.0, others_s) / (time.monotonic() - self._at)

    def _now(self) -> tuple[dict[str, float], float, float]:
        server = children.cpu_s(self._pid) if self._pid else {}
        ours = sum(children.cpu_s(os.getpid()).values())
        if self._pid and not children.is_ours(self._pid):
            ours += sum(server.values())
        return server, ours, children.machine_cpu_s()


def drive(module: str, load: Mapping[str, Any], server: Server) -> tuple[dict[str, Any], int]:
    """What the load generator `module` says, and the most memory that the server's tree was seen with.

    Raises: ValueError when it fails, with its last words.
    """
    process = children.start([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    memory = 0
    order: bytes | None = json.dumps(load).encode()
    try:
        while True:
            try:
                said, complaint = process.communicate(order, timeout=MEMORY_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                order = None  # it was sent
                memory = max(memory, children.pss_bytes(server.pid) if server.pid else 0)
    finally:
        children.stop(process, patience_s=0)
    if process.returncode:
        reason = (complaint.decode(errors="replace").splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"the load generator for {server.name} failed: {reason}")
    memory = max(memory, children.pss_bytes(server.pid) if server.pid else 0)
    result: dict[str, Any] = json.loads(said)
    return result, memory
