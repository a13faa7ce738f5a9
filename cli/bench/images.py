"""The images of a benchmark: synthetic photographs, a folder, or the test split of the run that the archive came from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.archive import Archive

MAX_IMAGES = 256
PHOTOGRAPHS = range(4, 49)
PHOTOGRAPHS_PIXELS = 24_000_000  # of all photographs together


def load_images(choice: str, archive: "Archive", target: Path, *, build: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files to send, and what to say of them. Those that are made here are written to the new folder `target`.

    `choice` is WIDTHxHEIGHT, `run`, or a folder. Raises: ValueError, FileNotFoundError when it is none of them.
    """
    target.mkdir()
    if size := re.fullmatch(r"(\d{2,5})x(\d{2,5})", choice):
        about, paths = f"synthetic photographs of {choice} pixels", _photographs(int(size[1]), int(size[2]), target)
    elif choice == "run":
        about, paths = f"images of the test split of {archive.about['name']}", _test_split(build / archive.about["name"] / "data", target)
    else:
        about, paths = f"images of {choice}", _in_folder(Path(choice))
    total = sum(path.stat().st_size for path in paths)
    return paths, {"about": f"{len(paths)} {about}, {total / len(paths) / 1e3:.0f} kB each", "count": len(paths), "bytes": total}


def _photographs(width: int, height: int, target: Path) -> list[Path]:
    from serving.bench.images import photographs

    count = min(max(PHOTOGRAPHS_PIXELS // (width * height), PHOTOGRAPHS[0]), PHOTOGRAPHS[-1])
    return _write(photographs(width, height, count=count), target)


def _test_split(data: Path, target: Path) -> list[Path]:
    from model.shards import read_bytes, read_index

    return _write([read_bytes(data, record) for record in read_index(data, split="test")[:MAX_IMAGES]], target)


def _in_folder(folder: Path) -> list[Path]:
    from cli.serve import IMAGE_SUFFIXES

    if not folder.is_dir():
        raise FileNotFoundError(f"--images wants a folder, `run`, or a size as 500x400; there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"no images in {folder}: wanted files that end in {', '.join(IMAGE_SUFFIXES)}")
    return [path.resolve() for path in found[:MAX_IMAGES]]


def _write(images: list[bytes], target: Path) -> list[Path]:
    paths = [target / f"{number:03}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    return paths
