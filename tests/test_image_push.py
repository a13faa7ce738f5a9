"""What the pipeline runs to build and push the image, with a BuildKit that only writes down what it was asked."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from first_party import ROOT

PUSH = ROOT / "serving" / "image" / "push"
DIGEST = f"sha256:{'5f' * 32}"
GIVEN = {
    "CI_REGISTRY": "registry.example.com",
    "CI_REGISTRY_USER": "gitlab-ci-token",
    "CI_REGISTRY_PASSWORD": "pass:word with more than fifty-seven bytes, where base64 would fold",
    "CI_COMMIT_SHA": "0123456789abcdef",
    "CI_COMMIT_SHORT_SHA": "01234567",
    "CI_PROJECT_URL": "gitlab.example.com/ml/steel",
}
FAKE = """#!/bin/sh
cp "$DOCKER_CONFIG/config.json" "$SAW/config.json"
for word; do echo "$word"; done > "$SAW/words"
printf '%s' "$METADATA" > image.json
"""


def push(folder: Path, metadata: object) -> "subprocess.CompletedProcess[str]":
    (folder / "bin").mkdir()
    (folder / "bin" / "buildctl-daemonless.sh").write_text(FAKE)
    (folder / "bin" / "buildctl-daemonless.sh").chmod(0o755)
    given = GIVEN | {"METADATA": json.dumps(metadata, indent=2), "SAW": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    command = ["sh", str(PUSH), "registry.example.com:5050/ml/steel:0123"]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=30)


def test_the_image_is_named_by_the_digest_that_was_pushed(tmp_path: Path) -> None:
    metadata = {"containerimage.config.digest": f"sha256:{'00' * 32}", "containerimage.digest": DIGEST}
    assert push(tmp_path, metadata).returncode == 0
    assert (tmp_path / "image.env").read_text() == f"IMAGE=registry.example.com:5050/ml/steel@{DIGEST}\n"
    words = (tmp_path / "words").read_text().splitlines()
    assert "type=image,name=registry.example.com:5050/ml/steel:0123,push=true" in words
    assert "build-arg:REVISION=0123456789abcdef" in words


def test_it_may_push_by_what_gitlab_gives_each_job(tmp_path: Path) -> None:
    push(tmp_path, {"containerimage.digest": DIGEST})
    auths = json.loads((tmp_path / "config.json").read_text())["auths"]
    user, _, password = base64.b64decode(auths.pop("registry.example.com")["auth"]).decode().partition(":")
    assert (user, password) == (GIVEN["CI_REGISTRY_USER"], GIVEN["CI_REGISTRY_PASSWORD"])
    assert not auths


def test_without_a_digest_nothing_is_deployed(tmp_path: Path) -> None:
    done = push(tmp_path, {})
    assert done.returncode != 0
    assert "buildctl named no digest" in done.stderr
    assert not (tmp_path / "image.env").exists()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="wanted shellcheck")
def test_its_shell_is_sound() -> None:
    subprocess.run(["shellcheck", str(PUSH)], check=True)
