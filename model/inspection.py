"""What an image file is, judged before anything learns from it: decodable, of a fitting size, seen only once."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.duplicates import thumbnail

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_IMAGE_BYTES = 16 << 20  # as served: what a client may not send is of no use in training


@dataclass(frozen=True)
class Inspected:
    """A readable image: `thumbnail` is its fine structure for the search of near-duplicates."""

    source: str
    label: str
    sha256: str
    size: int
    width: int
    height: int
    mode: str
    thumbnail: NDArray[np.float16]

    @property
    def key(self) -> str:
        """The first 16 hex digits of the content hash: the image's name from here on."""
        return self.sha256[:16]


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Repeated:
    """Files with equal bytes. With `conflict` they lie in different classes, and none was kept; else the first was."""

    sources: tuple[str, ...]
    conflict: bool


def inspect(content: bytes, *, source: str, label: str, min_side_px: int, max_pixels: int) -> Inspected | Rejected:
    """The facts of one encoded image, or why it is refused. The header is judged before any pixel is decoded."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if min(width, height) < min_side_px:
                return Rejected(source, f"too small: {width} x {height}, wanted at least {min_side_px} px a side")
            if width * height > max_pixels:
                return Rejected(source, f"too large: {width} x {height}, wanted at most {max_pixels} pixels")
            mode, upright = image.mode, ImageOps.exif_transpose(image)
            upright.convert("RGB")  # what training and serving will ask of it
            fine = thumbnail(upright)
    except UnidentifiedImageError:
        return Rejected(source, f"not an image: none of {', '.join(FORMATS)}" if content else "empty file")
    except Exception as error:  # a hostile file may raise anything inside a decoder, and is one file's problem
        return Rejected(source, f"does not decode: {str(error) or type(error).__name__}")
    return Inspected(source, label, hashlib.sha256(content).hexdigest(), len(content), width, height, mode, fine)


def drop_repeated(images: Sequence[Inspected]) -> tuple[list[Inspected], list[Repeated]]:
    """The images with each content once, sorted by key, and what was repeated. Contents with two labels are dropped whole.

    Raises: ValueError when two different contents share a key.
    """
    by_content: dict[str, list[Inspected]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.source):
        by_content[image.sha256].append(image)
    kept: list[Inspected] = []
    repeated: list[Repeated] = []
    for _, same in sorted(by_content.items()):
        conflict = len({image.label for image in same}) > 1
        if len(same) > 1:
            repeated.append(Repeated(tuple(image.source for image in same), conflict))
        if not conflict:
            kept.append(same[0])
    for first, second in pairwise(kept):
        if first.key == second.key:
            raise ValueError(f"{first.source} and {second.source} share the key {first.key}: leave one of them out")
    return kept, repeated
