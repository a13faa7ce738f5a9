"""The load generator: a closed loop over kept-alive connections to a server on this machine.

A process of its own, light, so that the CPUs are left to the server: `python -m serving.bench.load` reads one JSON object from stdin
(the fields of `Load`) and prints one (see `drive`).
"""

import gc
import ipaddress
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from serving.bench.wire import beginning, names, post_of, whole_answer

MAX_ERRORS = 500
MAX_ANSWER = 1 << 20
CONNECT_S = 5.0


@dataclass(frozen=True)
class Load:
    """What to send, where, from how many connections, for how long.

    For `lead_in_s` nothing counts; then for `seconds` it does; then what is in flight is awaited for at most `drain_s`.
    `labels` holds the right answer of each image, or is empty: then every 200 is right.
    """

    host: str
    port: int
    path: str
    images: Sequence[str]
    labels: Sequence[str]
    connections: int
    seconds: float
    lead_in_s: float
    drain_s: float
    max_requests: int


class Connection:
    """One kept-alive connection with at most one request on it."""

    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection((load.host, load.port), CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.image = 0
        self.busy = False
        self.sent_at = 0.0
        self.unsent = memoryview(b"")
        self.received = b""


class Loop:
    """The state of one run. `run` is the whole interface."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = [post_of(load.host, load.path, Path(image).read_bytes()) for image in load.images]
        self.right = [beginning(label) for label in load.labels]
        self.poll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.sent = self.answered = self.counted = self.waiting = 0
        self.count_from = self.count_to = 0.0
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        """Drive the server until time, count or errors end it."""
        for _ in range(self.load.connections):
            self._connect()
        begin = time.perf_counter()
        self.count_from = begin + self.load.lead_in_s
        self.count_to = self.count_from + self.load.seconds
        for connection in self.open.values():
            self._send(connection)
        while self.waiting and (left := self.count_to + self.load.drain_s - time.perf_counter()) > 0:
            for number, event in self.poll.poll(min(left, 0.5)):
                connection = self.open[number]
                if event & ~select.EPOLLOUT:
                    self._receive(connection)
                elif event & select.EPOLLOUT:
                    self._flush(connection)
        if self.waiting:
            self.errors["unanswered"] += self.waiting

    def _connect(self) -> None:
        connection = Connection(self.load)
        self.open[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLIN)

    def _send(self, connection: Connection) -> None:
        now = time.perf_counter()
        if now >= self.count_to or self.sent >= self.load.max_requests or self.errors.total() >= MAX_ERRORS:
            return
        connection.image, connection.sent_at, connection.busy = self.sent % len(self.requests), now, True
        connection.unsent = memoryview(self.requests[connection.image])
        self.sent += 1
        self.waiting += 1
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        size = len(connection.unsent)
        try:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return self._lost(connection)
        if connection.unsent:
            self.poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
        elif size != len(self.requests[connection.image]):
            self.poll.modify(connection.socket, select.EPOLLIN)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(connection.received) > MAX_ANSWER:
            return self._lost(connection)
        data = connection.received + data if connection.received else data
        whole = whole_answer(data)
        if whole is None:
            connection.received = data
            return
        connection.received = b""
        head, body = whole
        self._answer(connection, head[9:12], body)
        self._send(connection)

    def _answer(self, connection: Connection, status: bytes, body: bytes) -> None:
        now = time.perf_counter()
        self.answered += 1
        self.waiting -= 1
        connection.busy = False
        if status != b"200":
            self.errors[status.decode("latin-1")] += 1
            return
        image = connection.image
        if self.right and not body.startswith(self.right[image]) and not names(self.load.labels[image], body):
            self.errors["wrong"] += 1
            return
        if connection.sent_at >= self.count_from:
            self.latencies.append(now - connection.sent_at)
        if self.count_from <= now < self.count_to:
            self.counted += 1

    def _lost(self, connection: Connection) -> None:
        del self.open[connection.socket.fileno()]
        connection.socket.close()
        if connection.busy:
            self.waiting -= 1
        self.errors["closed"] += 1
        if time.perf_counter() < self.count_to and self.errors.total() < MAX_ERRORS:
            try:
                self._connect()
            except OSError:
                self.errors["refused"] += 1
            else:
                self._send(next(reversed(self.open.values())))


def drive(load: Load) -> dict[str, Any]:
    """Throughput of right answers in images a second, latencies in ms of the requests sent while it counts, errors by kind,
    answers in all, and what the load generator itself used: CPU seconds and cores.

    Raises: ValueError for an address that is not this machine's own; OSError when nothing listens there.
    """
    check_loopback(load.host)
    loop = Loop(load)
    gc.disable()
    started, used = time.perf_counter(), time.process_time()
    loop.run()
    used, wall = time.process_time() - used, time.perf_counter() - started
    ordered = sorted(loop.latencies)
    return {
        "throughput_rps": loop.counted / load.seconds,
        **{f"p{share}_ms": 1e3 * percentile(ordered, share) for share in (50, 95, 99)},
        "counted": loop.counted,
        "answered": loop.answered,
        "errors": dict(loop.errors),
        "load_cpu_s": used,
        "load_cores": used / wall,
    }


def check_loopback(host: str) -> None:
    """Nothing for a loopback address.

    Raises: ValueError for any other: a load test of a machine that is not ours would be an attack.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise ValueError(f"load goes to this machine only: wanted a loopback address such as 127.0.0.1, got {host}")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that `share` percent of them do not exceed (nearest rank); nan of none."""
    return ordered[max(0, ceil(len(ordered) * share / 100) - 1)] if ordered else float("nan")


if __name__ == "__main__":
    print(json.dumps(drive(Load(**json.load(sys.stdin)))))
