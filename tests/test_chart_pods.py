"""Pods: locked down wherever they come from, started and ended with time enough, told what the server understands."""

import shlex

import pytest
from chart import CHART, DIGEST, PRESETS, TOGGLES, containers, of_kind, one, pod_templates, render
from command_lines import parse_slipway

from serving.front_door.doors import DRAIN_S
from serving.front_door.metrics import REQUEST_SECONDS
from serving.torchserve.config import RESPONSE_TIMEOUT_S

EVERY = {name: (values, ()) for name, values in TOGGLES.items()} | {name: ({}, tuple(files)) for name, files in PRESETS.items()}
# Pod Security Standards, level restricted: https://kubernetes.io/docs/concepts/security/pod-security-standards/
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "secret", "image"}
PRIVATE = ("hostNetwork", "hostPID", "hostIPC", "ephemeralContainers")


@pytest.fixture(params=EVERY.values(), ids=EVERY)
def objects(request):
    """The release with one switch turned, or with a preset."""
    values, files = request.param
    return render(values, files=files)


def server(objects, track="stable"):
    return one(objects, "Deployment", f"demo-{track}")["spec"]["template"]["spec"]


def test_every_pod_fits_the_restricted_profile(objects):
    for name, pod in pod_templates(objects):
        spec = pod["spec"]
        context = spec["securityContext"]
        assert not [key for key in PRIVATE if key in spec], name
        assert (
            context["runAsNonRoot"] is True and context["runAsUser"] == 10001 and context["seccompProfile"] == {"type": "RuntimeDefault"}
        ), name
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES, name
        for box in containers(pod):
            assert box["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert not any("hostPort" in port for port in box.get("ports", []))


def test_no_pod_holds_a_token_or_hears_of_other_services(objects):
    for name, pod in pod_templates(objects):
        assert pod["spec"]["automountServiceAccountToken"] is False and pod["spec"]["enableServiceLinks"] is False, name
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(objects, "ServiceAccount"))
    assert not [found for found in objects if found["kind"] in ("Secret", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")]


def test_every_container_says_what_it_needs_and_a_server_gets_the_cpu_that_it_plans_with(objects):
    for name, pod in pod_templates(objects):
        for box in containers(pod):
            resources = box["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys(), name
            if box["name"] == "slipway":
                assert resources["requests"]["cpu"] == resources["limits"]["cpu"], name


def test_a_pod_has_time_to_end_in_order(objects):
    for deployment in of_kind(objects, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        (box,) = spec["containers"]
        (delay,) = [int(argument.partition("=")[2]) for argument in box["args"] if argument.startswith("--drain-delay=")]
        assert spec["terminationGracePeriodSeconds"] >= delay + DRAIN_S + 10
        assert "lifecycle" not in box, "the process waits by itself: a preStop hook would wait a second time"
    for policy in of_kind(objects, "GCPBackendPolicy"):
        default = policy["spec"]["default"]
        assert default["timeoutSec"] >= RESPONSE_TIMEOUT_S + 5
        assert default["connectionDraining"]["drainingTimeoutSec"] >= delay + DRAIN_S


@pytest.mark.parametrize("delay", [1, 5, 30, 120])
def test_the_grace_period_follows_the_drain_delay(delay):
    assert server(render({"drainDelaySeconds": delay}))["terminationGracePeriodSeconds"] == delay + 30 + 15


def test_the_arguments_are_those_of_the_server(objects):
    for deployment in of_kind(objects, "Deployment"):
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert parse_slipway([str(argument) for argument in shlex.split(" ".join(arguments))]) == "serve"


def test_a_track_serves_no_other_archive_than_the_one_that_it_names():
    other = "f" * 64
    objects = render({"model": {"digest": DIGEST}, "canary": {"enabled": True, "model": {"digest": other}}})
    assert f"--digest={DIGEST}" in server(objects)["containers"][0]["args"]
    assert f"--digest={other}" in server(objects, "canary")["containers"][0]["args"]
    for canary in ({"image": {"tag": "next"}}, {"model": {"path": "/models/next.mar"}}):
        objects = render({"model": {"digest": DIGEST}, "canary": {"enabled": True, **canary}})
        assert not any(argument.startswith("--digest") for argument in server(objects, "canary")["containers"][0]["args"])
    fetched = {"source": "gcs", "uri": "gs://models/steel.mar", "digest": DIGEST}
    objects = render({"model": fetched, "canary": {"enabled": True, "image": {"tag": "next"}}})
    assert f"--digest={DIGEST}" in server(objects, "canary")["containers"][0]["args"], "another image fetches the same archive"


def test_the_objectives_that_may_be_set_are_buckets_of_the_histogram():
    import json

    allowed = json.loads((CHART / "values.schema.json").read_text())["properties"]["latencyObjectiveSeconds"]["enum"]
    assert set(allowed) <= set(REQUEST_SECONDS)


@pytest.mark.parametrize(("seconds", "failures"), [(120, 60), (31, 16)])
def test_the_startup_probe_lasts_as_long_as_a_start_may(seconds, failures):
    spec = one(render({"startupSeconds": seconds}), "Deployment", "demo-stable")["spec"]
    probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (2, failures)
    assert spec["progressDeadlineSeconds"] > seconds + spec["minReadySeconds"]


def test_ready_means_right_and_alive_means_answering():
    (box,) = server(render())["containers"]
    assert box["startupProbe"]["httpGet"]["path"] == box["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert box["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_what_is_written_lies_in_volumes_with_a_limit():
    spec = server(render())
    (box,) = spec["containers"]
    writable = {mount["mountPath"] for mount in box["volumeMounts"] if not mount.get("readOnly")}
    variables = {variable["name"]: variable["value"] for variable in box["env"]}
    assert writable == {"/tmp"} == {variables["TMPDIR"], variables["HOME"]}
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"])


def test_keys_come_from_a_secret_by_name_and_are_only_read():
    spec = server(render({"keys": {"existingSecret": "callers", "key": "file"}}))
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "keys"]
    assert volume["secret"]["secretName"] == "callers" and volume["secret"]["items"] == [{"key": "file", "path": "keys"}]
    (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    assert mount["readOnly"] and "subPath" not in mount, "a file mounted by subPath never changes"
    assert f"--keys={mount['mountPath']}/keys" in spec["containers"][0]["args"]
    assert not [argument for argument in server(render())["containers"][0]["args"] if "--keys" in argument]


def test_a_model_from_a_bucket_is_checked_before_the_server_starts():
    spec = server(render(TOGGLES["gcs"]))
    (fetch,) = spec["initContainers"]
    assert fetch["args"] == ["gs://models/steel.mar", "/models/model.mar", DIGEST]
    assert {"name": "model", "mountPath": "/models"} in fetch["volumeMounts"]
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]


def test_a_model_in_an_image_of_its_own_is_a_volume_by_digest():
    spec = server(render(TOGGLES["image-volume"]))
    assert {"name": "model", "image": {"reference": f"models/steel@sha256:{DIGEST}", "pullPolicy": "IfNotPresent"}} in spec["volumes"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "slipway:0.1.0"),
        ({"tag": "a"}, "slipway:a"),
        ({"tag": "a", "digest": f"sha256:{DIGEST}"}, f"slipway@sha256:{DIGEST}"),
    ],
)
def test_an_image_goes_by_its_digest_then_its_tag_then_the_charts_version(image, reference):
    objects = render({"image": image})
    assert {box["image"] for _, pod in pod_templates(objects) for box in containers(pod)} == {reference}


def test_a_canary_differs_in_what_it_says_and_in_nothing_else():
    digest = {"digest": f"sha256:{DIGEST}"}
    objects = render(
        {"image": digest, "model": {"digest": DIGEST}, "canary": {"enabled": True, "image": {"tag": "next"}, "model": {"digest": "f" * 64}}}
    )
    stable, canary = (one(objects, "Deployment", f"demo-{track}")["spec"]["template"] for track in ("stable", "canary"))
    assert canary["spec"]["containers"][0].pop("image") == "slipway:next", "the stable digest must not win over the canary's tag"
    assert stable["spec"]["containers"][0].pop("image") == f"slipway@sha256:{DIGEST}"
    assert canary["metadata"]["annotations"].pop("slipway/model-digest") == "f" * 64
    assert stable["metadata"]["annotations"].pop("slipway/model-digest") == DIGEST
    for template, its_own in ((stable, DIGEST), (canary, "f" * 64)):
        template["spec"]["containers"][0]["args"].remove(f"--digest={its_own}")
        del template["metadata"]["labels"]["track"]
        for constraint in template["spec"]["topologySpreadConstraints"]:
            del constraint["labelSelector"]["matchLabels"]["track"]
    assert stable == canary


def test_a_canary_with_another_model_is_not_held_against_the_stable_digest():
    objects = render({"model": {"digest": DIGEST}, "canary": {"enabled": True, "model": {"path": "/models/next.mar"}}})
    assert "slipway/model-digest" not in one(objects, "Deployment", "demo-canary")["spec"]["template"]["metadata"]["annotations"]
    assert one(objects, "Pod", "demo-predict")["spec"]["containers"][0]["args"] == [f"http://demo-stable#{DIGEST}", "http://demo-canary#"]


def test_pods_are_spread_and_a_node_that_is_drained_is_not_counted():
    constraints = {constraint["topologyKey"]: constraint for constraint in server(render())["topologySpreadConstraints"]}
    assert constraints["topology.kubernetes.io/zone"]["whenUnsatisfiable"] == "ScheduleAnyway"
    assert constraints["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"
    assert all(constraint["nodeTaintsPolicy"] == "Honor" for constraint in constraints.values())
    assert all(constraint["matchLabelKeys"] == ["pod-template-hash"] for constraint in constraints.values())
