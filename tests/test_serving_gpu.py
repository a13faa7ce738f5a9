"""The engine of the GPU target on ONNX Runtime's CPU, where there is no GPU: the same graph, the same answers."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from serving import archive as archives
from serving.handler import Handler
from serving.handler.engine import Engine
from serving.handler.gpu import Engine as GpuEngine


def serve(archive: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from cli import main; main()", "serve", str(archive), "--port", "0", "--device", "cuda"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("unpacked")
    archives.unpack(archives.read(archive), target)
    return target


@pytest.fixture
def without_cuda() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")


@pytest.mark.parametrize("count", [1, 3, 16])
def test_it_answers_as_the_engine_for_the_cpu_does(folder: Path, count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)
    ours = GpuEngine(folder / "model.onnx", provider="CPUExecutionProvider")
    ours.warm(32, (1, count))
    wanted = Engine(folder / "model.onnx", threads=1, lone_threads=1)(images)
    for one, other in zip(ours(images, alone=count == 1), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.usefixtures("without_cuda")
def test_without_cuda_the_handler_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match=re.escape("take the image's gpu target, or SLIPWAY_DEVICE=cpu")):
        Handler().open(folder, threads=1, lone_threads=1)


def test_an_archive_from_before_is_not_served_on_a_gpu_by_its_cpu(archive: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            if name != "handler/gpu.py":
                target.writestr(name, source.read(name))
    done = serve(old)
    assert done.returncode == 2
    assert "was packaged before GPUs were known: make it again with `slipway package`, or take --device cpu" in done.stderr


@pytest.mark.torchserve
@pytest.mark.usefixtures("without_cuda")
def test_without_a_gpu_the_server_ends_and_says_why(archive: Path) -> None:
    done = serve(archive)
    assert done.returncode == 2
    assert "no CUDA in this ONNX Runtime" in done.stderr
