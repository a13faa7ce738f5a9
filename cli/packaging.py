"""One archive from the files of a run: the gate's choice of network with all that is known about it."""

import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from cli.served_path import decode_for, predict
from model.drift_reference import drift_reference
from model.evaluate import cpu_name
from model.golden import golden_images
from model.shards import read_bytes, read_index
from serving.archive import FORMAT, write

PACKAGES = ("torch", "torchvision", "onnx", "nncf", "openvino", "numpy", "pillow", "opencv-python-headless", "simplejpeg")


def package_run(
    folder: Path,
    target: Path,
    trained: dict[str, Any],
    verdict: dict[str, Any],
    *,
    version: str,
    golden_tolerance: float,
    max_image_bytes: int,
    max_pixels: int,
) -> str:
    """The digest of the archive written to `target`; equal inputs give equal bytes.

    Raises: ValueError when nothing is predicted right, or the archive does not predict what it records.
    """
    from serving.archive import verify

    model = folder / "export" / ("model.int8.onnx" if verdict["variant"] == "int8" else "model.onnx")
    data, size_px, labels = folder / "data", trained["size_px"], trained["labels"]
    decode = decode_for(size_px)
    tests, drifts = read_index(data, split="test"), read_index(data, split="drift")
    on_tests, _ = predict(model, [decode(read_bytes(data, record)) for record in tests])
    right = [labels[int(row.argmax())] == record.label for record, row in zip(tests, on_tests, strict=True)]
    golden = golden_images(data, tests, right, on_tests.max(axis=1).tolist())
    on_golden, _ = predict(model, [decode(content) for content in golden.values()])
    images = [read_bytes(data, record) for record in drifts]
    on_drift, embeddings = predict(model, [decode(image) for image in images])
    about = {
        "format": FORMAT,
        "name": folder.name,
        "version": version,
        "labels": labels,
        "preprocess": {"size_px": size_px, "resize_px": size_px},
        "limits": {"max_image_bytes": max_image_bytes, "max_pixels": max_pixels},
        "variant": verdict["variant"],
        "golden": [
            {"file": name, "probabilities": [round(float(value), 6) for value in row]} for name, row in zip(golden, on_golden, strict=True)
        ],
        "golden_tolerance": golden_tolerance,
        "lineage": {
            **{key: trained[key] for key in ("git", "data_digest", "params", "start", "best")},
            "mlflow_run": trained.get("mlflow_run", ""),
            "packages": {name: installed(name) for name in PACKAGES},
            "made_on": cpu_name(),
        },
        "gate": verdict,
    }
    members = {"model.onnx": model.read_bytes(), "drift.npz": drift_reference(images, on_drift, embeddings), **golden}
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # what does not verify never gets the archive's name
        digest = write(Path(scratch) / target.name, about=about, members=members)
        verify(Path(scratch) / target.name)
        (Path(scratch) / target.name).replace(target)
    return digest
