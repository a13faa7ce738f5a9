"""The scripts for Google Cloud, by their dry run: what they would do, in which order, and that gcloud knows it all."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from first_party import ROOT

GKE = ROOT / "k8s" / "gke"
SCRIPTS = ("create", "delete", "identity")
EVERYTHING = {"DOMAIN": "models.example.org", "CONFIRM": "slipway", "WITH_MODELS": "1", "ISSUER": "gitlab", "GITLAB_PROJECT_ID": "42"}


def run(script: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1", "PROJECT": "acme", **settings}
    return subprocess.run(["bash", GKE / script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def commands(script: str, **settings: str) -> list[str]:
    done = run(script, **settings)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if re.match(r"(gcloud|kubectl) ", line)]


def position(lines: list[str], text: str) -> int:
    found = [number for number, line in enumerate(lines) if text in line]
    assert len(found) == 1, (text, lines)
    return found[0]


def test_create_makes_things_before_it_uses_them():
    lines = commands("create", DOMAIN="models.example.org")
    order = [
        "services enable",
        "buckets create gs://acme-slipway-models",
        "service-accounts create slipway-nodes",
        "roles/container.defaultNodeServiceAccount",
        "clusters create-auto slipway",
        "clusters get-credentials slipway",
        "namespace.yaml",
        "/subject/ns/slipway/sa/demo",
        "certificates create slipway --domains models.example.org",
        "gateway.yaml",
    ]
    positions = [position(lines, text) for text in order]
    assert positions == sorted(positions)


def test_a_standard_cluster_enforces_policies_and_has_what_the_chart_uses():
    (line,) = [line for line in commands("create", MODE="standard") if "clusters create" in line]
    for option in ("--enable-dataplane-v2", "--enable-managed-prometheus", "--gateway-api standard", "--workload-pool acme.svc.id.goog"):
        assert option in line


def test_nothing_is_public_without_a_domain():
    lines = commands("create")
    assert not any("gateway.yaml" in line or "certificate-manager" in line for line in lines)
    (bucket,) = [line for line in lines if "buckets create" in line]
    assert "--public-access-prevention" in bucket


def test_delete_removes_each_kind_of_thing_that_create_makes():
    made = {
        line.split(" create")[0]
        for line in commands("create", DOMAIN="models.example.org")
        if re.search(r" create(-auto)? ", line) and "storage" not in line
    }
    gone = {line.split(" delete")[0] for line in commands("delete", DOMAIN="models.example.org", CONFIRM="slipway") if " delete " in line}
    assert made and made <= gone


def test_delete_wants_the_clusters_name_and_keeps_the_archives():
    done = run("delete")
    assert done.returncode == 2
    assert "wanted CONFIRM=slipway" in done.stderr
    assert not done.stdout
    assert not any("storage" in line for line in commands("delete", CONFIRM="slipway"))
    assert any("storage rm gs://acme-slipway-models" in line for line in commands("delete", CONFIRM="slipway", WITH_MODELS="1"))


def test_identity_is_for_one_project_and_protected_refs():
    (provider,) = [line for line in commands("identity", ISSUER="gitlab", GITLAB_PROJECT_ID="42") if "create-oidc" in line]
    assert r"assertion.project_id\ ==\ \'42\'\ \&\&\ assertion.ref_protected\ ==\ \'true\'" in provider


@pytest.mark.parametrize(("script", "settings", "said"), [("create", {"PROJECT": ""}, "PROJECT"), ("create", {"MODE": "both"}, "got both")])
def test_a_setting_that_is_missing_or_wrong_is_named(script, settings, said):
    done = run(script, **settings)
    assert done.returncode != 0
    assert said in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_names_a_key(script):
    assert not re.search(r"keys create|key-file|\.json\b", (GKE / script).read_text())


def test_the_scripts_are_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("wanted shellcheck")
    subprocess.run(["shellcheck", "-x", *(GKE / script for script in (*SCRIPTS, "settings"))], cwd=ROOT, check=True)


def test_gcloud_knows_every_command_and_option(tmp_path):
    if not shutil.which("gcloud"):
        pytest.skip("wanted gcloud")
    lines = {line for script in SCRIPTS for mode in ("autopilot", "standard") for line in commands(script, MODE=mode, **EVERYTHING)}
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": line} for line in sorted(lines) if line.startswith("gcloud ")]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", "--commands-file", file]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 20
    assert [(row["command_string"], row["error_message"]) for row in found if not row["success"]] == []


def test_the_namespace_admits_only_restricted_pods_and_has_a_quota():
    namespace, quota, limits = yaml.safe_load_all((ROOT / "k8s" / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {item["metadata"].get("namespace", "slipway") for item in (quota, limits)} == {namespace["metadata"]["name"]}
    assert {"requests.cpu", "requests.memory", "pods"} <= quota["spec"]["hard"].keys()
