"""The chart on a real cluster: its API server takes every object, both tracks get their share, pods come when requests wait.

With tests/test_cluster_install.py a part of make cluster-test IMAGE=REPOSITORY:TAG; wants a Gateway, KEDA and Prometheus's operator there.
"""

import json
import os
import subprocess
import time
import uuid
from urllib.parse import quote

import pytest
from chart import TOGGLES, helm, one, pod_templates, render
from cluster import Namespace, gateway, golden
from first_party import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ARCHIVE = ROOT / "build" / "demo.mar"
SMALL = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1536Mi"}}
EVERYBODY = {"clients": [{"namespaceSelector": {}}], "collectors": [{"namespaceSelector": {}}]}
# Runs in a pod: prints how many requests it has answered.
COUNTED = """
import re, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9090/metrics").read().decode()
print(sum(float(number) for number in re.findall(r"slipway_request_seconds_count{[^}]*} ([0-9.e+]+)", text)))
"""


@pytest.fixture
def space():
    """A fresh namespace for pods of the restricted profile."""
    here = Namespace(f"chart-{uuid.uuid4().hex[:8]}")
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": here.name, "labels": enforced}}
    here.kubectl("create", "--filename", "-", own=json.dumps(manifest))
    yield here
    here.kubectl("delete", "namespace", here.name, "--wait=false")


@pytest.fixture
def image():
    """The image under test, as the chart's values name it."""
    if "IMAGE" not in os.environ:
        pytest.skip("wanted IMAGE=REPOSITORY:TAG, an image with build/demo.mar in it that the cluster has")
    repository, _, tag = os.environ["IMAGE"].rpartition(":")
    return {"repository": repository, "tag": tag}


def install(space, values):
    """Install the chart with small pods that everybody may reach, and a pod to ask from."""
    values = {"resources": SMALL, "networkPolicy": EVERYBODY, **values}
    command = [
        helm(),
        "install",
        "demo",
        ROOT / "helm" / "slipway",
        "--namespace",
        space.name,
        "--wait",
        "--timeout",
        "240s",
        "--values",
        "-",
    ]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    space.client(f"{values['image']['repository']}:{values['image']['tag']}")


def known_kinds(space):
    return {line.split()[-1] for line in space.kubectl("api-resources", "--no-headers").splitlines()}


@pytest.mark.parametrize("toggle", TOGGLES)
def test_the_api_server_takes_every_object(space, toggle):
    kinds = known_kinds(space)
    missing = {found["kind"] for found in render(TOGGLES[toggle])} - kinds
    assert missing <= {"PodMonitoring", "Rules", "HealthCheckPolicy", "GCPBackendPolicy"}, "only Google's own may be missing"
    objects = [found for found in render(TOGGLES[toggle]) if found["kind"] in kinds]
    for name, pod in list(pod_templates(objects)):  # a Deployment is taken whatever its pods are
        objects += [{"apiVersion": "v1", "kind": "Pod", **pod, "metadata": pod["metadata"] | {"name": f"of-{name.rpartition('/')[2]}"}}]
    for found in objects:
        found["metadata"]["namespace"] = space.name
    space.kubectl("create", "serviceaccount", "demo")  # pods want theirs, and a dry run leaves none
    command = ("apply", "--dry-run=server", "--validate=strict", "--filename", "-")
    said = space.kubectl(*command, own=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    assert len(said.splitlines()) == len(objects)


def test_the_tracks_get_their_shares_of_the_route(space, image):
    namespace, name, address = gateway() or pytest.skip("the cluster has no Gateway")
    host = f"{space.name}.example"
    route = {"enabled": True, "gateway": name, "gatewayNamespace": namespace, "hostnames": [host]}
    install(space, {"image": image, "replicas": {"min": 1}, "route": route, "canary": {"enabled": True, "weight": 25}})
    picture, label = golden(ARCHIVE)
    url = f"{address}/predictions/demo"
    wait("the route", lambda: space.ask(url, picture, host=host)[0] == 200, within_s=60)
    before = answered(space, "canary")
    with space.load(url, picture, label, host=host) as finish:
        time.sleep(20)
        went = finish()
    share = (answered(space, "canary") - before) / went["requests"]
    assert went["failures"] == [] and went["requests"] > 100
    assert 0.15 < share < 0.35, f"{share:.0%} of {went['requests']} requests went to the canary, wanted 25 %"


def test_pods_come_when_requests_wait_and_go_when_none_do(space, image):
    kinds = known_kinds(space)
    if not {"ScaledObject", "PrometheusRule"} <= kinds:
        pytest.skip("the cluster lacks KEDA or the Prometheus operator")
    services = space.get("services", "--all-namespaces", "--selector", "operated-prometheus=true")["items"]
    url = f"http://prometheus-operated.{services[0]['metadata']['namespace']}:9090"
    scaling = {"provider": "keda", "prometheusUrl": url, "inFlightPerPod": 1, "scaleDownSeconds": 0}
    watched = {"metrics": {"backend": "prometheus-operator"}, "alerts": {"enabled": True}}
    install(space, {"image": image, "replicas": {"min": 1, "max": 2}, "autoscaling": scaling, **watched})
    picture, label = golden(ARCHIVE)

    def ready():
        return space.get("deployment", "demo-stable")["status"].get("readyReplicas", 0)

    wait(
        "Prometheus has the pod",
        lambda: query(space, url, f'slipway_ready{{namespace="{space.name}",job="demo",track="stable"}}'),
        within_s=90,
    )
    wait("Prometheus has the rules", lambda: space.name in space.ask(f"{url}/api/v1/rules")[1], within_s=90)
    groups = json.loads(space.ask(f"{url}/api/v1/rules")[1])["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"] if f'namespace="{space.name}"' in rule["query"]]
    assert len(rules) == sum(len(group["rules"]) for group in one(render(TOGGLES["alerts"]), "PrometheusRule", "demo")["spec"]["groups"])
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    with space.load("http://demo-stable/predictions/demo", picture, label) as finish:
        wait("a second pod", lambda: ready() == 2, within_s=180)
        assert finish()["failures"] == []
    wait("one pod again", lambda: space.get("deployment", "demo-stable")["spec"]["replicas"] == 1, within_s=300)


def query(space, url, expression):
    """What Prometheus answers to an instant query."""
    return json.loads(space.ask(f"{url}/api/v1/query?query={quote(expression)}")[1])["data"]["result"]


def wait(what, happened, *, within_s):
    """Until `happened`, for at most so long."""
    until = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < until, f"waited {within_s} s for {what}"
        time.sleep(2)


def answered(space, track):
    """Requests that the one pod of a track has answered."""
    return float(space.kubectl("exec", f"deployment/demo-{track}", "--container", "slipway", "--", "python3", "-c", COUNTED))
