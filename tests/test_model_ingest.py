"""A data folder appears whole, equal for equal input, and only when something changed."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from model import ingest, shards
from model.ingest import build_dataset
from model.sources import Origin, origin

PARAMS = {
    "min_side_px": 32,
    "max_pixels": 1_000_000,
    "duplicate_similarity": 0.7,
    "seed": 20,
    "fractions": {"train": 0.6, "val": 0.1, "calib": 0.1, "test": 0.1, "drift": 0.1},
    "shard_mb": 64,
}


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()


FILES = {f"set/{label}/{number:02d}.png": picture(100 * (label == "dog") + number) for label in ("cat", "dog") for number in range(20)}


def tar_of(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return origin(str(path))


def test_a_messy_source_becomes_a_clean_folder_with_a_report(tmp_path):
    with Image.open(io.BytesIO(FILES["set/cat/03.png"])) as image:
        buffer = io.BytesIO()
        image.rotate(90, expand=True).save(buffer, format="JPEG", quality=80)
    extra = {
        "set/cat/near.jpg": buffer.getvalue(),
        "set/cat/same.png": FILES["set/cat/05.png"],
        "set/cat/conflict.png": FILES["set/dog/06.png"],
        "set/dog/cut.png": FILES["set/dog/07.png"][:900],
        "set/dog/text.jpg": b"hello",
        "set/dog/notes.txt": b"hello",
    }
    report = build_dataset(tar_of(tmp_path / "a.tar", {**FILES, **extra}), tmp_path / "data", **PARAMS)
    records = shards.read_index(tmp_path / "data")
    assert report == {**json.loads((tmp_path / "data" / "report.json").read_text()), "unchanged": False}
    assert report["images"] == len(records) == 40  # 40 and the turned copy, less the content in both classes
    assert report["exact_duplicates"] == [["set/cat/05.png", "set/cat/same.png"]]
    assert report["label_conflicts"] == [["set/cat/conflict.png", "set/dog/06.png"]]
    assert report["near_duplicates"] == {"pairs": 1, "groups": [{"sources": ["set/cat/03.png", "set/cat/near.jpg"], "labels": ["cat"]}]}
    assert set(report["rejected"]) == {"set/dog/cut.png", "set/dog/text.jpg"}
    assert report["left_out"] == {"set/dog/notes.txt": "not an image by its name"}
    assert report["classes"]["cat"] == {"found": 23, "kept": 21, "splits": report["classes"]["cat"]["splits"]}
    assert len(report["warnings"]) == 2
    alike = [record for record in records if record.source in ("set/cat/03.png", "set/cat/near.jpg")]
    assert len({record.group for record in alike}) == len({record.split for record in alike}) == 1
    for record in records:
        assert shards.read_bytes(tmp_path / "data", record) == {**FILES, **extra}[record.source]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *("index.csv", "labels.json", "report.json", "contact_sheet.png", "classes.svg", "shard-00000.tar")
    }


def test_equal_input_gives_equal_files(tmp_path):
    source = tar_of(tmp_path / "a.tar", FILES)
    for name in ("one", "two"):
        build_dataset(source, tmp_path / name, **PARAMS)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_nothing_is_done_twice_unless_data_parameters_or_files_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest.describe, "draw", lambda folder: None)
    source, folder = tar_of(tmp_path / "a.tar", FILES), tmp_path / "data"
    assert not build_dataset(source, folder, **PARAMS)["unchanged"]
    again = build_dataset(source, folder, **PARAMS)
    assert again["unchanged"]
    assert again["images"] == 40
    assert not build_dataset(source, folder, **PARAMS, force=True)["unchanged"]
    assert not build_dataset(source, folder, **{**PARAMS, "seed": 21})["unchanged"]
    assert not build_dataset(source, folder, **PARAMS)["unchanged"]
    (folder / "shard-00000.tar").write_bytes(b"")
    assert not build_dataset(source, folder, **PARAMS)["unchanged"]
    assert not build_dataset(tar_of(tmp_path / "b.tar", FILES), folder, **PARAMS)["unchanged"]
    untold = Origin("untold", None, source.fetch)
    assert not build_dataset(untold, folder, **PARAMS)["unchanged"]
    assert not build_dataset(untold, folder, **PARAMS)["unchanged"]


@pytest.mark.parametrize("fault", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failed_import_leaves_the_earlier_folder_and_no_half_made_one(tmp_path, monkeypatch, fault):
    source, folder = tar_of(tmp_path / "a.tar", FILES), tmp_path / "run" / "data"
    build_dataset(source, folder, **PARAMS)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(partial):
        raise fault

    monkeypatch.setattr(ingest.describe, "draw", fail)
    with pytest.raises(type(fault)):
        build_dataset(source, folder, **{**PARAMS, "seed": 21})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_what_a_killed_import_left_behind_is_cleared(tmp_path):
    for name in ("data.partial", "data.scratch", "data.old"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "rest").write_text("x")
    build_dataset(tar_of(tmp_path / "a.tar", FILES), tmp_path / "run" / "data", **PARAMS)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["data"]


def test_a_class_whose_every_image_is_refused_stops_the_import(tmp_path):
    files = {**FILES, "set/owl/1.png": b"no image", "set/owl/2.png": b""}
    with pytest.raises(ValueError, match="no images in the class owl"):
        build_dataset(tar_of(tmp_path / "a.tar", files), tmp_path / "data", **PARAMS)


def test_a_source_that_changes_while_it_is_read_stops_the_import(tmp_path):
    (tmp_path / "src").mkdir()
    for name, content in FILES.items():
        path = tmp_path / "src" / name.removeprefix("set/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def change(stage, done, total):
        if stage == "compare":
            (tmp_path / "src" / "cat" / "00.png").write_bytes(FILES["set/cat/01.png"])

    with pytest.raises(ValueError, match=r"cat/00.png changed while it was imported"):
        build_dataset(origin(str(tmp_path / "src")), tmp_path / "data", **PARAMS, progress=change)
