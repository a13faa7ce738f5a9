"""`slipway try` with a real server: what it says, and that no server outlives it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import LABELS, picture, write_colours

from model.shards import Record, write_index, write_shards

pytestmark = pytest.mark.torchserve
ROOT = Path(__file__).parents[1]
TRY = [sys.executable, "-c", "from cli import main; main()", "try", "--name", "colours"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder in which the run `colours` is whole: three test images, what the evaluation said of them, and the archive."""
    contents = {
        hashlib.sha256(content).hexdigest()[:16]: content for content in (picture(*rgb) for rgb in ((0, 0, 255), (0, 255, 0), (255, 0, 0)))
    }
    data, evaluated = tmp_path / "build" / "colours" / "data", tmp_path / "build" / "colours" / "evaluate"
    for folder in (data, evaluated):
        folder.mkdir(parents=True)
    rows = [Record(key, label, "test", 0, "", 0, 0, 48, 48, "RGB", f"{label}/x.jpg") for key, label in zip(contents, LABELS, strict=True)]
    write_index(write_shards(rows, data, read=lambda record: contents[record.key], shard_bytes=1 << 20), data)
    lines = [f"{key},test,{label},{label}" for key, label in zip(contents, LABELS, strict=True)]
    (evaluated / "predictions-fp32.csv").write_text("\n".join(["key,split,label,predicted", *lines]) + "\n")
    figures = {"top1": 1.0, "images": 3, "top1_interval": [0.4385, 1.0]}
    (evaluated / "evaluation.json").write_text(json.dumps({"variants": {"fp32": figures}}))
    write_colours(tmp_path / "build" / "colours.mar")
    return tmp_path


def started(run: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.Popen([*TRY, *options], cwd=run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_it_serves_asks_compares_and_says_what_to_do_next(run: Path):
    process = started(run)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "accuracy  100.0% of 3 test images (43.9% to 100.0%), fp32" in said  # the interval is Wilson's for 3 of 3
    assert "served    3 of 3 answers as evaluated" in said
    assert "slipway serve build/colours.mar" in said
    sample = next((run / "build" / "colours" / "samples" / "blue").iterdir()).relative_to(run)
    assert f"curl --data-binary @{sample} " in said


def test_an_answer_that_the_evaluation_did_not_give_fails(run: Path):
    predictions = run / "build" / "colours" / "evaluate" / "predictions-fp32.csv"
    predictions.write_text(predictions.read_text().replace("test,red,red", "test,red,blue"))
    process = started(run, "--json")
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(said)["as_evaluated"] == 2
    assert "1 of 3 answers are not what build/colours/evaluate says" in errors


def test_an_archive_that_cannot_be_served_is_said_once_and_leaves_nothing(run: Path):
    (run / "build" / "colours.mar").write_bytes(b"no archive")
    process = started(run)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is no whole .mar" in errors
    assert "was not served" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_an_interrupted_trial(run: Path, number: signal.Signals):
    process = started(run)
    family: list[psutil.Process] = []

    def has_java() -> bool:
        family[:] = psutil.Process(process.pid).children(recursive=True)
        return any("java" in child.name() for child in family)

    until(has_java)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    until(lambda: not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE], 10.0)
