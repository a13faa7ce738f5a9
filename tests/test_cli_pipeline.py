"""The command line from data to archive on a run of seconds, and what it says when something is missing or wrong."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
import yaml

from cli import main
from cli.params import section
from model import network, tracking
from serving import archive as archives

Said = tuple[int, str, str]
ROOT = Path(__file__).parents[1]
EASY = ["gate.min_top1=0.9", "gate.min_macro_f1=0.9", "gate.max_ece=0.5", "gate.max_int8_latency_ratio=100", "gate.min_int8_agreement=0.9"]
EASY += ["gate.max_int8_drop=0.1", "gate.max_int8_class_drop=0.2", "gate.min_portable_agreement=0.9"]


def overridden(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with parameters for a run of seconds."""
    torch.set_num_threads(1)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] = tiny_run.PARAMS
    params["evaluate"]["latency_repeats"] = 3
    params["runs"] = {"toy": {"package": {"version": "0.9"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(network, "build", tiny_run.build_small)
    return tmp_path


@pytest.fixture
def slipway(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command as a shell runs it: exit code, standard output, standard error."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["slipway", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "record", lambda *_, **__: "no-run")


@pytest.mark.usefixtures("untracked")
def test_the_chain_from_data_to_a_verified_archive(slipway: Callable[..., Said], folder: Path, tiny: Path) -> None:
    run = folder / "build" / "toy"
    shutil.copytree(tiny / "data", run / "data")

    code, out, err = slipway("train", "--name", "toy", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["best"]["val_top1"] > 0.9 and result["mlflow_run"] == "no-run"
    assert {path.name for path in (run / "train").iterdir()} == {
        "checkpoint.pt", "weights.safetensors", "metrics.jsonl", "train.json", "curves.svg",
    }  # fmt: skip
    weights = (run / "train" / "weights.safetensors").stat().st_mtime_ns
    assert "Already trained" in slipway("train", "--name", "toy")[1]
    assert (run / "train" / "weights.safetensors").stat().st_mtime_ns == weights

    assert "logits within" in slipway("export", "--name", "toy")[1]
    assert json.loads(slipway("quantise", "--name", "toy", "--json", *overridden("quantise.max_images=30"))[1])["calibration_images"] == 30
    code, out, _ = slipway("evaluate", "--name", "toy")
    assert code == 0 and "macro-F1" in out and "fp32/int8: same top-1 on" in out
    report = json.loads((run / "evaluate" / "evaluation.json").read_text())
    assert report["variants"]["reference"]["top1"] > 0.9 and report["variants"]["int8"]["images"] == 24
    assert report["agreement"]["reference/fp32"]["same_top1"] > 0.97
    for variant in ("reference", "fp32", "int8"):
        with (run / "evaluate" / f"predictions-{variant}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 66
    assert (run / "evaluate" / "confusion.svg").read_text().startswith("<?xml")

    code, out, _ = slipway("gate", "--name", "toy", *overridden("gate.min_top1=1.1"))
    assert code == 1 and "refused:" in out and "top-1 is" in out
    code, _, err = slipway("package", "--name", "toy")
    assert code == 2 and "the gate refused toy" in err and not (folder / "build" / "toy.mar").exists()
    code, out, _ = slipway("gate", "--name", "toy", "--json", *overridden(*EASY))
    assert code == 0 and json.loads(out)["variant"] == "int8"

    code, out, err = slipway("package", "--name", "toy", "--json")
    assert code == 0, err
    packaged = json.loads(out)
    archive = archives.read(folder / "build" / "toy.mar")
    assert packaged["digest"] == archive.digest and archive.about["version"] == "0.9" and archive.about["variant"] == "int8"
    assert archive.about["lineage"]["data_digest"] == result["data_digest"]
    assert {golden["file"] for golden in archive.about["golden"]} >= {"golden/amber.png", "golden/odd-cmyk.jpg", "golden/odd-16bit.png"}
    assert json.loads(slipway("package", "--name", "toy", "--json")[1]) == packaged  # the same inputs, the same bytes
    assert [path.name for path in (folder / "build").iterdir()] == ["toy", "toy.mar"] or len(list((folder / "build").iterdir())) == 2

    code, out, _ = slipway("package", "--verify", "build/toy.mar")
    assert code == 0 and f"sha256 {packaged['digest']}" in out and "golden images predict as recorded" in out
    damaged = bytearray((folder / "build" / "toy.mar").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "damaged.mar").write_bytes(damaged)
    code, out, err = slipway("package", "--verify", "damaged.mar")
    assert code == 2 and "is corrupt" in err and out == ""


def test_a_training_run_is_recorded_in_mlflow(folder: Path, tiny: Path) -> None:
    shutil.copytree(tiny / "data", folder / "build" / "toy" / "data")
    # a process of its own, as for its users
    command = [sys.executable, "-c", "from cli import main; main()", "train", "--name", "toy", "--json", *overridden("train.epochs=2")]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0 and "not recorded" not in done.stderr
    result = json.loads(done.stdout)
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select run_uuid, name, status from runs").fetchall() == [(result["mlflow_run"], "toy", "FINISHED")]
        params = dict(database.execute("select key, value from params").fetchall())
        tags = dict(database.execute("select key, value from tags").fetchall())
        steps = database.execute("select step, value from metrics where key = 'val_top1' order by step").fetchall()
    assert params["arch"] == "resnet18" and params["epochs"] == "2"
    assert tags["data_digest"] == result["data_digest"] and tags["commit"] == "unknown"
    assert [step for step, _ in steps] == [1, 2]
    assert {path.name for path in (folder / "mlruns").rglob("*") if path.is_file()} >= {"curves.svg", "metrics.jsonl"}


def test_a_tracking_server_that_is_down_does_not_cost_the_training(
    slipway: Callable[..., Said], folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to [the] host")

    monkeypatch.setattr(tracking, "record", down)
    shutil.copytree(tiny / "data", folder / "build" / "toy" / "data")
    code, out, err = slipway("train", "--name", "toy", *overridden("train.epochs=1"))
    assert code == 0 and "validation top-1" in out
    assert "not recorded in MLflow: no route to [the] host" in err


def test_a_stage_whose_input_is_missing_names_the_stage_that_makes_it(slipway: Callable[..., Said], folder: Path) -> None:
    def says(stage: str, words: str) -> None:
        code, out, err = slipway(stage, "--name", "toy")
        assert (code, out) == (2, "") and words in err and "--name toy" in err, (stage, err)

    run = folder / "build" / "toy"
    says("train", "slipway data synth")
    for stage in ("export", "quantise", "evaluate"):
        says(stage, "slipway train")
    says("gate", "slipway evaluate")
    says("package", "slipway gate")
    tiny_run.write_data(run / "data")
    (run / "train").mkdir()
    (run / "train" / "train.json").write_text(json.dumps({"arch": "resnet18", "labels": ["a", "b", "c"], "size_px": 32}))
    says("export", "slipway train")
    says("quantise", "slipway export")
    says("evaluate", "slipway export")
    (run / "export").mkdir()
    (run / "export" / "model.onnx").touch()
    says("evaluate", "slipway quantise")
    (run / "evaluate").mkdir()
    (run / "evaluate" / "evaluation.json").write_text('{"variants": {"fp32": {}}}')
    says("gate", "has no 'int8': run `slipway evaluate --name toy` again")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", "train does not know epoch; it knows arch, weights,"),
        ("train.epochs=three", "train.epochs wants int, got 'three'"),
        ("train.epochs=2.5", "train.epochs wants int, got 2.5"),
        ("train.epochs=true", "train.epochs wants int, got True"),
        ("train.learning_rate=1e-3", "train.learning_rate wants float, got '1e-3' (YAML reads 1e-3 as text: write 1.0e-3)"),
        ("train.arch=18", "train.arch wants str, got 18"),
        ("train.arch=", "train.arch wants str, got None"),
        ("train.arch=[", "--set train.arch=[ is no YAML"),
        ("training.epochs=3", "params.yaml has no section 'training'; it has data, evaluate, gate"),
        ("epochs=3", "--set wants section.key=value, got 'epochs=3'"),
        ("train.epochs", "--set wants section.key=value, got 'train.epochs'"),
    ],
)
def test_a_wrong_override_is_named_with_exit_2(override: str, words: str, slipway: Callable[..., Said]) -> None:
    code, out, err = slipway("train", "--name", "toy", "--set", override)
    assert (code, out) == (2, "") and words in err, err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochs: 3}\n", "params.yaml: train lacks arch, weights"),
        ("{}\n", "params.yaml: train lacks arch"),
        ("", "params.yaml wants a section a stage, got None"),
        ("train: [\n", "params.yaml is no YAML"),
        ("train: {}\nruns: {toy: {trian: {epochs: 1}}}\n", "runs.toy changes trian, which is no section"),
    ],
)
def test_wrong_parameters_are_named_with_exit_2(text: str, words: str, slipway: Callable[..., Said], folder: Path) -> None:
    (folder / "params.yaml").write_text(text)
    code, _, err = slipway("train", "--name", "toy")
    assert code == 2 and words in err, err


def test_outside_a_checkout_it_says_where_to_go(slipway: Callable[..., Said], folder: Path) -> None:
    (folder / "params.yaml").unlink()
    code, _, err = slipway("train")
    assert code == 2 and "run slipway from the root of its checkout" in err


def test_a_run_changes_its_own_parameters_and_an_override_changes_both(folder: Path) -> None:
    def stage(*, version: str, golden_tolerance: float, max_image_bytes: int, max_pixels: int, wired: int = 0) -> None: ...

    assert section("package", stage, run="demo")["version"] == "1.0"
    toy = section("package", stage, run="toy")
    assert toy["version"] == "0.9" and set(toy) == {"version", "golden_tolerance", "max_image_bytes", "max_pixels"}
    assert section("package", stage, run="toy", overrides=["package.version='3'", "gate.max_ece=1"])["version"] == "3"
    whole = section("package", stage, run="toy", overrides=["package.golden_tolerance=1"])["golden_tolerance"]
    assert whole == 1.0 and isinstance(whole, float)
