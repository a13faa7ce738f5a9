"""The same archive in a TorchServe that is asked directly over HTTP, to see what the front door costs.

Everything is as `slipway serve` has it: archive, Java, flags, workers, threads, the stand-in for torch. But TorchServe listens on a port,
and batches by itself. No batch size is its best at every load, so it is started with several.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from serving.bench.servers import Server, free_port, started
from serving.plan import Plan
from serving.served import Served
from serving.torchserve.config import LOG4J, config_properties, environment
from serving.torchserve.java import find_java, java_flags

MAX_DELAY_MS = 1  # of a batch that is not full; more is added to every answer at one connection
QUEUE = 1000
HEAP_MB = 512
PATIENCE_S = 60.0
VARIANTS: Mapping[str, int] = {f"TorchServe alone, batches of {size}": size for size in (1, 8, 16)}


@contextmanager
def direct(name: str, served: Served, plan: Plan, *, folder: Path, image: bytes, label: str) -> Iterator[Server]:
    """The TorchServe of VARIANTS `name`, ready; its files lie in the new folder `folder`.

    Raises: ValueError when it does not come up, with its last words.
    """
    for part in ("store", "tmp", "log", "arenas"):
        (folder / part).mkdir(parents=True)
    (folder / "store" / f"{served.name}.mar").symlink_to(served.path.resolve())
    (folder / "log4j2.xml").write_text(LOG4J)
    with started(
        name,
        _command(served, plan, folder=folder, batch_size=VARIANTS[name]),
        path=f"/predictions/{served.name}",
        image=image,
        label=label,
        log=folder / "stdout",
        patience_s=PATIENCE_S,
        folder=folder,
        environment=environment(folder, plan, stand_in=True, arenas=folder / "arenas"),
    ) as server:
        yield server


def _command(served: Served, plan: Plan, *, folder: Path, batch_size: int) -> Callable[[int], Sequence[str]]:
    spec = find_spec("ts")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent.parent
    java, version = find_java()

    def command(port: int) -> Sequence[str]:
        config = folder / "config.properties"
        config.write_text(_config(served, plan, folder=folder, batch_size=batch_size, port=port))
        return [
            str(java),
            *java_flags(version, heap_mb=HEAP_MB),
            f"-Dmodel_server_home={home}",
            f"-Dlog4j.configurationFile={(folder / 'log4j2.xml').as_uri()}",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            *("-cp", str(home / "ts" / "frontend" / "model-server.jar"), "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable, "-f", str(config), "-s", str(folder / "store"), "-ncs"),
        ]

    return command


def _config(served: Served, plan: Plan, *, folder: Path, batch_size: int, port: int) -> str:
    """The configuration of `slipway serve`, but for the address, the batches and a queue that holds whoever waits."""
    text = config_properties(
        folder, served.name, served.version, plan=plan, max_request_bytes=served.max_image_bytes, grpc_ports=(free_port(), free_port())
    )
    lines = dict(line.split("=", 1) for line in text.splitlines())
    models = json.loads(lines["models"])
    models[served.name][served.version] |= {"batchSize": batch_size, "maxBatchDelay": MAX_DELAY_MS}
    lines |= {"inference_address": f"http://127.0.0.1:{port}", "job_queue_size": str(QUEUE), "models": json.dumps(models)}
    return "".join(f"{key}={value}\n" for key, value in lines.items())
