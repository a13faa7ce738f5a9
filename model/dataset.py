"""Images of a split for training and validation: map-style, so that a loader scales over workers and samples exactly."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from model.shards import Record, labels, read_bytes

Pixels = npt.NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]  # a file's bytes to (H, W, 3)


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """(3, H, W) uint8 and class index of each record; decoded images stay in memory up to `cache_mb`."""

    def __init__(
        self,
        folder: Path,
        records: Sequence[Record],
        *,
        decode: Decode,
        augment: Callable[[Tensor], Tensor] | None = None,
        cache_mb: int = 2048,
    ) -> None:
        self.folder, self.records, self.decode, self.augment = folder, records, decode, augment
        self.classes = {label: index for index, label in enumerate(labels(folder))}
        self.seed = 0
        self._cache: dict[int, Pixels] = {}
        self._room = cache_mb << 20

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image and class; augmented with random numbers that depend on `seed` and `index` alone, whoever loads it."""
        image = torch.from_numpy(self._pixels(index)).permute(2, 0, 1)  # (H, W, 3) to (3, H, W)
        if self.augment is not None:
            before = torch.get_rng_state()
            torch.default_generator.manual_seed(self.seed * 1_000_003 + index)  # torch.manual_seed would remember every call's stack
            image = self.augment(image)
            torch.set_rng_state(before)
        return image, self.classes[self.records[index].label]

    def _pixels(self, index: int) -> Pixels:
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = self.decode(read_bytes(self.folder, self.records[index]))
            if self._room >= pixels.nbytes:
                self._room -= pixels.nbytes
                self._cache[index] = pixels
        return pixels


def read_rgb(data: bytes, *, min_side_px: int) -> Pixels:
    """A training image (H, W, 3), upright; large ones are reduced, but never below `min_side_px` on the shorter side."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image.draft("RGB", (min_side_px, min_side_px))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    if (factor := min(image.size) // min_side_px) > 1:
        image = image.reduce(factor)
    return np.array(image)
