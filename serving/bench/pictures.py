"""Small good images, in every format that is served."""

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFilter


def photo(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """A picture with structure on all scales, like a photo, and unlike its mirror images."""
    rng = np.random.default_rng(seed)
    planes = []
    for cells, weight in ((2, 0.5), (8, 0.3), (32, 0.15)):
        rows, columns = (max(2, cells * side // max(width, height)) for side in (height, width))
        noise = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), np.uint8))
        planes.append(weight * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32))
    return Image.fromarray(np.clip(sum(planes), 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def images() -> dict[str, bytes]:
    """Small good images in every served format."""
    rgb, grey = photo(), photo(seed=1).convert("L")
    alpha = photo(seed=2)
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [photo(seed=number).convert("P") for number in (3, 4)]
    return {
        "baseline": encode(rgb, "JPEG"),
        "progressive": encode(rgb, "JPEG", progressive=True),
        "grey": encode(grey, "JPEG", quality=50),
        "cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "rotated": encode(rgb, "JPEG", exif=exif),
        "restarts": encode(rgb, "JPEG", restart_marker_rows=1),
        "png": encode(rgb, "PNG"),
        "palette": encode(rgb.convert("P"), "PNG", transparency=3),
        "alpha": encode(alpha, "PNG"),
        "deep": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp": encode(alpha, "WEBP", quality=70),
        "animated webp": encode(rgb, "WEBP", save_all=True, append_images=[photo(seed=5)]),
        "bmp": encode(rgb, "BMP"),
        "tiff": encode(rgb, "TIFF"),
        "lzw tiff": encode(rgb, "TIFF", compression="tiff_lzw"),
        "jpeg tiff": encode(rgb, "TIFF", compression="jpeg"),
    }


def good(count: int) -> Iterator[bytes]:
    """Good JPEG images, all different."""
    for number in range(count):
        yield encode(photo(seed=100 + number), "JPEG", quality=80)
