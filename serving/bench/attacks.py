"""Constructed bodies that must be refused: no images, images that lie about themselves, and bombs."""

import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from serving.bench.pictures import encode, images, photo

MAX_BYTES, MAX_PIXELS = 200_000, 1_000_000  # the limits under which each is refused


@cache
def constructed() -> dict[str, tuple[bytes, int]]:
    """Bodies that must be refused, by name, with the status of the refusal."""
    jpeg, good = images()["baseline"], images()["png"]
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
        "only a png's signature": (good[:8], 400),
        "a png of half the pixels": (good[: len(good) // 2], 400),
        "a png without pixels": (png(0, 0), 400),
        "a png that claims 60000 x 60000": (png(60000, 60000), 413),
        "a png that claims 2^31 - 1 a side": (png(2**31 - 1, 2**31 - 1), 413),
        "a png whose pixels do not unpack": (png(32, 32, rows=b"no zlib stream"), 400),
        "a bomb of zeros": (png(8000, 8000, rows=zlib.compress(bytes(8000 * 24001), 9)), 413),
        "a text bomb in a png": (png(32, 32, before=_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9))), 400),
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


def png(width: int, height: int, *, rows: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG that claims its size, whatever its `rows` hold; `before` are chunks that come first."""
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
