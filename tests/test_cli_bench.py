"""`slipway bench` without a server: its options, its images, its table."""

from pathlib import Path

import pytest
from conftest import picture
from typer.testing import CliRunner

from cli import app
from cli.bench.images import load_images
from cli.bench.table import doubts, show
from serving import archive as archives

CELL = {"name": "slipway serve", "connections": 16, "others_cores": 0.0, "load_cores": 0.1}
ROW = {
    "name": "slipway serve", "connections": 16, "rounds": 2, "throughput_rps": 93.0, "of_limit": (0.93, 0.91, 0.95), "p50_ms": 85.0,
    "p95_ms": 99.0,
    "p99_ms": 101.0, "errors": {}, "cpu_ms": 10.5,
    "cpu_parts_ms": {"python > java": 0.75}, "load_cores": 0.1, "memory_bytes": 480_000_000,
}  # fmt: skip
RESULT = {
    "archive": {"name": "demo", "arch": "resnet18", "variant": "int8", "size_px": 224},
    "images": {"about": "48 synthetic photographs"},
    "machine": {"cpu": "A CPU (avx2)", "cpus": 2.0, "capabilities": ["FP32", "INT8"], "packages": {"openvino": "2026.4.1"}},
    "settings": {"connections": [16]},
    "limit": {"batch": 8},
    "servers": [{"name": "slipway serve", "start_s": 1.8}],
    "rows": [ROW],
    "cells": [CELL],
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mar"], "no archive at missing.mar"),
        (["--connections", "1,x"], "--connections wants"),
        (["--connections", "4,4"], "--connections wants"),
        (["--connections", "0"], "--connections wants"),
        (["--against", "triton"], "--against knows torchserve, direct"),
        (["--against", "direct", "--url", "http://127.0.0.1:8080"], "compares with one slipway serve"),
        (["--size", "7"], "--size wants 32 to 1024 pixels, got 7"),
    ],
)
def test_wrong_options_are_said_in_words(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, ValueError | OSError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_stock_torchserve_is_compared_at_its_own_size_only(archive, tmp_path):
    result = CliRunner().invoke(app, ["bench", str(archive), "--images", "80x60", "--against", "torchserve"])
    assert "works at 224 pixels" in str(result.exception)


def test_a_folder_of_images_is_taken_with_its_subfolders_in_order(archive, tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("b/2.png", "1.jpg", "3.txt"):
        (tmp_path / "in" / name).write_bytes(picture(1, 2, 3))
    paths, about = load_images(str(tmp_path / "in"), archives.read(archive), tmp_path / "out", build=tmp_path)
    assert [path.name for path in paths] == ["1.jpg", "2.png"]
    assert about["count"] == 2 and about["bytes"] == 2 * len(picture(1, 2, 3))


@pytest.mark.parametrize(("size", "count"), [("500x400", 48), ("1600x1500", 10), ("4000x3000", 4)])
def test_large_photographs_are_few(size, count, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.bench.images.photographs", lambda width, height, *, count: [b"a photograph"] * count)
    paths, about = load_images(size, archives.read(archive), tmp_path / "out", build=tmp_path)
    assert len(paths) == about["count"] == count and size in about["about"]


@pytest.mark.parametrize("choice", ["nowhere", "500", "run"])
def test_images_that_are_not_there_are_said_in_words(choice, archive, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--images wants|index\.csv"):
        load_images(choice, archives.read(archive), tmp_path / "out", build=tmp_path)


def test_the_table_holds_the_figures(capsys):
    show(RESULT)
    said = capsys.readouterr().out
    for text in (
        "demo",
        "A CPU (avx2)",
        "INT8",
        "slipway serve",
        "93.0",
        "0.93 (0.91 to 0.95)",
        "85.0",
        "10.50",
        "480",
        "1.8",
        "python > java 0.75",
    ):
        assert text in said, text


def test_a_quiet_run_leaves_no_doubts_and_a_disturbed_one_says_so():
    assert doubts(RESULT) == []
    assert "up to 0.9 cores in 1 of 2" in doubts(RESULT | {"cells": [CELL, CELL | {"others_cores": 0.9}]})[0]
    assert "load generator" in doubts(RESULT | {"cells": [CELL | {"load_cores": 0.8}]})[0]
    assert "errors" in doubts(RESULT | {"rows": [ROW | {"errors": {"503": 1}}]})[0]
    assert "slipway serve at 64" in doubts(RESULT | {"settings": {"connections": [16, 64]}})[0]


def test_help_names_every_option():
    said = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).output
    assert all(option in said for option in ("--connections", "--against", "--serve-options", "--url", "--report", "--json"))


def test_nothing_of_a_benchmark_is_loaded_with_the_command_line():
    import subprocess
    import sys

    script = "import sys, cli; print([name for name in sys.modules if name.startswith(('serving.bench', 'torch', 'openvino'))])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout
    assert said.strip() == "[]"
