"""The exported file: bytes of pixels in, the network's own logits out, for any number of images."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_run
import torch

from model import network
from model.export import export_onnx
from serving.handler.engine import Engine


@pytest.fixture
def net(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(network, "build", tiny_run.build_small)
    return tiny_run.load(tiny / "train", tiny / "data")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_the_file_takes_bytes_of_pixels_and_any_number_of_images(tiny: Path) -> None:
    graph = onnx.load(tiny / "export" / "model.onnx").graph
    (source,) = graph.input
    assert source.name == "images" and source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batch, *shape = source.type.tensor_type.shape.dim
    assert batch.dim_param and [part.dim_value for part in shape] == [32, 32, 3]
    assert [(output.name, output.type.tensor_type.shape.dim[1].dim_value) for output in graph.output] == [("logits", 3), ("embedding", 64)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_runtimes_compute_what_torch_does(count: int, tiny: Path, net: Any) -> None:
    with torch.inference_mode():
        logits = net(torch.from_numpy(images(count)).permute(0, 3, 1, 2).float() / 255).numpy()
    session = onnxruntime.InferenceSession(tiny / "export" / "model.onnx", providers=["CPUExecutionProvider"])
    one, embedding = session.run(["logits", "embedding"], {"images": images(count)})
    np.testing.assert_allclose(one, logits, atol=1e-3 * np.abs(logits).max())
    assert embedding.shape == (count, 64)
    probabilities, embedding_too = Engine(tiny / "export" / "model.onnx", threads=1, lone_threads=1)(images(count))
    np.testing.assert_allclose(probabilities, torch.softmax(torch.from_numpy(logits), dim=1).numpy(), atol=1e-3)
    np.testing.assert_allclose(embedding, embedding_too, atol=1e-3 * np.abs(embedding).max())


def test_the_same_weights_give_the_same_file_and_another_outcome_gives_none(
    tiny: Path, net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_onnx(net, tmp_path / "new" / "model.onnx", size_px=32) < 1e-3
    assert (tmp_path / "new" / "model.onnx").read_bytes() == (tiny / "export" / "model.onnx").read_bytes()
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: _Program(tiny))
    net.fc.bias.data += 1.0
    with pytest.raises(RuntimeError, match=r"wrong\.onnx differs from the trained network by 1 in a logit"):
        export_onnx(net, tmp_path / "wrong.onnx", size_px=32)
    assert not (tmp_path / "wrong.onnx").exists()


class _Program:
    """An export that went wrong: the file of other weights."""

    def __init__(self, tiny: Path) -> None:
        self.model_proto = onnx.load(tiny / "export" / "model.onnx")
