"""The size of the image by part, against its budget: `python -m serving.image.size /`, the last step of serving/Dockerfile.

Counts what a node unpacks. Exit 1 when it is more than the budget, so that an image that is too large is never made.
"""

import os
import sys
from collections import Counter
from pathlib import Path

BUDGET_MB = 600
SHOWN = 12  # parts; the rest is one line
SITE = "opt/slipway/lib/python3.11/site-packages"


def sizes(root: Path) -> Counter[str]:
    """Bytes by part: a package, the model, Java, its class cache, Debian; of the one file system of `root`, hard links once."""
    found: Counter[str] = Counter()
    linked: set[int] = set()
    device = root.stat().st_dev
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if (Path(folder) / name).lstat().st_dev == device]
        for name in files:
            path = Path(folder) / name
            stat = path.lstat()
            if stat.st_dev != device or stat.st_ino in linked:
                continue
            if stat.st_nlink > 1:
                linked.add(stat.st_ino)
            found[part(path.relative_to(root).as_posix())] += stat.st_size
    return found


def part(path: str) -> str:
    """What a file of the image belongs to."""
    if path.startswith(f"{SITE}/"):
        return path.removeprefix(f"{SITE}/").split("/")[0].removesuffix(".libs")
    for folder, name in (("models/", "model"), ("opt/java/", "java"), ("opt/slipway/cache/", "java's class cache"), ("opt/", "slipway")):
        if path.startswith(folder):
            return name
    return "debian and its python"


def report(found: Counter[str]) -> tuple[str, bool]:
    """The table for people, largest first, and whether the whole is within the budget."""
    total = found.total()
    rest = total - sum(size for _, size in found.most_common(SHOWN))
    lines = [f"{size / 1e6:8.1f} MB  {name}" for name, size in [*found.most_common(SHOWN), ("the rest", rest)]]
    return "\n".join([*lines, f"{total / 1e6:8.1f} MB  in all, of {BUDGET_MB} allowed"]), total <= BUDGET_MB * 1e6


if __name__ == "__main__":
    text, fits = report(sizes(Path(sys.argv[1])))
    print(text)
    sys.exit(not fits)
