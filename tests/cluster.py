"""A real cluster for tests marked `cluster`: KUBECONFIG says which, IMAGE which image of build/demo.mar it can pull."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from first_party import ROOT

from cli.deploy.release import tool

RESTRICTED_POD = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
}
RESTRICTED_CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
# Runs in a pod: asks once, and prints status and body, or what went wrong.
ASK = """
import json, sys, httpx
address, host, timeout_s = sys.argv[1:]
body = sys.stdin.buffer.read()
try:
    headers = {"host": host} if host else {}
    answer = httpx.request("POST" if body else "GET", address, content=body, headers=headers, timeout=float(timeout_s))
    print(json.dumps([answer.status_code, answer.text]))
except httpx.TransportError as error:
    print(json.dumps([0, type(error).__name__]))
"""
LOAD = (ROOT / "tests" / "cluster_load.py").read_text()


@dataclass(frozen=True)
class Namespace:
    """A namespace of the test cluster."""

    name: str

    def kubectl(self, *arguments: str, own: bytes | str | None = None, check: bool = True, timeout_s: float = 120) -> str:
        """What kubectl prints."""
        content = own.encode() if isinstance(own, str) else own
        command = [tool("kubectl"), "--namespace", self.name, *arguments]
        done = subprocess.run(command, input=content or b"", capture_output=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout.decode()

    def get(self, *arguments: str) -> Any:
        """What the cluster says of something, as JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def pods(self) -> list[str]:
        """The names of the server's pods that are not ending."""
        items = self.get("pods", "--selector", "app.kubernetes.io/component=server")["items"]
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]

    def settle(self, deployment: str = "demo-stable") -> None:
        """Wait until the rollout is complete."""
        self.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=180s", timeout_s=200)

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> "subprocess.CompletedProcess[str]":
        """Helm on the chart's release demo, when `values` are given to it."""
        command = [tool("helm"), *arguments, "--namespace", self.name, *(["--values", "-"] if values is not None else [])]
        return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=400, check=False)

    def start(self, name: str, image: str, command: list[str] | None = None, **spec: Any) -> None:
        """Run a pod of the restricted profile, with a /tmp."""
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": RESTRICTED_CONTAINER,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                **RESTRICTED_POD,
                "containers": [container | ({"command": command} if command else {})],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                **spec,
            },
        }
        self.kubectl("create", "--filename", "-", own=json.dumps(pod))

    def client(self, image: str) -> None:
        """Run a pod called client that waits to be told what to do."""
        self.start("client", image, ["sleep", "infinity"], terminationGracePeriodSeconds=0)
        self.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")

    def ask(self, address: str, body: bytes = b"", *, host: str = "", timeout_s: float = 30) -> tuple[int, str]:
        """Status and body that the pod client gets; status 0 and the error when it gets no answer."""
        command = ("exec", "-i", "client", "--", "python3", "-c", ASK, address, host, str(timeout_s))
        status, text = json.loads(self.kubectl(*command, own=body))
        return status, text

    @contextmanager
    def load(self, address: str, image: bytes, label: str, *, host: str = "") -> Iterator["Load"]:
        """Requests from the pod client while the block runs, as tests/cluster_load.py sends them."""
        stop = f"/tmp/stop-{time.monotonic_ns()}"
        command = ["exec", "-i", "client", "--", "python3", "-c", LOAD, address, host, label, stop]
        process = subprocess.Popen([tool("kubectl"), "--namespace", self.name, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(image)
        process.stdin.close()
        process.stdin = None

        def finish() -> dict[str, Any]:
            self.kubectl("exec", "client", "--", "touch", stop)
            said, _ = process.communicate(timeout=60)
            found: dict[str, Any] = json.loads(said)
            return found

        try:
            time.sleep(2)
            assert process.poll() is None, "the load did not start"
            yield Load(finish)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Load:
    """Requests that go on until this is called; it returns what cluster_load.py says, and `marks` in seconds from its start."""

    finish: Callable[[], dict[str, Any]]
    marks: list[tuple[float, str]] = field(default_factory=list)

    def mark(self, what: str) -> None:
        """Remember that this was done just now."""
        self.marks.append((time.time(), what))

    def __call__(self) -> dict[str, Any]:
        found = self.finish()
        started = found.pop("started")
        return found | {"marks": [[round(at - started, 1), what] for at, what in self.marks]}


def wanted_image() -> str:
    """The image that is tested; a test that has none is skipped."""
    if not (os.environ.get("KUBECONFIG") and os.environ.get("IMAGE")):
        pytest.skip("wanted KUBECONFIG, and in IMAGE an image of build/demo.mar that the cluster can pull")
    return os.environ["IMAGE"]


def demo_values(host: str, **changes: Any) -> dict[str, Any]:
    """Values for this cluster: its Gateway, when there is one, for requests to a host of the test's own; no wish for much of it."""
    small = {"requests": {"cpu": "400m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}  # three fit on a node of two CPUs
    chosen: dict[str, Any] = {"replicas": {"min": 2}, "resources": small}
    if (found := gateway()) is not None:
        namespace, name, _ = found
        peers = [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]
        chosen["networkPolicy"] = {"clients": peers}
        chosen["route"] = {"enabled": True, "gateway": name, "gatewayNamespace": namespace, "hostnames": [host]}
    return chosen | changes


def slipway(*arguments: str, timeout_s: float = 600) -> "subprocess.CompletedProcess[str]":
    """The command line, as a person runs it."""
    command = [sys.executable, "-c", "from cli import main; main()", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def gateway() -> tuple[str, str, str] | None:
    """Namespace, name and address inside the cluster of its first Gateway; None when it has none."""
    found = Namespace("default").kubectl("get", "gateways", "--all-namespaces", "--output", "json", check=False)
    for item in json.loads(found or '{"items": []}')["items"]:
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        addresses = [entry["value"] for entry in item.get("status", {}).get("addresses", [])]
        services = Namespace(namespace).get("services")["items"]
        inside = [f"{service['metadata']['name']}.{namespace}" for service in services]
        if addresses or inside:
            return namespace, name, f"http://{(addresses or inside)[0]}"
    return None


def golden(archive: Path) -> tuple[bytes, str]:
    """The archive's first golden image, and the label that was recorded for it."""
    from serving.served import open_archive

    served = open_archive(archive)
    first = served.golden[0]
    return first.image, served.labels[max(range(len(served.labels)), key=first.probabilities.__getitem__)]
