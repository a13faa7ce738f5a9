"""The open-loop load generator: requests come when chance has them come, whether or not the server keeps up, as users do.

Arrivals are a Poisson process. Times of right answers count from the moment at which a request was due, so that a generator that is
late does not flatter the server. Times of refusals are the server's: from the moment at which the request was begun to be written to
the one at which the kernel had the answer, because on a machine whose CPUs are busy the generator itself hears of it later. A process
of its own: `python -m serving.bench.arrivals` reads one JSON object from stdin (the fields of `Arrivals`) and prints one (see `drive`).
"""

import gc
import json
import random
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from serving.bench.load import check_loopback, percentile
from serving.bench.wire import beginning, names, post_of, whole_answer

CONNECT_S = 5.0
SEND_BUFFER_BYTES = 4 << 20  # a request leaves in one piece
SO_TIMESTAMPNS, TIMESPEC = 35, struct.Struct("@ll")  # Linux, socket(7): when the kernel received what is read
RIGHT, REFUSED = "right", "refused"


@dataclass(frozen=True)
class Arrivals:
    """What to send, where, at which mean rate, for how long.

    For `lead_in_s` nothing counts, so that queues are as they stay; then for `seconds` it does; then what is in flight is awaited for at
    most `drain_s`. `labels` holds the right answer of each image; one that took more than `objective_s` came too late to be of use.
    """

    host: str
    port: int
    path: str
    images: Sequence[str]
    labels: Sequence[str]
    rate_rps: float
    seconds: float
    lead_in_s: float
    drain_s: float
    objective_s: float
    max_connections: int
    seed: int = 1


class Outcome(NamedTuple):
    """What became of a request: seconds from the first moment that counts to when it was due and to its answer; how long it took."""

    kind: str
    due_s: float
    answered_s: float
    took_s: float


