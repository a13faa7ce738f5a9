"""Values: a closed schema that accepts and refuses, contradictions that stop the render, every value explained and used."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from chart import CHART, DIGEST, GMP, OPERATOR, ROUTE, TOGGLES, Refused, helm, text
from first_party import ROOT

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
ON = {"enabled": True}
# What the schema accepts, what it refuses, and the path that Helm's message names.
PAIRS = {
    "a misspelt section": ({}, {"autoscalling": {}}, "autoscalling"),
    "a misspelt key": ({"image": {"tag": "a"}}, {"image": {"tagg": "a"}}, "/image"),
    "repository": ({"image": {"repository": "host:5000/a/b"}}, {"image": {"repository": "A b"}}, "/image/repository"),
    "tag": ({"image": {"tag": "v1.0_x"}}, {"image": {"tag": "-a"}}, "/image/tag"),
    "image digest": ({"image": {"digest": f"sha256:{DIGEST}"}}, {"image": {"digest": DIGEST}}, "/image/digest"),
    "pull policy": ({"image": {"pullPolicy": "Never"}}, {"image": {"pullPolicy": "never"}}, "/image/pullPolicy"),
    "pull secrets": ({"image": {"pullSecrets": ["a"]}}, {"image": {"pullSecrets": ["A"]}}, "/image/pullSecrets/0"),
    "model source": ({"model": {"source": "baked"}}, {"model": {"source": "http"}}, "/model/source"),
    "model path": ({"model": {"path": "/m/steel.mar"}}, {"model": {"path": "steel.mar"}}, "/model/path"),
    "a path without a folder": ({"model": {"path": "/m/a.mar"}}, {"model": {"path": "/a.mar"}}, "/model/path"),
    "model digest": ({"model": {"digest": DIGEST}}, {"model": {"digest": DIGEST[1:]}}, "/model/digest"),
    "a bucket's archive without a digest": (TOGGLES["gcs"], {"model": {"source": "gcs", "uri": "gs://a/b.mar"}}, "/model/digest"),
    "a bucket without an archive": (TOGGLES["gcs"], {"model": {"source": "gcs", "digest": DIGEST}}, "/model/uri"),
    "another kind of bucket": (TOGGLES["gcs"], {"model": {"source": "gcs", "uri": "s3://a/b", "digest": DIGEST}}, "/model/uri"),
    "an image volume by tag": (TOGGLES["image-volume"], {"model": {"source": "imageVolume", "image": "a:b"}}, "/model/image"),
    "an image volume of nothing": (TOGGLES["image-volume"], {"model": {"source": "imageVolume"}}, "/model/image"),
    "keys": ({"keys": {"existingSecret": "a"}}, {"keys": {"existingSecret": "A"}}, "/keys/existingSecret"),
    "a key itself": ({"keys": {"key": "file"}}, {"keys": {"value": "sw_1"}}, "/keys"),
    "no pods": ({"replicas": {"min": 1}}, {"replicas": {"min": 0}}, "/replicas/min"),
    "half a pod": ({"replicas": {"max": 3}}, {"replicas": {"max": 2.5}}, "/replicas/max"),
    "provider": ({"autoscaling": {"provider": "cpu"}}, {"autoscaling": {"provider": "hpa"}}, "/autoscaling/provider"),
    "keda without Prometheus": (TOGGLES["keda"], {"autoscaling": {"provider": "keda"}, **OPERATOR}, "/autoscaling/prometheusUrl"),
    "CPU above its request": ({"autoscaling": {"cpuPercent": 80}}, {"autoscaling": {"cpuPercent": 120}}, "/autoscaling/cpuPercent"),
    "nothing in flight": ({"autoscaling": {"inFlightPerPod": 1}}, {"autoscaling": {"inFlightPerPod": 0}}, "/autoscaling/inFlightPerPod"),
    "scaling down": ({"autoscaling": {"scaleDownSeconds": 0}}, {"autoscaling": {"scaleDownSeconds": -1}}, "/autoscaling/scaleDownSeconds"),
    "an amount": ({"resources": {"limits": {"cpu": "500m"}}}, {"resources": {"limits": {"memory": "1 GB"}}}, "/resources/limits/memory"),
    "an objective that is no bucket": ({"latencyObjectiveSeconds": 0.25}, {"latencyObjectiveSeconds": 0.3}, "/latencyObjectiveSeconds"),
    "how lines look": ({"logFormat": "json"}, {"logFormat": "xml"}, "/logFormat"),
    "no drain delay": ({"drainDelaySeconds": 1}, {"drainDelaySeconds": 0}, "/drainDelaySeconds"),
    "no time to start": ({"startupSeconds": 10}, {"startupSeconds": 1}, "/startupSeconds"),
    "a rollout that cannot move": ({"rollout": {"maxSurge": 0, "maxUnavailable": 1}}, {"rollout": {"maxSurge": "0%"}}, "/rollout"),
    "a rollout's share": ({"rollout": {"maxSurge": "50%"}}, {"rollout": {"maxSurge": "half"}}, "/rollout/maxSurge"),
    "node labels": ({"nodeSelector": {"a": "b"}}, {"nodeSelector": {"a": 1}}, "/nodeSelector/a"),
    "tolerations": ({"tolerations": [{"operator": "Exists"}]}, {"tolerations": ["a"]}, "/tolerations/0"),
    "a peer": ({"networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}, {"networkPolicy": {"clients": [{}]}}, "/clients/0"),
    "a policy that lets nobody in": ({}, {"networkPolicy": {"clients": []}}, "/networkPolicy/clients"),
    "backend": (GMP, {"metrics": {"backend": "prometheus"}}, "/metrics/backend"),
    "a switch": ({"dashboards": ON}, {"dashboards": {"enabled": "yes"}}, "/dashboards/enabled"),
    "a route without a gateway": (ROUTE, {"route": ON}, "/route/gateway"),
    "host names": ({"route": {"hostnames": ["*.a.example"]}}, {"route": {"hostnames": ["http://a"]}}, "/route/hostnames/0"),
    "weight": (TOGGLES["canary-weight"], {"canary": {"enabled": True, "weight": 101}, **ROUTE}, "/canary/weight"),
    "a canary's image": (TOGGLES["canary"], {"canary": {"image": {"pullPolicy": "Never"}}}, "/canary/image"),
    "a canary of another source": ({"canary": {"model": {"digest": DIGEST}}}, {"canary": {"model": {"source": "gcs"}}}, "/canary/model"),
}
CONTRADICTIONS = {
    "got replicas.min 3 above replicas.max 2": {"replicas": {"min": 3, "max": 2}, "autoscaling": {"provider": "cpu"}},
    "hpa-gmp reads what metrics.backend gmp collects, got prometheus-operator": {"autoscaling": {"provider": "hpa-gmp"}, **OPERATOR},
    "metrics.backend is gmp: take hpa-gmp": {"autoscaling": {"provider": "prometheus-adapter"}, **GMP},
    "keda asks for series": {"autoscaling": {"provider": "keda", "prometheusUrl": "http://p:9090"}},
    "alerts.enabled wants metrics.backend": {"alerts": ON},
    "canary.weight wants canary.enabled and route.enabled": {"canary": {"weight": 10}, **ROUTE},
    "without both nothing gets to the canary": {"canary": {"enabled": True, "weight": 10}},
    "gkePolicies wants route.enabled": {"route": {"gkePolicies": True}},
    "canary.model wants a digest too": {**TOGGLES["gcs"], "canary": {"enabled": True, "model": {"uri": "gs://models/next.mar"}}},
}


def leaves(tree, path=""):
    """Paths of the values that are explained one by one: those without keys of their own, and `resources` as a whole."""
    for key, value in tree.items():
        here = f"{path}.{key}"
        if isinstance(value, dict) and value and here != ".resources":
            yield from leaves(value, here)
        else:
            yield here


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_schema_accepts_what_is_right_and_names_what_is_wrong(pair):
    right, wrong, path = pair
    text(right)
    with pytest.raises(Refused, match="don't meet the specifications") as refused:
        text(wrong)
    assert path in str(refused.value)


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_values_that_contradict_each_other_stop_the_render(message):
    with pytest.raises(Refused, match=re.escape(message)):
        text(CONTRADICTIONS[message])


def test_an_image_volume_wants_a_kubernetes_that_has_them():
    text(TOGGLES["image-volume"], kube="1.33.0")
    with pytest.raises(Refused, match=r"wants Kubernetes 1\.33 or newer, got v?1\.32\.9"):
        text(TOGGLES["image-volume"], kube="1.32.9")


def test_an_older_kubernetes_than_was_checked_is_refused():
    with pytest.raises(Refused, match="incompatible with Kubernetes"):
        text(kube="1.29.0")


def test_every_object_of_the_schema_is_closed_or_passed_through_whole():
    passed_through = {"global", "nodeSelector", "items", "podSelector", "namespaceSelector", "ipBlock"}

    def check(schema, name):
        if isinstance(schema, dict):
            if schema.get("type") == "object" and name not in passed_through | {"amounts"}:
                assert schema.get("additionalProperties") is False or name == "peers", name
            for key, below in schema.items():
                check(below, key)

    check(SCHEMA, "values")


def properties(schema):
    """The keys that an object of this schema may have, those of what it refers to among them."""
    schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema
    return schema.get("properties", {}).keys() | {key for part in schema.get("allOf", []) if "if" not in part for key in properties(part)}


def test_every_value_is_in_the_schema_and_the_schema_has_no_other():
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    for section, values in VALUES.items():
        if found := properties(SCHEMA["properties"][section]):
            assert found == values.keys(), section


def test_every_value_is_explained():
    sys.path.insert(0, str(ROOT / "helm"))
    from readme import rows

    explained = {f".{path}" for path, _, _ in rows((CHART / "values.yaml").read_text())}
    assert explained == set(leaves(VALUES))


def test_the_readme_is_made_from_the_values():
    done = subprocess.run([sys.executable, ROOT / "helm" / "readme.py", "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_value_is_used_and_every_used_value_is_there():
    used = set(re.findall(r"(?:\.Values|\$values|\.root\.Values)((?:\.[a-zA-Z]+)+)", TEMPLATES))
    known = set(leaves(VALUES))
    assert {
        path for path in used if not any(leaf == path or leaf.startswith(f"{path}.") or path.startswith(f"{leaf}.") for leaf in known)
    } == set()
    whole = {".image", ".model", ".canary"}  # read by _names.tpl: merged, then asked by their keys
    for leaf in known - used:
        section, key = leaf.rsplit(".", 1)
        assert section in whole and re.search(rf"\$(?:image|own|model|runs)[\w.]*\.{key}\b", TEMPLATES), f"{leaf} is used nowhere"


def test_the_chart_carries_the_version_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_helm_finds_nothing_to_complain_about():
    done = subprocess.run([helm(), "lint", "--strict", CHART], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_notes_are_three_commands():
    done = subprocess.run(
        [helm(), "install", "demo", CHART, "--dry-run=client", "--namespace", "shop"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    notes = done.stdout.partition("NOTES:\n")[2]
    commands = [line.split()[0] for line in notes.splitlines() if line.startswith("  ")]
    assert commands == ["kubectl", "helm", "kubectl"] and "shop" in notes


def test_a_helm_on_the_path_wins(tmp_path):
    own = tmp_path / "helm"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'helm')!r}); import tools; print(tools.find('helm'))"],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(own)
