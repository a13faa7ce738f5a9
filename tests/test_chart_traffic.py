"""Scaling, routes and policies: who decides how many pods run, who gets which request, who may talk to whom."""

import pytest
from chart import CANARY, GMP, PRESETS, TOGGLES, of_kind, one, render
from test_serving_front_door import Door

SCALED = {
    "cpu": "HorizontalPodAutoscaler",
    "keda": "ScaledObject",
    "prometheus-adapter": "HorizontalPodAutoscaler",
    "hpa-gmp": "HorizontalPodAutoscaler",
}


def rules(objects):
    return one(objects, "HTTPRoute", "demo")["spec"]["rules"]


def weights(objects):
    return {backend["name"]: backend["weight"] for backend in rules(objects)[-1]["backendRefs"]}


@pytest.mark.parametrize(("provider", "kind"), SCALED.items())
def test_under_an_autoscaler_the_release_names_no_number_of_pods(provider, kind):
    objects = render({**TOGGLES[provider], **CANARY})
    scalers = [found for found in objects if found["kind"] in SCALED.values()]
    assert [found["kind"] for found in scalers] == [kind]
    assert "replicas" not in one(objects, "Deployment", "demo-stable")["spec"]
    assert one(objects, "Deployment", "demo-canary")["spec"]["replicas"] == 1, "the canary has a fixed size"
    assert scalers[0]["spec"]["scaleTargetRef"]["name"] == "demo-stable"


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_has_an_autoscaler_and_a_number_of_pods(preset):
    objects = render(files=tuple(PRESETS[preset]))
    scaled = [found for found in objects if found["kind"] in SCALED.values()]
    assert len(scaled) + ("replicas" in one(objects, "Deployment", "demo-stable")["spec"]) == 1


def test_without_an_autoscaler_the_smallest_number_runs():
    objects = render({"replicas": {"min": 3}})
    assert one(objects, "Deployment", "demo-stable")["spec"]["replicas"] == 3
    assert not [found for found in objects if found["kind"] in SCALED.values()]


def test_every_autoscaler_reads_the_gauge_of_requests_in_flight():
    metric = "slipway_requests_in_flight"
    assert f"\n# TYPE {metric} gauge\n" in Door().ask("GET", "/metrics").text
    target = {"type": "AverageValue", "averageValue": "9"}
    for provider, name in (("prometheus-adapter", metric), ("hpa-gmp", f"prometheus.googleapis.com|{metric}|gauge")):
        values = {**TOGGLES[provider], "autoscaling": {"provider": provider, "inFlightPerPod": 9}}
        _, read = of_kind(render(values), "HorizontalPodAutoscaler")[0]["spec"]["metrics"]
        assert read == {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}
    trigger, _ = of_kind(render(TOGGLES["keda"]), "ScaledObject")[0]["spec"]["triggers"]
    assert f'{metric}{{namespace="shop", job="demo", track="stable"}}' in trigger["metadata"]["query"]
    assert trigger["metricType"] == "AverageValue" and trigger["metadata"]["threshold"] == "6"


def test_every_autoscaler_keeps_the_pods_that_the_cpu_in_use_wants():
    target = {"type": "Utilization", "averageUtilization": 70}
    for provider in SCALED:
        values = {**TOGGLES[provider], "autoscaling": {**TOGGLES[provider]["autoscaling"], "cpuPercent": 70}}
        (scaler,) = [found for found in render(values) if found["kind"] in SCALED.values()]
        if scaler["kind"] == "ScaledObject":
            *_, trigger = scaler["spec"]["triggers"]
            assert trigger == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70", "containerName": "slipway"}}
        else:
            read, *_ = scaler["spec"]["metrics"]
            assert read["containerResource"] == {"name": "cpu", "container": "slipway", "target": target}


