"""Pods come when a crowd does, by requests in flight sooner than by CPU; they stay while it stays, and go without an error.

make cluster-test IMAGE=REPOSITORY:TAG ARGS=tests/test_cluster_scaling.py

wants metrics-server, KEDA, Prometheus's operator and a Gateway, which GATEWAY_URL reaches from here; without it the address of the
Gateway's Service is taken. With REPORT=reports/metrics/cluster-autoscaling.json what was measured is written there.
"""

import json
import time
import uuid
from itertools import pairwise
from urllib.parse import quote

import pytest
from cluster import Namespace, gateway, wanted_image
from cluster_report import record
from cluster_scaling import Samples, sampled
from cluster_users import from_here, locust
from first_party import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]
SHARE = {"cpu": "400m", "memory": "1Gi"}
ALL = {"load_shape": "soak", "peak": "24", "pace": "0", "seconds": "30"}  # finds what one pod answers
CROWD = {"load_shape": "crowd", "peak": "24", "seconds": "310"}
CONSTANT = {"load_shape": "soak", "peak": "14", "seconds": "200"}
MANY, FULL = 1.4, 0.95  # times what one pod answers; pods should use 60 % of their CPU, so FULL is two or three of them
OBJECTIVE = {"objective_p99": "30", "objective_refused": "0"}  # of latency none: it is only written down
SOONER_S = 30
CALM_S = 75  # the query averages over 30 s, scrapes and decisions are 15 s apart: what one pod was asked before is forgotten
SCRAPED_S = 300  # one to three minutes go by until Prometheus has heard of a new release


@pytest.fixture
def space():
    """A fresh namespace."""
    here = Namespace(f"scaling-{uuid.uuid4().hex[:6]}")
    here.kubectl("create", "namespace", here.name)
    yield here
    here.kubectl("delete", "namespace", here.name)


@pytest.fixture
def address():
    """The Gateway's address, from here."""
    return from_here() or pytest.skip("the cluster has no Gateway that is reached from here")


@pytest.fixture
def rate(space, address, tmp_path):
    """Answers a second of one pod, asked by more users than it can serve."""
    done = upgrade(space, values("none", ""))
    assert done.returncode == 0, done.stderr
    (tmp_path / "alone").mkdir()
    went = locust(address, tmp_path / "alone", **ALL, **OBJECTIVE | {"objective_refused": "1"})
    space.helm("uninstall", "demo", "--wait")
    return went["outcomes"]["right"] / float(ALL["seconds"])


def upgrade(space, chosen):
    return space.helm("upgrade", "--install", "demo", str(ROOT / "helm" / "slipway"), "--wait", "--timeout", "180s", values=chosen)


def paced(load, times, rate):
    """A load whose users together ask `times` as much as one pod answers, which is `rate`."""
    return load | {"pace": f"{int(load['peak']) / (times * rate):.3f}"}


def install(space, provider):
    """Install the chart, and wait until Prometheus scrapes its pod."""
    kinds = space.kubectl("api-resources", "--no-headers")
    if "ScaledObject" not in kinds or "PodMonitor" not in kinds:
        pytest.skip("the cluster lacks KEDA or the Prometheus operator")
    prometheus = space.get("services", "--all-namespaces", "--selector", "operated-prometheus=true")["items"][0]["metadata"]["namespace"]
    chosen = values(provider, f"http://prometheus-operated.{prometheus}:9090")
    done = upgrade(space, chosen)
    assert done.returncode == 0, done.stderr
    query = quote(f'slipway_ready{{namespace="{space.name}"}}')
    path = f"/api/v1/namespaces/{prometheus}/services/prometheus-operated:9090/proxy/api/v1/query?query={query}"
    until = time.monotonic() + SCRAPED_S
    while not json.loads(space.kubectl("get", "--raw", path))["data"]["result"]:
        assert time.monotonic() < until, f"waited {SCRAPED_S} s for Prometheus to scrape the pod"
        time.sleep(5)


