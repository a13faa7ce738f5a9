"""`slipway soak` and `slipway overload` for real. Figures of speed are not judged, only what must hold on any machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.torchserve
IMAGES = ("--images", "200x160")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from cli import main; main()", *arguments]


def passed(result: dict[str, Any]) -> dict[str, bool]:
    return {verdict["name"]: verdict["passed"] for verdict in result["verdicts"]}


def test_a_minute_of_mixed_traffic_is_answered_as_it_must_be_and_leaves_nothing_behind(archive: Path, tmp_path: Path) -> None:
    report, figure = tmp_path / "soak.json", tmp_path / "soak.svg"
    options = ["--minutes", "1", *IMAGES, "--report", str(report), "--figure", str(figure), "--json"]
    done = subprocess.run(command("soak", str(archive), *options), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads(report.read_text()) and figure.read_text().startswith("<?xml")
    held = passed(result)
    for figure in ("memory", "threads"):  # in the first minute the JVM, its pools and the allocators still grow
        held.pop(f"growth of {figure}")
    assert all(held.values()), result["verdicts"]
    assert result["requests"]["good"]["right"] > 500 and result["requests"]["hostile"]["right"] > 300
    memory = result["samples"]["memory_bytes"]
    assert len(memory) >= 55 and memory[-1] < 1.3 * memory[10]
    assert result["samples"]["threads"][-1] < 1.3 * result["samples"]["threads"][10]


def test_a_soak_that_is_interrupted_tells_what_it_has(archive: Path, tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    process = subprocess.Popen(
        command("soak", str(archive), "--minutes", "10", *IMAGES, "--report", str(report)), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not _is_under_load(process):
        assert process.poll() is None and time.monotonic() < deadline, "the traffic never began"
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    result = json.loads(report.read_text())
    assert result["interrupted"] and result["requests"]["good"]["right"] > 0 and 1 < result["seconds"] < 60


def test_an_overload_is_measured_and_judged(archive: Path, tmp_path: Path) -> None:
    report, figure = tmp_path / "overload.json", tmp_path / "overload.svg"
    options = ["--seconds", "3", "--times", "2", *IMAGES, "--report", str(report), "--figure", str(figure)]
    done = subprocess.run(command("overload", str(archive), *options), capture_output=True, text=True, timeout=200, check=False)
    result = json.loads(report.read_text())
    assert done.returncode == (0 if result["passed"] else 1), done.stderr
    assert result["rate_rps"] == pytest.approx(2 * max(cell["throughput_rps"] for cell in result["before"]), rel=0.5)
    assert set(result["open_loop"]["errors"]) <= {"no connection", "unanswered"}
    assert result["open_loop"]["right"]["count"] > 0 and len(result["open_loop"]["each_second"]) == 3
    assert result["shared"] == (len(os.sched_getaffinity(0)) == 1)
    assert len(passed(result)) == 6 and "goodput" in done.stdout and figure.exists()


def _is_under_load(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has as many connections of its own as a soak opens."""
    try:
        return len(psutil.Process(process.pid).net_connections("tcp")) >= 8
    except psutil.Error:
        return False
