"""A pod of the chart's is ready soon after it has a node, on a quiet cluster that has the image.

.venv/bin/pytest -m cluster tests/test_cluster_start.py      with KUBECONFIG, IMAGE, and in REPORT the file for what was measured
"""

import json
import uuid
from datetime import datetime

import pytest
from chart import one, render
from cluster import Namespace, wanted_image
from cluster_report import record

pytestmark = [pytest.mark.cluster, pytest.mark.long]
PODS = 5


@pytest.fixture
def space():
    """A fresh namespace."""
    here = Namespace(f"slipway-{uuid.uuid4().hex[:6]}")
    here.kubectl("create", "namespace", here.name)
    yield here
    here.kubectl("delete", "namespace", here.name, "--wait=false")


def test_a_pod_is_ready_soon_after_it_has_a_node(space):
    repository, _, tag = wanted_image().rpartition(":")
    spec = one(render({"image": {"repository": repository, "tag": tag}}), "Deployment", "demo-stable")["spec"]["template"]["spec"]
    space.kubectl("create", "serviceaccount", spec["serviceAccountName"])
    starts = [start(space, f"start-{number}", spec) for number in range(PODS)]
    record("start of a pod", {"resources": spec["containers"][0]["resources"], "pods": starts})
    assert max(one["ready_s"] for one in starts) <= 15


def start(space: Namespace, name: str, spec: dict) -> dict:
    """Seconds from a pod's place on a node to the start of its process and to its readiness; the cluster tells whole seconds."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    space.kubectl("create", "--filename", "-", own=json.dumps(pod))
    space.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s", timeout_s=150)
    found = space.get("pod", name)
    space.kubectl("delete", "pod", name, "--wait=true")
    at = {condition["type"]: moment(condition["lastTransitionTime"]) for condition in found["status"]["conditions"]}
    process = moment(found["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
    scheduled = at["PodScheduled"]
    return {"node": found["spec"]["nodeName"], "process_s": process - scheduled, "ready_s": at["Ready"] - scheduled}


def moment(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