def values(provider, prometheus):
    """One pod of 0.4 CPUs, at most three; they go 30 s after they are not wanted, so that a test sees it."""
    repository, _, tag = wanted_image().rpartition(":")
    namespace, name, _ = gateway()
    return {
        "image": {"repository": repository, "tag": tag},
        "replicas": {"min": 1, "max": 3},
        "resources": {"requests": SHARE, "limits": SHARE},
        "latencyObjectiveSeconds": 2.5,  # the queue of one pod holds the whole crowd: nobody is refused
        "autoscaling": {"provider": provider, "prometheusUrl": prometheus, "scaleDownSeconds": 30},
        "metrics": {"backend": "prometheus-operator"},
        "networkPolicy": {"enabled": False},  # pods are asked through the API server
        "route": {"enabled": True, "gateway": name, "gatewayNamespace": namespace},
    }


def calm(space):
    """Wait until one pod has been wanted for a while: its own start, and the load of before, have had their say."""
    since, until = time.monotonic(), time.monotonic() + SCRAPED_S
    while time.monotonic() < since + CALM_S:
        assert time.monotonic() < until, "more than one pod is wanted while nobody asks"
        if space.get("deployment", "demo-stable")["spec"]["replicas"] != 1:
            since = time.monotonic()
        time.sleep(5)


def run(space, provider, address, folder, load):
    """What came of a load on a fresh release: samples, and Locust's report."""
    install(space, provider)
    calm(space)
    with sampled(space) as samples:
        went = locust(address, folder, **load, **OBJECTIVE)
    assert went["broken"] == [], went
    return samples, went


def figures(samples: Samples, went):
    """What is written down; seconds are from the moment when the crowd came."""
    came, left = went.pop("crowd")
    more = samples.pods_in_order()[1:]
    moments = {f"pod {count}": {"wanted": samples.wanted_at(count)} | pod for count, pod in enumerate(more, 2)}
    again = next((row["at"] for row in samples.rows if row["at"] > left and row["wanted"] == 1), None)
    moments["one again"] = {"wanted": again}
    return {
        "crowd_left_s": round(left - came, 1),
        "moments_s": {
            name: {what: None if at is None else round(at - came, 1) for what, at in found.items()} for name, found in moments.items()
        },
        "samples": [{name: round(value - came if name == "at" else value, 2) for name, value in row.items()} for row in samples.rows],
        **went,
        "p99_ms": [(at - came, value) for at, value in went["p99_ms"]],
    }


def test_requests_in_flight_call_three_pods_sooner_than_cpu_does(space, address, tmp_path, rate):
    found, crowd = {}, paced(CROWD, MANY, rate)
    for provider in ("keda", "cpu"):
        (tmp_path / provider).mkdir()
        found[provider] = figures(*run(space, provider, address, tmp_path / provider, crowd))
        record(provider, {"one_pod_rps": round(rate, 1), "pace_s": float(crowd["pace"])} | found[provider])
        space.helm("uninstall", "demo", "--wait")
    moments = {provider: found[provider]["moments_s"] for provider in found}
    for provider, reached in moments.items():
        assert reached["pod 3"]["ready"] is not None, f"{provider}: {reached}"
        assert reached["one again"]["wanted"] is not None, f"{provider}: {reached}"
    assert moments["keda"]["pod 3"]["wanted"] <= moments["cpu"]["pod 3"]["wanted"] - SOONER_S


def test_the_number_of_pods_stays_while_the_load_stays(space, address, tmp_path, rate):
    load = paced(CONSTANT, FULL, rate)
    samples, went = run(space, "keda", address, tmp_path, load)
    record("constant", {"one_pod_rps": round(rate, 1), "pace_s": float(load["pace"])} | figures(samples, went))
    wanted = [row["wanted"] for row in samples.rows]
    changes = [after for before, after in pairwise(wanted) if after != before]
    assert changes[:1] == [2] or changes[:1] == [3], wanted
    assert len(changes) <= 2, changes
