"""What the model sees on the drift reference split: the baseline that live traffic is held against."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image


def drift_reference(images: Sequence[bytes], probabilities: npt.NDArray[np.float32], embeddings: npt.NDArray[np.float32]) -> bytes:
    """An .npz with `probabilities` (N, K), `embeddings` (N, D), both float16, and `statistics` (N, 4) float32 of the images.

    The statistics are mean and standard deviation of the luminance in 0..255, width and height in pixels.
    """
    buffer = io.BytesIO()
    np.savez(  # its members have the fixed date 1980-01-01: equal arrays give equal bytes
        buffer,
        allow_pickle=False,
        probabilities=probabilities.astype(np.float16),
        embeddings=embeddings.astype(np.float16),
        statistics=np.array([_statistics(image) for image in images], np.float32),
    )
    return buffer.getvalue()


def _statistics(content: bytes) -> tuple[float, float, float, float]:
    image = Image.open(io.BytesIO(content))
    width, height = image.size
    image.draft("L", (256, 256))
    luminance = np.asarray(image.convert("L"), np.float32)
    return float(luminance.mean()), float(luminance.std()), float(width), float(height)
