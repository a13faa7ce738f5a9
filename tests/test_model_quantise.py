"""The INT8 file: smaller, fed with the bytes themselves, and of one mind with fp32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cli.served_path import decode_for, predict
from model.quantise import quantise_onnx
from model.shards import read_bytes, read_index


@pytest.fixture(scope="module")
def int8(tiny: Path) -> onnx.ModelProto:
    return onnx.load(tiny / "export" / "model.int8.onnx")


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_first_quantiser_takes_the_bytes_as_they_are(int8: onnx.ModelProto) -> None:
    by_output = {name: node for node in int8.graph.node for name in node.output}
    first = next(node for node in int8.graph.node if node.op_type == "QuantizeLinear")
    scale, zero = (constants(int8)[name] for name in first.input[1:3])
    assert np.allclose(scale, 1 / 255) and zero.dtype == np.uint8 and not zero.any()
    node, passed = first, []
    while node.input[0] in by_output:
        node = by_output[node.input[0]]
        passed.append(node.op_type)
    assert node.input[0] == "images" and set(passed) <= {"Cast", "Div", "Mul", "Transpose"}
    back = next(node for node in int8.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == first.output[0])
    assert [constants(int8)[name].tolist() for name in back.input[1:3]] == [scale.tolist(), zero.tolist()]


def test_every_convolution_has_weights_of_eight_bits_and_most_use_half_their_range(int8: onnx.ModelProto) -> None:
    """Half the range: two products of 8 bits then fit the 16 bits in which a CPU without VNNI adds them."""
    by_output = {name: node for node in int8.graph.node for name in node.output}
    convolutions = [node for node in int8.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weights = constants(int8)[by_output[node.input[1]].input[0]]
        assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= 64 + 1, node.name


def test_int8_agrees_with_fp32_on_images_that_training_never_saw(tiny: Path) -> None:
    decode = decode_for(32)
    records = [record for record in read_index(tiny / "data") if record.split in ("test", "drift", "val")]
    inputs = [decode(read_bytes(tiny / "data", record)) for record in records]
    fp32, _ = predict(tiny / "export" / "model.onnx", inputs)
    ours, embeddings = predict(tiny / "export" / "model.int8.onnx", inputs)
    assert len(records) == 66 and (fp32.argmax(1) == ours.argmax(1)).mean() >= 0.97
    assert np.abs(fp32 - ours).mean() < 0.1
    assert embeddings.shape == (66, 64)
    labels = sorted({record.label for record in records})
    assert np.mean([labels[best] == record.label for best, record in zip(ours.argmax(1), records, strict=True)]) > 0.95


def test_the_same_images_give_the_same_file(tiny: Path, tmp_path: Path) -> None:
    decode = decode_for(32)
    images = [decode(read_bytes(tiny / "data", record))[None] for record in read_index(tiny / "data", split="calib")]
    quantise_onnx(tiny / "export" / "model.onnx", tmp_path / "again.onnx", images, max_images=len(images))
    assert (tmp_path / "again.onnx").read_bytes() == (tiny / "export" / "model.int8.onnx").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]
