"""Bodies that no server should fall over: constructed attacks, and seeded mutations of image files, each with what is right to answer.

Rule: a body is refused when Pillow, told to be strict, does not decode it as one of the served formats, or when it is
larger than the limits. Mutations often still decode; then a prediction is the right answer.
"""

import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES, MAX_PIXELS = 200_000, 1_000_000


@dataclass(frozen=True)
class Body:
    """What is sent: `refused` says whether the answer must be 4xx; otherwise it must be 200."""

    name: str
    content: bytes
    refused: bool


def hostile(count: int, *, seed: int, folder: Path | None = None) -> list[Body]:
    """The constructed bodies, then mutations of drawn images and of those in `folder`, `count` in all."""
    rng = random.Random(seed)
    seeds = [*images().values()] + ([path.read_bytes() for path in sorted(folder.iterdir())] if folder else [])
    bodies = [Body(name, content, is_refused(content)) for name, (content, _) in constructed().items()]
    while len(bodies) < count:
        name, content = mutate(rng, seeds)
        if content:
            bodies.append(Body(f"{len(bodies)}: {name}", content, is_refused(content)))
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


def photo(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """A picture with structure on all scales, like a photo, and unlike its mirror images."""
    rng = np.random.default_rng(seed)
    planes = []
    for cells, weight in ((2, 0.5), (8, 0.3), (32, 0.15)):
        rows, columns = (max(2, cells * side // max(width, height)) for side in (height, width))
        noise = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), np.uint8))
        planes.append(weight * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32))
    return Image.fromarray(np.clip(sum(planes), 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
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


@cache
def constructed() -> dict[str, tuple[bytes, int]]:
    """Bodies that must be refused, by name, with the status of the refusal."""
    jpeg, png = images()["baseline"], images()["png"]
    return {
        "a single zero": (b"\0", 400),
        "text": (b"this is text, and no image at all", 400),
        "json": (b'{"instances": [{"b64": "/9j/4AAQ"}]}', 400),
        "base64": (b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQ", 400),
        "noise": (random.Random(0).randbytes(5000), 400),
        "zeros": (bytes(5000), 400),
        "pdf": (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF", 415),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', 415),
        "svg with a declaration": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>', 415),
        "html": (b"<!DOCTYPE html><html><body>404</body></html>", 415),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), 415),
        "avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(100), 415),
        "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(100), 415),
        "photoshop": (b"8BPS\0\1" + bytes(100), 415),
        "zip": (b"PK\3\4" + bytes(100), 415),
        "gzip": (b"\x1f\x8b\x08" + bytes(100), 415),
        "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), 415),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400),
        "float tiff": (encode(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), 415),
        "only a jpeg's start": (jpeg[:2], 400),
        "only a jpeg's headers": (jpeg[: jpeg.find(b"\xff\xda")], 400),
        "a jpeg of half the pixels": (jpeg[: (jpeg.find(b"\xff\xda") + len(jpeg)) // 2], 400),
        "a jpeg without pixels": (_with_jpeg_size(jpeg, 0, 0), 400),
        "a jpeg that claims 65500 x 65500": (_with_jpeg_size(jpeg, 65500, 65500), 413),
        "a jpeg of 400 scans": (many_scans(400, side_px=300), 413),
        "only a png's signature": (png[:8], 400),
        "a png of half the pixels": (png[: len(png) // 2], 400),
        "a png without pixels": (_png(0, 0), 400),
        "a png that claims 60000 x 60000": (_png(60000, 60000), 413),
        "a png that claims 2^31 - 1 a side": (_png(2**31 - 1, 2**31 - 1), 413),
        "a png whose pixels do not unpack": (_png(32, 32, rows=b"no zlib stream"), 400),
        "a bomb of zeros": (_png(8000, 8000, rows=zlib.compress(bytes(8000 * 24001), 9)), 413),
        "a text bomb in a png": (_png(32, 32, before=_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9))), 400),
        "a gif screen of 65535 x 65535": (_gif(65535, 65535), 413),
        "a gif frame beyond its screen": (_gif(8, 8, frame=(65000, 65000)), 413),
        "a gif without a frame": (_gif(8, 8)[:13] + b";", 400),
        "a webp of 16383 x 16383": (_webp(16383, 16383), 413),
        "a bmp of 2^31 - 1 a side": (_bmp(2**31 - 1, 2**31 - 1), 413),
        "a tiff of 2^31 a side": (_tiff({256: 2**31, 257: 2**31, 258: 8, 259: 1, 262: 1, 273: 8, 278: 1, 279: 10}), 413),
        "a tiff whose directory points to itself": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", 400),
        "a tiff whose strip lies beyond its end": (_tiff({256: 9, 257: 9, 258: 8, 259: 1, 262: 1, 273: 1 << 30, 278: 9, 279: 81}), 400),
        "a tiff in 20,000 strips": (_strips(20_000), 413),
        "a run-length coded bmp": (_bmp(900, 900, compression=1), 415),
        "too many bytes": (jpeg + bytes(MAX_BYTES), 413),
    }  # fmt: skip


def many_scans(count: int, *, side_px: int = 96) -> bytes:
    """A small progressive JPEG whose last scan, of some bytes, is repeated: each costs a decoder a pass over the image."""
    content = encode(Image.new("L", (side_px, side_px), 90), "JPEG", progressive=True)
    last = content.rfind(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"


def _with_jpeg_size(content: bytes, width: int, height: int) -> bytes:
    frame = content.find(b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *, rows: bytes = b"", before: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _gif(width: int, height: int, *, frame: tuple[int, int] | None = None) -> bytes:
    extent = struct.pack("<HHHH", 0, 0, *(frame or (width, height)))
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + extent + b"\0" + b"\x02\x02\x4c\x01\0;"


def _webp(width: int, height: int) -> bytes:
    content = bytearray(encode(photo(), "WEBP"))
    start = content.find(b"\x9d\x01\x2a") + 3
    content[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(content)


def _bmp(width: int, height: int, *, compression: int = 0) -> bytes:
    depth = 8 if compression else 24
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + b"\x01\x12\0\0" * 900


def _strips(count: int) -> bytes:
    start = 8 + 2 + 12 * 8 + 4
    tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 273: start, 278: 1, 279: start + 4 * count}
    return _tiff(tags, counts={273: count, 279: count}) + struct.pack("<I", 8) * count + struct.pack("<I", 1) * count


def _tiff(tags: dict[int, int], *, counts: dict[int, int] | None = None) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, (counts or {}).get(tag, 1), value) for tag, value in sorted(tags.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def good(count: int) -> Iterator[bytes]:
    """Good JPEG images, all different."""
    for number in range(count):
        yield encode(photo(seed=100 + number), "JPEG", quality=80)
