"""The network on this CPU: uint8 images in, probabilities and embeddings out, by OpenVINO."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# f32 keeps what is not INT8 the same on every CPU (the default is bf16 where there is AVX512_BF16); pinned threads of
# several workers would land on the same cores.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1}


class Engine:
    """One ONNX file compiled twice: for batches on this worker's share of the cores, and for a lone image on all of them."""

    def __init__(self, model: Path, *, threads: int, lone_threads: int) -> None:
        network = core().read_model(model)
        self._batch = _request(network, threads)
        self._lone = _request(network, lone_threads) if lone_threads > threads else self._batch

    def warm(self, size_px: int, batches: Sequence[int]) -> None:
        """Run every batch size once: the first inference of a shape builds its kernels."""
        for count in batches:
            self(np.zeros((count, size_px, size_px, 3), np.uint8))
        self(np.zeros((1, size_px, size_px, 3), np.uint8), alone=True)

    def __call__(self, images: npt.NDArray[np.uint8], *, alone: bool = False) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Probabilities (N, K), rows sum to 1, and embeddings (N, D) of images (N, S, S, 3) RGB."""
        request = self._lone if alone and len(images) == 1 else self._batch
        request.infer([images], share_inputs=True)
        logits = request.get_tensor("logits").data
        return softmax(logits), request.get_tensor("embedding").data.copy()


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities (N, K) of logits (N, K)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


@functools.cache
def core() -> Any:
    """This process's one OpenVINO runtime, kept until it ends.

    A runtime gives the thread that first compiles with it a signal stack, and frees that memory when it goes. Where another thread
    then drops the last reference, the first is left with a stack that is gone, and dies of the next signal it handles.
    """
    from openvino import Core

    return Core()


def _request(network: Any, threads: int) -> Any:
    return core().compile_model(network, "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": threads}).create_infer_request()
