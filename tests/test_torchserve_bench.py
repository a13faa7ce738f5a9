"""`slipway bench` for real. Every wait has a deadline; figures are not judged, only what must hold on any machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cli.bench.archive import bench_archive
from serving import archive as archives
from serving.bench import stock_torchserve
from serving.bench.cells import LIMIT, load_cell
from serving.bench.images import photographs

pytestmark = pytest.mark.torchserve
SHORT = ("--images", "200x160", "--connections", "1,4", "--seconds", "0.5", "--rounds", "2")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from cli import main; main()", "bench", *arguments]


def test_a_benchmark_measures_ours_beside_the_limit(archive: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = [*SHORT, "--serve-options", "--workers 1", "--serve-options", "--workers 2", "--report", str(report), "--json"]
    done = subprocess.run(command(str(archive), *options), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads(report.read_text())
    ours = ["slipway serve --workers 1", "slipway serve --workers 2"]
    assert [(row["name"], row["connections"]) for row in result["rows"]] == [(name, count) for name in [LIMIT, *ours] for count in (1, 4)]
    for row in result["rows"]:
        assert row["errors"] == {} and row["throughput_rps"] > 0 and row["cpu_ms"] > 0
        assert 1 <= row["rounds"] <= 2 and len(row["of_limit"]) == 3  # a starved server is left out of a round that it would not finish
    for server in result["servers"]:
        assert 0 < server["start_s"] < 60
    assert all(row["memory_bytes"] > 50e6 for row in result["rows"] if row["name"] in ours)
    assert len(result["cells"]) == sum(row["rounds"] for row in result["rows"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_ended_leaves_nothing_running(number: int, archive: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(str(archive), "--images", "200x160", "--connections", "4", "--seconds", "60"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    deadline = time.monotonic() + 90
    family: list[psutil.Process] = []
    while not any("serving.bench.load" in part for member in family for part in _words(member)):
        assert process.poll() is None and time.monotonic() < deadline, "the load never began"
        time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.5)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(60) in {signal.SIGINT: (130,), signal.SIGTERM: (143,), signal.SIGKILL: (-9,)}[signal.Signals(number)]
    assert process.stderr is not None
    process.stderr.close()
    deadline = time.monotonic() + 40
    while any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def test_the_archive_made_for_benchmarks_predicts_as_it_records(tmp_path: Path) -> None:
    path = bench_archive("resnet18", 32, tmp_path)
    about = archives.verify(path)[0].about
    assert about["gate"]["passed"] is False and about["name"] == "bench32"
    assert all(max(golden["probabilities"]) > 0.5 for golden in about["golden"])
    first = archives.digest(path)
    assert archives.digest(bench_archive("resnet18", 32, tmp_path)) == first


def test_stock_torchserve_comes_up_and_is_measured(tmp_path: Path) -> None:
    image = tmp_path / "0.jpg"
    image.write_bytes(photographs(300, 250, count=1)[0])
    stock_torchserve.write_archive(tmp_path / "stock.mar", arch="resnet18", classes=3)
    with stock_torchserve.stock("TorchServe, tuned", tmp_path / "stock.mar", folder=tmp_path / "run", image=image.read_bytes()) as server:
        cell = load_cell(server, [image], [], connections=2, number=0, seconds=1.0)
    assert server.start_s is not None and server.start_s > 0
    assert cell.errors == {} and cell.throughput_rps > 0
    assert set(cell.cpu_parts_ms) >= {"java", "java > python"}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
