"""A release on a real cluster under a load that Locust sends: what its pods do, every two seconds.

`.venv/bin/python tests/cluster_scaling.py` draws figures/autoscaling.svg from what test_cluster_scaling.py wrote down.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from cluster import Namespace
from first_party import ROOT

from cli.bench.plots import BLUE, GREY, RED, rows
from cli.deploy.release import tool

PERIOD_S = 2.0
IN_FLIGHT = re.compile(r"^slipway_requests_in_flight (\S+)", re.MULTILINE)
CPU_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
CONDITIONS = {"scheduled": "PodScheduled", "ready": "Ready"}


@dataclass
class Samples:
    """Rows over time, and each pod's moments in seconds since 1970: created, and when it was first scheduled and ready."""

    rows: list[dict[str, float]] = field(default_factory=list)
    pods: dict[str, dict[str, float]] = field(default_factory=dict)

    def wanted_at(self, count: int) -> float | None:
        """When the autoscaler first wanted so many pods."""
        return next((row["at"] for row in self.rows if row["wanted"] >= count), None)

    def pods_in_order(self) -> list[dict[str, float]]:
        """Moments of the pods, the oldest first."""
        return sorted(self.pods.values(), key=lambda moments: moments.get("ready", moments["created"]))


@contextmanager
def sampled(space: Namespace) -> Iterator[Samples]:
    """Samples of the release `demo`, which grow while the block runs."""
    proxy = subprocess.Popen([tool("kubectl"), "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert proxy.stdout is not None
    address = "http://" + proxy.stdout.readline().split()[-1]
    samples, stop = Samples(), threading.Event()
    thread = threading.Thread(target=_sample, args=(address, space.name, samples, stop))
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
        proxy.terminate()
        proxy.wait()


def _sample(address: str, namespace: str, samples: Samples, stop: threading.Event) -> None:
    with httpx.Client(base_url=address, timeout=10) as client:
        while not stop.is_set():
            now = time.time()
            with suppress(httpx.HTTPError):  # this sample is missing then
                samples.rows.append({"at": now} | _row(client, namespace, samples.pods))
            stop.wait(max(0.0, now + PERIOD_S - time.time()))


def _row(client: httpx.Client, namespace: str, moments: dict[str, dict[str, float]]) -> dict[str, float]:
    """One sample; what it sees of pods for the first time is added to `moments`."""
    selected = "pods?labelSelector=track%3Dstable"
    deployment = client.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/demo-stable").json()
    usage = client.get(f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/{selected}").json()
    pods = client.get(f"/api/v1/namespaces/{namespace}/{selected}").json()["items"]
    for pod in pods:
        known = moments.setdefault(pod["metadata"]["name"], {"created": _seconds(pod["metadata"]["creationTimestamp"])})
        for name, condition in CONDITIONS.items():
            if (at := _since(pod, condition)) is not None:
                known.setdefault(name, at)
    ready = [f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}:9090" for pod in pods if _since(pod, "Ready")]
    return {
        "wanted": deployment["spec"]["replicas"],
        "ready": deployment["status"].get("readyReplicas", 0),
        "in_flight": sum(_in_flight(client, path) for path in ready),
        "cpu": sum(_cpus(part["usage"]["cpu"]) for pod in usage["items"] for part in pod["containers"]),
    }


def _since(pod: dict[str, Any], kind: str) -> float | None:
    """Since when the condition is true; None when it is not."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            return _seconds(condition["lastTransitionTime"])
    return None


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _in_flight(client: httpx.Client, pod: str) -> float:
    """Requests in flight in a pod; 0 when it has just gone."""
    found = IN_FLIGHT.search(client.get(f"{pod}/proxy/metrics").text)
    return float(found[1]) if found else 0.0


def _cpus(quantity: str) -> float:
    """CPUs of a quantity.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    return float(quantity[:-1]) * CPU_UNITS[quantity[-1]] if quantity[-1] in CPU_UNITS else float(quantity)


def draw(found: dict[str, Any], path: Path) -> None:
    """Pods that are wanted and that are ready, and requests in flight, over time and of both signals; the crowd came at 0."""
    with rows(path, count=2, height=5) as (pods, waiting):
        for signal, name, colour in (("cpu", "CPU", RED), ("keda", "requests in flight", BLUE)):
            samples = found[signal]["samples"]
            at = [row["at"] for row in samples]
            pods.step(at, [row["wanted"] for row in samples], color=colour, linestyle=":", where="post", label=f"wanted by {name}")
            pods.step(at, [row["ready"] for row in samples], color=colour, where="post", label="ready")
            waiting.plot(at, [row["in_flight"] for row in samples], color=colour, linewidth=1, label=f"scaled by {name}")
            pods.axvline(found[signal]["crowd_left_s"], color=colour, linewidth=0.5, linestyle="--")
        for axis in (pods, waiting):
            axis.axvline(0, color=GREY, linewidth=0.5, linestyle="--")
            axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
        pods.set(ylabel="pods", ylim=(0, 3.5), yticks=range(4))
        waiting.set(xlabel="seconds since the crowd came", ylabel="requests in flight", ylim=(0, None))


if __name__ == "__main__":
    draw(json.loads((ROOT / "reports" / "metrics" / "cluster-autoscaling.json").read_text()), ROOT / "figures" / "autoscaling.svg")
