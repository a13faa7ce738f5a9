"""The load test against a real server: it passes when all is well, and its exit status says so when not."""

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from first_party import ROOT

pytestmark = pytest.mark.torchserve
LOCUST = [sys.executable, "-m", "locust", "-f", "serving/locustfile.py", "--headless", "--only-summary"]


@pytest.fixture(scope="module")
def server(archive):
    """The address of a real `slipway serve` of the archive of colours."""
    command = [sys.executable, "-c", "from cli import main; main()", "serve", str(archive), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    ready = next((line for line in process.stdout if line.startswith("ready at")), None)
    try:
        assert ready is not None, "the server did not come up"
        yield ready.split()[2]
    finally:
        process.terminate()
        process.wait(60)


def load(server: str, folder: Path, *options: str) -> tuple[int, dict, str]:
    """Exit status, report and log of a short load test."""
    common = ["--seconds", "5", "--peak", "4", "--html", str(folder / "load.html"), "--report", str(folder / "load.json")]
    done = subprocess.run([*LOCUST, "--host", server, *common, *options], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, json.loads((folder / "load.json").read_text()), done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of photographs that the archive of colours takes."""
    from serving.bench.images import photographs

    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(photographs(120, 90, count=5)):
        (folder / f"{number}.jpg").write_bytes(image)
    return str(folder)


@pytest.mark.parametrize("shape", ["step", "soak", "spike", "crowd"])
def test_every_request_is_answered_once_and_right(server, images, tmp_path, shape):
    code, report, log = load(server, tmp_path, "--load-shape", shape, "--images", images, "--objective-p99", "5")
    assert code == 0, log
    assert report["broken"] == []
    assert set(report["outcomes"]) == {"right"}
    assert report["requests"] > 20
    assert "<html" in (tmp_path / "load.html").read_text()


def test_users_who_wake_as_the_load_ends_ask_for_nothing_that_they_do_not_await(server, images, tmp_path):
    code, report, log = load(server, tmp_path, "--load-shape", "soak", "--seconds", "3", "--pace", "0.504", "--images", images)
    assert code == 0, log
    assert set(report["outcomes"]) == {"right"}


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_load_test_that_is_interrupted_waits_for_what_it_asked_and_judges_it(server, images, tmp_path, told):
    report, options = tmp_path / "load.json", ["--load-shape", "soak", "--seconds", "600", "--peak", "4", "--images", images]
    with subprocess.Popen([*LOCUST, "--host", server, *options, "--report", str(report)], cwd=ROOT) as users:
        time.sleep(6)
        users.send_signal(told)
        assert users.wait(60) == 0
    assert set(json.loads(report.read_text())["outcomes"]) == {"right"}


def test_a_server_is_asked_by_the_name_that_is_given(tmp_path):
    asked = []

    class Named(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["host"])
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Named) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        load(f"http://127.0.0.1:{here.server_port}", tmp_path, "--host-header", "models.example.com", "--seconds", "1")
        here.shutdown()
    assert set(asked) == {"models.example.com"}


def test_an_objective_that_is_not_kept_is_the_exit_status(server, images, tmp_path):
    code, report, log = load(server, tmp_path, "--images", images, "--objective-p99", "0.0001")
    assert code == 1
    assert "not kept: 99 % of the answers took up to" in log
    assert len(report["broken"]) == 1


def test_a_server_that_is_not_there_fails(tmp_path):
    code, report, _ = load("http://127.0.0.1:9", tmp_path)
    assert code == 1
    assert "no request was answered right" in report["broken"]
