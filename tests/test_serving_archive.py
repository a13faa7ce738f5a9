"""The archive: the same bytes for the same inputs, and a reason in words for every file that is none."""

import hashlib
import json
import logging
import random
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import colour_network, picture, write_colours

from serving import archive as archives


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], object], *, method: int = zipfile.ZIP_STORED) -> Path:
    """The archive in `source` with its members changed."""
    files = members(source)
    change(files)
    with zipfile.ZipFile(target, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return target


def about_changed(source: Path, target: Path, **changes: Any) -> Path:
    about = json.loads(members(source)["slipway.json"]) | changes
    kept = {key: value for key, value in about.items() if value is not ...}
    return rewrite(source, target, lambda files: files.update({"slipway.json": json.dumps(kept).encode()}))


def test_equal_inputs_give_equal_bytes(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2e9)
    again = write_colours(tmp_path / "other-name.mar")
    assert again.read_bytes() == archive.read_bytes()
    other = write_colours(tmp_path / "other.mar", version="1.1")
    assert archives.digest(other) != archives.digest(again)


def test_members_are_stored_sorted_and_undated(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == sorted(file.namelist())
        for member in file.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert member.external_attr == 0o644 << 16
    assert not list(archive.parent.glob(".partial*"))


def test_the_archive_holds_its_handler_and_nothing_of_slipway_else(archive: Path) -> None:
    names = set(members(archive))
    code = {f"handler/{path.name}" for path in archives.CODE.glob("*.py")}
    assert names == code | {"MAR-INF/MANIFEST.json", "slipway.json", "model.onnx", "golden/0.jpg"}
    for name in code:
        for line in members(archive)[name].decode().splitlines():
            assert not line.strip().startswith(("from serving", "import serving", "from model", "from cli")), (name, line)


def test_what_is_read_is_what_was_written(archive: Path, tmp_path: Path) -> None:
    read = archives.read(archive)
    assert read.path == archive and read.digest == archives.digest(archive)
    assert read.about["labels"] == ["blue", "green", "red"]
    archives.unpack(read, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == colour_network()


def test_the_manifest_is_one_that_torchserve_reads(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchServe's Java checks four fields; its Python loader imports `handler` from the unpacked folder."""
    manifest = json.loads(members(archive)["MAR-INF/MANIFEST.json"])
    assert manifest["runtime"] in ("python", "python3")
    model = manifest["model"]
    assert (model["modelName"], model["modelVersion"], model["handler"]) == ("colours", "1.0", "handler")
    assert model["serializedFile"] in members(archive)
    loader = pytest.importorskip("ts.model_loader")
    archives.unpack(archives.read(archive), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    service = loader.TsModelLoader().load("colours", str(tmp_path), "handler", None, 1)
    answers, _ = service._entry_point.__self__.classify([picture(0, 0, 255)])
    logging.getLogger().setLevel(logging.INFO)  # the handler made it quieter
    for name in [name for name in sys.modules if name.partition(".")[0] == "handler"]:
        monkeypatch.delitem(sys.modules, name)
    assert service.context.manifest == manifest
    assert answers[0][0] == 200


def test_a_file_that_is_not_there_or_no_zip_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="slipway package"):
        archives.read(tmp_path / "none.mar")
    with pytest.raises(FileNotFoundError):
        archives.read(tmp_path)
    for content in (b"", b"text", bytes(9999), b"PK\3\4" + bytes(99)):
        (tmp_path / "no.mar").write_bytes(content)
        with pytest.raises(ValueError, match=r"no\.mar is no whole \.mar"):
            archives.read(tmp_path / "no.mar")


def test_every_cut_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    content, cut = archive.read_bytes(), tmp_path / "cut.mar"
    for length in {*range(0, len(content), 997), len(content) - 1, len(content) - 22, len(content) // 2}:
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.mar"):
            archives.read(cut)


def test_a_flipped_byte_is_found_or_changes_no_member(archive: Path, tmp_path: Path) -> None:
    content, flipped, rng = archive.read_bytes(), tmp_path / "flipped.mar", random.Random(0)
    start = content.rfind(b"PK\1\2") - 4000
    places = [*rng.sample(range(len(content)), 250), *rng.sample(range(start, len(content)), 350)]
    whole, found = members(archive), 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        flipped.write_bytes(damaged)
        try:
            archives.read(flipped)
        except ValueError as error:
            assert "flipped.mar" in str(error), error
            found += 1
        else:
            assert members(flipped) == whole
    assert found > 400


def test_a_missing_member_is_named(archive: Path, tmp_path: Path) -> None:
    for name in ("MAR-INF/MANIFEST.json", "handler/__init__.py", "model.onnx", "golden/0.jpg"):
        lacking = rewrite(archive, tmp_path / "lacking.mar", lambda files, name=name: files.pop(name))
        with pytest.raises(ValueError, match=f"lacks {name}"):
            archives.read(lacking)
    foreign = rewrite(archive, tmp_path / "foreign.mar", lambda files: files.pop("slipway.json"))
    with pytest.raises(ValueError, match="was not built by `slipway package`"):
        archives.read(foreign)


@pytest.mark.parametrize("name", ["../outside.py", "handler/../../x", "/etc/passwd", "golden/.."])
def test_a_member_that_would_land_outside_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    evil = rewrite(archive, tmp_path / "evil.mar", lambda files: files.update({name: b"x"}))
    with pytest.raises(ValueError, match="would land outside"):
        archives.read(evil)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.mar"
    twice.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(twice, "a") as file:
        file.writestr("handler/__init__.py", "raise SystemExit")
    with pytest.raises(ValueError, match=r"handler/__init__\.py twice"):
        archives.read(twice)


def test_a_bomb_is_refused_before_it_is_unpacked(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1 << 20)
    bomb = rewrite(
        archive, tmp_path / "bomb.mar", lambda files: files.update({"slipway.json": bytes(2 << 20)}), method=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="more than 1 MiB"):
        archives.read(bomb)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "reads archives of format 1, got 2"),
        ({"labels": "red"}, "labels wants list, got 'red'"),
        ({"labels": []}, "labels"),
        ({"golden": []}, "at least one golden image"),
        ({"golden": ["golden/0.jpg"]}, "golden"),
        ({"golden": [{"file": "golden/0.jpg"}]}, "golden"),
        ({"golden": [{"file": "golden/0.jpg", "probabilities": [0.5, 0.5]}]}, "golden"),
        ({"golden_tolerance": ...}, "golden_tolerance wants float"),
        ({"preprocess": {"size_px": 32}}, "preprocess"),
        ({"preprocess": {"size_px": "32", "resize_px": 32}}, "preprocess"),
        ({"limits": {"max_image_bytes": 1, "max_pixels": 1, "more": 1}}, "limits"),
        ({"gate": None}, "gate wants dict"),
    ],
)
def test_a_slipway_json_that_cannot_be_served_is_told_what_is_wrong(
    changes: dict[str, Any], words: str, archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"slipway.json: .*{words}"):
        archives.read(about_changed(archive, tmp_path / "odd.mar", **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1'])
def test_a_slipway_json_that_is_no_object_is_refused(content: bytes, archive: Path, tmp_path: Path) -> None:
    odd = rewrite(archive, tmp_path / "odd.mar", lambda files: files.update({"slipway.json": content}))
    with pytest.raises(ValueError, match=r"slipway\.json"):
        archives.read(odd)


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="version wants str"):
        write_colours(tmp_path / "no.mar", version=1)
    assert list(tmp_path.iterdir()) == []


def test_verify_lists_the_hash_of_every_member(archive: Path) -> None:
    read, hashes = archives.verify(archive)
    assert read.digest == archives.digest(archive)
    assert hashes == {name: hashlib.sha256(content).hexdigest() for name, content in members(archive).items()}


def test_verify_finds_a_golden_image_that_predicts_otherwise(archive: Path, tmp_path: Path) -> None:
    other = rewrite(archive, tmp_path / "other.mar", lambda files: files.update({"golden/0.jpg": picture(0, 0, 255)}))
    assert archives.read(other)
    with pytest.raises(ValueError, match=r"other\.mar.* golden image golden/0\.jpg predicts"):
        archives.verify(other)


@pytest.mark.parametrize("changed", [{"model.onnx": b"no network"}, {"handler/__init__.py": b"import nothing_of_the_kind"}])
def test_verify_finds_an_archive_that_does_not_load(changed: dict[str, bytes], archive: Path, tmp_path: Path) -> None:
    broken = rewrite(archive, tmp_path / "broken.mar", lambda files: files.update(changed))
    with pytest.raises(ValueError, match=r"broken\.mar does not load"):
        archives.verify(broken)


def test_an_encrypted_or_oddly_compressed_member_is_refused(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    directory = struct.unpack_from("<I", content, len(content) - 6)[0]
    for offset, value in ((8, 1), (10, 99)):  # of the first central entry: flags, method
        odd = bytearray(content)
        odd[directory + offset] = value
        local = struct.unpack_from("<I", content, directory + 42)[0]
        odd[local + offset - 2] = value
        (tmp_path / "odd.mar").write_bytes(odd)
        with pytest.raises(ValueError, match=r"odd\.mar"):
            archives.read(tmp_path / "odd.mar")


def test_deflated_members_are_read_too(archive: Path, tmp_path: Path) -> None:
    deflated = rewrite(archive, tmp_path / "deflated.mar", lambda files: None, method=zipfile.ZIP_DEFLATED)
    assert archives.read(deflated).about == archives.read(archive).about
    damaged = bytearray(deflated.read_bytes())
    damaged[damaged.find(b"model.onnx") + 40] ^= 0xFF
    deflated.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"deflated\.mar"):
        archives.read(deflated)
