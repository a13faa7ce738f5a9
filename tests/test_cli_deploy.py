"""`slipway deploy` against a helm and a kubectl that answer from a script; the real ones are in test_cluster_install.py."""

import json
import sys
import time
from pathlib import Path

import pytest
from conftest import write_colours
from typer.testing import CliRunner

from cli import app
from cli.deploy.reasons import hopeless, reasons
from serving.archive import digest

HANGS = -1  # the exit code of a tool that does not come back by itself
# Stands in for helm and kubectl: takes the first answer whose pattern is in the arguments, and writes down what it was asked. An answer
# that is a list gives one after the other.
FAKE = """#!{python}
import json, re, sys, time
from pathlib import Path
folder = Path({folder!r})
name = Path(sys.argv[0]).name
line = " ".join([name, *sys.argv[1:]])
own = sys.stdin.read() if "-" in sys.argv else ""
with (folder / "asked").open("a") as file:
    file.write(json.dumps([line, own]) + "\\n")
answers = json.loads((folder / "answers").read_text())
for words, code, said in answers:
    if re.search(words, line):
        if isinstance(said, list):
            said = said.pop(0) if len(said) > 1 else said[0]
            (folder / "answers").write_text(json.dumps(answers))
        if code == {hangs}:
            time.sleep(60)
        (sys.stderr if code else sys.stdout).write(said)
        sys.exit(code)
sys.exit("unexpected: " + line)
"""
HISTORY = json.dumps([{"revision": 1, "status": "superseded"}, {"revision": 2, "status": "deployed"}])


def pod(name: str = "colours-stable-1", *, ready: bool, state: dict | None = None, **status: object) -> dict:
    """What the cluster says of a pod; its container is in `state`, else it runs."""
    container = {"name": "slipway", "image": "registry/colours:1", "ready": ready, "state": state or {"running": {}}, **status}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    labels = {"track": "stable"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions, "containerStatuses": [container]}}


