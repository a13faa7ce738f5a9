"""The centre square of a picture, resized with antialiasing as torchvision does it: shorter side first, then the crop, in one step."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
MARGIN = 2  # source pixels around the square that the filters reach


def centre_square(pixels: Pixels, width: float, height: float, *, size_px: int, resize_px: int) -> Pixels:
    """(S, S, 3) from `pixels` (H, W, 1) or (H, W, 3), whose picture covers `width` x `height` of them; made for little shrinking.

    torchvision's antialiased bilinear filter is a triangle of half-width `step` (variance step^2 / 6); bilinear sampling is
    one of half-width 1, so a blur of variance (step^2 - 1) / 6 before it comes close at a fraction of the cost.
    """
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    step = min(width, height) / resize_px  # source pixels for each pixel wanted
    if step > 2:  # the blur would need more than three taps
        return centre_square_of(Image.fromarray(pixels), width, height, size_px=size_px, resize_px=resize_px)
    side = size_px * step
    left, top = (width - side) / 2, (height - side) / 2
    x, y, span = max(0, int(left) - MARGIN), max(0, int(top) - MARGIN), int(side) + 2 * MARGIN + 2
    pixels = pixels[y : y + span, x : x + span]  # OpenCV takes no side above 32,767
    if step > 1:
        outer = (step * step - 1) / 12  # a kernel (a, 1 - 2a, a) has variance 2a
        kernel = np.array([outer, 1 - 2 * outer, outer], np.float32)
        pixels = np.asarray(cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8)
    if pixels.shape[:2] == (side, side):
        return _three_channels(cv2.resize(pixels, (size_px, size_px), interpolation=cv2.INTER_LINEAR))
    sample = np.array([[step, 0, left - x + step / 2 - 0.5], [0, step, top - y + step / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _three_channels(cv2.warpAffine(pixels, sample, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def centre_square_of(image: Image.Image, width: float, height: float, *, size_px: int, resize_px: int) -> Pixels:
    """As `centre_square` for a grey or RGB `image`, by Pillow: for any shrinking, close to torchvision's to the last bit, slower."""
    side = min(size_px * min(width, height) / resize_px, width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return _three_channels(np.array(image.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)))


def _three_channels(pixels: npt.NDArray[np.generic]) -> Pixels:
    square = np.asarray(pixels, np.uint8)
    return square if square.ndim == 3 else np.repeat(square[..., None], 3, axis=2)
