"""Golden images: the few that must predict as recorded before a server is ready, awkward encodings among them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from model.shards import Record, read_bytes

MAX_CLASSES = 10


def golden_images(data: Path, records: Sequence[Record], right: Sequence[bool], confidence: Sequence[float]) -> dict[str, bytes]:
    """File name to bytes: for each class the test image that is predicted right and most surely, and one image in odd encodings.

    Raises: ValueError when no test image is predicted right.
    """
    best: dict[str, tuple[float, Record]] = {}
    for record, is_right, sure in zip(records, right, confidence, strict=True):
        if record.split == "test" and is_right and sure > best.get(record.label, (0.0, record))[0]:
            best[record.label] = (sure, record)
    if not best:
        raise ValueError("no test image is predicted right: there is nothing to take as a golden image")
    chosen = [record for _, (_, record) in sorted(best.items())[:MAX_CLASSES]]
    files = {f"golden/{record.label}{Path(record.source).suffix.lower()}": read_bytes(data, record) for record in chosen}
    return {**files, **awkward(read_bytes(data, chosen[0]))}


def awkward(content: bytes) -> dict[str, bytes]:
    """The same picture as grey, CMYK, rotated by EXIF, with alpha, and with 16 bits a pixel; at most 512 pixels a side."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((512, 512))
    grey = image.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF orientation: turn by 90 degrees clockwise to show
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))  # from invisible at the top to solid at the bottom
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "golden/odd-grey.jpg": _encode(grey, "JPEG", quality=92),
        "golden/odd-cmyk.jpg": _encode(image.convert("CMYK"), "JPEG", quality=92),
        "golden/odd-rotated.jpg": _encode(image, "JPEG", quality=92, exif=exif),
        "golden/odd-alpha.png": _encode(alpha, "PNG"),
        "golden/odd-16bit.png": _encode(sixteen, "PNG"),
    }


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
