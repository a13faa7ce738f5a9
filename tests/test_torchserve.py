"""`slipway serve` for real: JVM, workers, front door. Every wait has a deadline."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from conftest import picture, write_colours

from serving import archive as archives
from serving.client import Client
from serving.front_door.readiness import HEARTBEAT_S, HEARTBEAT_TIMEOUT_S

pytestmark = pytest.mark.torchserve
START_S = 30.0  # of a busy machine; the test of the start itself is stricter


class Serve:
    """One `slipway serve` and what it says."""

    def __init__(self, archive: Path, *options: str) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from cli import main; main()", "serve", str(archive), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line)

    @property
    def url(self) -> str:
        line = next(line for line in self.said if line.startswith("ready at"))
        return line.split()[2]

    def wait_until_ready(self) -> float:
        until(lambda: self.process.poll() is not None or any(line.startswith("stop") for line in self.said), START_S)
        assert self.process.poll() is None, "".join(self.said)
        return time.monotonic() - self.started

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return [process for process in self.family() if any("model_service_worker.py" in part for part in process.cmdline())]

    def end(self, number: int, timeout_s: float = 40.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def crowd() -> float:
    """How much slower this machine is just now because of other people's work."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(condition: Callable[[], Any], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@contextmanager
def serving(archive: Path, *options: str) -> Iterator[Serve]:
    serve = Serve(archive, *options)
    try:
        yield serve
    finally:
        family = [] if serve.process.poll() is not None else serve.family()
        serve.process.terminate()
        try:
            serve.process.wait(40)
        except subprocess.TimeoutExpired:
            serve.process.kill()
            serve.process.wait(10)
        for process in family:
            if process.is_running():
                process.kill()


@pytest.fixture(scope="module")
def served(archive: Path) -> Iterator[Serve]:
    with serving(archive, "--workers", "2") as serve:
        serve.wait_until_ready()
        yield serve


def post(serve: Serve, image: bytes, **request: Any) -> httpx.Response:
    return httpx.post(f"{serve.url}/predictions/colours", content=image, timeout=30, **request)


def test_a_served_prediction_equals_the_handler_in_process(served: Serve, archive: Path, tmp_path: Path) -> None:
    archives.unpack(archives.read(archive), tmp_path)
    handler = archives.load_handler(tmp_path, threads=1)
    for image in (picture(200, 10, 30), picture(0, 90, 80, kind="PNG"), picture(1, 2, 250, size_px=64)):
        (status, body), *_ = handler.classify([image])[0]
        answer = post(served, image)
        assert answer.status_code == status == 200
        assert answer.json() == pytest.approx(json.loads(body), abs=1e-5)


def test_every_usual_way_to_send_an_image_works(served: Serve) -> None:
    image = picture(255, 0, 0)
    url = f"{served.url}/predictions/colours"
    ways = [
        httpx.post(url, content=image, headers={"content-type": "image/jpeg"}),
        httpx.post(url, content=image, headers={"content-type": "application/x-www-form-urlencoded"}),
        httpx.put(url, content=image),
        httpx.post(url, files={"data": ("x.jpg", image)}),
        httpx.post(f"{url}/1.0", content=image),
    ]
    assert [max(way.json(), key=way.json().get) for way in ways] == ["red"] * len(ways)


def test_one_bad_image_does_not_fail_its_neighbours(served: Serve, tmp_path: Path) -> None:
    paths = []
    for number in range(40):
        paths.append(tmp_path / f"{number:02}.jpg")
        paths[-1].write_bytes(b"this is text" if number % 10 == 3 else picture(0, 0, 255))
    with Client(served.url, concurrency=20) as client:
        predictions = list(client.classify(paths))
    for number, prediction in enumerate(predictions):
        assert (prediction.error is not None) == (number % 10 == 3), prediction
        assert prediction.label == (None if number % 10 == 3 else "blue")


def test_too_large_an_image_is_413_before_it_is_sent_on(served: Serve) -> None:
    assert post(served, b"x" * 200_001).status_code == 413


def test_what_is_no_http_gets_the_one_error_body(served: Serve) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"this is no HTTP\r\n\r\n")
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["type"] == "BadRequest"


def test_clients_that_leave_without_waiting_do_no_harm(served: Serve) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    image = picture(0, 255, 0)
    head = b"POST /predictions/colours HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % len(image)
    for _ in range(200):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + image)
    assert post(served, image).status_code == 200


