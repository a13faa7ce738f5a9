"""The files and the environment that TorchServe is started with. Its traps: the note on TorchServe, section 1."""

import json
import os
from pathlib import Path

from serving.plan import Plan

STAND_IN = Path(__file__).parent / "torch_stand_in"
RESPONSE_TIMEOUT_S = 30
STARTUP_TIMEOUT_S = 60
MAX_RESPONSE_BYTES = 16 << 20
LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders><Console name="out"><PatternLayout alwaysWriteExceptions="false"
    pattern='{"level":"%p","logger":"%c{1}","message":"%enc{%m %ex}{JSON}"}%n'/></Console></Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info">
      <RegexFilter regex="Backend received inference.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="io.netty" level="error"/>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


def config_properties(folder: Path, model: str, version: str, *, plan: Plan, max_request_bytes: int, grpc_ports: tuple[int, int]) -> str:
    """TorchServe's config.properties for one archive `<model>.mar` in `folder`/store."""
    models = {
        model: {
            version: {
                "defaultVersion": True,
                "marName": f"{model}.mar",
                "minWorkers": plan.workers,
                "maxWorkers": plan.workers,  # without it, minWorkers is ignored
                "batchSize": 1,  # the front door batches
                "maxBatchDelay": 1,  # 0 means 100 ms
                "responseTimeout": RESPONSE_TIMEOUT_S,
                "startupTimeout": STARTUP_TIMEOUT_S,
            }
        }
    }
    lines = {
        "inference_address": f"unix:{folder / 'inference'}",
        "management_address": f"unix:{folder / 'management'}",
        "metrics_address": f"unix:{folder / 'metrics'}",
        "grpc_inference_port": grpc_ports[0],
        "grpc_management_port": grpc_ports[1],
        "number_of_netty_threads": 1,
        "netty_client_threads": 1,
        "number_of_gpu": 0,
        "job_queue_size": plan.slots + 1,
        "max_request_size": max_request_bytes,
        "max_response_size": MAX_RESPONSE_BYTES,
        "disable_token_authorization": "true",  # its keys cannot be set; the front door has its own
        "enable_model_api": "false",
        "allowed_urls": "file:///nowhere",  # closes remote registration, of workflows too
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        "install_py_dep_per_model": "false",
        "load_models": f"{model}.mar",
        "models": json.dumps(models, separators=(",", ":")),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def environment(folder: Path, plan: Plan, *, stand_in: bool, arenas: Path) -> dict[str, str]:
    """The environment of the JVM and of its workers; with `stand_in`, their torch is an empty class (serving/torchserve/torch_stand_in)."""
    path = [str(STAND_IN)] * stand_in + [os.environ[name] for name in ("PYTHONPATH",) if name in os.environ]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "SLIPWAY_THREADS": str(plan.threads_per_worker),
        "SLIPWAY_ARENAS": str(arenas),
        "SLIPWAY_CPUS": str(plan.lone_image_threads),
        "OMP_NUM_THREADS": str(plan.threads_per_worker),
        "TEMP": str(folder / "tmp"),
        "LOG_LOCATION": str(folder / "log"),
        "METRICS_LOCATION": str(folder / "log"),
    }
