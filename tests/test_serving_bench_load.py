"""The load generator against a server of known behaviour."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.bench.load import Load, drive, percentile

IMAGES = {b"first " * 20_000: "one", b"second " * 10: 'a "quoted" label'}


class Server(ThreadingHTTPServer):
    """Answers with the label of the body that it got; how, a test may change."""

    daemon_threads = True
    request_queue_size = 512
    label_of = staticmethod(lambda body: IMAGES[body])
    status = 200
    pieces = 1
    closes_after = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "image/jpeg" and self.path == "/predictions/m"
        answer = json.dumps({self.server.label_of(body): 0.75, "another": 0.25}).encode()
        whole = f"HTTP/1.1 {self.server.status} X\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer
        step = -(-len(whole) // self.server.pieces)
        for start in range(0, len(whole), step):
            self.wfile.write(whole[start : start + step])
            self.wfile.flush()
        self.close_connection = bool(self.server.closes_after)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def server(**behaviour: Any) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as one:
        for name, value in behaviour.items():
            setattr(one, name, value)
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / str(number) for number in range(len(IMAGES))]
    for path, content in zip(paths, IMAGES, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def drive_it(one: Server, images: list[str], **changes: Any) -> dict[str, Any]:
    load: dict[str, Any] = {
        "host": "127.0.0.1", "port": one.server_port, "path": "/predictions/m", "images": images, "labels": list(IMAGES.values()),
        "connections": 3, "seconds": 0.4, "lead_in_s": 0.1, "drain_s": 2.0, "max_requests": 10_000,
    }  # fmt: skip
    return drive(Load(**{**load, **changes}))


def test_right_answers_are_counted(images):
    with server() as one:
        result = drive_it(one, images)
    assert result["errors"] == {}
    assert result["answered"] > result["counted"] > 10
    assert result["throughput_rps"] == pytest.approx(result["counted"] / 0.4)
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"] < 400
    assert result["load_cpu_s"] > 0 and result["load_cores"] > 0


def test_an_answer_in_pieces_is_put_together(images):
    with server(pieces=7) as one:
        result = drive_it(one, images, max_requests=60, seconds=10)
    assert result["errors"] == {} and result["answered"] == 60


def test_a_wrong_label_is_an_error_and_no_throughput(images):
    with server(label_of=lambda body: "one") as one:
        result = drive_it(one, images, max_requests=40, seconds=10)
    assert result["errors"] == {"wrong": 20} and result["answered"] == 40


def test_without_labels_every_200_is_right(images):
    with server(label_of=lambda body: "anything") as one:
        assert drive_it(one, images, labels=[], max_requests=40, seconds=10)["errors"] == {}


def test_another_status_is_an_error_of_its_own(images):
    with server(status=503) as one:
        result = drive_it(one, images, max_requests=40, seconds=10)
    assert result["errors"] == {"503": 40} and result["throughput_rps"] == 0 and result["p50_ms"] != result["p50_ms"]


def test_the_load_ends_early_when_everything_fails(images):
    with server(status=500) as one:
        result = drive_it(one, images, seconds=30)
    assert 500 <= result["errors"]["500"] < 510


def test_a_closed_connection_is_an_error_and_the_load_goes_on(images):
    with server(closes_after=1) as one:
        result = drive_it(one, images, max_requests=30, seconds=10)
    assert result["errors"]["closed"] >= 1
    assert result["answered"] + result["errors"]["closed"] >= 30


def test_an_answer_that_never_comes_is_an_error_after_the_wait(images):
    with server(label_of=lambda body: threading.Event().wait(1.5) or "late") as one:
        result = drive_it(one, images, seconds=0.2, drain_s=0.2, connections=2)
    assert result["errors"] == {"unanswered": 2} and result["answered"] == 0


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "192.168.1.2", "0.0.0.0", "8.8.8.8", ""])
def test_load_goes_to_this_machine_only(host, images):
    with server() as one, pytest.raises(ValueError, match="this machine only"):
        drive_it(one, images, host=host)


def test_percentiles_are_those_of_the_nearest_rank():
    # Source: the example of "Percentile", Wikipedia, section "The nearest-rank method"
    ordered = [15, 20, 35, 40, 50]
    assert [percentile(ordered, share) for share in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