def test_the_series_that_keda_asks_for_carry_the_labels_that_the_pod_monitor_gives():
    objects = render(TOGGLES["keda"])
    monitor = one(objects, "PodMonitor", "demo")["spec"]
    labels = one(objects, "Deployment", "demo-stable")["spec"]["template"]["metadata"]["labels"]
    assert labels[monitor["jobLabel"]] == "demo" and labels["track"] == "stable" and monitor["podTargetLabels"] == ["track"]
    google = one(render(GMP), "PodMonitoring", "demo")
    assert google["metadata"]["name"] == "demo" and google["spec"]["targetLabels"] == {"fromPod": [{"from": "track"}]}


@pytest.mark.parametrize("provider", SCALED)
def test_pods_come_at_once_and_go_slowly(provider):
    (scaler,) = [found for found in render(TOGGLES[provider]) if found["kind"] in SCALED.values()]
    spec = scaler["spec"]
    behaviour = spec["behavior"] if "behavior" in spec else spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleUp"]["stabilizationWindowSeconds"] == 0 and behaviour["scaleUp"]["selectPolicy"] == "Max"
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == 300


@pytest.mark.parametrize("backend", ["none", "prometheus-operator", "gmp"])
def test_one_kind_of_object_at_most_asks_for_metrics(backend):
    objects = render({"metrics": {"backend": backend}})
    found = [found["kind"] for found in objects if found["kind"] in ("PodMonitor", "PodMonitoring", "ServiceMonitor")]
    assert found == {"none": [], "prometheus-operator": ["PodMonitor"], "gmp": ["PodMonitoring"]}[backend]


def test_without_a_canary_the_route_goes_to_the_stable_track_alone():
    objects = render(TOGGLES["route"])
    assert len(rules(objects)) == 1 and weights(objects) == {"demo-stable": 100}


@pytest.mark.parametrize("weight", [0, 1, 10, 100])
def test_the_weights_of_the_tracks_add_up_to_100(weight):
    values = {**TOGGLES["route"], "canary": {"enabled": True, "weight": weight}}
    assert weights(render(values)) == {"demo-stable": 100 - weight, "demo-canary": weight}


def test_the_header_reaches_the_canary_whatever_its_weight():
    first, _ = rules(render({**TOGGLES["route"], **CANARY}))
    assert first["matches"][0]["headers"] == [{"name": "x-canary", "value": "always"}]
    assert [backend["name"] for backend in first["backendRefs"]] == ["demo-canary"]


def test_googles_policies_are_there_once_for_every_service():
    values = {"route": {"enabled": True, "gateway": "main", "gkePolicies": True}, "canary": {"enabled": True}}
    objects = render(values)
    for kind in ("HealthCheckPolicy", "GCPBackendPolicy"):
        assert [policy["spec"]["targetRef"]["name"] for policy in of_kind(objects, kind)] == ["demo-stable", "demo-canary"]
    assert one(objects, "HealthCheckPolicy", "demo-stable")["spec"]["default"]["config"]["httpHealthCheck"]["requestPath"] == "/readyz"


def test_nothing_goes_in_or_out_but_what_is_named():
    policy = one(render(), "NetworkPolicy", "demo")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == []
    opened = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert opened["http"] == [{"podSelector": {}}]
    assert {"podSelector": {}} not in opened["metrics"] and all(peer for peer in opened["metrics"])
    assert all(rule["from"] for rule in policy["ingress"]), "an empty list of peers lets everybody in"


def test_metrics_stay_closed_when_nobody_collects_them():
    policy = one(render({"networkPolicy": {"collectors": []}}), "NetworkPolicy", "demo")["spec"]
    (peer,) = next(rule["from"] for rule in policy["ingress"] if rule["ports"] == [{"port": "metrics"}])
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_a_model_in_a_bucket_is_the_only_reason_to_go_out():
    out = {
        name: one(objects, "NetworkPolicy", "demo")["spec"]["egress"]
        for name, values in TOGGLES.items()
        if of_kind(objects := render(values), "NetworkPolicy")
    }
    assert {name for name, egress in out.items() if egress} == {"gcs"}
    ports = {port["port"] for rule in out["gcs"] for port in rule["ports"]}
    assert ports == {53, 443, 80, 988}


def test_a_disruption_takes_one_pod_and_never_waits_for_a_broken_one():
    for budget in of_kind(render(CANARY), "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1 and "minAvailable" not in budget["spec"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
