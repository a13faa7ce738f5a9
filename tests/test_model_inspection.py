"""Every file is either an image with facts or refused with a reason."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.inspection import Inspected, Rejected, drop_repeated, inspect


def encoded(size=(64, 48), *, mode="RGB", kind="PNG", seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=kind)
    return buffer.getvalue()


def judge(content: bytes, *, label="a", source="a/x"):
    return inspect(content, source=source, label=label, min_side_px=32, max_pixels=1_000_000)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "BMP"), ("LA", "PNG")]
)
def test_images_of_every_mode_are_read(mode, kind):
    found = judge(encoded(mode=mode, kind=kind))
    assert isinstance(found, Inspected)
    assert (found.width, found.height, found.mode) == (64, 48, mode)
    assert found.thumbnail.shape == (64, 64)


def test_sixteen_bit_images_are_read():
    buffer = BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(buffer, format="PNG")
    assert isinstance(judge(buffer.getvalue()), Inspected)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header announces what its few bytes do not hold."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 9999) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no image at all" * 100, "not an image"),
        (encoded(kind="JPEG")[:800], "does not decode"),
        (encoded(kind="PNG")[:3000], "does not decode"),
        (encoded((31, 400)), "too small: 31 x 400"),
        (encoded((1001, 1000), mode="1"), "too large: 1001 x 1000"),
        (bomb(5000, 5000), "too large: 5000 x 5000"),
        (bomb(60_000, 60_000), ""),  # Pillow's own words or ours, by who looks first
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "small", "large", "bomb", "huge bomb"],
)
def test_unusable_files_are_refused_with_a_reason(content, reason):
    found = judge(content)
    assert isinstance(found, Rejected)
    assert reason in found.reason


def test_equal_bytes_are_kept_once_and_conflicting_labels_not_at_all():
    first, second, third = (encoded(seed=seed) for seed in range(3))
    images = [
        judge(first, source="a/2.png"),
        judge(first, source="a/1.png"),
        judge(second, source="a/3.png"),
        judge(second, source="b/3.png", label="b"),
        judge(third, source="b/4.png", label="b"),
    ]
    kept, repeated = drop_repeated(images)
    assert {image.source for image in kept} == {"a/1.png", "b/4.png"}
    assert [image.key for image in kept] == sorted(image.key for image in kept)
    assert {(item.sources, item.conflict) for item in repeated} == {(("a/1.png", "a/2.png"), False), (("a/3.png", "b/3.png"), True)}
