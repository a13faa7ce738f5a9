"""The demo's image in a fresh namespace of a real cluster: deployed, asked, closed where it must be, and changed under load.

make cluster-test IMAGE=localhost/slipway:demo          against the cluster of KUBECONFIG, which has that image or can pull it
"""

import json
import time
import uuid

import pytest
from cluster import Namespace, demo_values, gateway, golden, slipway, wanted_image
from cluster_report import record
from cluster_users import lost_nothing, under_load
from conftest import write_colours
from first_party import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ARCHIVE = ROOT / "build" / "demo.mar"
URL = "http://demo-stable/predictions/demo"
HOST = f"{uuid.uuid4().hex[:6]}.test"  # a release that has just been deleted may still have its own


@pytest.fixture(scope="module")
def image() -> str:
    return wanted_image()


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A file of values for this cluster."""

    def write(**changes: object) -> str:
        path = tmp_path_factory.mktemp("values") / "values.json"
        path.write_text(json.dumps(demo_values(HOST, **changes)))
        return str(path)

    return write


@pytest.fixture(scope="module")
def space(image, values):
    """A fresh namespace in which `slipway deploy` has put the demo, with a pod to ask from; and one beside it."""
    here, beside = (Namespace(f"slipway-{uuid.uuid4().hex[:6]}") for _ in range(2))
    done = slipway("deploy", str(ARCHIVE), "--image", image, "--namespace", here.name, "--values", values())
    try:
        assert done.returncode == 0, done.stderr
        assert "port-forward service/demo-stable" in done.stdout or f"http://{HOST}" in done.stdout
        beside.kubectl("create", "namespace", beside.name)
        for namespace in (here, beside):
            namespace.client(image)
        yield here, beside
    finally:
        for namespace in (here, beside):
            namespace.kubectl("delete", "namespace", namespace.name, "--wait=false", check=False)


@pytest.fixture(scope="module")
def asked():
    """A golden image of the archive and its label."""
    return golden(ARCHIVE)


def test_pods_predict_right_through_the_service(space, asked):
    status, text = space[0].ask(URL, asked[0])
    assert status == 200, text
    assert next(iter(json.loads(text))) == asked[1]


def test_pods_predict_right_through_the_gateway(space, asked):
    found = gateway()
    if found is None:
        pytest.skip("the cluster has no Gateway")
    status, text = space[1].ask(f"{found[2]}/predictions/demo", asked[0], host=HOST)
    assert status == 200, text
    assert next(iter(json.loads(text))) == asked[1]


def test_the_process_is_nobody_on_a_root_that_it_cannot_write(space):
    (pod, *_) = space[0].pods()
    shell = ("exec", pod, "--container", "slipway", "--", "sh", "-c")
    assert space[0].kubectl(*shell, "id -u; cat /proc/1/comm").split() == ["10001", "tini"]
    assert "Read-only file system" in space[0].kubectl(*shell, "touch /opt/x /models/x /x 2>&1; true")
    assert space[0].kubectl(*shell, "for tool in pip gcc cc apt-get; do command -v $tool; done; true").split() in ([], ["/usr/bin/apt-get"])
    assert space[0].kubectl(*shell, "python -c 'import torch' 2>&1; true").strip().endswith("No module named 'torch'")


def test_java_starts_from_the_class_cache_of_the_image(space):
    (pod, *_) = space[0].pods()
    command = space[0].kubectl("exec", pod, "--container", "slipway", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
    assert "-XX:SharedArchiveFile=/opt/slipway/cache/" in command


def test_metrics_are_closed_to_other_pods_and_the_service_to_other_namespaces(space):
    here, beside = space
    assert here.ask("http://demo-stable/readyz")[0] == 200
    status, why = here.ask("http://demo-metrics:9090/metrics", timeout_s=5)
    assert (status, why) in ((0, "ConnectTimeout"), (0, "ConnectError"))
    status, why = beside.ask(f"http://demo-stable.{here.name}/readyz", timeout_s=5)
    assert (status, why) in ((0, "ConnectTimeout"), (0, "ConnectError"))


def test_an_upgrade_under_load_fails_no_request(space, asked, image, values):
    here, _ = space
    before = set(here.pods())
    with under_load(here, URL, *asked, users=HOST) as finish:
        done = slipway("deploy", str(ARCHIVE), "--image", image, "--namespace", here.name, "--values", values(drainDelaySeconds=6))
        assert done.returncode == 0, done.stderr
        here.settle()
        result = finish()
    assert not before & set(here.pods()), "the pods were not replaced"
    record("rolling update", result)
    lost_nothing(result)


def test_an_upgrade_under_load_through_the_gateway_fails_no_request(space, asked):
    here, beside = space
    found = gateway()
    if found is None:
        pytest.skip("the cluster has no Gateway")
    with under_load(beside, f"{found[2]}/predictions/demo", *asked, host=HOST, users=HOST) as finish:
        here.kubectl("rollout", "restart", "deployment/demo-stable")
        here.settle()
        result = finish()
    record("rolling update, Gateway", result)
    lost_nothing(result)


def test_a_deleted_pod_under_load_fails_no_request(space, asked):
    here, _ = space
    with under_load(here, URL, *asked, users=HOST) as finish:
        victim = here.pods()[0]
        here.kubectl("delete", "pod", victim, "--wait=true")
        here.settle()
        result = finish()
    assert victim not in here.pods()
    record("a deleted pod", result)
    lost_nothing(result)


def test_a_drained_node_under_load_fails_no_request(space, asked):
    here, _ = space
    nodes = [item["metadata"]["name"] for item in here.get("nodes")["items"]]
    if len(nodes) < 2:
        pytest.skip("the cluster has one node")
    client = here.get("pod", "client")["spec"]["nodeName"]
    node = next(name for name in nodes if name != client)
    with under_load(here, URL, *asked, users=HOST) as finish:
        try:
            here.kubectl("drain", node, "--pod-selector=app.kubernetes.io/instance=demo", "--delete-emptydir-data", timeout_s=300)
            here.settle()
        finally:
            here.kubectl("uncordon", node)
        result = finish()
    record("a drained node", result)
    lost_nothing(result)


def test_another_archive_than_the_images_is_refused_and_the_old_release_is_back(space, image, values, tmp_path):
    here, _ = space
    other = write_colours(tmp_path / "colours.mar")
    done = slipway("deploy", str(other), "--image", image, "--release", "demo", "--namespace", here.name, "--values", values())
    assert done.returncode == 1
    assert "this is another archive than was meant" in done.stderr
    assert "which was there before, is back" in done.stderr
    here.settle()
    assert here.ask("http://demo-stable/readyz")[0] == 200


def test_a_pod_that_is_told_to_end_while_it_starts_ends_at_once(space, image):
    here, _ = space
    here.start("brief", image, terminationGracePeriodSeconds=120)
    deadline = time.monotonic() + 60
    while here.get("pod", "brief")["status"]["phase"] != "Running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = time.monotonic()
    here.kubectl("delete", "pod", "brief", "--wait=true", timeout_s=150)
    assert time.monotonic() - started < 30


def test_an_image_that_is_not_there_is_said_soon_and_in_words(space, values):
    here, _ = space
    started = time.monotonic()
    done = slipway("deploy", str(ARCHIVE), "--image", "localhost/no-such-image:1", "--release", "lost", "--namespace", here.name)
    assert done.returncode == 1
    assert "the image localhost/no-such-image:1 cannot be had" in done.stderr
    assert time.monotonic() - started < 120
