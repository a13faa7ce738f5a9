"""A run that takes seconds: three classes of coloured, noisy pictures of 40 px, and a ResNet with an eighth of the channels."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock

from model import network, train
from model.shards import Record, labels, read_bytes, read_index, write_index, write_shards

COLOURS = {"amber": (200, 150, 40), "blue": (50, 90, 200), "grey": (120, 120, 120)}
SPLITS = ["train"] * 32 + ["val"] * 8 + ["calib"] * 6 + ["test"] * 8 + ["drift"] * 6
SIZE_PX = 32
PARAMS: dict[str, Any] = {
    "arch": "resnet18",
    "weights": "none",
    "size_px": SIZE_PX,
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.01,
    "weight_decay": 0.05,
    "label_smoothing": 0.05,
    "ema_decay": 0.9,
    "head_warmup_epochs": 0,
    "layer_decay": 1.0,
    "warmup_fraction": 0.1,
    "patience_epochs": 9,
    "crop_scale_min": 0.6,
    "jitter": 0.1,
    "orientation": "horizontal",
    "loader_workers": 0,
    "seed": 1,
}


class SmallResNet(torchvision.models.ResNet):
    """torchvision's ResNet, module by module, with fewer blocks and channels."""

    def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *rest, **options)


def build_small(arch: str, num_classes: int) -> nn.Module:
    """In place of `model.network.build`."""
    net = SmallResNet(BasicBlock, [1, 1, 1, 1], zero_init_residual=True)
    net.fc = nn.Linear(64, num_classes)
    return net


def picture(label: str, number: int) -> bytes:
    """Image `number` of a class: its colour under noise, as PNG."""
    rng = np.random.default_rng([sorted(COLOURS).index(label), number])
    pixels = np.array(COLOURS[label]) * rng.uniform(0.7, 1.2) + rng.normal(0, 25, (40, 40, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_data(folder: Path) -> Path:
    """A data folder as `slipway data` makes it."""
    folder.mkdir(parents=True)
    contents, records = {}, []
    for label in COLOURS:
        for number, split in enumerate(SPLITS):
            content = picture(label, number)
            key = hashlib.sha256(content).hexdigest()[:16]
            contents[key] = content
            records.append(Record(key, label, split, number, "", 0, len(content), 40, 40, "RGB", f"{label}/{number}.png"))
    write_index(write_shards(records, folder, read=lambda record: contents[record.key], shard_bytes=1 << 20), folder)
    return folder


def trained(data: Path, target: Path, *, fingerprint: str = "one", **changes: Any) -> dict[str, Any]:
    """The result of training on `data` into `target`."""
    from cli.served_path import decode_for

    return train.train(data, target, decode_for, fingerprint, **{**PARAMS, **changes})


def make(folder: Path) -> Path:
    """`folder` with data, train and export: what the stages leave there."""
    import torch

    from cli.served_path import decode_for
    from model.export import export_onnx
    from model.quantise import quantise_onnx

    torch.set_num_threads(1)
    with mock.patch.object(network, "build", build_small):
        data = write_data(folder / "data")
        trained(data, folder / "train")
        export_onnx(load(folder / "train", data), folder / "export" / "model.onnx", size_px=SIZE_PX)
    images = [decode_for(SIZE_PX)(read_bytes(data, record))[None] for record in read_index(data, split="calib")]
    quantise_onnx(folder / "export" / "model.onnx", folder / "export" / "model.int8.onnx", images, max_images=len(images))
    return folder


def load(target: Path, data: Path) -> Any:
    """The trained network in `target`."""
    from safetensors.torch import load_file

    net = network.build(PARAMS["arch"], len(labels(data)))
    net.load_state_dict(load_file(target / "weights.safetensors"))
    return net.eval()


def rows(target: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
