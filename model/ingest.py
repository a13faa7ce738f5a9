"""From a source of images to the data folder of a run: inspected, grouped, split, packed into shards, reported.

The folder appears whole or not at all: everything is written beside it and takes its place by one rename.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from model import describe, shards
from model.archives import Listing, open_files
from model.classes import check_classes, classes_of
from model.duplicates import groups_of, near_duplicates
from model.inspection import MAX_IMAGE_BYTES, Inspected, Rejected, drop_repeated, inspect
from model.sources import Origin
from model.split import check_fractions, split_groups

FORMAT = 1  # of the data folder; a new number makes every import run again
REPORT = "report.json"
IN_FLIGHT = 32  # images in memory at a time

Progress = Callable[[str, int, int | None], None]  # what is done, how much of it, of how much


def build_dataset(
    origin: Origin,
    folder: Path,
    *,
    min_side_px: int,
    max_pixels: int,
    duplicate_similarity: float,
    seed: int,
    fractions: dict[str, float],
    shard_mb: int,
    force: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """The report of the data folder that now holds the images of `origin`; `unchanged` in it says that nothing had to be done.

    Raises: ValueError for data or parameters that cannot be used, OSError when the source cannot be read; `folder` is
    untouched then.
    """
    check_fractions(fractions)
    if not 0 < duplicate_similarity <= 1 or min_side_px < 1 or shard_mb < 1:
        raise ValueError("wanted data.duplicate_similarity in (0, 1], data.min_side_px and data.shard_mb of at least 1")
    params = {
        "min_side_px": min_side_px,
        "max_pixels": max_pixels,
        "duplicate_similarity": duplicate_similarity,
        "seed": seed,
        "fractions": fractions,
        "shard_mb": shard_mb,
    }
    fingerprint = hashlib.sha256(json.dumps([FORMAT, origin.identity, params], sort_keys=True).encode()).hexdigest()
    if not force and origin.identity and (report := _current(folder, fingerprint)):
        return {**report, "unchanged": True}
    partial = folder.with_name(f"{folder.name}.partial")
    scratch = folder.with_name(f"{folder.name}.scratch")
    try:
        for place in (partial, scratch):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        local = origin.fetch(scratch, lambda done, total: progress(origin.stage, done, total))
        with open_files(local, scratch) as listing:
            report = _pack(listing, partial, params=params, progress=progress)
        report = {"format": FORMAT, "source": origin.name, "fingerprint": fingerprint, "params": params, **report}
        (partial / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        describe.draw(partial)
        _replace(partial, folder)
    finally:
        for place in (partial, scratch):
            shutil.rmtree(place, ignore_errors=True)
    return {**report, "unchanged": False}


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a data folder. Raises: FileNotFoundError without one."""
    path = folder / REPORT
    if not path.exists():
        raise FileNotFoundError(f"no {path}: make it with `slipway data import SRC --name NAME` or `slipway data synth --name NAME`")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _current(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The report of `folder` when it was made from the same content and parameters and is still whole."""
    try:
        report = read_report(folder)
        same = report.get("fingerprint") == fingerprint and report.get("data_digest") == shards.data_digest(folder)
    except (OSError, ValueError):
        return None
    return report if same and shards.is_whole(folder) else None


def _pack(listing: Listing, folder: Path, *, params: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    labels, left_out = classes_of(listing)
    images: list[Inspected] = []
    rejected: list[Rejected] = []
    for done, result in enumerate(_inspect_all(listing, labels, params), start=1):
        (images if isinstance(result, Inspected) else rejected).append(result)  # type: ignore[arg-type]
        progress("inspect", done, len(labels))
    kept, repeated = drop_repeated(images)
    check_classes((image.label for image in kept), labels.values())
    pairs = near_duplicates(
        [image.thumbnail for image in kept],
        similarity=params["duplicate_similarity"],
        progress=lambda done: progress("compare", done, len(kept)),
    )
    groups = groups_of(len(kept), pairs)
    splits = split_groups(
        [image.key for image in kept],
        [image.label for image in kept],
        groups=groups,
        fractions=params["fractions"],
        seed=params["seed"],
    )
    rows = [
        shards.Record(image.key, image.label, split, group, "", 0, image.size, image.width, image.height, image.mode, image.source)
        for image, split, group in zip(kept, splits, groups, strict=True)
    ]
    records = shards.write_shards(
        rows,
        folder,
        read=lambda record: _read_again(listing, record),
        shard_bytes=params["shard_mb"] << 20,
        progress=lambda done: progress("pack", done, len(rows)),
    )
    shards.write_index(records, folder)
    summary = describe.summarise(records, found=labels, rejected=rejected, repeated=repeated, pairs=pairs, left_out=left_out)
    return {"data_digest": shards.data_digest(folder), **summary}


def _inspect_all(listing: Listing, labels: Mapping[str, str], params: Mapping[str, Any]) -> Iterator[Inspected | Rejected]:
    """Each image judged, in order; a few threads, since decoders let go of the interpreter's lock."""

    def one(path: str) -> Inspected | Rejected:
        size = listing.sizes[path]
        if size > MAX_IMAGE_BYTES:
            return Rejected(path, f"too large: {size:,} bytes, wanted at most {MAX_IMAGE_BYTES:,}")
        try:
            content = listing.read(path)
        except (OSError, ValueError) as error:
            return Rejected(path, f"cannot be read: {error}")
        limits = {"min_side_px": params["min_side_px"], "max_pixels": params["max_pixels"]}
        return inspect(content, source=path, label=labels[path], **limits)

    paths = iter(labels)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while batch := list(islice(paths, IN_FLIGHT)):
            yield from pool.map(one, batch)


def _read_again(listing: Listing, record: shards.Record) -> bytes:
    content = listing.read(record.source)
    if hashlib.sha256(content).hexdigest()[:16] != record.key:
        raise ValueError(f"{record.source} changed while it was imported: run the command again")
    return content


def _replace(partial: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
