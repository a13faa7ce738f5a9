"""Bytes of one image file to the network's input: uint8 (S, S, 3) RGB, upright, resized with antialiasing, centre-cropped.

JPEG goes through libjpeg-turbo, which scales while it decodes; everything else, and every odd JPEG, goes through Pillow.
Defined here for all: EXIF rotation is applied, grey becomes three equal channels, 16-bit grey keeps its upper byte, CMYK is
converted, transparent pixels lie on white, of an animation the first frame counts.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF")
OTHERS = {b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML", b"8BPS": "Photoshop", b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip"}
ORIENTATION = 0x0112  # EXIF tag (CIPA DC-008)


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


def decode(data: bytes | memoryview, to: Preprocess) -> npt.NDArray[np.uint8]:
    """The image in `data` as uint8 (size_px, size_px, 3) RGB.

    Raises: BadImage 400 when it is no image or is cut, 413 when it has too many bytes or pixels, 415 for another format.
    """
    if not data:
        raise BadImage(400, "NotAnImage", "got 0 bytes, wanted the bytes of an image file as the body")
    if len(data) > to.max_image_bytes:
        raise BadImage(413, "TooLarge", f"got {len(data)} bytes, the limit is {to.max_image_bytes}: send a smaller image")
    if bytes(data[:3]) == b"\xff\xd8\xff" and (fast := _decode_jpeg(data, to)) is not None:
        return fast
    return _decode_any(data, to)


def _decode_jpeg(data: bytes | memoryview, to: Preprocess) -> npt.NDArray[np.uint8] | None:
    """The image, or None when it wants Pillow's care: CMYK, a rotation, or anything that libjpeg-turbo complains of."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(width, height, to)
    if colorspace not in ("YCbCr", "Gray", "RGB") or (bytes(data[:4096]).find(b"Exif\0\0") >= 0 and _orientation(data) > 1):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if colorspace == "Gray" else "RGB", min_height=to.resize_px, min_width=to.resize_px)
    except ValueError:
        return None
    scale = round(8 * len(pixels) / height) / 8  # libjpeg-turbo scales by eighths and rounds the sizes up
    return _crop_resize(pixels, width * scale, height * scale, to)


def _orientation(data: bytes | memoryview) -> int:
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block must not cost the image
        return 1


def _decode_any(data: bytes | memoryview, to: Preprocess) -> npt.NDArray[np.uint8]:
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before any pixel is decoded
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise _not_an_image(data) from None
    except Exception as error:
        raise BadImage(400, "NotAnImage", f"the image's header cannot be read ({error}): check the file") from None
    _check_pixels(*image.size, to)
    try:
        return _shrink(_to_rgb(_upright(image)), to)
    except BadImage:
        raise
    except MemoryError:
        raise BadImage(413, "TooLarge", f"an image of {image.size[0]} x {image.size[1]} pixels does not fit in memory") from None
    except Exception as error:  # Pillow's decoders raise many kinds; each of them means that this image is broken
        raise BadImage(400, "TruncatedImage", f"the {image.format} image cannot be decoded ({error}): check the file") from None


def _check_pixels(width: int, height: int, to: Preprocess) -> None:
    if width * height > to.max_pixels:
        raise BadImage(413, "TooLarge", f"got {width} x {height} pixels, the limit is {to.max_pixels} in all: scale the image down")
    if min(width, height) < 1:
        raise BadImage(400, "NotAnImage", f"got an image of {width} x {height} pixels")


def _not_an_image(data: bytes | memoryview) -> BadImage:
    head = bytes(data[:64])
    name = next((name for magic, name in OTHERS.items() if head.lstrip().startswith(magic)), None)
    if head[4:8] == b"ftyp":
        name = "HEIF, AVIF or video"
    if name:
        return BadImage(415, "UnsupportedFormat", f"got {name} data, wanted one of {', '.join(FORMATS)}")
    return BadImage(400, "NotAnImage", f"got {len(data)} bytes that are no image, wanted one of {', '.join(FORMATS)}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block must not cost the image
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, in Pillow's several spellings
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise BadImage(415, "UnsupportedFormat", "got floating-point pixels, wanted 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _shrink(image: Image.Image, to: Preprocess) -> npt.NDArray[np.uint8]:
    """(S, S, 3) of an image of any size: Pillow's exact averaging down to twice the size wanted, then as for JPEG."""
    width, height = image.size
    factor = max(1, min(width, height) // (2 * to.resize_px))
    if factor > 1:
        image = image.reduce(factor)
    return _crop_resize(np.asarray(image), width / factor, height / factor, to)


def _crop_resize(pixels: npt.NDArray[np.uint8], width: float, height: float, to: Preprocess) -> npt.NDArray[np.uint8]:
    """(S, S, 3): the centre square of `pixels` (H, W) or (H, W, 3), whose picture covers `width` x `height`, resized with antialiasing.

    torchvision's antialiased bilinear filter is a triangle of half-width `step` (variance step^2 / 6); bilinear sampling is
    one of half-width 1, so a blur of variance (step^2 - 1) / 6 before it comes close at a fraction of the cost.
    """
    step = min(width, height) / to.resize_px  # source pixels for each pixel wanted
    if step > 1:
        side = (step * step - 1) / 12  # a kernel (a, 1 - 2a, a) has variance 2a
        kernel = np.array([side, 1 - 2 * side, side], np.float32)
        pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    size = (to.size_px, to.size_px)
    if pixels.shape[:2] == (height, width) and height == width and to.size_px == to.resize_px:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    else:
        left, top = (width - to.size_px * step) / 2, (height - to.size_px * step) / 2
        sample = np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpAffine(pixels, sample, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
