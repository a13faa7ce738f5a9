"""Images as few large files: deterministic uncompressed tar shards and one index, read by offset without a tar walk."""

import csv
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from io import BytesIO
from pathlib import Path

INDEX = "index.csv"
LABELS = "labels.json"
BLOCK = 512  # bytes of a tar header


@dataclass(frozen=True)
class Record:
    """One kept image: a row of index.csv. `offset` and `size` are the byte range of the image's own bytes inside its shard."""

    key: str
    label: str
    split: str
    group: int
    shard: str
    offset: int
    size: int
    width: int
    height: int
    mode: str
    source: str


COLUMNS = tuple(field.name for field in fields(Record))
_NUMBERS = frozenset(field.name for field in fields(Record) if field.type is int)


def read_index(folder: Path, *, split: str | None = None) -> list[Record]:
    """The records of a data folder, sorted by key; only those of `split` when it is given.

    Raises: FileNotFoundError without an index; ValueError for other columns, or when `split` holds no image.
    """
    path = folder / INDEX
    if not path.exists():
        raise FileNotFoundError(f"no {path}: make it with `slipway data import SRC --name NAME` or `slipway data synth --name NAME`")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != COLUMNS:
            raise ValueError(f"{path} has the columns {','.join(header)}, wanted {','.join(COLUMNS)}: import the data again with --force")
        records = [_record(path, row) for row in rows]
    if split is None:
        return records
    chosen = [record for record in records if record.split == split]
    if not chosen:
        raise ValueError(f"{path} holds no image of split {split!r}, it has {', '.join(sorted({r.split for r in records}))}")
    return chosen


def _record(path: Path, row: list[str]) -> Record:
    if len(row) != len(COLUMNS):
        raise ValueError(f"{path} has a row of {len(row)} columns, wanted {len(COLUMNS)}: import the data again with --force")
    typed = {name: int(text) if name in _NUMBERS else text for name, text in zip(COLUMNS, row, strict=True)}
    return Record(**typed)  # type: ignore[arg-type]


def read_bytes(folder: Path, record: Record) -> bytes:
    """The encoded image of a record. Opens, reads and closes: no handle is held, so any process may call it.

    Raises: FileNotFoundError without the shard; ValueError when the shard ends early.
    """
    path = folder / record.shard
    handle = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(handle, record.size, record.offset)
    finally:
        os.close(handle)
    if len(content) != record.size:
        raise ValueError(f"{path} ends inside {record.source} ({len(content)} of {record.size} bytes): import the data again with --force")
    return content


def labels(folder: Path) -> list[str]:
    """The class names of a data folder, sorted; a label's place in this list is its class number."""
    names: list[str] = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    return names


def data_digest(folder: Path) -> str:
    """The sha256 of index.csv as hex; it names the bytes of every image, since keys are content hashes."""
    return hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()


def write_shards(
    records: Iterable[Record],
    folder: Path,
    *,
    read: Callable[[Record], bytes],
    shard_bytes: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Record]:
    """The records with shard and offset filled in, sorted by key, after their images were written to tar files in `folder`.

    A key's leading bits choose its shard, so new images rewrite only the shards they fall into; the number of shards is
    the smallest power of two that keeps their mean size below `shard_bytes`. Equal records and bytes give equal files.
    """
    ordered = sorted(records, key=lambda record: record.key)
    total = sum(record.size + 2 * BLOCK for record in ordered)
    bits = 0
    while total > shard_bytes << bits:
        bits += 1
    placed: list[Record] = []
    by_shard: dict[int, list[Record]] = {}
    for record in ordered:
        by_shard.setdefault(int(record.key[:8], 16) >> (32 - bits), []).append(record)
    for number, members in sorted(by_shard.items()):
        name = f"shard-{number:05d}.tar"
        partial = folder / f"{name}.partial"
        with partial.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for record in members:
                placed.append(_append(tar, name, record, read(record)))
                progress(len(placed))
        partial.rename(folder / name)
    return placed


def _append(tar: tarfile.TarFile, shard: str, record: Record, content: bytes) -> Record:
    member = tarfile.TarInfo(record.key + Path(record.source).suffix.lower())
    member.size = len(content)
    member.mode = 0o644
    offset = tar.offset + BLOCK
    tar.addfile(member, BytesIO(content))
    return replace(record, shard=shard, offset=offset, size=len(content))


def write_index(records: Sequence[Record], folder: Path) -> None:
    """Write index.csv and labels.json, each to a temporary name that is then renamed."""
    partial = folder / f"{INDEX}.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(record) for record in records)
    partial.rename(folder / INDEX)
    names = sorted({record.label for record in records})
    partial = folder / f"{LABELS}.partial"
    partial.write_text(json.dumps(names, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.rename(folder / LABELS)


def is_whole(folder: Path) -> bool:
    """Whether every image of the index lies inside its shard; sizes are compared, not bytes."""
    try:
        records = read_index(folder)
        sizes = {shard: (folder / shard).stat().st_size for shard in {record.shard for record in records}}
    except (OSError, ValueError):
        return False
    return bool(records) and all(record.offset + record.size <= sizes[record.shard] for record in records)
