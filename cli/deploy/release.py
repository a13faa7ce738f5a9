"""One Helm release on the current kubectl context: what it would change, its installation, its proof, its way back."""

import difflib
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cli.deploy.reasons import hopeless, ready, reasons

ROOT = Path(__file__).parents[2]
NAMESPACE = ROOT / "k8s" / "namespace.yaml"
TOOLS = ROOT / "build" / "tools"
POLL_S = 2.0
CALL_S = 60.0
PENDING = ("pending-install", "pending-upgrade", "pending-rollback")
TEST_S = 300.0


class Failed(RuntimeError):
    """The cluster took the release, but it does not serve; `reasons` has a line for each thing that is known about it."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.reasons = lines


@dataclass(frozen=True)
class Release:
    """A release by name and namespace, and what it is to become: the chart, files of values, and `own` laid over them."""

    name: str
    namespace: str
    chart: Path
    files: tuple[Path, ...]
    own: dict[str, Any]

    def context(self) -> str:
        """The kubectl context that all commands go to.

        Raises: OSError when there is none.
        """
        return call("kubectl", "config", "current-context").strip()

    def revision(self) -> int:
        """Its newest revision that was deployed; 0 when there is none."""
        history = self.helm("history", self.name, "--output", "json", check=False) or "[]"
        return max((row["revision"] for row in json.loads(history) if row["status"] == "deployed"), default=0)

    def pods(self) -> list[dict[str, Any]]:
        """Its pods that serve, as the cluster describes them."""
        wanted = f"app.kubernetes.io/name=slipway,app.kubernetes.io/instance={self.name},app.kubernetes.io/component=server"
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "--selector", wanted, "--output", "json"))["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def helm(self, *arguments: str, check: bool = True, **options: Any) -> str:
        """What helm prints."""
        return call("helm", *arguments, "--namespace", self.namespace, check=check, **options)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """What kubectl prints."""
        return call("kubectl", "--namespace", self.namespace, *arguments, check=check)

    def values(self) -> list[str]:
        """Helm's options for the values; `own` comes last, by standard input."""
        return [word for path in (*self.files, "-") for word in ("--values", str(path))]


def tool(name: str) -> str:
    """The path of helm or kubectl: on PATH, else the one that `make tools` brought.

    Raises: FileNotFoundError when it is in neither.
    """
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    if found is None:
        raise FileNotFoundError(f"{name} is neither on PATH nor in {TOOLS}: install it, or run `make tools`")
    return found


