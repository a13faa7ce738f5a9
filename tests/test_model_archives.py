"""Folders and archives list the same files, and no archive gets outside its listing."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from model import archives
from model.archives import open_files

FILES = {"a/one.jpg": b"first", "a/two.png": b"second" * 300, "b/three.jpg": b"third"}


def tar_of(path: Path, files: dict[str, bytes], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read_all(path: Path, scratch: Path) -> dict[str, bytes]:
    with open_files(path, scratch) as listing:
        assert listing.sizes == {name: len(listing.read(name)) for name in listing.sizes}
        return {name: listing.read(name) for name in listing.sizes}


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "zip"])
def test_every_kind_of_source_gives_the_same_files(tmp_path, kind):
    source = tmp_path / f"source.{kind}"
    if kind == "folder":
        for name, content in FILES.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    elif kind == "zip":
        zip_of(source, FILES)
    else:
        tar_of(source, FILES, mode="w:gz" if kind == "tar.gz" else "w")
    assert read_all(source, tmp_path) == FILES


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "C:/evil.jpg", "..\\evil.jpg", "a/ev\nil.jpg"])
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_paths_that_leave_the_archive_are_left_out(tmp_path, pack, name):
    with open_files(pack(tmp_path / "hostile", {**FILES, name: b"x"}), tmp_path) as listing:
        assert set(listing.sizes) == set(FILES)
        assert list(listing.left_out.values()) == ["unsafe path"]


def test_links_and_special_files_are_left_out(tmp_path):
    path = tar_of(tmp_path / "links.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for name, kind in {"a/soft.jpg": tarfile.SYMTYPE, "a/hard.jpg": tarfile.LNKTYPE, "a/pipe.jpg": tarfile.FIFOTYPE}.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    with open_files(path, tmp_path) as listing:
        assert set(listing.sizes) == set(FILES)
        assert listing.left_out == {"a/soft.jpg": "a link", "a/hard.jpg": "a link", "a/pipe.jpg": "a special file"}


def test_links_in_zips_and_folders_are_left_out(tmp_path):
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = 0o120777 << 16
    path = zip_of(tmp_path / "links.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with open_files(path, tmp_path) as listing:
        assert listing.left_out == {"a/link.jpg": "a link"}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.jpg").symlink_to("/etc/passwd")
    with open_files(folder, tmp_path) as listing:
        assert not listing.sizes
        assert "a link" in listing.left_out["link.jpg"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_cut_anywhere_is_refused(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    files = {f"a/{number}.jpg": os.urandom(1500) for number in range(8)}
    if kind == "zip":
        zip_of(whole, files)
    else:
        tar_of(whole, files, mode="w:gz" if kind == "tar.gz" else "w")
    content = whole.read_bytes()
    used = 8 * (512 + 1536) if kind == "tar" else len(content)  # a tar ends in zeros that may be missing in part
    for length in (1, 100, used // 3, used // 2, 4 * (512 + 1536), used - 700, used - 1):
        cut = tmp_path / "cut"
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut is (no whole|truncated)"), open_files(cut, tmp_path):
            pass


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    content = tar_of(tmp_path / "whole.tar", FILES).read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:1024])  # header and one block: exactly the first member
    with pytest.raises(ValueError, match="end-of-archive"), open_files(tmp_path / "cut.tar", tmp_path):
        pass


def test_a_tar_whose_header_is_damaged_in_the_middle_is_refused(tmp_path):
    content = bytearray(tar_of(tmp_path / "whole.tar", FILES).read_bytes())
    content[1024 + 10] ^= 0xFF
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"), open_files(tmp_path / "bad.tar", tmp_path):
        pass


def test_limits_stop_archives_with_too_many_or_too_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(ValueError, match="more than 2 files"), open_files(zip_of(tmp_path / "many.zip", FILES), tmp_path):
        pass
    monkeypatch.setattr(archives, "MAX_FILES", 100)
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 5000)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(ValueError, match=r"bomb.tar.gz holds more than"), open_files(bomb, tmp_path):
        pass
    with pytest.raises(ValueError, match="holds more than"), open_files(zip_of(tmp_path / "b.zip", {"a/x.jpg": bytes(6000)}), tmp_path):
        pass


def test_a_damaged_zip_member_fails_alone(tmp_path):
    path = zip_of(tmp_path / "one.zip", FILES)
    content = bytearray(path.read_bytes())
    content[30 + len("a/one.jpg")] ^= 0xFF
    path.write_bytes(content)
    with open_files(path, tmp_path) as listing:
        with pytest.raises(ValueError, match="damaged in the archive"):
            listing.read("a/one.jpg")
        assert listing.read("b/three.jpg") == b"third"


def test_something_else_is_no_archive(tmp_path):
    (tmp_path / "notes.txt").write_text("hello " * 500)
    with pytest.raises(ValueError, match=r"no whole \.tar, \.tar\.gz or \.zip"), open_files(tmp_path / "notes.txt", tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match="missing"), open_files(tmp_path / "missing", tmp_path):
        pass