def test_a_killed_worker_costs_its_batch_only_and_is_ready_again(archive: Path) -> None:
    with serving(archive, "--workers", "2") as serve:
        serve.wait_until_ready()
        statuses: list[tuple[int, str]] = []
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(timeout=30) as client:
                while not stop.is_set():
                    answer = client.post(f"{serve.url}/predictions/colours", content=picture(255, 0, 0))
                    statuses.append((answer.status_code, answer.json().get("type", "")))

        threads = [threading.Thread(target=load, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 50, 20)
        victim, other = serve.workers()
        victim.kill()
        died = time.monotonic()
        with httpx.Client(base_url=serve.url, timeout=30) as client:
            until(lambda: client.get("/readyz").status_code == 503, 3 * crowd())
            until(lambda: client.get("/readyz").status_code == 200, 30)
        assert other.is_running() and len(serve.workers()) == 2
        before = len(statuses)
        until(lambda: len(statuses) > before + 50, 20)
        stop.set()
        for thread in threads:
            thread.join(30)
        lost = [status for status in statuses if status[0] != 200]
        assert all(status == (503, "WorkerLost") for status in lost), lost
        assert len(lost) <= 8, f"{len(lost)} of {len(statuses)} lost, {time.monotonic() - died:.1f} s"


def test_sigterm_finishes_what_is_in_flight_and_exits_0(archive: Path) -> None:
    with serving(archive) as serve:
        serve.wait_until_ready()
        family = serve.family()
        statuses: list[int] = []

        def load() -> None:
            with httpx.Client(timeout=30) as client:
                try:
                    while True:
                        statuses.append(client.post(f"{serve.url}/predictions/colours", content=picture(255, 0, 0)).status_code)
                except httpx.TransportError:
                    return  # the listener is closed, which is right; a request that was accepted must have been answered

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 30, 20)
        assert serve.end(signal.SIGTERM) == 0
        for thread in threads:
            thread.join(10)
        assert set(statuses) == {200}
        until(lambda: not any(process.is_running() for process in family), 5)


def test_a_sigterm_with_a_drain_delay_fails_no_request_of_clients_that_turn_away_in_time(archive: Path) -> None:
    with serving(archive, "--drain-delay", "3", "--internal-port", "0") as serve:
        serve.wait_until_ready()
        assert httpx.get(f"{serve.url}/metrics").status_code == 404
        outcomes: list[int | str] = []
        turn_away = threading.Event()

        def load() -> None:
            with httpx.Client(timeout=30) as client:
                while not turn_away.is_set():
                    try:
                        outcomes.append(client.post(f"{serve.url}/predictions/colours", content=picture(255, 0, 0)).status_code)
                    except httpx.TransportError as error:
                        outcomes.append(repr(error))

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(outcomes) > 30, 20)
        serve.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{serve.url}/readyz").status_code == 503, 1)
        at_signal = len(outcomes)
        time.sleep(1.5)
        turn_away.set()
        for thread in threads:
            thread.join(10)
        assert len(outcomes) > at_signal + 30
        assert set(outcomes) == {200}
        assert serve.process.wait(30) == 0


def test_a_killed_parent_leaves_no_orphan(archive: Path) -> None:
    with serving(archive) as serve:
        serve.wait_until_ready()
        family = serve.family()
        assert len(family) >= 2
        serve.process.kill()
        until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family), 5)


def test_a_jvm_that_ends_unasked_is_not_ready_within_three_seconds_and_ends_the_tree_with_the_reason(archive: Path) -> None:
    with serving(archive) as serve:
        serve.wait_until_ready()
        next(process for process in serve.family() if "java" in process.name()).kill()

        def unready() -> bool:
            try:
                return httpx.get(f"{serve.url}/readyz", timeout=5).status_code == 503
            except httpx.TransportError:  # nothing listens any more
                return True

        until(unready, 3 * crowd())
        assert serve.process.wait(20) == 1
        serve.reader.join(5)
        assert "TorchServe ended with exit code -9" in "".join(serve.said)


def test_an_archive_that_predicts_otherwise_than_recorded_is_refused_with_exit_2(tmp_path: Path) -> None:
    wrong = write_colours(tmp_path / "wrong.mar", golden=[{"file": "golden/0.jpg", "probabilities": [0.5, 0.4, 0.1]}])
    with serving(wrong) as serve:
        assert serve.process.wait(START_S) == 2
        serve.reader.join(5)
        assert "golden image golden/0.jpg predicts" in "".join(serve.said)


