"""What serving does to an image, handed to the stages of `model` that must train, measure and package with exactly that."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.handler.decode import Preprocess, decode
from serving.handler.engine import Engine

NO_LIMIT = 1 << 40


def preprocess(size_px: int, *, max_image_bytes: int = NO_LIMIT, max_pixels: int = NO_LIMIT) -> Preprocess:
    """Serving's preprocessing for a network of `size_px`."""
    return Preprocess(size_px=size_px, resize_px=size_px, max_image_bytes=max_image_bytes, max_pixels=max_pixels)


def decode_for(size_px: int) -> Callable[[bytes], npt.NDArray[np.uint8]]:
    """Bytes of an image to what the network gets when it is served: uint8 (S, S, 3)."""
    to = preprocess(size_px)
    return lambda content: decode(content, to)


def predict(model: Path, inputs: Iterable[npt.NDArray[np.uint8]], *, threads: int = 2, batch: int = 16) -> tuple[Any, Any]:
    """Probabilities (N, K) and embeddings (N, D) of decoded images, by the engine that serves them."""
    engine = Engine(model, threads=threads, lone_threads=threads)
    images = list(inputs)
    parts = [engine(np.stack(images[start : start + batch])) for start in range(0, len(images), batch)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