class Cluster:
    """The folder of the fake tools: what they answer, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = write_colours(folder / "colours.mar")
        for name in ("helm", "kubectl"):
            (folder / name).write_text(FAKE.format(python=sys.executable, folder=str(folder), hangs=HANGS))
            (folder / name).chmod(0o755)

    def answers(self, *special: tuple[str, int, str | list[str]]) -> None:
        """Answer as a healthy cluster does, but for what is `special`: pattern, exit code, text."""
        healthy = [
            ("current-context", 0, "kind-test"),
            ("kubectl version", 0, "Server Version: v1.34.4"),
            ("get namespace", 0, "namespace/slipway"),
            ("get pods", 0, json.dumps({"items": [pod(ready=True)]})),
            ("get events", 0, '{"items": []}'),
            ("get httproute", 0, ""),
            ("logs", 0, "one\ntwo"),
            ("helm history", 0, HISTORY),
            ("helm status", 0, '{"info": {"status": "deployed"}}'),
            ("helm template", 0, "kind: Service\nmetadata: {name: colours-stable}\nspec: {port: 80}\n"),
            *((f"helm {verb}", 0, "") for verb in ("get", "upgrade", "test", "rollback")),
        ]
        (self.folder / "answers").write_text(json.dumps([*special, *healthy]))

    def asked(self) -> list[tuple[str, str]]:
        """Command lines, and what came to them by standard input."""
        return [tuple(json.loads(line)) for line in (self.folder / "asked").read_text().splitlines()]

    def deploy(self, *options: str):
        """Run the command and return its result."""
        return CliRunner().invoke(app, ["deploy", str(self.archive), *options])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cli.deploy.release.POLL_S", 0.05)
    found = Cluster(tmp_path)
    found.answers()
    return found


def test_an_archive_is_installed_proved_and_shown(cluster):
    done = cluster.deploy("--image", "registry:5000/colours:1")
    assert done.exit_code == 0, done.output
    upgrade, own = next((line, own) for line, own in cluster.asked() if "helm upgrade" in line)
    assert "--install colours" in upgrade and "--namespace slipway" in upgrade and "--wait" in upgrade
    assert json.loads(own) == {
        "image": {"repository": "registry:5000/colours", "tag": "1", "digest": ""},
        "model": {"digest": digest(cluster.archive)},
    }
    order = [line.split()[:2] for line, _ in cluster.asked()]
    assert order.index(["helm", "upgrade"]) < order.index(["helm", "test"])
    assert "revision 2, in namespace slipway of kind-test" in done.stdout
    assert "port-forward service/colours-stable 8080:80" in done.stdout
    assert "http://127.0.0.1:8080/predictions/colours" in done.stdout


def test_a_route_with_a_host_is_the_address(cluster):
    route = {"spec": {"hostnames": ["colours.example"], "parentRefs": [{"name": "main", "namespace": "gateway"}]}}
    cluster.answers(("get httproute", 0, json.dumps(route)), ("get gateway", 0, "{}"))
    done = cluster.deploy("--image", "colours:1")
    assert "http://colours.example/predictions/colours" in done.stdout
    assert "port-forward" not in done.stdout


def test_a_namespace_that_is_not_there_is_made_restricted(cluster):
    cluster.answers(("get namespace", 0, ""), ("kubectl create", 0, ""))
    assert cluster.deploy("--image", "colours:1", "--namespace", "vision").exit_code == 0
    made = next(own for line, own in cluster.asked() if "kubectl create" in line)
    assert "name: vision\n" in made and "namespace: vision\n" in made and ": slipway\n" not in made
    assert "pod-security.kubernetes.io/enforce: restricted" in made


def test_a_digest_goes_to_the_chart_as_one(cluster):
    sha = "sha256:" + "0" * 64
    assert cluster.deploy("--image", f"europe/registry/colours@{sha}").exit_code == 0
    own = next(json.loads(own) for line, own in cluster.asked() if "helm upgrade" in line)
    assert own["image"] == {"repository": "europe/registry/colours", "tag": "", "digest": sha}


def test_a_bucket_takes_the_place_of_the_image(cluster):
    assert cluster.deploy("--uri", "gs://models/colours.mar").exit_code == 0
    own = next(json.loads(own) for line, own in cluster.asked() if "helm upgrade" in line)
    assert own == {"model": {"digest": digest(cluster.archive), "source": "gcs", "uri": "gs://models/colours.mar"}}


def test_diff_shows_what_would_change_and_changes_nothing(cluster):
    cluster.answers(("helm get manifest", 0, "kind: Service\nmetadata: {name: colours-stable}\nspec: {port: 8080}\n"))
    done = cluster.deploy("--image", "colours:1", "--diff")
    assert done.exit_code == 0
    assert "--- Service/colours-stable now" in done.stdout
    assert "-  port: 8080" in done.stdout and "+  port: 80" in done.stdout
    assert not any(verb in line for line, _ in cluster.asked() for verb in ("helm upgrade", "helm test", "kubectl create"))


def test_diff_says_when_nothing_would_change(cluster):
    cluster.answers(("helm get manifest", 0, "kind: Service\nspec: {port: 80}\nmetadata: {name: colours-stable}\n"))
    assert cluster.deploy("--image", "colours:1", "--diff").stdout.splitlines()[-1] == "nothing would change"


def test_a_failed_upgrade_says_why_and_goes_back(cluster):
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    ended = {"exitCode": 2, "reason": "Error", "message": "slipway: no archive at /models/model.mar"}
    broken = pod(ready=False, state=state, lastState={"terminated": ended})
    failed = json.dumps([*json.loads(HISTORY), {"revision": 3, "status": "failed"}])
    cluster.answers(
        ("helm upgrade", 1, "Error: UPGRADE FAILED: context deadline exceeded"),
        ("get pods", 0, json.dumps({"items": [broken]})),
        ("helm history", 0, failed),
    )
    done = cluster.deploy("--image", "colours:1")
    assert done.exit_code == 1
    assert "colours-stable-1: slipway ended with exit code 2" in done.stderr
    assert "| slipway: no archive at /models/model.mar" in done.stderr
    assert "revision 2, which was there before, is back" in done.stderr
    assert any("helm rollback colours 2" in line for line, _ in cluster.asked())


def test_a_failed_first_installation_is_left_to_be_looked_at(cluster):
    cluster.answers(
        ("helm upgrade", 1, "Error: timed out"),
        ("helm history", 0, json.dumps([{"revision": 1, "status": "failed"}])),
        ("get pods", 0, json.dumps({"items": []})),
    )
    done = cluster.deploy("--image", "colours:1")
    assert done.exit_code == 1
    assert "remove it with helm uninstall colours --namespace slipway" in done.stderr
    assert not any("rollback" in line for line, _ in cluster.asked())


def test_a_secret_that_is_not_there_is_said_before_anything_changes(cluster):
    volumes = "[{name: keys, secret: {secretName: line-keys}}]"
    manifest = f"kind: Deployment\nmetadata: {{name: colours-stable}}\nspec: {{template: {{spec: {{volumes: {volumes}}}}}}}\n"
    cluster.answers(("helm template", 0, manifest), ("get secret line-keys", 0, ""))
    done = cluster.deploy("--image", "colours:1")
    assert isinstance(done.exception, OSError)
    assert "slipway has no Secret line-keys" in str(done.exception)
    assert "kubectl create secret generic line-keys --from-file=keys --namespace slipway" in str(done.exception)
    assert not any("helm upgrade" in line for line, _ in cluster.asked())
    cluster.answers(("helm template", 0, manifest), ("get secret line-keys", 0, "secret/line-keys"))
    assert cluster.deploy("--image", "colours:1").exit_code == 0
    cluster.answers(("helm template", 0, manifest), ("get secret line-keys", 1, "Error from server (Forbidden)"))
    assert cluster.deploy("--image", "colours:1").exit_code == 0


def test_a_failing_test_of_the_chart_fails_the_deployment(cluster):
    cluster.answers(("helm test", 1, "pod colours-predict failed: an image was answered 503"))
    done = cluster.deploy("--image", "colours:1")
    assert done.exit_code == 1
    assert "an image was answered 503" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--image", "colours"], "--image wants REPOSITORY:TAG or REPOSITORY@sha256:..., got colours"),
        (["--image", "registry:5000/colours"], "--image wants REPOSITORY:TAG"),
        (["--uri", "s3://models/colours.mar"], "--uri wants gs://BUCKET/OBJECT, got s3://models/colours.mar"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_cluster_is_asked(cluster, options, said):
    done = cluster.deploy(*options)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)
    assert not (cluster.folder / "asked").exists()


def test_values_that_the_chart_refuses_change_nothing(cluster):
    cluster.answers(("helm template", 1, "Error: values don't meet the specifications of the schema: replica: not allowed"))
    done = cluster.deploy("--image", "colours:1")
    assert isinstance(done.exception, OSError)
    assert "replica: not allowed" in str(done.exception)
    assert not any("helm upgrade" in line for line, _ in cluster.asked())


def test_a_release_that_somebody_else_is_changing_is_left_alone(cluster):
    cluster.answers(("helm status", 0, '{"info": {"status": "pending-upgrade"}}'))
    done = cluster.deploy("--image", "colours:1")
    assert isinstance(done.exception, OSError)
    assert "is being changed by somebody else" in str(done.exception)
    assert not any("helm upgrade" in line for line, _ in cluster.asked())


def test_a_pod_that_can_never_be_ready_ends_the_wait(cluster):
    state = {"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}
    pods = [json.dumps({"items": items}) for items in ([], [pod(ready=False, state=state)])]
    cluster.answers(("helm upgrade", HANGS, ""), ("get pods", 0, pods))
    started = time.monotonic()
    done = cluster.deploy("--image", "colours:1")
    assert done.exit_code == 1
    assert time.monotonic() - started < 20


def test_without_helm_the_next_step_is_said(cluster, monkeypatch, tmp_path):
    (cluster.folder / "helm").unlink()
    monkeypatch.setattr("cli.deploy.release.TOOLS", tmp_path / "none")
    done = cluster.deploy("--image", "colours:1")
    assert isinstance(done.exception, FileNotFoundError)
    assert "make tools" in str(done.exception)


def test_each_way_not_to_be_ready_has_its_words():
    pull = {"waiting": {"reason": "ErrImageNeverPull", "message": "Container image is not present with pull policy of Never"}}
    unplaced = {
        "metadata": {"name": "b"},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient cpu"}]},
    }
    killed = {"waiting": {"reason": "CrashLoopBackOff"}}
    pods = [
        pod("a", ready=False, state=pull),
        unplaced,
        pod("c", ready=False, state=killed, lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
        pod("d", ready=False),
        pod("e", ready=True),
    ]
    event = {
        "message": 'pods "x" is forbidden: exceeded quota: slipway',
        "involvedObject": {"kind": "ReplicaSet", "name": "colours-stable-7"},
    }
    known = {"message": "Back-off restarting failed container", "involvedObject": {"kind": "Pod", "name": "c"}}
    lines = reasons(pods, [event, event, known], lambda name, container: [f"log of {container} in {name}"])
    assert lines == [
        "a: the image registry/colours:1 cannot be had: Container image is not present with pull policy of Never",
        "b finds no node: 0/2 nodes: Insufficient cpu",
        "c: slipway needed more memory than its limit (OOMKilled): raise resources.limits.memory",
        "d: slipway runs, but is not ready; its last words:",
        "  | log of slipway in d",
        'replicaset colours-stable-7: pods "x" is forbidden: exceeded quota: slipway',
    ]


def test_a_pod_that_says_nothing_has_what_the_cluster_says_of_it():
    waits = pod("a", ready=False, state={"waiting": {"reason": "ContainerCreating"}})
    events = [
        {"message": 'MountVolume.SetUp failed for volume "keys" : secret "x" not found', "involvedObject": {"kind": "Pod", "name": name}}
        for name in ("a", "of-the-release-before")
    ]
    lines = reasons([waits], events, lambda name, container: [])
    assert lines == ['pod a: MountVolume.SetUp failed for volume "keys" : secret "x" not found']


def test_the_last_words_are_those_of_the_container_that_ended():
    done = pod("a", ready=False, state={"waiting": {"reason": "PodInitializing"}})
    fetch = {"name": "fetch", "image": "registry/colours:1", "state": {"terminated": {"exitCode": 1, "message": "404\nno such object"}}}
    done["status"]["initContainerStatuses"] = [fetch]
    lines = reasons([done], [], lambda name, container: ["of another container"])
    assert lines == ["a: fetch ended with exit code 1; its last words:", "  | 404", "  | no such object"]


@pytest.mark.parametrize(("code", "never"), [(2, True), (1, False)])
def test_what_serve_was_given_does_not_mend_by_waiting(code, never):
    assert hopeless(pod(ready=False, state={"terminated": {"exitCode": code}})) is never
    assert hopeless(pod(ready=False, lastState={"terminated": {"exitCode": code}})) is never


@pytest.mark.parametrize(
    ("reason", "restarts", "never"),
    [("ErrImageNeverPull", 0, True), ("CrashLoopBackOff", 1, False), ("CrashLoopBackOff", 2, True), ("ContainerCreating", 0, False)],
)
def test_waiting_ends_early_where_it_cannot_help(reason, restarts, never):
    assert hopeless(pod(ready=False, state={"waiting": {"reason": reason}}, restartCount=restarts)) is never
