"""The network on an NVIDIA GPU: the same ONNX file as engine.py, by ONNX Runtime with CUDA. For `SLIPWAY_DEVICE=cuda`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .engine import softmax

CUDA = "CUDAExecutionProvider"
SETTINGS = {CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}}  # no search at the first batch of each size; float32 throughout
ERRORS_ONLY = 3


class Engine:
    """As the one for the CPU; a lone image is a batch of one. Several workers share the GPU.

    Raises: RuntimeError when there is no GPU, or nothing to reach it with. `provider` is ONNX Runtime's.
    """

    def __init__(self, model: Path, *, provider: str = CUDA) -> None:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError("no CUDA in this ONNX Runtime: take the image's gpu target, or SLIPWAY_DEVICE=cpu")
        if provider == CUDA:
            onnxruntime.preload_dlls()  # CUDA's libraries came as packages
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=[(provider, SETTINGS.get(provider, {}))])
        if provider not in self._session.get_providers():
            raise RuntimeError(f"ONNX Runtime found no GPU that it can use, only {self._session.get_providers()}: is a driver there?")

    def warm(self, size_px: int, batches: Sequence[int]) -> None:
        """Run every batch size once: the first inference of a shape chooses its kernels."""
        for count in batches:
            self(np.zeros((count, size_px, size_px, 3), np.uint8))

    def __call__(self, images: npt.NDArray[np.uint8], *, alone: bool = False) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Probabilities (N, K), rows sum to 1, and embeddings (N, D) of images (N, S, S, 3) RGB."""
        logits, embeddings = self._session.run(["logits", "embedding"], {"images": images})
        return softmax(logits), embeddings
