"""An archive to measure speed with, in minutes and without training: the usual network, weights that mean nothing.

Speed does not depend on weights. So that right answers can be told from wrong ones all the same, the head is fitted to synthetic
photographs: each has one clear class.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cli.served_path import decode_for, predict
from serving.bench.images import photographs

if TYPE_CHECKING:
    from torch import nn

LABELS = [f"class-{number}" for number in range(6)]
MARGIN = 8.0  # logits between a photograph's class and the others
GOLDEN = 6
SIZE = (500, 400)
MIN_PX, MAX_PX = 32, 1024


def bench_archive(arch: str, size_px: int, folder: Path) -> Path:
    """The archive `folder`/`arch`-`size_px`.mar, with the handler's code as it is now; its network is made once and kept beside it.

    Raises: ValueError for an unknown `arch` or a size that no ResNet takes.
    """
    from serving.archive import FORMAT, write

    if not MIN_PX <= size_px <= MAX_PX:
        raise ValueError(f"--size wants {MIN_PX} to {MAX_PX} pixels, got {size_px}")
    model = folder / f"{arch}-{size_px}" / "model.int8.onnx"
    images = photographs(*SIZE, count=GOLDEN if model.exists() else 8 * GOLDEN)
    if not model.exists():
        _make_network(arch, size_px, images, model)
    golden = {f"golden/{number}.jpg": image for number, image in enumerate(images[:GOLDEN])}
    probabilities, _ = predict(model, [decode_for(size_px)(image) for image in golden.values()])
    about = {
        "format": FORMAT,
        "name": f"bench{size_px}",
        "version": "1.0",
        "labels": LABELS,
        "preprocess": {"size_px": size_px, "resize_px": size_px},
        "limits": {"max_image_bytes": 16 << 20, "max_pixels": 50_000_000},
        "variant": "int8",
        "golden": [
            {"file": name, "probabilities": [round(float(value), 6) for value in row]}
            for name, row in zip(golden, probabilities, strict=True)
        ],
        "golden_tolerance": 0.1,
        "lineage": {"params": {"arch": arch, "size_px": size_px}, "start": "random weights, a head fitted to synthetic photographs"},
        "gate": {"passed": False, "variant": "int8", "reason": "made for benchmarks only"},
    }
    target = folder / f"{arch}-{size_px}.mar"
    write(target, about=json.loads(json.dumps(about)), members={"model.onnx": model.read_bytes(), **golden})
    return target


def _make_network(arch: str, size_px: int, images: list[bytes], target: Path) -> None:
    """Write the INT8 network to `target`, the fp32 one beside it.

    The head is fitted to what the quantised body gives: among random weights, that is far from what fp32 gives.
    """
    import torch

    from model.export import export_onnx
    from model.network import build
    from model.quantise import quantise_onnx

    torch.manual_seed(1)
    network = build(arch, len(LABELS))
    decode = decode_for(size_px)
    inputs = np.stack([decode(image) for image in images])
    fp32, unfitted = target.with_name("model.onnx"), target.with_name("unfitted.int8.onnx")
    _calibrate(network, inputs)
    for int8 in (unfitted, target):
        export_onnx(network, fp32, size_px=size_px)
        quantise_onnx(fp32, int8, [image[None] for image in inputs], max_images=len(inputs))
        if int8 is unfitted:
            _, embeddings = predict(unfitted, inputs)
            _fit_head(network, embeddings)
    unfitted.unlink()


def _calibrate(network: "nn.Module", inputs: npt.NDArray[np.uint8]) -> None:
    """Give batch norm the statistics of `inputs` (N, S, S, 3)."""
    import torch
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last one of a block starts at 0, which would leave its convolutions nothing to say
            module.momentum = None
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(inputs).permute(0, 3, 1, 2).float() / 255)
    network.eval()


def _fit_head(network: "nn.Module", embeddings: npt.NDArray[np.float32]) -> None:
    """Give each of `embeddings` (N, D) a class, in turns: the weights are those of ridge regression."""
    import torch

    wanted = MARGIN * np.eye(len(LABELS))[np.arange(len(embeddings)) % len(LABELS)]  # (N, K)
    centre = embeddings.mean(axis=0)
    features = (embeddings - centre).astype(np.float64)
    kernel = features @ features.T
    kernel += 0.01 * kernel.trace() / len(kernel) * np.eye(len(kernel))
    weights = np.linalg.solve(kernel, wanted - wanted.mean(axis=0)).T @ features  # (K, D)
    state = {"weight": torch.from_numpy(weights), "bias": torch.from_numpy(wanted.mean(axis=0) - weights @ centre)}
    network.get_submodule("fc").load_state_dict(state)
