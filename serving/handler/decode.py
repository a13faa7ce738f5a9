"""Bytes of one image file to the network's input: uint8 (S, S, 3) RGB, upright, resized with antialiasing, centre-cropped.

JPEG goes through libjpeg-turbo, which scales while it decodes; everything else, and every odd JPEG, goes through Pillow.
Defined here for all: EXIF rotation is applied, grey becomes three equal channels, 16-bit grey keeps its upper byte, CMYK is
converted, transparent pixels lie on white, of an animation the first frame counts.
"""

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from .resize import Pixels, centre_square, centre_square_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
OTHERS = {
    b"%PDF": "PDF",
    b"<": "SVG, XML or HTML",
    b"8BPS": "Photoshop",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\0\0\0\x0cJXL": "JPEG XL",
}
JPEG = b"\xff\xd8\xff"
ORIENTATION = 0x0112  # EXIF tag (CIPA DC-008)
MIN_SHRINKING = 2  # below it libjpeg-turbo saves no time by scaling, and the picture is further from torchvision's
MAX_PASSES = 16  # over `max_pixels`: a scan of a progressive JPEG is a pass over all its pixels, and 64 bytes can be one
MAX_PIECES = 10_000  # strips of a TIFF: each costs a call, and 8 bytes can be one


class BadImage(ValueError):
    """One image that cannot be answered: an HTTP status, a name for programs and a message for people."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Preprocess:
    """The shorter side goes to `resize_px`, then the centre `size_px` square is taken; with the limits on what is accepted."""

    size_px: int
    resize_px: int
    max_image_bytes: int
    max_pixels: int


def decode(data: bytes | bytearray | memoryview, to: Preprocess) -> Pixels:
    """The image in `data` as uint8 (size_px, size_px, 3) RGB.

    Raises: BadImage 400 when it is no image or is cut, 413 when it has too many bytes or pixels, 415 for another format.
    """
    content = bytes(data)
    if not content:
        raise BadImage(400, "NotAnImage", "got 0 bytes, wanted the bytes of an image file as the body")
    if len(content) > to.max_image_bytes:
        raise BadImage(413, "TooLarge", f"got {len(content)} bytes, the limit is {to.max_image_bytes}: send a smaller image")
    if content.startswith(JPEG) and (fast := _decode_jpeg(content, to)) is not None:
        return fast
    return _decode_any(content, to)


def _decode_jpeg(content: bytes, to: Preprocess) -> Pixels | None:
    """The image, or None when it wants Pillow's care: CMYK, or anything that libjpeg-turbo complains of."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        _check_pixels(content, width, height, to)
        if colorspace not in ("YCbCr", "Gray", "RGB"):
            return None
        colours = "GRAY" if colorspace == "Gray" else "RGB"
        least = (to.resize_px, to.resize_px) if min(height, width) > to.resize_px else (height, width)
        pixels = simplejpeg.decode_jpeg(content, colours, min_height=least[0], min_width=least[1], min_factor=MIN_SHRINKING)
    except BadImage:
        raise
    except ValueError:
        return None
    scale = round(8 * len(pixels) / height) / 8  # libjpeg-turbo scales by eighths and rounds the sizes up
    square = centre_square(pixels, width * scale, height * scale, size_px=to.size_px, resize_px=to.resize_px)
    rotated = b"Exif\0\0" in content or b"tiff:Orientation" in content
    return _upright(square, _orientation(content) if rotated else 1)


def _decode_any(content: bytes, to: Preprocess) -> Pixels:
    try:
        image = _open(content)
    except UnidentifiedImageError:
        raise _not_an_image(content) from None
    except Exception as error:
        raise BadImage(400, "NotAnImage", f"the image's header cannot be read ({error}): check the file") from None
    width, height = image.size
    _check_pixels(content, width, height, to)
    _check_pieces(image)
    try:
        image.load()
        rgb = _to_rgb(image)
        return _upright(centre_square_of(rgb, *rgb.size, size_px=to.size_px, resize_px=to.resize_px), _orientation(image))
    except BadImage:
        raise
    except MemoryError:
        raise BadImage(413, "TooLarge", f"an image of {width} x {height} pixels does not fit in memory") from None
    except Exception as error:  # Pillow's decoders raise many kinds; each of them means that this image is broken
        raise BadImage(400, "TruncatedImage", f"the {image.format} image cannot be decoded ({error}): check the file") from None


def _open(content: bytes) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before any pixel is decoded
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _check_pixels(content: bytes, width: int, height: int, to: Preprocess) -> None:
    if width * height > to.max_pixels:
        raise BadImage(413, "TooLarge", f"got {width} x {height} pixels, the limit is {to.max_pixels} in all: scale the image down")
    if min(width, height) < 1:
        raise BadImage(400, "NotAnImage", f"got an image of {width} x {height} pixels")
    if content.startswith(JPEG) and width * height * (scans := content.count(b"\xff\xda")) > MAX_PASSES * to.max_pixels:
        raise BadImage(413, "TooLarge", f"got a JPEG of {width} x {height} pixels in {scans} scans: save it again with fewer")


def _check_pieces(image: Image.Image) -> None:
    pieces = getattr(image, "tile", [])
    if len(pieces) > MAX_PIECES:
        raise BadImage(
            413, "TooLarge", f"got a {image.format} in {len(pieces)} pieces, the limit is {MAX_PIECES}: save it again in larger ones"
        )
    if pieces and pieces[0][0] == "bmp_rle":  # Pillow decodes it in Python, for seconds
        raise BadImage(415, "UnsupportedFormat", "got a run-length coded BMP, wanted a plain one: save the image again")


def _not_an_image(content: bytes) -> BadImage:
    head = content[:64]
    name = next((name for magic, name in OTHERS.items() if head.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(magic)), None)
    if head[4:8] == b"ftyp":
        name = "HEIF, AVIF or video"
    if name:
        return BadImage(415, "UnsupportedFormat", f"got {name} data, wanted one of {', '.join(FORMATS)}")
    return BadImage(400, "NotAnImage", f"got {len(content)} bytes that are no image, wanted one of {', '.join(FORMATS)}")


def _orientation(source: Image.Image | bytes) -> int:
    try:
        image = _open(source) if isinstance(source, bytes) else source
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block must not cost the image
        return 1


def _upright(square: Pixels, orientation: int) -> Pixels:
    """`square` (S, S, 3) as it is meant to be seen: from 5 on the axes are swapped, then rows or columns may run backwards."""
    if orientation in (5, 6, 7, 8):
        square = square.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        square = square[::-1]
    if orientation in (2, 3, 6, 7):
        square = square[:, ::-1]
    return np.ascontiguousarray(square)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, in Pillow's several spellings
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("F", "LAB"):
        raise BadImage(415, "UnsupportedFormat", f"got pixels of kind {image.mode}, wanted grey, RGB or CMYK of 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
