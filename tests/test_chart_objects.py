"""What the chart renders is valid, complete and consistent, whichever switch is turned."""

import kubernetes_validate
import pytest
import yaml
from chart import CHART, PRESETS, TOGGLES, Refused, containers, of_kind, one, pod_templates, render, text
from chart_crds import check_custom
from first_party import ROOT

GOLDEN = ROOT / "tests" / "golden" / "chart-default.yaml"
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35")
EVERY = [pytest.param(values, id=name) for name, values in TOGGLES.items()]
SELECTING = {"Service", "PodDisruptionBudget", "PodMonitor", "PodMonitoring", "NetworkPolicy", "Deployment"}


def check_valid(objects, version):
    for found in objects:
        if not check_custom(found):
            kubernetes_validate.validate(found, version, strict=True)


def labels_selected(found):
    spec = found["spec"]
    selector = spec.get("podSelector") or spec["selector"]
    return selector.get("matchLabels", selector)


def matches(labels, template):
    return labels.items() <= template["metadata"]["labels"].items()


def test_the_default_render_is_the_recorded_one():
    """When the chart is meant to render something else: `.venv/bin/python tests/chart_golden.py`, and read the difference."""
    assert text() == GOLDEN.read_text()


@pytest.mark.parametrize("values", EVERY)
def test_every_switch_renders_valid_objects_that_are_not_there_twice(values):
    objects = render(values)
    check_valid(objects, "1.34")
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_in_every_version_of_kubernetes(preset, version):
    check_valid(render(files=tuple(PRESETS[preset]), kube=f"{version}.0"), version)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_holds_differences_only(preset):
    def same(own, base):
        for key, value in own.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                yield from same(value, base[key])
            elif base.get(key) == value:
                yield key

    *below, path = PRESETS[preset]
    bases = [yaml.safe_load(file.read_text()) for file in (below or [CHART / "values.yaml"])]
    assert [*same(yaml.safe_load(path.read_text()), bases[-1])] == []


@pytest.mark.parametrize("values", EVERY)
def test_every_selector_matches_the_pods_that_it_means(values):
    objects = render(values)
    templates = [template for _, template in pod_templates(objects)]
    servers = [template for template in templates if template["metadata"]["labels"]["app.kubernetes.io/component"] == "server"]
    assert len(servers) == (2 if values.get("canary") else 1)
    for found in objects:
        if found["kind"] in SELECTING:
            wanted = 1 if "track" in found["metadata"]["labels"] else len(servers)
            hit = [template for template in templates if matches(labels_selected(found), template)]
            assert len(hit) == wanted and all(template in servers for template in hit), found["metadata"]["name"]


@pytest.mark.parametrize("values", EVERY)
def test_every_port_that_is_named_exists(values):
    objects = render(values)
    servers = [box for found in of_kind(objects, "Deployment") for box in found["spec"]["template"]["spec"]["containers"]]
    ports = {port["name"]: port["containerPort"] for port in servers[0]["ports"]}
    named = [port["targetPort"] for service in of_kind(objects, "Service") for port in service["spec"]["ports"]]
    named += [port["port"] for found in of_kind(objects, "NetworkPolicy") for rule in found["spec"]["ingress"] for port in rule["ports"]]
    named += [box[probe]["httpGet"]["port"] for box in servers for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    named += [end["port"] for found in of_kind(objects, "PodMonitor") for end in found["spec"]["podMetricsEndpoints"]]
    named += [end["port"] for found in of_kind(objects, "PodMonitoring") for end in found["spec"]["endpoints"]]
    assert set(named) <= ports.keys()
    assert {f"--port={ports['http']}", f"--internal-port={ports['metrics']}"} <= set(servers[0]["args"])
    for policy in of_kind(objects, "HealthCheckPolicy"):
        assert policy["spec"]["default"]["config"]["httpHealthCheck"]["port"] == ports["http"]


@pytest.mark.parametrize("values", EVERY)
def test_every_object_that_is_referred_to_is_in_the_release(values):
    objects = render(values)
    there = {(found["kind"], found["metadata"]["name"]) for found in objects}
    for _, pod in pod_templates(objects):
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in there
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for box in containers(pod):
            assert {mount["name"] for mount in box["volumeMounts"]} <= volumes.keys()
        assert {mount["name"] for box in containers(pod) for mount in box["volumeMounts"]} == volumes.keys()
        assert all(("ConfigMap", volume["configMap"]["name"]) in there for volume in volumes.values() if "configMap" in volume)
    for found in objects:
        target = found["spec"].get("scaleTargetRef") if "spec" in found else None
        if target:
            assert (target.get("kind", "Deployment"), target["name"]) in there
        if found["kind"] in ("HealthCheckPolicy", "GCPBackendPolicy"):
            assert ("Service", found["spec"]["targetRef"]["name"]) in there
        if found["kind"] == "HTTPRoute":
            backends = {backend["name"] for rule in found["spec"]["rules"] for backend in rule["backendRefs"]}
            assert all(("Service", name) in there for name in backends)


def test_two_renders_are_the_same_to_the_byte():
    from chart import _text

    first = text(TOGGLES["canary-weight"])
    _text.cache_clear()
    assert text(TOGGLES["canary-weight"]) == first


def test_names_fit_with_the_longest_release_name():
    everything = {**TOGGLES["canary-weight"], **TOGGLES["dashboards"], **TOGGLES["hpa-gmp"], "alerts": {"enabled": True}}
    for found in render(everything, release="r" * 53):
        assert len(found["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in found["metadata"]["labels"].values())


@pytest.mark.parametrize("release", ["1st", "my.release"])
def test_a_release_whose_name_no_service_can_have_is_refused(release):
    with pytest.raises(Refused, match=f"got the release name {release}"):
        text(release=release)


def test_a_new_model_or_image_rolls_the_pods_and_nothing_else_does():
    def template(**values):
        return one(render(values), "Deployment", "demo-stable")["spec"]["template"]

    assert template(model={"digest": "a" * 64}) != template(model={"digest": "b" * 64})
    assert template(image={"digest": "sha256:" + "a" * 64}) != template(image={"tag": "a"})
    assert template(autoscaling={"provider": "cpu"}) == template() == template(alerts={"enabled": True}, metrics={"backend": "gmp"})


def test_the_version_of_the_chart_is_not_in_the_pods_labels():
    for deployment in of_kind(render(TOGGLES["canary"]), "Deployment"):
        assert deployment["spec"]["template"]["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
