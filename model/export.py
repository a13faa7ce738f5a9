"""The trained weights as one ONNX file that takes bytes of pixels: uint8 (N, S, S, 3) to logits and embedding."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model.network import Exported

OPSET = 18


def export_onnx(network: nn.Module, target: Path, *, size_px: int) -> float:
    """The largest absolute difference of logits between `network` in torch and the file written to `target`.

    Raises: RuntimeError when the file does not compute what the network does.
    """
    import onnx

    module = Exported(network).eval()
    rng = np.random.default_rng(0)
    example = rng.integers(0, 256, (2, size_px, size_px, 3), dtype=np.uint8)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".partial.{target.name}")
    program = torch.onnx.export(
        module,
        (torch.from_numpy(example),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits", "embedding"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.checker.check_model(proto)
    temporary.write_bytes(proto.SerializeToString(deterministic=True))
    with torch.inference_mode():
        expected = module(torch.from_numpy(example))[0].numpy()
    compiled = _core().compile_model(temporary, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = float(np.abs(compiled(example)["logits"] - expected).max())
    if difference > 1e-3 * max(1.0, float(np.abs(expected).max())):
        raise RuntimeError(f"{target.name} differs from the trained network by {difference:.2g} in a logit")
    temporary.replace(target)
    return difference


@functools.cache
def _core() -> Any:
    # Kept for the life of the process: a runtime that another thread drops frees the signal stack that it gave to this one.
    from openvino import Core

    return Core()
