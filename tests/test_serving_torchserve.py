"""TorchServe's configuration, the resource plan, the log, the stand-in for torch: what needs no running server."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.plan import make_plan
from serving.torchserve.config import STAND_IN, config_properties, environment
from serving.torchserve.java import class_cache, class_cache_flag, find_java, java_flags
from serving.torchserve.log import Log
from serving.torchserve.private_folder import PrivateFolder


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("cpus", "workers", "threads", "lone"),
    [(0.5, 1, 1, 1), (1.0, 1, 1, 1), (1.9, 1, 1, 1), (2.0, 2, 1, 2), (4.0, 4, 1, 4), (8.0, 4, 2, 8), (10.0, 4, 2, 10), (64.0, 4, 16, 64)],
)
def test_the_plan_fits_the_cpu_limit(cpus: float, workers: int, threads: int, lone: int) -> None:
    plan = make_plan(cpus)
    assert (plan.workers, plan.threads_per_worker, plan.lone_image_threads) == (workers, threads, lone)
    assert plan.slots == workers + 1
    assert plan.workers * plan.threads_per_worker <= max(1, cpus)


def test_the_plan_takes_what_is_asked_and_says_so() -> None:
    plan = make_plan(2.0, workers=3, threads=2)
    assert (plan.workers, plan.threads_per_worker, plan.slots) == (3, 2, 4)
    assert sum("as asked" in reason for reason in plan.reasons) == 2
    with pytest.raises(ValueError, match="--workers wants at least 1, got 0"):
        make_plan(2.0, workers=0)


def test_config_properties_avoid_the_traps(tmp_path: Path) -> None:
    text = config_properties(tmp_path, "steel", "2.0", plan=make_plan(4.0), max_request_bytes=12345, grpc_ports=(5001, 5002))
    got = properties(text)
    model = json.loads(got["models"])["steel"]["2.0"]
    assert model["minWorkers"] == model["maxWorkers"] == 4  # with one of them alone, both are ignored
    assert model["batchSize"] == 1 and model["maxBatchDelay"] == 1  # 0 means 100 ms
    assert model["marName"] == got["load_models"] == "steel.mar"
    assert got["enable_model_api"] == "false" and got["disable_token_authorization"] == "true"
    assert "," not in got["allowed_urls"] and got["allowed_urls"].startswith("file:")
    assert got["metrics_mode"] == "prometheus" and got["disable_system_metrics"] == "true"
    assert got["max_request_size"] == "12345"
    addresses = {got[f"{kind}_address"] for kind in ("inference", "management", "metrics")}
    assert len(addresses) == 3 and all(address.startswith("unix:") for address in addresses)


def test_the_workers_environment_has_threads_and_the_stand_in_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    with_it = environment(tmp_path, make_plan(8.0), stand_in=True, arenas=tmp_path)
    assert with_it["PYTHONPATH"].split(os.pathsep) == [str(STAND_IN), "/mine"]
    assert (with_it["SLIPWAY_THREADS"], with_it["OMP_NUM_THREADS"], with_it["SLIPWAY_CPUS"]) == ("2", "2", "8")
    assert environment(tmp_path, make_plan(8.0), stand_in=False, arenas=tmp_path)["PYTHONPATH"] == "/mine"


def test_the_java_that_is_found_is_new_enough() -> None:
    java, version = find_java()
    assert java.exists() and version >= 17
    assert "-XX:+UseSerialGC" in java_flags(version, heap_mb=64)


def test_the_class_cache_is_named_for_java_and_jar(tmp_path: Path) -> None:
    jar = tmp_path / "model-server.jar"
    jar.write_bytes(b"1")
    seventeen, twenty_five = class_cache(17, jar, tmp_path), class_cache(25, jar, tmp_path)
    assert seventeen and twenty_five and seventeen != twenty_five
    assert class_cache_flag(17, seventeen, record=True).startswith("-XX:ArchiveClassesAtExit=")
    assert class_cache_flag(25, twenty_five, record=False).startswith("-XX:AOTCache=")
    jar.write_bytes(b"another one")
    assert class_cache(17, jar, tmp_path) != seventeen


def said(message: str, level: str = "INFO") -> str:
    """A line as LOG4J's pattern writes it."""
    return json.dumps({"level": level, "logger": "MODEL_LOG", "message": message})


def test_the_log_finds_what_the_handler_said() -> None:
    log = Log()
    for message in (
        "[PID]12",
        "Failed to load model steel, exception golden image golden/0.jpg predicts otherwise",
        "Traceback (most recent call last):",
        "RuntimeError: golden image golden/0.jpg predicts otherwise",
        "Backend worker process died.",
        "RuntimeError: 500 - Unknown exception",
    ):
        log.add(said(message))
    assert log.loading_failed
    assert log.reason() == "golden image golden/0.jpg predicts otherwise"


def test_that_a_worker_died_may_be_known_before_why() -> None:
    log = Log()
    log.add(said("Backend worker process died."))
    assert log.loading_failed and log.raised == ""
    log.add(said("RuntimeError: golden image golden/0.jpg predicts otherwise"))
    assert log.raised == "RuntimeError: golden image golden/0.jpg predicts otherwise"


def test_chatter_is_dropped_and_the_rest_keeps_its_level() -> None:
    log = Log()
    assert log.add(said("Torch worker started.")) is None
    assert log.add(said("out of memory", "WARN")) == (logging.WARNING, "out of memory")
    assert log.add("OpenJDK says something of its own\n") == (logging.INFO, "OpenJDK says something of its own")
    assert log.add('{"level": "LOUD", "message": "no such level"}') == (logging.INFO, '{"level": "LOUD", "message": "no such level"}')
    assert log.add("[1, 2]") == (logging.INFO, "[1, 2]")


def test_the_log_falls_back_to_the_last_exception_and_then_to_the_last_lines() -> None:
    log = Log()
    assert log.reason() == "it said nothing"
    log.add("java.net.BindException: Address already in use")
    log.add("	at somewhere")
    assert log.reason() == "BindException: Address already in use"
    assert not log.loading_failed


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    alive = PrivateFolder()
    code = (
        "import os; from serving.torchserve.private_folder import PrivateFolder; "
        "print(PrivateFolder().path, flush=True); os.kill(os.getpid(), 9)"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=30, check=False)
    killed = Path(run.stdout.strip())
    assert killed.exists() and alive.path.exists() and killed.stat().st_mode & 0o077 == 0
    another = PrivateFolder()
    assert not killed.exists() and alive.path.exists() and another.path.exists()
    alive.remove()
    another.remove()
    assert list(tmp_path.iterdir()) == []


def worker_modules() -> list[Path]:
    """The files of TorchServe that a worker with a handler of its own imports."""
    code = "import sys, ts.model_service_worker; print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'ts'))"
    environ = {**os.environ, "PYTHONPATH": str(STAND_IN)}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=60)
    return [Path(line) for line in run.stdout.split()]


def test_the_worker_asks_torch_for_nothing_but_the_stand_in() -> None:
    used = set()
    for path in worker_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                used.add(node.attr)
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch"), path
    # torch.save stands behind isinstance(value, torch.Tensor), which no answer of ours is
    assert used == {"Tensor", "save"}
    source = next(path for path in worker_modules() if path.name == "otf_message_handler.py").read_text()
    assert re.search(r"isinstance\(val, torch\.Tensor\):\n\s+buff = io\.BytesIO\(\)\n\s+torch\.save\(", source)
