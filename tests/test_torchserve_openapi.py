"""The OpenAPI document against a real `slipway serve`: Schemathesis makes requests from it and holds each answer against it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_torchserve import serving

pytestmark = pytest.mark.torchserve
EXAMPLES = 30  # requests made up for each route and method, besides those at the edges of what it takes
PATIENCE_S = 200.0


def test_every_answer_is_as_the_document_says(archive: Path, tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(here / "schemathesis.toml"), "run", "--no-color"]
    options = [
        "--generation-deterministic",
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        str(EXAMPLES),
        "--continue-on-failure",
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(here)}
    with serving(archive, "--workers", "1") as serve:
        serve.wait_until_ready()
        done = subprocess.run(
            [*command, *options, f"{serve.url}/openapi.json"],
            cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, "\n".join(line[:300] for line in done.stdout.splitlines())
    assert "Traceback" not in "".join(serve.said)
