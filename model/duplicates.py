"""Near-duplicates: groups of images that show the same scene, whichever way they are turned or mirrored.

Low frequencies (brightness, illumination) make unlike steel images correlate, so only fine structure is compared: on the
1,500 images of NEU-DET plain correlation above 0.9 finds 30,000 pairs, the high-passed one above 0.7 a few dozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE_PX = 64
HIGH_PASS_SIGMA_PX = 4.0
FEATURELESS = 0.5  # grey levels of deviation: smooth light leaves 0.2 after the high pass, the faintest steel image 1.6
CHUNK = 1024  # images a side of one matrix product: eight products of 4 MiB at a time


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates by position, `first` < `second`, and their similarity."""

    first: int
    second: int
    similarity: float


def thumbnail(image: Image.Image) -> NDArray[np.float16]:
    """The fine structure of an image, (64, 64): grey, high-passed, zero mean, unit norm; all zeros for a featureless image."""
    grey = image.convert("L")
    if (factor := min(grey.size) // (4 * SIDE_PX)) > 1:
        grey = grey.reduce(factor)
    small = np.asarray(grey.convert("F").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
    # The slope of the light continues past the border, else the filter finds an edge there in every smooth image.
    margin = round(4 * HIGH_PASS_SIGMA_PX)
    continued = np.pad(small, margin, mode="reflect", reflect_type="odd")
    fine = small - gaussian_filter(continued, HIGH_PASS_SIGMA_PX)[margin:-margin, margin:-margin]
    fine -= fine.mean()
    norm = float(np.linalg.norm(fine))
    unit = fine / norm if norm >= FEATURELESS * SIDE_PX else np.zeros_like(fine)
    return np.asarray(unit, dtype=np.float16)


def near_duplicates(
    thumbnails: Sequence[NDArray[np.float16]], *, similarity: float, progress: Callable[[int], None] = lambda done: None
) -> list[Pair]:
    """The pairs whose similarity, the largest over the eight flips and quarter turns, is at least `similarity`.

    Memory is bounded by the chunk, time grows with the square of the number of images.
    """
    pairs: list[Pair] = []
    starts = range(0, len(thumbnails), CHUNK)
    done = 0
    for row in starts:
        upright = _quadrants(thumbnails[row : row + CHUNK])
        turned = _quadrants([image.T for image in thumbnails[row : row + CHUNK]])
        for column in starts[row // CHUNK :]:
            other = _quadrants(thumbnails[column : column + CHUNK])
            closeness = np.maximum(_best_flip(upright, other), _best_flip(turned, other))
            for first, second in np.argwhere(closeness >= similarity):
                if row + first < column + second:
                    pairs.append(Pair(int(row + first), int(column + second), float(closeness[first, second])))
        done += upright.shape[1]
        progress(done)
    return pairs


def _quadrants(images: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """(N, S, S) to (4, N, S*S/4): parts even-even, even-odd, odd-even and odd-odd under the two mirrors.

    A mirror only changes the sign of a part, so four products of a quarter the length give the dot products of all four flips.
    """
    stack = np.asarray(images, dtype=np.float32)
    half = stack.shape[1] // 2
    rows = [stack[:, :half] + stack[:, : half - 1 : -1], stack[:, :half] - stack[:, : half - 1 : -1]]
    parts = [
        part for row in rows for part in (row[:, :, :half] + row[:, :, : half - 1 : -1], row[:, :, :half] - row[:, :, : half - 1 : -1])
    ]
    return np.stack([part.reshape(len(stack), -1) / 2 for part in parts])


def _best_flip(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4, N, D) and (4, M, D) to (N, M): the largest dot product over the four flips, that is over the signs of the parts."""
    even_even, even_odd, odd_even, odd_odd = (a @ b.T for a, b in zip(left, right, strict=True))
    best: NDArray[np.float32] = np.maximum(
        even_even + even_odd + np.abs(odd_even + odd_odd),
        even_even - even_odd + np.abs(odd_even - odd_odd),
    )
    return best


def groups_of(number: int, pairs: Sequence[Pair]) -> list[int]:
    """The group of each of `number` images, pairs joined transitively; groups are numbered in order of their first image."""
    parent = list(range(number))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for pair in pairs:
        low, high = sorted((root(pair.first), root(pair.second)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(node), len(numbers)) for node in range(number)]
