"""The image's bill of materials."""

import json
import re
from importlib.metadata import version

from first_party import ROOT

from serving.image.sbom import bill_of_materials


def test_it_names_debians_packages_and_pythons():
    document = bill_of_materials("tini 0.19.0-1+b3 amd64\nlibc6 2.36-9 amd64\n")
    purls = [component["purl"] for component in document["components"]]
    assert "pkg:deb/debian/tini@0.19.0-1+b3?arch=amd64" in purls
    assert f"pkg:pypi/numpy@{version('numpy')}" in purls
    assert len(set(purls)) == len(purls)


def test_it_names_all_that_is_locked_for_serving_but_what_is_for_windows():
    locked = re.findall(r"^([\w.-]+)==([^ ;]+) (?!;)", (ROOT / "requirements" / "serve.lock").read_text(), re.MULTILINE)
    purls = {component["purl"] for component in bill_of_materials("")["components"]}
    assert {f"pkg:pypi/{name}@{version}" for name, version in locked} <= purls


def test_it_is_cyclonedx_as_json():
    document = json.loads(json.dumps(bill_of_materials("tini 1 amd64\n")))
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.5", 1)
