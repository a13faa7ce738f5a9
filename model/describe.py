"""What a data set looks like: the report's numbers, a contact sheet, and the classes by split."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from model import shards
from model.duplicates import Pair
from model.inspection import Rejected, Repeated
from model.split import SPLITS

UNBALANCED = 3.0  # largest class over smallest, from which the report warns
TILE_PX, GAP_PX, COLUMNS, MAX_ROWS = 112, 6, 10, 40
SPLIT_COLOURS = {"train": "#1f4e79", "val": "#3f88c5", "calib": "#9cc5e3", "test": "#e07a2f", "drift": "#b9b9b9"}


def summarise(
    records: Sequence[shards.Record],
    *,
    found: Mapping[str, str],
    rejected: Sequence[Rejected],
    repeated: Sequence[Repeated],
    pairs: Sequence[Pair],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The report of an import as plain JSON values. `pairs` count positions in `records`; `found` maps paths to classes."""
    found_in, kept_in = Counter(found.values()), Counter(record.label for record in records)
    cells = Counter((record.label, record.split) for record in records)
    classes = {
        label: {"found": found_in[label], "kept": kept_in[label], "splits": {split: cells[label, split] for split in SPLITS}}
        for label in sorted(found_in)
    }
    members: dict[int, list[shards.Record]] = defaultdict(list)
    for record in records:
        members[record.group].append(record)
    alike = [
        {"sources": sorted(record.source for record in group), "labels": sorted({record.label for record in group})}
        for _, group in sorted(members.items())
        if len(group) > 1
    ]
    report = {
        "images": len(records),
        "bytes": sum(record.size for record in records),
        "shards": len({record.shard for record in records}),
        "classes": classes,
        "splits": {split: sum(cells[label, split] for label in classes) for split in SPLITS},
        "sizes": _most_common(f"{record.width} x {record.height}" for record in records),
        "modes": _most_common(record.mode for record in records),
        "rejected": {item.source: item.reason for item in rejected},
        "left_out": dict(left_out),
        "exact_duplicates": [list(item.sources) for item in repeated if not item.conflict],
        "label_conflicts": [list(item.sources) for item in repeated if item.conflict],
        "near_duplicates": {"pairs": len(pairs), "groups": alike},
        "imbalance": round(max(kept_in.values()) / min(kept_in.values()), 3),
    }
    return {**report, "warnings": _doubts(report)}


def _most_common(values: Iterable[str], *, shown: int = 12) -> dict[str, int]:
    """How often each value occurs, most frequent first; the rest is summed as "other"."""
    counts = Counter(values)
    top = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:shown])
    return top if len(top) == len(counts) else {**top, "other": counts.total() - sum(top.values())}


def _doubts(report: Mapping[str, Any]) -> list[str]:
    """What a person should look at, one sentence each."""
    doubts: list[str] = []
    if report["rejected"]:
        doubts.append(f"{len(report['rejected'])} image files were refused; the reasons are in report.json under rejected")
    if report["label_conflicts"]:
        doubts.append(f"{len(report['label_conflicts'])} contents lie in more than one class; all their files were dropped")
    mixed = sum(1 for group in report["near_duplicates"]["groups"] if len(group["labels"]) > 1)
    if mixed:
        doubts.append(f"{mixed} groups of near-duplicates hold more than one class: look for wrong labels")
    largest = max((len(group["sources"]) for group in report["near_duplicates"]["groups"]), default=0)
    if largest > max(10, report["images"] // 20):
        doubts.append(f"one group of near-duplicates holds {largest} images: raise data.duplicate_similarity if they are not alike")
    if report["imbalance"] > UNBALANCED:
        doubts.append(f"the largest class has {report['imbalance']:.1f} times the images of the smallest: expect weak recall there")
    return doubts


def draw(folder: Path) -> None:
    """Write contact_sheet.png and classes.svg into a data folder."""
    records = shards.read_index(folder)
    partial = folder / "contact_sheet.partial"
    contact_sheet(folder, records).save(partial, format="PNG")
    partial.rename(folder / "contact_sheet.png")
    partial = folder / "classes.partial"
    class_plot(records, partial)
    partial.rename(folder / "classes.svg")


def contact_sheet(folder: Path, records: Sequence[shards.Record]) -> Image.Image:
    """One row of images a class, named on the left; keys are hashes, so the first of them are a fair sample."""
    rows: dict[str, list[shards.Record]] = defaultdict(list)
    for record in records:
        rows[record.label].append(record)
    names = sorted(rows)[:MAX_ROWS]
    font = ImageFont.load_default(size=15)
    small = ImageFont.load_default(size=12)
    margin = 24 + round(max(font.getlength(name) for name in names))
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (margin + COLUMNS * step + GAP_PX, len(names) * step + GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        middle = GAP_PX + row * step + TILE_PX // 2
        pen.text((12, middle - 9), name, fill="#222222", font=font, anchor="lm")
        pen.text((12, middle + 11), f"{len(rows[name]):,} images", fill="#777777", font=small, anchor="lm")
        for column, record in enumerate(rows[name][:COLUMNS]):
            with Image.open(BytesIO(shards.read_bytes(folder, record))) as image:
                tile = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
            sheet.paste(tile, (margin + column * step, GAP_PX + row * step))
    return sheet


def class_plot(records: Sequence[shards.Record], path: Path) -> None:
    """Write an SVG of horizontal bars: the images of each class, stacked by split. Equal records give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = sorted({record.label for record in records})
    cells = Counter((record.label, record.split) for record in records)
    with rc_context({"svg.hashsalt": "slipway", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(8, 1.3 + 0.36 * len(names)), layout="constrained")
        axes = figure.subplots()
        left = [0] * len(names)
        for split in SPLITS:
            widths = [cells[name, split] for name in names]
            axes.barh(names, widths, left=left, height=0.68, color=SPLIT_COLOURS[split], label=split, edgecolor="white", linewidth=0.8)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for position, total in enumerate(left):
            axes.text(total, position, f"  {total:,}", va="center", color="#444444")
        axes.invert_yaxis()
        axes.set_xlim(0, max(left) * 1.08)
        axes.set_xlabel("images")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=len(SPLITS), frameon=False, handlelength=1.0, columnspacing=1.4)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # measured with another font, but the text stays text in the SVG
            figure.savefig(path, format="svg", metadata={"Date": None})