def call(name: str, *arguments: str, check: bool = True, own: str | None = None, timeout_s: float = CALL_S) -> str:
    """What a tool prints; with `check` false, nothing when it fails.

    Raises: OSError with the tool's own words when it fails; it takes at most `timeout_s`.
    """
    try:
        done = subprocess.run([tool(name), *arguments], input=own, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"{name} {arguments[0]} took longer than {timeout_s:g} s: is the cluster reached?") from None
    if done.returncode and check:
        raise OSError(f"{name} {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return "" if done.returncode else done.stdout


def changes(release: Release) -> str:
    """A diff, object by object, from what the release has in the cluster to what it would have; empty when they are equal."""
    server = re.search(r"Server Version: v([\d.]+)", call("kubectl", "version"))
    version = ["--kube-version", server[1]] if server else []
    now = _objects(release.helm("get", "manifest", release.name, check=False))
    wanted = release.helm(
        "template", release.name, str(release.chart), "--no-hooks", *version, *release.values(), own=json.dumps(release.own)
    )
    then = _objects(wanted)
    parts = []
    for name in sorted({*now, *then}):
        lines = difflib.unified_diff(now.get(name, []), then.get(name, []), f"{name} now", f"{name} then", n=2, lineterm="")
        parts += list(lines)
    return "\n".join(parts)


def install(release: Release, *, timeout_s: int, say: Callable[[str], None]) -> None:
    """Install or upgrade, and wait until every pod is ready; `say` is told how far it is.

    Raises: OSError when helm or the cluster refuses it, and nothing has changed; Failed when pods do not become ready.
    """
    if not release.kubectl("get", "namespace", release.namespace, "--ignore-not-found", "--output", "name"):
        manifest = NAMESPACE.read_text().replace(": slipway\n", f": {release.namespace}\n")
        call("kubectl", "create", "--filename", "-", own=manifest)
    _check_secrets(release, release.helm("template", release.name, str(release.chart), *release.values(), own=json.dumps(release.own)))
    if json.loads(release.helm("status", release.name, "--output", "json", check=False) or "{}").get("info", {}).get("status") in PENDING:
        raise OSError(f"{release.name} is being changed by somebody else, or by a helm that was killed: wait, or `helm rollback` it first")
    before = {pod["metadata"]["name"] for pod in release.pods()}
    with _upgrade(release, timeout_s) as helm:
        for line in _progress(release, helm, before, until=time.monotonic() + timeout_s + CALL_S):
            say(line)
    assert helm.stdout is not None
    if helm.returncode:
        pods = release.pods()
        new = [pod for pod in pods if pod["metadata"]["name"] not in before]
        why = reasons(new or pods, _warnings(release), partial(_log, release))
        raise Failed([*why, *helm.stdout.read().strip().splitlines()[-1:]])


def _check_secrets(release: Release, manifest: str) -> None:
    """Nothing, when the namespace has the Secrets that the pods of a manifest mount, or does not show them to the caller.

    Raises: OSError for one that is not there: pods would wait for it until the time is over.
    """
    pods = (
        document["spec"]["template"]["spec"] for document in yaml.safe_load_all(manifest) if document and document["kind"] == "Deployment"
    )
    for name in {volume["secret"]["secretName"] for pod in pods for volume in pod["volumes"] if "secret" in volume}:
        try:
            found = release.kubectl("get", "secret", name, "--ignore-not-found", "--output", "name")
        except OSError:
            continue
        if not found:
            make = f"kubectl create secret generic {name} --from-file=keys --namespace {release.namespace}"
            raise OSError(f"{release.namespace} has no Secret {name}, which the values name: `slipway key` makes its file, then {make}")


@contextmanager
def _upgrade(release: Release, timeout_s: int) -> Iterator["subprocess.Popen[str]"]:
    """Helm at work; when the block ends before it does, it is told to end, and then records the release as failed, not as pending."""
    command = [tool("helm"), "upgrade", "--install", release.name, str(release.chart), *release.values()]
    command += ["--namespace", release.namespace, "--wait", "--timeout", f"{timeout_s}s", "--history-max", "10"]
    helm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert helm.stdin is not None
    helm.stdin.write(json.dumps(release.own))
    helm.stdin.close()
    try:
        yield helm
    finally:
        if helm.poll() is None:
            helm.send_signal(signal.SIGINT)
        helm.wait(CALL_S)


def _progress(release: Release, helm: "subprocess.Popen[str]", old: set[str], *, until: float) -> Iterator[str]:
    """How many new pods are ready, whenever that changes, until helm ends or one of them can never be.

    The `old` pods say nothing: they may be broken, which is why there is a new release.
    """
    told = ""
    while helm.poll() is None and time.monotonic() < until:
        pods = [pod for pod in release.pods() if pod["metadata"]["name"] not in old]
        line = f"{sum(map(ready, pods))} of {len(pods)} new pods ready"
        if pods and line != told:
            yield line
            told = line
        if any(map(hopeless, pods)):
            return
        time.sleep(POLL_S)


def test(release: Release) -> None:
    """Run the chart's own tests in the cluster.

    Raises: Failed with what they say.
    """
    try:
        release.helm("test", release.name, "--logs", timeout_s=TEST_S)
    except OSError as error:
        raise Failed(["a test of the release failed in the cluster:", *str(error).splitlines()[-12:]]) from None


def back(release: Release) -> str:
    """Go back to the revision that was deployed before, and say so; a first installation stays for its owner to look at."""
    history = json.loads(release.helm("history", release.name, "--output", "json", check=False) or "[]")
    good = [row["revision"] for row in history[:-1] if row["status"] in ("deployed", "superseded")]
    if not good:
        return f"it is left as it is; remove it with helm uninstall {release.name} --namespace {release.namespace}"
    release.helm("rollback", release.name, str(good[-1]), check=False)
    return f"revision {good[-1]}, which was there before, is back"


def address(release: Release) -> tuple[str, str]:
    """Its URL, and the command that makes it reachable from here, empty when a Gateway does."""
    route = release.kubectl("get", "httproute", release.name, "--ignore-not-found", "--output", "json", check=False)
    if route:
        spec = json.loads(route)["spec"]
        parent = spec["parentRefs"][0]
        gateway = call("kubectl", "--namespace", parent["namespace"], "get", "gateway", parent["name"], "--output", "json", check=False)
        addresses = json.loads(gateway or "{}").get("status", {}).get("addresses", [])
        if host := next(iter(spec.get("hostnames", [])), None) or next((found["value"] for found in addresses), None):
            return f"http://{host}", ""
    return "http://127.0.0.1:8080", f"kubectl --namespace {release.namespace} port-forward service/{release.name}-stable 8080:80"


def _objects(manifest: str) -> dict[str, list[str]]:
    found = [document for document in yaml.safe_load_all(manifest) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": yaml.safe_dump(document).splitlines() for document in found}


def _warnings(release: Release) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(
        release.kubectl("get", "events", "--field-selector", "type=Warning", "--sort-by", ".lastTimestamp", "--output", "json")
    )["items"]
    return [event for event in events if event["involvedObject"]["name"].startswith(f"{release.name}-")]


def _log(release: Release, pod: str, container: str) -> list[str]:
    return release.kubectl("logs", pod, "--container", container, "--tail", "15", check=False).splitlines()
