"""Locust's users of a cluster, from here through its Gateway; with them the callers of a pod, through the Service."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from cluster import Load, Namespace, gateway
from first_party import ROOT

LOCUST = [sys.executable, "-m", "locust", "-f", "serving/locustfile.py", "--headless", "--only-summary"]
FEW = ["--load-shape=soak", "--peak=4", "--pace=0.3", "--seconds=900", "--objective-refused=0", "--objective-p99=10"]


@cache
def from_here() -> str | None:
    """The Gateway's address for whoever runs the tests: that of GATEWAY_URL, else of its Service; None when nothing answers there."""
    if (found := gateway()) is None:
        return None
    namespace, name, address = found
    if not Namespace(namespace).get("gateway", name)["status"].get("addresses"):
        (service, *_) = Namespace(namespace).get("services")["items"]
        address = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    address = os.environ.get("GATEWAY_URL", address)
    try:
        httpx.get(address, timeout=5)
    except httpx.TransportError:
        return None
    return address


@contextmanager
def under_load(space: Namespace, address: str, image: bytes, label: str, *, users: str, host: str = "") -> Iterator[Load]:
    """Requests as of `Namespace.load` while the block runs, and of Locust's users, who ask the Gateway for the host `users`.

    The users' report is `users` of what the load returns. A cluster without a Gateway, or with one out of reach, has none; in CI it must.
    """
    outside = from_here()
    assert outside or not os.environ.get("CI"), "the Gateway is not reached from here"
    with space.load(address, image, label, host=host) as load:
        if outside is None:
            yield load
            return
        with _users(outside, users) as report:
            yield replace(load, finish=lambda: load.finish() | {"users": report()})


@contextmanager
def _users(address: str, host: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Four users while the block runs; who calls ends them, and gets what became of their requests."""
    with tempfile.TemporaryDirectory(prefix="users-") as folder:
        path = Path(folder) / "report.json"
        command = [*LOCUST, *FEW, "--host", address, "--host-header", host, "--report", str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None

        def finish() -> dict[str, Any]:
            assert process.poll() is None, "the users had gone before"
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
            assert path.exists(), said
            report: dict[str, Any] = json.loads(path.read_text())
            return report

        try:
            assert any("All users spawned" in line for line in process.stderr), "Locust did not start"
            yield finish
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def locust(address: str, folder: Path, **options: str) -> dict[str, Any]:
    """The load test's report; with it `crowd`, from when to when all users were there, and `p99_ms`, pairs over time."""
    files = {"report": str(folder / "load.json"), "csv": str(folder / "load")}
    chosen = [f"--{name.replace('_', '-')}={value}" for name, value in {**options, **files}.items()]
    done = subprocess.run([*LOCUST, "--host", address, *chosen], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert (folder / "load.json").exists(), done.stderr
    with (folder / "load_stats_history.csv").open() as lines:
        seconds = [row for row in csv.DictReader(lines) if row["Name"] == "Aggregated"]
    at_peak = [float(row["Timestamp"]) for row in seconds if row["User Count"] == options["peak"]]
    slow = [(float(row["Timestamp"]), float(row["99%"])) for row in seconds if row["99%"] != "N/A"]
    report: dict[str, Any] = json.loads((folder / "load.json").read_text())
    return report | {"crowd": (at_peak[0], at_peak[-1]), "p99_ms": slow}


def lost_nothing(went: dict[str, Any]) -> None:
    """Each request of the callers was answered, and right; each of the users' once, under its own name."""
    assert went["failures"] == []
    assert went["requests"] > 50
    if users := went.get("users"):
        assert users["broken"] == []
        assert users["outcomes"] == {"right": users["requests"]} and users["requests"] > 20