def test_a_cut_archive_is_refused_with_exit_2(archive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mar"
    cut.write_bytes(archive.read_bytes()[:-500])
    with serving(cut) as serve:
        assert serve.process.wait(START_S) == 2
        serve.reader.join(5)
        assert "is no whole .mar" in "".join(serve.said)


def test_a_network_that_cannot_be_loaded_is_refused_with_exit_2(archive: Path, tmp_path: Path) -> None:
    about = archives.read(archive).about
    broken = tmp_path / "broken.mar"
    archives.write(broken, about=about, members={"model.onnx": b"no network", "golden/0.jpg": picture(255, 0, 0)})
    with serving(broken) as serve:
        assert serve.process.wait(START_S) == 2
        serve.reader.join(5)
        assert "the model was not loaded" in "".join(serve.said)


def test_a_taken_port_is_said_in_words_with_exit_2(served: Serve, archive: Path) -> None:
    with serving(archive, "--port", served.url.rpartition(":")[2]) as serve:
        assert serve.process.wait(START_S) == 2
        serve.reader.join(5)
        assert "choose another --port" in "".join(serve.said)


def test_the_start_takes_less_than_five_seconds(archive: Path) -> None:
    took = []
    for _ in range(3):
        with serving(archive) as serve:
            took.append(serve.wait_until_ready())
            assert post(serve, picture(255, 0, 0)).status_code == 200
        if took[-1] < 5 * crowd():
            return
    raise AssertionError(f"took {took} s")


def test_workers_that_hang_are_noticed_without_traffic_and_are_ready_again_when_they_answer(archive: Path) -> None:
    with serving(archive, "--workers", "1") as serve:
        serve.wait_until_ready()
        (worker,) = serve.workers()
        worker.suspend()
        with httpx.Client(base_url=serve.url, timeout=30) as client:
            until(lambda: client.get("/readyz").status_code == 503, HEARTBEAT_S + HEARTBEAT_TIMEOUT_S + 5 * crowd())
            assert "a golden image got no answer" in client.get("/readyz").json()["message"]
            assert client.get("/healthz").status_code == 200, "there is still hope"
            worker.resume()
            until(lambda: client.get("/readyz").status_code == 200, 40)


@pytest.mark.parametrize(
    "headers",
    [
        {"describe": "True"},
        {"explain": "True"},
        {"content-encoding": "gzip"},
        {"content-type": "image/jpeg; charset=utf-16"},
        {"accept": "text/html"},
        {"x-ts-model": "other"},
        {"cookie": "a=" + "b" * 4000},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_headers_that_torchserve_misreads_change_nothing(served: Serve, headers: dict[str, str]) -> None:
    image = picture(255, 0, 0)
    assert post(served, image, headers=headers).json() == post(served, image).json()


def test_torchserves_own_metrics_and_management_are_told_where_they_may_be(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "admins").write_text(f"me {hashlib.sha256(b'opens').hexdigest()}\n")
    internal, admin = free_port(), free_port()
    options = (
        "--workers",
        "2",
        "--internal-port",
        str(internal),
        "--admin-port",
        str(admin),
        "--admin-keys",
        str(tmp_path / "admins"),
        "--log",
        "json",
    )
    with serving(archive, *options) as serve:
        serve.wait_until_ready()
        post(serve, picture(255, 0, 0))
        assert "ts_inference_requests_total" in httpx.get(f"http://127.0.0.1:{internal}/metrics/torchserve").text
        assert httpx.get(f"{serve.url}/metrics/torchserve").status_code == 404
        management = f"http://127.0.0.1:{admin}/models/colours"
        assert httpx.get(management).status_code == 401
        (model,) = httpx.get(management, headers={"x-api-key": "opens"}).json()
        assert {worker["status"] for worker in model["workers"]} == {"READY"}
        assert httpx.get(f"http://127.0.0.1:{admin}/predictions/colours", headers={"x-api-key": "opens"}).status_code == 404
        assert httpx.get(f"{serve.url}/models/colours", headers={"x-api-key": "opens"}).status_code == 404
        serve.workers()[0].kill()
        until(lambda: any("not ready: 1 of 2 workers are ready" in line for line in serve.said), 10)
        until(lambda: any('"message": "ready"' in line for line in serve.said), 30)
        assert serve.end(signal.SIGTERM) == 0
        serve.reader.join(5)
        told = [json.loads(line) for line in serve.said if line.startswith("{")]
        assert [line["message"] for line in told].count("ready") == 1, "again"
        assert {"time", "level", "logger", "message"} <= set(told[0]) and told[-1]["message"] == "stopped"
        greeting = ("model", "archive", "plan", "ready", "try", "stop", " ")
        assert all(line.startswith(("{", *greeting)) for line in serve.said), serve.said
