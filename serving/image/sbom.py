"""A bill of materials of the image in CycloneDX's JSON: `python -m serving.image.sbom > sbom.cdx.json`, run inside it.

Names what is installed, not what the installed holds in turn: TorchServe's jar, OpenVINO and the like are one component each.
"""

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

JAVA = Path("/opt/java/package")  # the line for the Java that was linked out of a package which itself is not in the image
PACKAGES = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"]


def bill_of_materials(packages: str) -> dict[str, Any]:
    """The document: Debian's packages, a line each as `PACKAGES` shows them, and Python's that are installed here."""
    debian = [line.split() for line in packages.splitlines()]
    components = [
        *(_component(name, version, f"pkg:deb/debian/{name}@{version}?arch={arch}") for name, version, arch in debian),
        *(_python(found) for found in sorted(distributions(), key=lambda found: found.name.lower())),
    ]
    unique = {component["purl"]: component for component in components}  # a checkout lies on the path twice
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": list(unique.values())}


def _python(found: Distribution) -> dict[str, Any]:
    name = found.name.lower().replace("_", "-").replace(".", "-")
    return _component(name, found.version, f"pkg:pypi/{name}@{found.version}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


if __name__ == "__main__":
    shown = subprocess.run(PACKAGES, check=True, capture_output=True, text=True).stdout
    json.dump(bill_of_materials(shown + JAVA.read_text()), sys.stdout, indent=1)
    print()
