"""The lock files fit pyproject.toml and one another. Fast and offline: make lint runs these too."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from first_party import PACKAGES, ROOT, imported, modules
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
EXTRAS = ("serve", "train", "dev")  # each holds what the one before it does
OWNERS = packages_distributions()  # import name to the packages that bring it
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """The version of each package in a lock file."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return {canonicalize_name(package): version for package, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE)}


def required(extra: str | None) -> list[Requirement]:
    """What pyproject.toml asks for directly, in the extra and in those that it builds on."""
    found: list[Requirement] = []
    for text in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        found += [item for inner in requirement.extras for item in required(inner)] if requirement.name == "slipway" else [requirement]
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_lock_meets_what_pyproject_asks_for(extra):
    pinned = pins(extra)
    for requirement in [*required(None), *required(extra)]:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"requirements/{extra}.lock lacks {requirement}: run make lock"
        assert requirement.specifier.contains(Version(version), prereleases=True), (
            f"requirements/{extra}.lock has {requirement.name} {version}, pyproject.toml wants {requirement}: run make lock"
        )


@pytest.mark.parametrize(("smaller", "larger"), [("serve", "train"), ("train", "dev")])
def test_a_larger_lock_has_all_of_a_smaller_one(smaller, larger):
    assert pins(smaller).items() <= pins(larger).items(), "run make lock"


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_a_hash_for_each_package_and_no_address(path: Path):
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"(^|[\s'\"])(/|[A-Z]:\\)\w", text, re.MULTILINE), "a path of the machine that made it"
    for entry in re.split(r"\n(?=[\w.-]+==)", text):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("module", modules())
def test_what_is_imported_is_asked_for(module):
    serves = module.startswith("serving") and not module.startswith("serving.bench")
    extra = "dev" if module == "serving.locustfile" else "serve" if serves else "train"
    asked = {canonicalize_name(requirement.name) for requirement in [*required(None), *required(extra)]}
    if module == "serving.handler.gpu":
        asked.add("onnxruntime")  # requirements/gpu.in asks for its build with CUDA
    for name in {name.split(".")[0] for name in imported(module)} & OWNERS.keys() - {*PACKAGES}:
        assert {canonicalize_name(owner) for owner in OWNERS[name]} & asked, f"{module} imports {name}: add it to {extra} in pyproject.toml"
