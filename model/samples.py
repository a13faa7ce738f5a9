"""A few test images of a run as files, to try a model with: one folder a class."""

import shutil
from pathlib import Path

from model.shards import read_bytes, read_index


def write_samples(data: Path, target: Path, *, per_class: int) -> list[Path]:
    """The files written below `target`, named LABEL/KEY.SUFFIX: of each class the first `per_class` test images by key.

    Keys are hashes, so the first are as good as any. What was in `target` before is removed.

    Raises: FileNotFoundError and ValueError as `read_index`; ValueError for fewer than one image a class.
    """
    if per_class < 1:
        raise ValueError(f"wanted at least 1 image a class, got {per_class}")
    partial = target.with_name(f".partial.{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    taken: dict[str, int] = {}
    names: list[Path] = []
    for record in read_index(data, split="test"):
        taken[record.label] = taken.get(record.label, 0) + 1
        if taken[record.label] <= per_class:
            name = Path(record.label, record.key + Path(record.source).suffix.lower())
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(read_bytes(data, record))
            names.append(name)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return sorted(target / name for name in names)
