"""A finished run in MLflow: parameters, metrics, figures, the data's digest and the git commit. The files on disk come first."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STORE = "sqlite:///mlflow.db"


def record(name: str, params: Mapping[str, Any], result: Mapping[str, Any], *, data_digest: str, folder: Path) -> str:
    """The id of the MLflow run that holds the training run in `folder`, written to MLFLOW_TRACKING_URI or mlflow.db here."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow.entities import Metric, Param

    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", STORE))
    mlflow.set_experiment("slipway")
    with mlflow.start_run(run_name=name) as run:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        metrics = [Metric(key, value, 0, row["epoch"]) for row in rows for key, value in row.items() if key != "epoch"]
        client = mlflow.MlflowClient()
        for start in range(0, len(metrics), 1000):  # MLflow takes at most 1,000 metrics a call
            client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
        mlflow.set_tags({"data_digest": data_digest, **git_state(), "device": result["device"], "start": result["start"]})
        mlflow.log_metrics({"best_val_top1": result["best"]["val_top1"], "train_seconds": result["train_seconds"]})
        for figure in ("curves.svg", "metrics.jsonl"):
            mlflow.log_artifact(str(folder / figure))
        return str(run.info.run_id)


def git_state() -> dict[str, str]:
    """{"commit", "dirty"} of the checkout; "unknown" outside one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": "unknown"}
    return {"commit": commit, "dirty": "yes" if changed else "no"}
