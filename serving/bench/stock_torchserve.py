"""TorchServe as its users run it, to compare with: the stock `image_classifier` handler, fp32 torch, the JVM with its defaults."""

import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from serving.bench.servers import Server, free_port, started
from serving.torchserve.java import find_java

MODEL = "stock"
SIZE_PX = 224  # what image_classifier crops to; it cannot be told otherwise
MIN_CLASSES = 5  # it always answers the five best
PATIENCE_S = 120.0
NEEDED = ("ts", "torch", "torchvision", "captum")
# What TorchServe's handlers import when it is there. A stock installation has none of them: they would only slow its start.
HIDDEN = ("openvino", "onnxruntime")
NETWORK = """import torch, torchvision

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = torchvision.models.get_model({arch!r}, num_classes={classes})

    def forward(self, images):
        return self.network(images)
"""
VARIANTS: Mapping[str, Mapping[str, str]] = {"TorchServe, defaults": {}, "TorchServe, tuned": {"OMP_NUM_THREADS": "1"}}


def check(size_px: int) -> None:
    """Nothing, when stock TorchServe can be compared with a network of this input size.

    Raises: ValueError for another size than its own, or when a package that it needs is missing.
    """
    if size_px != SIZE_PX:
        raise ValueError(
            f"stock TorchServe's image_classifier works at {SIZE_PX} pixels, this archive at {size_px}: compare at --size {SIZE_PX}"
        )
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"stock TorchServe needs {', '.join(missing)}, not installed here: pip install -e .[dev]")


def write_archive(target: Path, *, arch: str, classes: int) -> None:
    """Write a .mar as torch-model-archiver would: the class of the network, fresh weights of `arch`, the handler's name."""
    import torch
    import torchvision

    classes = max(classes, MIN_CLASSES)
    state = torchvision.models.get_model(arch, num_classes=classes).state_dict()
    weights = io.BytesIO()
    torch.save({f"network.{key}": value for key, value in state.items()}, weights)
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": MODEL,
            "modelVersion": "1.0",
            "modelFile": "stock_network.py",
            "serializedFile": "weights.pth",
            "handler": "image_classifier",
        },
    }
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("stock_network.py", NETWORK.format(arch=arch, classes=classes))
        archive.writestr("weights.pth", weights.getvalue())


@contextmanager
def stock(name: str, archive: Path, *, folder: Path, image: bytes) -> Iterator[Server]:
    """The TorchServe of VARIANTS `name`, ready; its files lie in the new folder `folder`.

    Raises: ValueError when it does not come up, with its last words.
    """
    for part in ("store", "tmp", "log", "hidden"):
        (folder / part).mkdir(parents=True)
    (folder / "store" / f"{MODEL}.mar").symlink_to(archive.resolve())
    for package in HIDDEN:
        (folder / "hidden" / f"{package}.py").write_text('raise ImportError("hidden: stock TorchServe comes without it")\n')
    places = {"TEMP": str(folder / "tmp"), "LOG_LOCATION": str(folder / "log"), "METRICS_LOCATION": str(folder / "log")}
    places["PYTHONPATH"] = str(folder / "hidden")
    with started(
        name,
        _command(folder),
        path=f"/predictions/{MODEL}",
        image=image,
        label=None,
        log=folder / "stdout",
        patience_s=PATIENCE_S,
        folder=folder,
        environment={**places, **VARIANTS[name]},
    ) as server:
        yield server


def _command(folder: Path) -> Callable[[int], Sequence[str]]:
    """The command that `torchserve --start` would run, with ports that collide with nobody's and without tokens."""
    spec = find_spec("ts")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent.parent

    def command(port: int) -> Sequence[str]:
        config = folder / "config.properties"
        config.write_text(
            f"inference_address=http://127.0.0.1:{port}\n"
            f"management_address=http://127.0.0.1:{free_port()}\n"
            f"metrics_address=http://127.0.0.1:{free_port()}\n"
            f"grpc_inference_port={free_port()}\n"
            f"grpc_management_port={free_port()}\n"
        )
        return [
            str(find_java()[0]),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            *("-cp", f".{os.pathsep}{home / 'ts' / 'frontend' / '*'}", "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable, "-f", str(config), "-s", str(folder / "store"), "-ncs"),
            *("--disable-token-auth", "-m", f"{MODEL}={MODEL}.mar"),
        ]

    return command
