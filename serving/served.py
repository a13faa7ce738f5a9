"""What the archive says about the model that is served, as the front door needs it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.archive import read


@dataclass(frozen=True)
class Golden:
    """An image whose probabilities (in the order of the labels) were recorded when the archive was made."""

    file: str
    image: bytes
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Served:
    """The self-description of one archive, its golden images with it, and what its handler can: images from shared memory, GPUs."""

    path: Path
    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    max_image_bytes: int
    golden: tuple[Golden, ...]
    golden_tolerance: float
    reads_arenas: bool
    knows_gpus: bool
    about: dict[str, Any]

    def info(self) -> dict[str, Any]:
        """What /info tells: the digest, and all that the archive says about itself but for its golden images."""
        about = {key: value for key, value in self.about.items() if key not in ("golden", "golden_tolerance", "format")}
        return {"digest": self.digest, **about}

    @property
    def short_digest(self) -> str:
        """The first 12 hex digits of the sha256 of the archive's bytes."""
        return self.digest[:12]


def open_archive(path: Path) -> Served:
    """What the archive at `path` says about itself.

    Raises: FileNotFoundError; ValueError when it is no whole archive of ours.
    """
    archive = read(path)
    about = archive.about
    with zipfile.ZipFile(path) as mar:
        reads_arenas, knows_gpus = (f"handler/{part}.py" in mar.namelist() for part in ("arena", "gpu"))
        golden = tuple(Golden(entry["file"], mar.read(entry["file"]), tuple(entry["probabilities"])) for entry in about["golden"])
    return Served(
        path=path,
        name=about["name"],
        version=about["version"],
        digest=archive.digest,
        labels=tuple(about["labels"]),
        max_image_bytes=about["limits"]["max_image_bytes"],
        golden=golden,
        golden_tolerance=about["golden_tolerance"],
        reads_arenas=reads_arenas,
        knows_gpus=knows_gpus,
        about=about,
    )
