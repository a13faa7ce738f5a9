"""The files of a folder, tar or zip, read one at a time and never unpacked. Archives are hostile until they prove otherwise."""

import gzip
import os
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

MAX_FILES = 1_000_000
MAX_TOTAL_BYTES = 64 << 30
_COPY_BYTES = 4 << 20
_ZERO_BLOCK = bytes(tarfile.BLOCKSIZE)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RecursionError,
    OverflowError,
    UnicodeError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Listing:
    """The files of a source: sizes in bytes by path, folders, and what was left out with the reason. `read` is thread-safe."""

    sizes: dict[str, int]
    folders: frozenset[str]
    left_out: dict[str, str]
    read: Callable[[str], bytes]


@contextmanager
def open_files(path: Path, scratch: Path) -> Iterator[Listing]:
    """The listing of a folder, .tar, .tar.gz or .zip; `scratch` takes one unzipped tar. Kinds are told by content, not by name.

    Raises: FileNotFoundError; ValueError for another kind of file, a damaged or truncated archive, or one beyond the limits.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {path}: give a folder of class folders, an archive of one, or its http://, https:// or gs:// address")
    if path.is_dir():
        yield _list_folder(path)
        return
    with ExitStack() as stack:
        try:
            listing = _list_archive(path, scratch, stack)
        except _DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path.name} is no whole .tar, .tar.gz or .zip ({reason}): fetch or pack it again") from error
        yield listing


def _list_archive(path: Path, scratch: Path, stack: ExitStack) -> Listing:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        return _list_zip(stack.enter_context(zipfile.ZipFile(path)))
    tar = _gunzip(path, scratch / "unzipped.tar") if magic[:2] == b"\x1f\x8b" else path
    return _list_tar(path.name, stack.enter_context(tar.open("rb")))


class _Collector:
    """Members while they are listed: keeps safe names, counts towards the limits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[str, tuple[int, int]] = {}  # path -> (size, where)
        self.folders: set[str] = set()
        self.left_out: dict[str, str] = {}
        self._seen = 0
        self._total_bytes = 0

    def add(self, raw: str, size: int, *, where: int, problem: str | None = None, folder: bool = False) -> None:
        """Note one member. Raises: ValueError beyond MAX_FILES or MAX_TOTAL_BYTES."""
        self._seen += 1
        self._total_bytes += size
        if self._seen > MAX_FILES or self._total_bytes > MAX_TOTAL_BYTES:
            raise ValueError(f"{self.name} holds more than {MAX_FILES:,} files or {MAX_TOTAL_BYTES >> 30} GiB: import it in parts")
        path = _safe(raw)
        if path is None:
            self.left_out[_printable(raw)] = "unsafe path"
        elif problem:
            self.left_out[path] = problem
        elif folder:
            self.folders.add(path)
        else:
            self.places[path] = (size, where)

    def listing(self, read: Callable[[int, int], bytes]) -> Listing:
        """The listing; `read` takes size and place of a member."""
        sizes = {path: size for path, (size, _) in sorted(self.places.items())}
        return Listing(sizes, frozenset(self.folders), self.left_out, lambda path: read(*self.places[path]))


def _safe(raw: str) -> str | None:
    """A relative path with forward slashes, NFC, or None for one that is absolute, climbs, or holds control characters."""
    text = unicodedata.normalize("NFC", _printable(raw)).replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or not parts or ".." in parts or ":" in parts[0] or any(unicodedata.category(char) == "Cc" for char in text):
        return None
    return "/".join(parts)


def _printable(raw: str) -> str:
    return raw.encode("utf-8", "backslashreplace").decode()


def _list_folder(root: Path) -> Listing:
    found = _Collector(str(root))
    places: list[Path] = []
    for parent, folders, files in os.walk(root):
        for name in sorted(folders) + sorted(files):
            path = Path(parent) / name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                found.add(relative, 0, where=0, problem="a link; give the real folder")
            elif path.is_dir():
                found.add(relative, 0, where=0, folder=True)
            elif path.is_file():
                found.add(relative, path.stat().st_size, where=len(places))
                places.append(path)
    return found.listing(lambda size, where: places[where].read_bytes())


def _list_zip(archive: zipfile.ZipFile) -> Listing:
    found = _Collector(Path(archive.filename or "archive").name)
    members = archive.infolist()
    for where, member in enumerate(members):
        link = (member.external_attr >> 16) & 0o170000 == 0o120000
        problem = "a link" if link else "encrypted" if member.flag_bits & 1 else None
        found.add(member.filename, member.file_size, where=where, problem=problem, folder=member.is_dir())

    def read(size: int, where: int) -> bytes:
        try:
            with archive.open(members[where]) as file:
                return file.read(size)
        except _DAMAGE as error:
            raise ValueError(f"damaged in the archive ({error})") from error

    return found.listing(read)


def _list_tar(name: str, file: BinaryIO) -> Listing:
    """Walk the headers once; bytes are read by offset afterwards. The end-of-archive block must be there."""
    found = _Collector(name)
    end = -1
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while member := archive.next():
            if member.size < 0 or member.offset_data <= end:
                raise ValueError(f"{name} is damaged: its member {_printable(member.name)!r} overlaps the one before it")
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE - 1
            plain = (member.isreg() or member.isdir()) and not member.issparse()
            problem = None if plain else "a link" if member.islnk() or member.issym() else "a special file"
            found.add(member.name, member.size, where=member.offset_data, problem=problem, folder=member.isdir())
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has met
    if os.pread(file.fileno(), tarfile.BLOCKSIZE, end + 1) != _ZERO_BLOCK:
        raise ValueError(f"{name} is truncated or damaged: it has no end-of-archive mark; fetch or pack it again")
    return found.listing(partial(os.pread, file.fileno()))


def _gunzip(path: Path, to: Path) -> Path:
    total = 0
    with gzip.open(path) as source, to.open("wb") as target:
        while piece := source.read(_COPY_BYTES):
            total += len(piece)
            if total > MAX_TOTAL_BYTES:
                raise ValueError(f"{path.name} holds more than {MAX_TOTAL_BYTES >> 30} GiB: import it in parts")
            target.write(piece)
    return to
