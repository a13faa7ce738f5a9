"""Sample images of a run, written as files."""

from pathlib import Path

import pytest

from model.samples import write_samples
from model.shards import Record, write_index, write_shards

CONTENTS = {"0a" * 8: b"first", "0b" * 8: b"second", "0c" * 8: b"third", "0d" * 8: b"rust", "0e" * 8: b"learned from"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    keys = list(CONTENTS)
    rows = [Record(key, "scratch", "test", 0, "", 0, 0, 8, 8, "L", f"scratch/{key}.PNG") for key in keys[:3]]
    rows.append(Record(keys[3], "rolled-in rust", "test", 0, "", 0, 0, 8, 8, "L", "rolled-in rust/x.jpg"))
    rows.append(Record(keys[4], "scratch", "train", 0, "", 0, 0, 8, 8, "L", "scratch/y.jpg"))
    write_index(write_shards(rows, folder, read=lambda record: CONTENTS[record.key], shard_bytes=1 << 20), folder)
    return folder


def test_the_first_test_images_of_each_class_are_written_as_they_were(data: Path, tmp_path: Path):
    files = write_samples(data, tmp_path / "samples", per_class=2)
    found = {str(file.relative_to(tmp_path / "samples")): file.read_bytes() for file in files}
    assert found == {
        "rolled-in rust/0d0d0d0d0d0d0d0d.jpg": b"rust",
        "scratch/0a0a0a0a0a0a0a0a.png": b"first",
        "scratch/0b0b0b0b0b0b0b0b.png": b"second",
    }
    assert sorted((tmp_path / "samples").rglob("*.*")) == files


def test_samples_of_an_earlier_run_are_gone(data: Path, tmp_path: Path):
    write_samples(data, tmp_path / "samples", per_class=3)
    assert len(write_samples(data, tmp_path / "samples", per_class=1)) == 2
    assert len([path for path in (tmp_path / "samples").rglob("*") if path.is_file()]) == 2
    with pytest.raises(ValueError, match="at least 1 image"):
        write_samples(data, tmp_path / "samples", per_class=0)
