"""What serving does to an image, handed to the stages of `model` that must train, measure and package with exactly that."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.handler.decode import Preprocess, decode
from serving.handler.engine import Engine

NO_LIMIT = 1 << 40
WITHOUT_VNNI = "AVX2"  # for ONEDNN_MAX_CPU_ISA (oneDNN documentation, "CPU dispatcher control")


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


def predict_without_vnni(model: Path, inputs: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Probabilities as a CPU with AVX2 alone computes them, where 8-bit products are summed in 16 bits and may saturate.

    The instruction set is chosen when OpenVINO is loaded, so this runs in a process of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "inputs.npy", Path(folder) / "probabilities.npy"
        np.save(source, np.stack(list(inputs)))
        command = [sys.executable, "-m", "cli.served_path", str(model), str(source), str(target)]
        subprocess.run(command, check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": WITHOUT_VNNI})
        rows: npt.NDArray[np.float32] = np.load(target)
    return rows


if __name__ == "__main__":
    np.save(sys.argv[3], predict(Path(sys.argv[1]), np.load(sys.argv[2]))[0])
