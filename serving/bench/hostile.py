"""Bodies that no server should fall over: constructed attacks, and seeded mutations of image files, each with what is right to answer.

Rule: a body is refused when Pillow, told to be strict, does not decode it as one of the served formats, or when it is
larger than the limits. Mutations often still decode; then a prediction is the right answer.
"""

import random
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from serving.bench.attacks import MAX_BYTES, MAX_PIXELS, constructed
from serving.bench.pictures import images

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


@dataclass(frozen=True)
class Body:
    """What is sent: `refused` says whether the answer must be 4xx; otherwise it must be 200."""

    name: str
    content: bytes
    refused: bool


def hostile(count: int, *, seed: int, folder: Path | None = None, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> list[Body]:
    """The constructed bodies, then mutations of drawn images and of those in `folder`, `count` in all."""
    rng = random.Random(seed)
    seeds = [*images().values()] + ([path.read_bytes() for path in sorted(folder.iterdir())] if folder else [])
    bodies = [
        Body(name, content, is_refused(content, max_bytes=max_bytes, max_pixels=max_pixels)) for name, (content, _) in constructed().items()
    ]
    while len(bodies) < count:
        name, content = mutate(rng, seeds)
        if content:
            bodies.append(Body(f"{len(bodies)}: {name}", content, is_refused(content, max_bytes=max_bytes, max_pixels=max_pixels)))
    return bodies[:count]


def is_refused(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether the reference decoder refuses `content`."""
    if len(content) > max_bytes:
        return True
    passes = content.count(b"\xff\xda") / 16 if content.startswith(b"\xff\xd8\xff") else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
            if image.size[0] * image.size[1] * max(1, passes) > max_pixels or image.mode in ("F", "LAB"):
                return True
            if len(image.tile) > 10_000 or [tile[0] for tile in image.tile[:1]] == ["bmp_rle"]:
                return True
            image.load()
            image.convert("RGB")
        except Exception:
            return True
    return False


def mutate(rng: random.Random, seeds: Sequence[bytes]) -> tuple[str, bytes]:
    """One of `seeds` with a few mutations, and their names."""
    content, names = bytearray(rng.choice(seeds)), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutation = rng.choice(MUTATIONS)
        names.append(mutation.__name__.strip("_"))
        mutation(rng, content, seeds)
    return "+".join(names), bytes(content)


def _place(rng: random.Random, content: bytearray) -> int:
    """A place in `content`, more often near its start, where the headers are."""
    return int(len(content) * rng.random() ** rng.choice((1, 3)))


def _flip_bits(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    for _number in range(rng.choice((1, 1, 4, 32))):
        if content:
            content[_place(rng, content)] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    del content[_place(rng, content) :]


def _drop(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    start = _place(rng, content)
    del content[start : start + rng.choice((1, 2, 16, 256))]


def _repeat(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    start = _place(rng, content)
    content[start:start] = content[start : start + rng.choice((2, 16, 256))] * rng.choice((1, 3))


def _insert(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    start = _place(rng, content)
    content[start:start] = rng.randbytes(rng.choice((1, 8, 100)))


def _swap_chunks(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    first, second = sorted((_place(rng, content), _place(rng, content)))
    size = min(rng.choice((4, 12, 64)), second - first)
    content[first : first + size], content[second : second + size] = content[second : second + size], content[first : first + size]


def _change_length(rng: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    kind = rng.choice((">H", "<H", ">I", "<I"))
    limit = (1 << 8 * struct.calcsize(kind)) - 1
    start = _place(rng, content)
    value = rng.choice((0, 1, limit, limit // 2, limit // 2 + 1, rng.randrange(limit)))
    content[start : start + struct.calcsize(kind)] = struct.pack(kind, value)


def _splice(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    content[_place(rng, content) :] = other[_place(rng, bytearray(other)) :]


MUTATIONS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip_bits, _flip_bits, _cut, _drop, _repeat, _insert, _swap_chunks, _change_length, _change_length, _splice,
)  # fmt: skip