class Connection:
    """One kept-alive connection with at most one request on it; it need not be made yet when that is handed to it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.connect_ex((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.image = 0
        self.due = self.begun = 0.0
        self.is_answered = self.waits_to_send = False
        self.unsent = memoryview(b"")
        self.received = b""


class Loop:
    """The state of one run. `run` is the whole interface."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.requests = [post_of(arrivals.host, arrivals.path, Path(image).read_bytes()) for image in arrivals.images]
        self.right = [beginning(label) for label in arrivals.labels]
        self.poll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.sent = 0
        self.count_from = 0.0
        self.late: list[float] = []
        self.outcomes: list[Outcome] = []
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        """Send until time ends it, and await what is in flight."""
        chance, arrivals = random.Random(self.arrivals.seed), self.arrivals
        due = time.perf_counter() + chance.expovariate(arrivals.rate_rps)
        self.count_from = due + arrivals.lead_in_s
        end = self.count_from + arrivals.seconds
        while True:
            now = time.perf_counter()
            while due <= now and due < end:
                self._arrive(due)
                due += chance.expovariate(arrivals.rate_rps)
            if due >= end and (not self._busy() or now > end + arrivals.drain_s):
                break
            wait = due - time.perf_counter() if due < end else 0.1
            for number, event in self.poll.poll(max(0.0, wait)):
                if event & select.EPOLLOUT:
                    self._flush(self.open[number])
                if event & ~select.EPOLLOUT and number in self.open:
                    self._receive(self.open[number])
        self.errors["unanswered"] += self._busy()

    def _busy(self) -> int:
        return len(self.open) - len(self.idle)

    def _arrive(self, due: float) -> None:
        number, self.sent = self.sent, self.sent + 1
        try:
            connection = self.idle.pop() if self.idle else self._connect()
        except OSError:
            self.errors["no connection"] += 1
            return
        connection.image, connection.due, connection.is_answered = number % len(self.requests), due, False
        connection.unsent = memoryview(self.requests[connection.image])
        self.late.append(time.perf_counter() - due)
        connection.begun = time.time()
        self._flush(connection)

    def _connect(self) -> Connection:
        if len(self.open) >= self.arrivals.max_connections:
            raise OSError("as many connections as may be are waiting for answers")
        connection = Connection(self.arrivals.host, self.arrivals.port)
        self.open[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _flush(self, connection: Connection) -> None:
        try:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return self._lost(connection)
        if bool(connection.unsent) != connection.waits_to_send:
            connection.waits_to_send = bool(connection.unsent)
            self.poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT * connection.waits_to_send)
        if connection.unsent:
            return
        if connection.is_answered:  # before it was whole: now the connection is free
            self.idle.append(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data, notes, _, _ = connection.socket.recvmsg(65536, socket.CMSG_SPACE(TIMESPEC.size))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self._lost(connection)
        received = next((_seconds(note) for _, kind, note in notes if kind == SO_TIMESTAMPNS), time.time())
        connection.received += data
        whole = whole_answer(connection.received)
        if whole is None:
            return
        connection.received = b""
        connection.is_answered = True
        self._answer(connection, *whole, received)
        if not connection.unsent:
            self.idle.append(connection)

    def _answer(self, connection: Connection, head: bytes, body: bytes, received: float) -> None:
        status, image, now = head[9:12], connection.image, time.perf_counter()
        if status == b"200" and (body.startswith(self.right[image]) or names(self.arrivals.labels[image], body)):
            self._count(RIGHT, connection, now, now - connection.due)
        elif status == b"503" and b"\r\nretry-after:" in head.lower():
            self._count(REFUSED, connection, now, received - connection.begun)
        else:
            self.errors["wrong" if status == b"200" else f"{status.decode('latin-1')}"] += 1

    def _count(self, kind: str, connection: Connection, now: float, took_s: float) -> None:
        self.outcomes.append(Outcome(kind, connection.due - self.count_from, now - self.count_from, took_s))

    def _lost(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        else:
            self.errors["closed"] += 1
        del self.open[connection.socket.fileno()]
        connection.socket.close()


def _seconds(note: bytes) -> float:
    whole, nanoseconds = TIMESPEC.unpack(note)
    return float(whole + 1e-9 * nanoseconds)


def drive(arrivals: Arrivals) -> dict[str, Any]:
    """Goodput: right answers a second that came in time; right answers and refusals with their latencies in ms; errors by kind; how late
    the generator was and what it used; and each second.

    Raises: ValueError for an address that is not this machine's own; OSError when nothing listens there.
    """
    check_loopback(arrivals.host)
    socket.create_connection((arrivals.host, arrivals.port), CONNECT_S).close()
    loop = Loop(arrivals)
    gc.disable()
    started, used = time.perf_counter(), time.process_time()
    loop.run()
    used, wall = time.process_time() - used, time.perf_counter() - started
    counted = [one for one in loop.outcomes if 0 <= one.answered_s < arrivals.seconds]
    right, refused = (sorted(one.took_s for one in counted if one.kind == kind) for kind in (RIGHT, REFUSED))
    in_time = sum(took <= arrivals.objective_s for took in right)
    return {
        "sent": loop.sent,
        "answered": len(loop.outcomes),
        "right_in_all": sum(one.kind == RIGHT for one in loop.outcomes),
        "goodput_rps": in_time / arrivals.seconds,
        RIGHT: _latencies(right, (50, 95, 99)),
        REFUSED: _latencies(refused, (50, 99)),
        "errors": {kind: count for kind, count in loop.errors.items() if count},
        "late_p99_ms": 1e3 * percentile(sorted(loop.late), 99),
        "load_cores": used / wall,
        "each_second": _each_second(counted, int(arrivals.seconds)),
    }


def _latencies(ordered: Sequence[float], shares: Sequence[int]) -> dict[str, float | None]:
    return {"count": len(ordered), **{f"p{share}_ms": 1e3 * percentile(ordered, share) if ordered else None for share in shares}}


def _each_second(outcomes: Sequence[Outcome], seconds: int) -> list[dict[str, Any]]:
    """What was answered in each second of the run, and how long that had taken."""
    took: dict[tuple[int, str], list[float]] = {(number, kind): [] for number in range(seconds + 1) for kind in (RIGHT, REFUSED)}
    for one in outcomes:
        took[int(one.answered_s), one.kind].append(one.took_s)
    return [{kind: _latencies(sorted(took[number, kind]), (99,)) for kind in (RIGHT, REFUSED)} for number in range(seconds)]


if __name__ == "__main__":
    print(json.dumps(drive(Arrivals(**json.load(sys.stdin)))))
