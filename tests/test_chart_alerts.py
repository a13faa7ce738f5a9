"""Alerts and dashboards: proven against synthetic series, written in metrics that exist, each alert with its page."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from chart import CHART, TOGGLES, of_kind, one, render
from first_party import ROOT
from test_serving_front_door import Door

from serving.front_door.metrics import REQUEST_SECONDS

RUNBOOKS = ROOT / "k8s" / "runbooks"
DASHBOARDS = sorted((CHART / "files").glob("dashboard-*.json"))
# Of kube-state-metrics and of the kubelet's cAdvisor.
FROM_KUBERNETES = {
    "kube_pod_container_status_restarts_total",
    "container_cpu_usage_seconds_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_periods_total",
    "container_memory_working_set_bytes",
}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def spec(toggle="alerts", kind="PrometheusRule", **values):
    return one(render(TOGGLES[toggle] | values), kind, "demo")["spec"]


def rules():
    return [rule for group in spec()["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def dashboard_expressions():
    return [target["expr"] for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]


@pytest.fixture
def promtool():
    """Runs promtool with words; without one, the test is left out, but in CI it fails."""
    found = shutil.which("promtool")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no promtool: apt-get install prometheus")
    return lambda *words, cwd: subprocess.run([found, *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_every_alert_fires_when_it_should_and_only_then(promtool, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    shutil.copy(ROOT / "tests" / "promtool" / "alerts.yaml", tmp_path)
    done = promtool("test", "rules", "alerts.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires():
    cases = yaml.safe_load((ROOT / "tests" / "promtool" / "alerts.yaml").read_text())["tests"]
    fired = {
        (case["alertname"], expected["exp_labels"]["severity"])
        for test in cases
        for case in test["alert_rule_test"]
        for expected in case["exp_alerts"]
    }
    assert fired == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}


@pytest.mark.parametrize("objective", [0.1, 0.25, 0.5, 1, 2.5])
def test_alerts_are_valid_with_every_objective_and_count_its_bucket(promtool, tmp_path, objective):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec(latencyObjectiveSeconds=objective)))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (pattern,) = set(re.findall(r'le=~"([^"]+)"', (tmp_path / "rules.yaml").read_text()))
    assert [bound for bound in REQUEST_SECONDS if re.fullmatch(pattern, str(float(bound)))] == [objective]


def test_dashboards_are_valid_expressions(promtool, tmp_path):
    text = "\n".join(dashboard_expressions())
    for word, meant in {"$namespace": "shop", "$job": "demo", "$__rate_interval": "5m"}.items():
        text = text.replace(word, meant)
    assert "$" not in text
    group = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(text.splitlines())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": group}]}))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_managed_prometheus_gets_the_same_rules():
    assert spec("alerts-gmp", "Rules") == spec()


def test_every_metric_that_is_asked_for_is_told():
    told = {line.split("{")[0].split()[0] for line in Door().ask("GET", "/metrics").text.splitlines() if not line.startswith("#")}
    expressions = [rule["expr"] for rule in rules()] + dashboard_expressions()
    asked = {name for text in expressions for name in re.findall(r"\b(?:slipway|kube|container|process)_\w+(?=\{)", text)}
    assert asked - told == FROM_KUBERNETES


def test_every_rule_looks_at_its_own_release_only():
    for rule in rules():
        selectors = re.findall(r"\{([^}]*)\}", rule["expr"])
        assert selectors
        for selector in selectors:
            assert 'namespace="shop"' in selector and ('job="demo"' in selector or 'pod=~"demo-(stable|canary)-' in selector), rule["expr"]
    assert not re.search(r"%\w+%", yaml.safe_dump(spec()))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    names = {rule["alert"] for rule in alerts()}
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == names
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"k8s/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["for"]


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_what_it_costs_where_to_look_and_what_to_do(path):
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= 40


def test_values_that_a_runbook_names_exist():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in RUNBOOKS.glob("*.md"):
        for section, key in re.findall(rf"`({'|'.join(values)})\.(\w+)[`=.]", path.read_text()):
            assert key in values[section], f"{path.name} names {section}.{key}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_the_one_copy_and_its_panels_do_not_overlap(path):
    (config,) = [found for found in of_kind(render(TOGGLES["dashboards"]), "ConfigMap") if found["metadata"]["name"] == "demo-grafana"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    board = json.loads(path.read_text())
    assert json.loads(config["data"][f"demo-{path.name}"]) == board
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(places) == len(set(places)) and len({panel["id"] for panel in board["panels"]}) == len(places)
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "job"]
