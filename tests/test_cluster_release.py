"""Releases of a real cluster that lose nothing: back, fewer pods, a canary up to its promotion; and broken ones that never take traffic.

BUILD_IMAGE='docker build -t "$1" "$2" && docker push "$1"' make cluster-test IMAGE=REPOSITORY:TAG

makes one more image, the tested one with other archives beside its own, by that command: $1 is its name, $2 the folder of its Dockerfile.
With REPORT=reports/metrics/cluster-releases.json what was measured is written there.
"""

import json
import os
import subprocess
import time
import uuid
import zipfile
from pathlib import Path

import pytest
from cluster import Namespace, demo_values, gateway, golden, slipway, wanted_image
from cluster_report import record
from cluster_users import lost_nothing, under_load
from first_party import ROOT

from serving.archive import digest, read, write

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]
ARCHIVE, CHART = ROOT / "build" / "demo.mar", str(ROOT / "helm" / "slipway")
URL = "http://demo-stable/predictions/demo"
HOST = f"{uuid.uuid4().hex[:6]}.test"  # a release that has just been deleted may still have its own
HOLD_S = 10  # for which a weight is watched
FAILS = "30s"  # a pod that is well takes about 12 s here


def again(target: Path, **changes: object) -> Path:
    """The demo's archive with other words about it."""
    with zipfile.ZipFile(ARCHIVE) as mar:
        names = [name for name in mar.namelist() if not name.startswith(("handler/", "MAR-INF/", "slipway.json"))]
        write(target, about=read(ARCHIVE).about | changes, members={name: mar.read(name) for name in names})
    return target


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives beside the demo's: the next version, half of one, and one whose golden images were recorded under the wrong labels."""
    folder = tmp_path_factory.mktemp("archives")
    recorded = read(ARCHIVE).about["golden"]
    wrong = [found | {"probabilities": found["probabilities"][1:] + found["probabilities"][:1]} for found in recorded]
    (folder / "truncated.mar").write_bytes(ARCHIVE.read_bytes()[: ARCHIVE.stat().st_size // 2])
    again(folder / "next.mar", version="next")
    again(folder / "golden.mar", golden=wrong)
    return folder


@pytest.fixture(scope="module")
def image(archives):
    """The name of an image with all of them in /models."""
    if "BUILD_IMAGE" not in os.environ:
        pytest.skip("wanted BUILD_IMAGE, a command that makes image $1 of folder $2 and lets the cluster have it")
    repository, _, tag = wanted_image().rpartition(":")
    name = f"{repository}:{tag}-archives"
    (archives / "Dockerfile").write_text(f"FROM {repository}:{tag}\nCOPY *.mar /models/\n")
    subprocess.run(["sh", "-c", os.environ["BUILD_IMAGE"], "sh", name, archives], check=True, capture_output=True, timeout=300)
    return name


@pytest.fixture(scope="module")
def values(image):
    """Values of a release that serves one of the archives in the image."""
    repository, _, tag = image.rpartition(":")
    common = demo_values(HOST) | {"image": {"repository": repository, "tag": tag}}

    def choose(mar: Path = ARCHIVE, **changes: object) -> dict:
        path = "/models/model.mar" if mar == ARCHIVE else f"/models/{mar.name}"
        return common | {"model": {"path": path, "digest": digest(mar)}} | changes

    return choose


def upgrade(space: Namespace, chosen: dict, *options: str, timeout: str = "240s") -> "subprocess.CompletedProcess[str]":
    """Helm's upgrade of the release to what is chosen."""
    return space.helm("upgrade", "--install", "demo", CHART, "--wait", "--timeout", timeout, *options, values=chosen)


@pytest.fixture(scope="module")
def namespace(image):
    """A fresh namespace."""
    here = Namespace(f"slipway-{uuid.uuid4().hex[:6]}")
    here.kubectl("create", "namespace", here.name)
    yield here
    here.kubectl("delete", "namespace", here.name, "--wait=false")


@pytest.fixture
def space(namespace, image, values):
    """It with the demo in two pods, whatever was there before, and a pod to ask from."""
    done = upgrade(namespace, values())
    assert done.returncode == 0, done.stderr
    if not namespace.kubectl("get", "pod", "client", "--ignore-not-found"):
        namespace.client(image)
    ended(namespace, keep=namespace.pods())
    return namespace


@pytest.fixture(scope="module")
def asked():
    """A golden image of the archive and its label."""
    return golden(ARCHIVE)


def through_gateway() -> tuple[str, str]:
    """The address of predictions through the cluster's Gateway, and the host that they are asked of."""
    found = gateway()
    if found is None:
        pytest.skip("the cluster has no Gateway")
    return f"{found[2]}/predictions/demo", HOST


def answered_by(went: dict, mar: Path) -> list[int]:
    """Answers of an archive, second by second."""
    return [second["answers"].get(digest(mar)[:12], 0) for second in went["each_second"]]


def test_another_model_and_the_way_back_lose_nothing(space, asked, values, archives):
    following = archives / "next.mar"
    with under_load(space, URL, *asked, users=HOST) as load:
        done = upgrade(space, values(following))
        went = load()
    assert done.returncode == 0, done.stderr
    record("rolling update to another model", went)
    lost_nothing(went)
    assert answered_by(went, ARCHIVE)[0] > 0 and answered_by(went, following)[-2] > 0
    with under_load(space, URL, *asked, users=HOST) as load:
        done = space.helm("rollback", "demo", "--wait", "--timeout", "240s")
        went = load()
    assert done.returncode == 0, done.stderr
    record("helm rollback", went)
    lost_nothing(went)
    assert answered_by(went, following)[0] > 0 and answered_by(went, ARCHIVE)[-2] > 0


def test_fewer_pods_lose_nothing(space, asked, values):
    assert upgrade(space, values(replicas={"min": 3})).returncode == 0
    with under_load(space, URL, *asked, users=HOST) as load:
        done = upgrade(space, values(replicas={"min": 1}))
        ended(space, keep=space.pods())
        went = load()
    assert done.returncode == 0, done.stderr
    assert len(space.pods()) == 1
    record("scale-down from 3 pods to 1", went)
    lost_nothing(went)


def ended(space: Namespace, *, keep: list[str]) -> None:
    """Wait until no server's pod is there but those to `keep`."""
    until = time.monotonic() + 90
    while {item["metadata"]["name"] for item in space.get("pods", "--selector", "app.kubernetes.io/component=server")["items"]} - set(keep):
        assert time.monotonic() < until, "a pod did not end"
        time.sleep(1)


def test_a_canary_from_nothing_to_its_promotion_loses_nothing(space, asked, values, archives):
    address, host = through_gateway()
    following = archives / "next.mar"
    model = values(following)["model"]
    steps = [
        ("canary on", values(canary={"enabled": True, "weight": 0, "model": model})),
        ("canary 25 %", values(canary={"enabled": True, "weight": 25, "model": model})),
        ("canary 100 %", values(canary={"enabled": True, "weight": 100, "model": model})),
        ("stable takes its model", values(following, canary={"enabled": True, "weight": 100, "model": model})),
        ("canary 0 %", values(following, canary={"enabled": True, "weight": 0, "model": model})),
        ("canary off", values(following)),
    ]
    with under_load(space, address, *asked, host=host, users=HOST) as load:
        for name, chosen in steps:
            load.mark(name)
            done = upgrade(space, chosen)
            assert done.returncode == 0, done.stderr
            time.sleep(HOLD_S)
        ended(space, keep=space.pods())
        went = load()
    record("canary and promotion", went)
    lost_nothing(went)
    old, new = answered_by(went, ARCHIVE), answered_by(went, following)
    at = {name: int(second) for second, name in went["marks"]}
    assert sum(new[: at["canary 25 %"]]) == 0, "a canary of weight 0 was asked"
    quarter = slice(at["canary 25 %"] + 3, at["canary 100 %"])
    assert 0.15 < sum(new[quarter]) / (sum(new[quarter]) + sum(old[quarter])) < 0.35
    assert sum(old[at["stable takes its model"] :]) == 0, "the old model answered again"


# How each release is broken: changes to the values, the archive that `slipway deploy` is given, and what it must say.
BROKEN = {
    "a corrupt archive": ({"path": "/models/truncated.mar"}, {}, "demo.mar", "/models/truncated.mar is no whole .mar"),
    "a failing golden image": ({"path": "/models/golden.mar"}, {}, "golden.mar", "the model was not loaded: golden image golden/"),
    "a wrong digest": ({}, {}, "next.mar", "this is another archive than was meant"),
    "a missing Secret": ({}, {"keys": {"existingSecret": "no-such-keys"}}, "demo.mar", "has no Secret no-such-keys"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_never_takes_traffic(space, asked, values, archives, what):
    model, changes, name, reason = BROKEN[what]
    mar, before = ARCHIVE if name == "demo.mar" else archives / name, space.pods()
    chosen = values(**changes)
    chosen["model"] = chosen["model"] | {"digest": digest(mar)} | model
    file = archives / "values.json"
    file.write_text(json.dumps(chosen))
    with under_load(space, URL, *asked, users=HOST) as load:
        load.mark("helm upgrade")
        helm = upgrade(space, chosen, "--rollback-on-failure", timeout=FAILS)
        load.mark("slipway deploy")
        target = ("--release", "demo", "--namespace", space.name, "--values", str(file))
        deploy = slipway("deploy", str(mar), *target)
        load.mark("both gave up")
        went = load()
    record(what, went | {"helm": helm.stderr.splitlines()[-1], "deploy": deploy.stderr.splitlines()})
    lost_nothing(went)
    assert sum(answered_by(went, ARCHIVE)) == went["requests"]
    ended(space, keep=before)
    assert sorted(space.pods()) == sorted(before), "the pods of the old release were touched"
    assert helm.returncode != 0 and deploy.returncode != 0
    assert reason in deploy.stderr, deploy.stderr
