"""Evaluation of a run: the exported files through the serving path, beside torch and torchvision as the reference."""

from pathlib import Path
from typing import Any

import numpy as np

from cli.served_path import decode_for, predict, predict_without_vnni
from model.evaluate import HELD_OUT, evaluate, latency, write_predictions
from model.shards import read_bytes, read_index
from serving.handler.engine import Engine


def evaluate_run(folder: Path, trained: dict[str, Any], *, bins: int, latency_repeats: int) -> dict[str, Any]:
    """The report of `model.evaluate` for reference, fp32, int8 and int8 without VNNI, with latency; predictions are written beside it."""
    data, size_px, labels = folder / "data", trained["size_px"], trained["labels"]
    records = [record for record in read_index(data) if record.split in HELD_OUT]
    contents = [read_bytes(data, record) for record in records]
    decode = decode_for(size_px)
    inputs = [decode(content) for content in contents]
    files = {"fp32": folder / "export" / "model.onnx", "int8": folder / "export" / "model.int8.onnx"}
    probabilities = {"reference": _reference(folder, trained, contents)}
    probabilities |= {variant: predict(path, inputs)[0] for variant, path in files.items()}
    probabilities["int8-avx2"] = predict_without_vnni(files["int8"], inputs)
    for variant, rows in probabilities.items():
        write_predictions(folder / "evaluate" / f"predictions-{variant}.csv", rows, records, labels)
    engines = {variant: Engine(path, threads=1, lone_threads=1) for variant, path in files.items()}
    one = np.stack(inputs[:1])
    times = latency({variant: lambda engine=engine: engine(one) for variant, engine in engines.items()}, repeats=latency_repeats)  # type: ignore[misc]
    return {**evaluate(probabilities, records, labels, bins=bins), "latency": times}


def _reference(folder: Path, trained: dict[str, Any], contents: list[bytes]) -> Any:
    """Probabilities (N, K) of the trained fp32 network in torch, on images decoded by Pillow and resized by torchvision."""
    import torch
    from safetensors.torch import load_file

    from model import network
    from model.dataset import read_rgb
    from model.transforms import reference

    net = network.build(trained["arch"], len(trained["labels"])).eval()
    net.load_state_dict(load_file(folder / "train" / "weights.safetensors"))
    resize = reference(trained["size_px"])
    rows = []
    with torch.inference_mode():
        for content in contents:
            image = resize(torch.from_numpy(read_rgb(content, min_side_px=1 << 20)).permute(2, 0, 1))
            rows.append(torch.softmax(net(image[None].float() / 255), dim=1)[0].numpy())
    return np.stack(rows)
