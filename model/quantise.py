"""Post-training INT8 quantisation of the ONNX file by NNCF, with calibration images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper


def quantise_onnx(source: Path, target: Path, images: Sequence[npt.NDArray[np.uint8]], *, max_images: int) -> None:
    """Write the INT8 form of `source` to `target`, calibrated on `images`, each uint8 (1, S, S, 3).

    Weights use half of the 8-bit range, so that no 16-bit sum of two products saturates on CPUs without VNNI: the file
    predicts the same on every CPU (NNCF documentation, "saturation (overflow) issue").
    """
    import nncf

    quantised = nncf.quantize(
        onnx.load(source),
        nncf.Dataset(list(images), lambda image: {"images": image}),
        subset_size=min(max_images, len(images)),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )
    _feed_bytes(quantised)
    temporary = target.with_name(f".partial.{target.name}")
    temporary.write_bytes(quantised.SerializeToString(deterministic=True))
    temporary.replace(target)


def _feed_bytes(model: onnx.ModelProto) -> None:
    """Give the input's quantiser the scale of pixels, 1/255, and zero point 0, whatever range the calibration images had.

    Exact, and faster: the first convolution then takes the bytes themselves, with no arithmetic on them.
    """
    quantiser = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for name, value in ((quantiser.input[1], np.float32(1 / 255)), (quantiser.input[2], np.uint8(0))):
        initializer = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        initializer.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(initializer.dims), value), name))
