"""Synthetic photographs: JPEGs that cost what photographs cost to send and to decode, without anybody's pictures.

The picture is the dead-leaves model of natural images (Lee, Mumford and Huang, "Occlusion Models for Natural Images", 2001):
things of all sizes that hide one another, over light that varies at all scales, with the noise of a sensor.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

LEAVES = 90
NOISE = 6.5  # standard deviation of a pixel
QUALITIES = (88, 90, 92, 94)  # what cameras write: 60 to 150 kB at 500 x 400


def photographs(width: int, height: int, *, count: int, seed: int = 1) -> list[bytes]:
    """`count` JPEG files of `width` x `height` pixels; the same arguments give the same pictures."""
    files = []
    for number in range(count):
        buffer = io.BytesIO()
        picture = _picture(np.random.default_rng([seed, number]), width, height)
        Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITIES[number % len(QUALITIES)])
        files.append(buffer.getvalue())
    return files


def _picture(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.uint8]:
    """One picture, (H, W, 3)."""
    canvas = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(canvas)
    sizes = min(width, height) * 0.5 * (1 - rng.random(LEAVES) * 0.99) ** 2  # few large, many small
    for size in np.sort(sizes)[::-1]:
        x, y = rng.random() * width, rng.random() * height
        corners = rng.integers(3, 9)
        angles = np.sort(rng.random(corners)) * 2 * np.pi
        radii = size * (0.5 + rng.random(corners))
        shape = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]
        draw.polygon(shape, fill=_colour(rng))
    canvas = canvas.filter(ImageFilter.GaussianBlur(min(width, height) / 500))  # a lens
    pixels = np.asarray(canvas, np.float32) + _light(rng, width, height)[..., None]
    pixels += rng.normal(0, NOISE, (height, width, 1)).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """Light and texture, (H, W) around 0: noise in octaves, each half as wide and 0.7 times as strong as the one before."""
    plane = np.zeros((height, width), np.float32)
    cells, strength = 2, 32.0
    while cells < min(width, height):
        grid = rng.normal(0, strength, (cells, cells)).astype(np.float32)
        plane += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        cells, strength = cells * 2, strength * 0.7
    return plane


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour with the small saturation of most things."""
    red, green, blue = (rng.uniform(30, 225) + rng.normal(0, 22, 3)).clip(0, 255).astype(int).tolist()
    return red, green, blue
