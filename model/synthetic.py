"""Six classes of steel surface defects drawn from noise: a data set to try everything with, free of anyone's rights."""

import hashlib
import json
import math
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from model.sources import Origin, Progress

DRAWING = 3  # a new number when the pictures change

Plane = NDArray[np.float32]  # (S, S); grey levels or a mask
Draw = Callable[[np.random.Generator, int], Plane]


def synthetic_origin(*, images_per_class: int, size_px: int, seed: int) -> Origin:
    """An origin that draws its images when they are fetched; its identity is the parameters.

    Raises: ValueError for fewer than one image a class or sides outside 64 to 1024 px.
    """
    if images_per_class < 1 or not 64 <= size_px <= 1024:
        raise ValueError(f"wanted synth.images_per_class of at least 1 and synth.size_px in 64..1024, got {images_per_class} and {size_px}")
    identity = hashlib.sha256(json.dumps(["synthetic", DRAWING, images_per_class, size_px, seed]).encode()).hexdigest()

    def fetch(scratch: Path, progress: Progress) -> Path:
        path = scratch / "synthetic.tar"
        total = images_per_class * len(CLASSES)
        with tarfile.open(path, "w") as archive:
            for position in range(total):
                name, number = sorted(CLASSES)[position // images_per_class], position % images_per_class
                content = encode(draw(name, number, size_px=size_px, seed=seed))
                member = tarfile.TarInfo(f"{name}/{name}_{number + 1:04d}.jpg")
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
                progress(position + 1, total)
        return path

    return Origin(f"synthetic steel, seed {seed}", identity, fetch, stage="draw")


def encode(image: NDArray[np.uint8]) -> bytes:
    """The JPEG file of a grey image (S, S)."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def draw(name: str, number: int, *, size_px: int, seed: int) -> NDArray[np.uint8]:
    """Image `number` of class `name`, (size_px, size_px): its own random stream, so it does not depend on how many are drawn.

    Brightness, contrast, light and orientation are drawn alike for every class: none of them tells the class.
    """
    rng = np.random.default_rng([seed, sorted(CLASSES).index(name), number])
    plane = CLASSES[name](rng, size_px)
    plane = plane + rng.uniform(0, 34) * _light(rng, size_px) + rng.uniform(1, 4) * _white(rng, size_px)
    plane = (plane - plane.mean()) * rng.uniform(0.75, 1.3) + rng.uniform(80, 180)
    if rng.random() < 0.35:
        plane = plane.T
    plane = plane[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    return np.asarray(np.clip(np.rint(plane), 0, 255), dtype=np.uint8)


def _crazing(rng: np.random.Generator, size: int) -> Plane:
    """A coarse bright grain, torn by a net of fine dark cracks that run mostly one way."""
    tilt = rng.normal(0, 0.15)
    plane = rng.uniform(14, 22) * _noise(rng, size, 0.7, 0.7) + rng.uniform(6, 12) * _noise(rng, size, 3, 0.8, tilt=tilt)
    plane += rng.uniform(4, 14) * _noise(rng, size, 8, 70)
    for _ in range(2):
        height = _noise(rng, size, rng.uniform(7, 11), rng.uniform(4, 6), tilt=tilt) + 0.18 * _noise(rng, size, 1.6, 1.6)
        down, right = np.gradient(height)
        away_px = height / (np.hypot(down, right) + 0.02)
        torn = _step(_noise(rng, size, 16, 9, tilt=tilt), rng.uniform(0.0, 0.7), 0.3)
        plane -= rng.uniform(60, 100) * np.exp(-((away_px / 0.8) ** 2)) * torn
    return plane


def _inclusion(rng: np.random.Generator, size: int) -> Plane:
    """A smooth sheet with few dark, ragged, elongated specks strung along the rolling direction."""
    tilt = rng.normal(0, 0.06)
    plane = 2 * _noise(rng, size, 0.8, 0.8) + rng.uniform(2, 7) * _noise(rng, size, 4, 90, tilt=tilt)
    y, x = _grid(size)
    ragged = rng.uniform(0.25, 0.5) * _noise(rng, size, 1.5, 5)
    for _ in range(rng.integers(1, 4)):
        column, middle = rng.uniform(-0.45, 0.45), rng.uniform(-0.4, 0.4)
        depth, softness = rng.uniform(40, 75), rng.uniform(0.08, 0.25)
        specks = np.zeros_like(plane)
        for _ in range(rng.integers(1, 6)):
            half_width = rng.uniform(0.012, 0.04)
            half_length = half_width * rng.uniform(2.5, 7)
            across = (x - column - rng.normal(0, 0.03) + np.sin(tilt) * y) / half_width
            along = (y - middle - rng.normal(0, 0.18)) / half_length
            specks = np.maximum(specks, _step(1 - np.hypot(across, along) + ragged, 0, softness))
        plane -= depth * specks
    return plane


def _patches(rng: np.random.Generator, size: int) -> Plane:
    """A bright rough sheet with large dark stains of ragged outline, some with a few black flecks."""
    plane = rng.uniform(10, 18) * _noise(rng, size, 0.7, 1.1) + rng.uniform(5, 14) * _noise(rng, size, 4, 60)
    field = _noise(rng, size, 12, rng.uniform(12, 40)) + 0.12 * _noise(rng, size, 2.0, 2.4)
    stain = _step(field, np.quantile(field, rng.uniform(0.66, 0.9)), rng.uniform(0.08, 0.22))
    plane -= rng.uniform(80, 130) * stain * (1 + 0.14 * _noise(rng, size, 4, 6))
    if rng.random() < 0.5:
        near = _step(_noise(rng, size, 14, 14), 0.8, 0.15)
        plane -= 90 * near * _step(_noise(rng, size, 1.6, 2.0), 1.2, 0.12)
    return plane


def _pitted(rng: np.random.Generator, size: int) -> Plane:
    """A smooth sheet strewn with small dark round pits, everywhere or in a band."""
    plane = 2.5 * _noise(rng, size, 0.8, 0.8) + rng.uniform(1, 5) * _noise(rng, size, 6, 60)
    scale = rng.uniform(1.1, 2.2)
    deep = np.clip(0.9 + 0.4 * _noise(rng, size, 8, 8), 0.2, 1.6)
    pits = deep * _step(_noise(rng, size, scale, scale * rng.uniform(1.0, 1.4)), rng.uniform(0.7, 1.3), 0.25)
    if rng.random() < 0.45:
        y, x = _grid(size)
        angle = rng.uniform(0, np.pi)
        away = np.abs(np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.25, 0.25)) + 0.05 * _noise(rng, size, 10, 10)
        inside = _step(-away, -rng.uniform(0.2, 0.3), 0.03)
        pits *= inside
        plane -= rng.uniform(0, 14) * inside
    return np.asarray(plane - rng.uniform(50, 80) * pits)


def _rolled(rng: np.random.Generator, size: int) -> Plane:
    """A fine brushed grain with flakes pressed into it: dark, each with one lit edge."""
    tilt = rng.normal(0, 0.25)
    plane = rng.uniform(5, 9) * _noise(rng, size, 4, 0.9, tilt=tilt) + 5 * _noise(rng, size, 1.1, 1.1)
    plane += rng.uniform(4, 11) * _noise(rng, size, 12, 70)
    height = _noise(rng, size, 4.5, 2.6, tilt=tilt) + 0.55 * _noise(rng, size, 1.8, 1.3, tilt=tilt) + 0.8 * _noise(rng, size, 22, 22)
    flakes = _step(height, rng.uniform(1.4, 2.0), 0.22)
    lit = np.roll(flakes, 2, axis=0) - np.roll(flakes, -1, axis=0)
    return np.asarray(plane + rng.uniform(45, 65) * lit - rng.uniform(18, 35) * flakes)


def _scratches(rng: np.random.Generator, size: int) -> Plane:
    """A smooth sheet with a few long, thin, bright lines, now and then broken, slanted or bent."""
    plane = 2 * _noise(rng, size, 0.8, 0.8) + rng.uniform(2, 6) * _noise(rng, size, 2.5, 120)
    y, x = _grid(size)
    lean = rng.normal(0, 0.03) if rng.random() < 0.8 else rng.uniform(-0.5, 0.5)
    worn = np.clip(0.75 + 0.45 * _noise(rng, size, 0.8, rng.uniform(4, 16)), 0.2, 1.6)
    wander = rng.uniform(0.001, 0.004) * _noise(rng, size, 200, 9)
    for _ in range(rng.integers(2, 7)):
        bend = rng.normal(0, 0.4) if rng.random() < 0.08 else 0.0
        middle = rng.uniform(-0.45, 0.45) + (lean + rng.normal(0, 0.008)) * y + bend * y**2 + wander
        half_width = rng.uniform(0.006, 0.012) if rng.random() < 0.8 else rng.uniform(0.012, 0.04)
        start = rng.uniform(-0.9, 0.1)
        end = rng.uniform(max(start + 0.35, -0.1), 1.0)
        ends = _step(y, start, 0.03) * _step(-y, -end, 0.03)
        plane += rng.uniform(70, 130) * np.exp(-(((x - middle) / half_width) ** 4)) * ends * worn
    return plane


def _white(rng: np.random.Generator, size: int) -> Plane:
    return rng.standard_normal((size, size), dtype=np.float32)


def _noise(rng: np.random.Generator, size: int, across: float, along: float, *, tilt: float = 0.0) -> Plane:
    """Smooth noise of unit deviation with correlation lengths in px across (x) and along (y), turned by `tilt` radians."""
    y, x = np.fft.fftfreq(size).astype(np.float32)[:, None], np.fft.rfftfreq(size).astype(np.float32)[None, :]
    cos, sin = math.cos(tilt), math.sin(tilt)
    decay = 2 * math.pi**2 * (across**2 * (x * cos + y * sin) ** 2 + along**2 * (y * cos - x * sin) ** 2)
    keep = np.exp(-np.minimum(decay, 30))  # smaller factors are denormal numbers, which slow the transform down
    keep[0, 0] = 0
    white = (rng.random((size, 2 * keep.shape[1]), dtype=np.float32) - np.float32(0.5)).view(np.complex64)
    plane: Plane = scipy.fft.irfft2(white * keep, s=(size, size))
    plane /= plane.std()
    return plane


def _grid(size: int) -> tuple[Plane, Plane]:
    """y (S, 1) and x (1, S), each from -0.5 to 0.5."""
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    return line[:, None], line[None, :]


def _light(rng: np.random.Generator, size: int) -> Plane:
    """Uneven light in about -1..1: a slope in a random direction and a soft bow."""
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(2 * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(-2.4, 2.4) * (x - rng.uniform(-0.25, 0.25)) ** 2)


def _step(plane: Plane, level: float, softness: float) -> Plane:
    """0 where `plane` is below `level`, 1 above, with a soft edge."""
    return np.asarray(0.5 + 0.5 * np.tanh((plane - level) / (2 * softness)))


CLASSES: dict[str, Draw] = {
    "crazing": _crazing,
    "inclusion": _inclusion,
    "patches": _patches,
    "pitted_surface": _pitted,
    "rolled-in_scale": _rolled,
    "scratches": _scratches,
}
