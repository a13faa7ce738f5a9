"""What a TorchServe worker runs: images in, class probabilities out, one answer an image whatever its neighbours are.

This package travels inside the archive as `handler` and imports nothing of Slipway but itself, so an archive behaves the
same wherever it is loaded. OpenVINO and OpenCV are imported in `initialize`: the front door, which needs only `frames`,
stays small.
"""

import json
import logging
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import frames
from .arena import Arenas

BATCHES = (16, 8, 4, 2, 1)  # images in one inference; other numbers are cut into these, so that every size was warmed
NICENESS = 5  # the front door, which has the same CPUs, must take, answer and refuse while these are busy
Answer = tuple[int, bytes]


class Handler:
    """TorchServe's contract: `initialize` once a worker, `handle` once a batch of requests, one result a request."""

    def initialize(self, context: Any) -> None:
        """Load, warm every batch size, and check the golden images; thread counts come from the environment.

        Raises: RuntimeError when a golden image does not predict as recorded: such a worker must never become ready.
        """
        folder = Path(context.system_properties["model_dir"])
        threads = int(os.environ.get("SLIPWAY_THREADS", "1"))
        os.nice(NICENESS)
        self.open(folder, threads=threads, lone_threads=int(os.environ.get("SLIPWAY_CPUS", threads)))
        # TorchServe's worker logs two lines a request, and the JVM parses them: 0.3 ms of CPU for nothing
        logging.getLogger().setLevel(logging.WARNING)

    def open(self, folder: Path, *, threads: int, lone_threads: int) -> None:
        """As `initialize`, for an unpacked archive in `folder` without TorchServe."""
        import cv2
        from PIL import Image

        from .decode import Preprocess, decode

        cv2.setNumThreads(1)  # parallel over images, never within one
        Image.init()  # all of Pillow's formats now, not during the first odd image
        warnings.filterwarnings("ignore", module="PIL")  # on odd images, which are none of the log's business
        self.about = json.loads((folder / "slipway.json").read_text())
        self.labels: list[str] = self.about["labels"]
        self.quoted = [json.dumps(label) for label in self.labels]
        self.to = Preprocess(**self.about["preprocess"], **self.about["limits"])
        self.decode = decode
        self.engine = self._engine(folder / "model.onnx", threads, lone_threads)
        self.engine.warm(self.to.size_px, BATCHES)
        pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.map: Callable[..., Iterable[Any]] = pool.map if pool else map
        self.arenas = Arenas(Path(os.environ.get("SLIPWAY_ARENAS", folder / "no-arenas")))
        self.check_golden(folder)

    def _engine(self, model: Path, threads: int, lone_threads: int) -> Any:
        if os.environ.get("SLIPWAY_DEVICE") == "cuda":
            from . import gpu

            return gpu.Engine(model)
        from .engine import Engine

        return Engine(model, threads=threads, lone_threads=lone_threads)

    def check_golden(self, folder: Path) -> None:
        """Nothing, when every golden image predicts as recorded.

        Raises: RuntimeError with the image, what was recorded and what came out.
        """
        for golden in self.about["golden"]:
            status, body = self.classify([(folder / golden["file"]).read_bytes()])[0][0]
            got = json.loads(body)
            wanted = dict(zip(self.labels, golden["probabilities"], strict=True))
            error = max(abs(got.get(label, -1) - wanted[label]) for label in wanted) if status == 200 else 1.0
            if not error <= self.about["golden_tolerance"]:  # as it stands, no number is no match
                raise RuntimeError(
                    f"golden image {golden['file']} predicts {got}, the archive recorded {wanted}: "
                    f"off by {error:.3f}, allowed {self.about['golden_tolerance']}"
                )

    def handle(self, rows: Sequence[dict[str, Any]], context: Any) -> list[bytes]:
        """One result for each request: frames for frames, else the answer for its one image with its own status."""
        bodies = [row.get("body", row.get("data")) for row in rows]
        framed = [context.get_request_header(index, "content-type") == frames.CONTENT_TYPE for index in range(len(rows))]
        lone = iter(self.classify([body for body, several in zip(bodies, framed, strict=True) if not several])[0])
        results = []
        for index, (body, several) in enumerate(zip(bodies, framed, strict=True)):
            status, result = self._frames(body) if several else next(lone)
            context.set_response_content_type(index, frames.CONTENT_TYPE if several and status == 200 else "application/json")
            if status != 200:
                context.set_response_status(status, "Bad image", index)
            results.append(result)
        return results

    def _frames(self, body: Any) -> Answer:
        try:
            meta, images = frames.unpack(body)
            if "arena" in meta:
                images = self.arenas.images(meta["arena"], meta["lengths"])
        except (ValueError, TypeError, KeyError) as error:
            return _error(400, "BadFrames", f"{error}; wanted frames as serving/handler/frames.py packs them")
        answers, seconds = self.classify(images, alone=bool(meta.get("alone")), deadlines=meta.get("deadlines"))
        return 200, frames.pack({"statuses": [status for status, _ in answers], **seconds}, [body for _, body in answers])

    def classify(
        self, images: Sequence[Any], *, alone: bool = False, deadlines: Sequence[float | None] | None = None
    ) -> tuple[list[Answer], dict[str, float]]:
        """A status and a JSON body for each image, in order, and the seconds spent in decoding and in inference."""
        import numpy as np

        started = time.perf_counter()
        outcomes = list(self.map(self._decode, images, deadlines or [None] * len(images)))
        decoded = time.perf_counter()
        good = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, tuple)]
        while good:
            count = next(size for size in BATCHES if size <= len(good))
            some, good = good[:count], good[count:]
            probabilities, _ = self.engine(np.stack([outcomes[index] for index in some]), alone=alone)
            for index, row in zip(some, probabilities.tolist(), strict=True):
                outcomes[index] = 200, self._answer(row)
        return outcomes, {"decode_s": decoded - started, "inference_s": time.perf_counter() - decoded}

    def _decode(self, image: Any, deadline: float | None) -> Any:
        from .decode import BadImage

        if deadline is not None and time.monotonic() > deadline:
            return _error(504, "DeadlinePassed", "its time was over before it was decoded")
        if not isinstance(image, bytes | bytearray | memoryview):  # TorchServe has parsed what came with a content type it knows
            return _error(415, "UnsupportedMediaType", "got no bytes, wanted an image: send it as image/* or application/octet-stream")
        try:
            return self.decode(image, self.to)
        except BadImage as error:
            return _error(error.status, error.kind, str(error))
        except Exception:  # our fault, and still one image's alone
            traceback.print_exc()
            return _error(500, "Internal", "this image met a fault of the server: see its log")

    def _answer(self, row: list[float]) -> bytes:
        best = sorted(range(len(row)), key=row.__getitem__, reverse=True)
        return ("{" + ",".join(f"{self.quoted[index]}:{row[index]:.6f}" for index in best) + "}").encode()


def _error(status: int, kind: str, message: str) -> Answer:
    return status, json.dumps({"code": status, "type": kind, "message": message}).encode()
