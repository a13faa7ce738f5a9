"""Shards are plain tar files, equal for equal input, and read back by offset."""

import hashlib
import pickle
import tarfile
from dataclasses import replace

import pytest

from model import shards
from model.shards import Record

CONTENTS = {hashlib.sha256(bytes([n])).hexdigest()[:16]: bytes([n]) * (300 + 40 * n) for n in range(60)}


def records(keys=tuple(CONTENTS)):
    return [
        Record(key, "ab"[i % 2], ("train", "test")[i % 3 == 0], i, "", 0, len(CONTENTS[key]), 10, 20, "L", f'a/{i}, "x".JPG')
        for i, key in enumerate(keys)
    ]


def write(folder, *, shard_bytes, chosen=tuple(CONTENTS)):
    folder.mkdir()
    placed = shards.write_shards(records(chosen), folder, read=lambda record: CONTENTS[record.key], shard_bytes=shard_bytes)
    shards.write_index(placed, folder)
    return placed


def test_what_is_written_is_read_back(tmp_path):
    placed = write(tmp_path / "data", shard_bytes=1 << 20)
    found = shards.read_index(tmp_path / "data")
    assert found == placed == sorted(placed, key=lambda record: record.key)
    assert {record.key: shards.read_bytes(tmp_path / "data", record) for record in found} == CONTENTS
    assert pickle.loads(pickle.dumps(found[0])) == found[0]
    assert shards.labels(tmp_path / "data") == ["a", "b"]
    assert [record.split for record in shards.read_index(tmp_path / "data", split="test")] == ["test"] * 20
    assert not list((tmp_path / "data").glob("*.partial"))


def test_a_shard_is_a_tar_that_any_tool_opens(tmp_path):
    placed = write(tmp_path / "data", shard_bytes=1 << 20)
    assert {record.shard for record in placed} == {"shard-00000.tar"}
    with tarfile.open(tmp_path / "data" / "shard-00000.tar", "r:") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"{key}.jpg" for key in sorted(CONTENTS)]
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
        assert archive.extractfile(members[7]).read() == CONTENTS[members[7].name[:16]]


def test_equal_input_gives_equal_bytes(tmp_path):
    write(tmp_path / "one", shard_bytes=8000)
    write(tmp_path / "two", shard_bytes=8000, chosen=tuple(reversed(CONTENTS)))
    names = sorted(path.name for path in (tmp_path / "one").glob("shard-*"))
    assert len(names) > 8
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_one_more_image_rewrites_one_shard(tmp_path):
    write(tmp_path / "before", shard_bytes=16000, chosen=tuple(CONTENTS)[:-1])
    write(tmp_path / "after", shard_bytes=16000)
    names = sorted(path.name for path in (tmp_path / "after").glob("shard-*"))
    changed = [name for name in names if (tmp_path / "before" / name).read_bytes() != (tmp_path / "after" / name).read_bytes()]
    assert len(names) > 4
    assert len(changed) == 1


def test_the_digest_is_the_sha256_of_the_index(tmp_path):
    write(tmp_path / "data", shard_bytes=1 << 20)
    content = (tmp_path / "data" / "index.csv").read_bytes()
    assert shards.data_digest(tmp_path / "data") == hashlib.sha256(content).hexdigest()
    assert content.startswith(b"key,label,split,group,shard,offset,size,width,height,mode,source\n")


def test_missing_and_damaged_folders_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="slipway data import"):
        shards.read_index(tmp_path)
    placed = write(tmp_path / "data", shard_bytes=1 << 20)
    with pytest.raises(ValueError, match="no image of split 'val', it has test, train"):
        shards.read_index(tmp_path / "data", split="val")
    assert shards.is_whole(tmp_path / "data")
    with pytest.raises(ValueError, match="ends inside"):
        shards.read_bytes(tmp_path / "data", replace(placed[0], offset=10**7))
    (tmp_path / "data" / "shard-00000.tar").write_bytes(b"short")
    assert not shards.is_whole(tmp_path / "data")
    (tmp_path / "data" / "index.csv").write_text("key,label\n")
    with pytest.raises(ValueError, match="has the columns key,label"):
        shards.read_index(tmp_path / "data")
