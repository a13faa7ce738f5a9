"""Fixtures shared by tests: a tiny but real archive; and in CI, no marked test may skip itself."""

import io
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

LABELS = ["blue", "green", "red"]
MARKED = ("torchserve", "cluster", "browser", "gpu")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a marked test that skips itself has failed: it was asked for, and its part is missing."""
    report = yield
    marks = [name for name in MARKED if item.get_closest_marker(name)]
    if os.environ.get("CI") and report.skipped and marks and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped in CI, where tests marked {marks[0]} must run: {report.longrepr}"
    return report


def picture(red: int, green: int, blue: int, *, size_px: int = 48, kind: str = "JPEG") -> bytes:
    """An image file of one colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (size_px, size_px), (red, green, blue)).save(buffer, kind)
    return buffer.getvalue()


def colour_network() -> bytes:
    """An ONNX network (N, 32, 32, 3) uint8 to logits (N, 3) and embedding (N, 3): which of blue, green, red there is most of."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32) * 0.02
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("logits", "embedding")],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 2], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return model.SerializeToString()


def write_colours(target: Path, **changes: Any) -> Path:
    """An archive whose classes are colours; `changes` replace keys of its slipway.json."""
    from math import exp

    from serving.archive import write

    red, others = exp(0.02 * 255), 2.0
    about = {
        "format": 1,
        "name": "colours",
        "version": "1.0",
        "labels": LABELS,
        "preprocess": {"size_px": 32, "resize_px": 32},
        "limits": {"max_image_bytes": 200_000, "max_pixels": 1_000_000},
        "variant": "fp32",
        "golden": [{"file": "golden/0.jpg", "probabilities": [1 / (red + others), 1 / (red + others), red / (red + others)]}],
        "golden_tolerance": 0.03,
        "lineage": {"commit": "0123abc"},
        "gate": {},
    }
    write(
        target, about=json.loads(json.dumps(about | changes)), members={"model.onnx": colour_network(), "golden/0.jpg": picture(255, 0, 0)}
    )
    return target


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of seconds: data, train and export."""
    from tiny_run import make

    return make(tmp_path_factory.mktemp("build") / "tiny")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny but real archive: three classes of colour, one golden image."""
    return write_colours(tmp_path_factory.mktemp("archive") / "colours.mar")
