"""`slipway data` end to end on small synthetic sets."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.data import app
from model import shards

ROOT = Path(__file__).parents[1]
SMALL = ["--set", "synth.images_per_class=12", "--set", "synth.size_px=64"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


def test_synth_import_and_describe_tell_one_story(run):
    drawn = run("synth", "--name", "toy", *SMALL)
    assert drawn.exit_code == 0, drawn.output
    assert "ready" in drawn.output
    records = shards.read_index(Path("build/toy/data"))
    assert len(records) == 72
    assert {record.label for record in records} == set(shards.labels(Path("build/toy/data")))

    assert "images in build/toy/samples" in run("sample", "--name", "toy").output
    assert {path.name for path in Path("build/toy/samples").iterdir()} == {record.label for record in records}

    again = run("synth", "--name", "toy", *SMALL)
    assert "unchanged" in again.output
    assert "ready" in run("synth", "--name", "toy", *SMALL, "--force").output

    shown = run("describe", "--name", "toy")
    for word in ("rolled-in_scale", "train", "drift", "near-duplicates", "64 x 64 px"):
        assert word in shown.output
    assert json.loads(run("describe", "--name", "toy", "--json").output)["images"] == 72


def test_what_was_exported_as_folders_imports_to_the_same_keys(run):
    run("synth", "--name", "toy", *SMALL)
    records = shards.read_index(Path("build/toy/data"))
    for record in records:
        path = Path("src") / record.source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shards.read_bytes(Path("build/toy/data"), record))
    report = json.loads(run("import", "src", "--name", "copy", "--json").output)
    assert report["source"] == "src"
    assert shards.data_digest(Path("build/copy/data")) == shards.data_digest(Path("build/toy/data"))


def test_parameters_are_checked(run):
    for override, message in {
        "data.seeds=1": "does not know seeds",
        "data.seed=x": "data.seed wants int",
        "data.shard_mb=0": "shard_mb",
    }.items():
        found = run("synth", "--name", "toy", *SMALL, "--set", override)
        assert message in str(found.exception)
    assert "--name wants letters" in str(run("describe", "--name", "../x").exception)
    assert "slipway data import" in str(run("describe", "--name", "none").exception)


def test_odd_names_are_printed_as_they_are(run):
    run("synth", "--name", "toy", *SMALL)
    for record in shards.read_index(Path("build/toy/data")):
        path = Path("src") / record.label.replace("patches", "[red]patches") / Path(record.source).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shards.read_bytes(Path("build/toy/data"), record))
    (Path("src") / "crazing" / "[bold]x.jpg").write_bytes(b"no")
    found = run("import", "src", "--name", "odd")
    assert "[red]patches" in found.output
    assert "crazing/[bold]x.jpg: not an image" in found.output
