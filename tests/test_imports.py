"""Who may import whom, and that serving needs nothing of what training does."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from first_party import ROOT, imported, modules, ours, tree

SIBLINGS = ("model", "serving", "reports")
# Run apart, with every package blocked that is not in serve.lock: import the names given, then have an archive verified.
ALONE = """
import importlib, json, sys
names, blocked, archive = json.loads(sys.argv[1])
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not in serve.lock", name=name)
sys.meta_path.insert(0, Blocked())
for name in names:
    importlib.import_module(name)
sys.argv = ["slipway", "package", "--verify", archive]
importlib.import_module("cli").main()
"""


@pytest.mark.parametrize("package", SIBLINGS)
def test_model_serving_and_reports_meet_in_files_only(package):
    others = tuple(f"{other}." for other in SIBLINGS if other != package)
    wrong = {name: sorted(bad) for name in modules() if f"{name}.".startswith(f"{package}.") if (bad := _starting(ours(name), others))}
    assert not wrong


def test_nothing_but_cli_imports_cli():
    wrong = [name for name in modules() if not f"{name}.".startswith("cli.") and _starting(imported(name), ("cli.",))]
    assert not wrong


def test_the_handler_knows_nothing_outside_its_folder():
    for name in [name for name in modules() if f"{name}.".startswith("serving.handler.")]:
        for statement in [node for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom | ast.Import)]:
            if isinstance(statement, ast.ImportFrom) and statement.level:
                assert statement.level == 1, f"{name} reaches above its folder: {ast.unparse(statement)}"
            else:
                text = ast.unparse(statement)
                assert not re.search(r"\b(cli|model|serving|reports|slipway)\b", text), f"{name} wants a relative import, got {text}"


def test_every_module_is_in_an_installed_package():
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules().items()}
    assert found == listed


def test_serving_works_without_the_packages_of_training(archive):
    served = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / "serve.lock").read_text(), re.MULTILINE))
    blocked = [
        name
        for name, owners in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & {*served, "slipway", "setuptools"}
    ]
    assert {"torch", "nncf", "onnx", "mlflow", "matplotlib"} <= set(blocked)
    apart = ("serving.bench.", "serving.locustfile.")
    names = [name for name in modules() if f"{name}.".startswith("serving.") and not f"{name}.".startswith(apart)]
    arguments = json.dumps([["cli", "cli.serve", "cli.trial", *names], blocked, str(archive)])
    done = subprocess.run([sys.executable, "-c", ALONE, arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "is whole" in done.stdout


def _starting(names, prefixes):
    return {name for name in names if f"{name}.".startswith(prefixes)}
