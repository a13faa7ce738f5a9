"""What the chart renders: helm is brought by helm/tools.py, each render is kept for the session."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from first_party import ROOT

CHART = ROOT / "helm" / "slipway"
NAMESPACE = "shop"
GKE = CHART / "values-gke-cpu.yaml"
PRESETS = {  # with what each one lies on top of
    path.stem.removeprefix("values-"): [GKE, path] if "On top of values-gke-cpu.yaml" in path.read_text() else [path]
    for path in sorted(CHART.glob("values-*.yaml"))
}
DIGEST = "0123456789abcdef" * 4
OPERATOR = {"metrics": {"backend": "prometheus-operator"}}
GMP = {"metrics": {"backend": "gmp"}}
ROUTE = {"route": {"enabled": True, "gateway": "main"}}
CANARY = {"canary": {"enabled": True, "image": {"tag": "next"}}}
# One switch turned at a time.
TOGGLES: dict[str, dict[str, Any]] = {
    "default": {},
    "digest": {"image": {"digest": f"sha256:{DIGEST}", "pullSecrets": ["registry"]}, "model": {"digest": DIGEST}},
    "gcs": {"model": {"source": "gcs", "uri": "gs://models/steel.mar", "digest": DIGEST}},
    "image-volume": {"model": {"source": "imageVolume", "image": f"models/steel@sha256:{DIGEST}"}},
    "keys": {"keys": {"existingSecret": "slipway-keys"}},
    "cpu": {"autoscaling": {"provider": "cpu"}},
    "keda": {"autoscaling": {"provider": "keda", "prometheusUrl": "http://prometheus.monitoring:9090"}, **OPERATOR},
    "prometheus-adapter": {"autoscaling": {"provider": "prometheus-adapter"}},
    "hpa-gmp": {"autoscaling": {"provider": "hpa-gmp"}, **GMP},
    "no-network-policy": {"networkPolicy": {"enabled": False}},
    "operator": OPERATOR,
    "gmp": GMP,
    "alerts": {"alerts": {"enabled": True}, **OPERATOR},
    "alerts-gmp": {"alerts": {"enabled": True}, **GMP},
    "dashboards": {"dashboards": {"enabled": True}},
    "route": ROUTE,
    "gke-policies": {"route": {"enabled": True, "gateway": "main", "gkePolicies": True}},
    "canary": CANARY,
    "canary-weight": {"canary": {"enabled": True, "weight": 10, "replicas": 2, "image": {"tag": "next"}}, **ROUTE},
    "placed": {"nodeSelector": {"pool": "a"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
    "no-surge": {"rollout": {"maxSurge": 0, "maxUnavailable": 1}},
}
Object = dict[str, Any]


class Refused(AssertionError):
    """Helm would not render."""


@cache
def helm() -> str:
    """The pinned helm, whatever is on PATH: another version words its refusals otherwise."""
    command, unseen = [sys.executable, ROOT / "helm" / "tools.py"], os.environ | {"PATH": ""}
    done = subprocess.run(command, env=unseen, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return str(ROOT / "build" / "tools" / "helm")


def text(values: Object | None = None, *, files: tuple[Path, ...] = (), release: str = "demo", kube: str = "1.34.0") -> str:
    """What `helm template` prints.

    Raises: Refused with Helm's words.
    """
    return _text(json.dumps(values or {}), files, release, kube)


@cache
def _text(values: str, files: tuple[Path, ...], release: str, kube: str) -> str:
    command = [helm(), "template", release, CHART, "--namespace", NAMESPACE, "--kube-version", kube]
    options = [option for file in files for option in ("--values", file)]
    done = subprocess.run([*command, *options, "--values", "-"], input=values, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(values: Object | None = None, *, files: tuple[Path, ...] = (), release: str = "demo", kube: str = "1.34.0") -> list[Object]:
    """The rendered objects."""
    return copy.deepcopy(_parsed(text(values, files=files, release=release, kube=kube)))


@cache
def _parsed(rendered: str) -> list[Object]:
    return [document for document in yaml.load_all(rendered, yaml.CSafeLoader) if document]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [found for found in objects if found["kind"] == kind]


def one(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and a name."""
    (found,) = (found for found in of_kind(objects, kind) if found["metadata"]["name"] == name)
    return found


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod's name with its metadata and spec, of Deployments, Jobs and pods themselves."""
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield name, found
        elif "template" in found.get("spec", {}):
            yield name, found["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """Init containers and containers of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
