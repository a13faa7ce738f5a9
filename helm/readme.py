"""The table of values in helm/slipway/README.md, made from the comments of values.yaml: `python helm/readme.py` writes it.

With --check nothing is written, and a stale table is an error. A comment stands right above its key and may have several lines.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).with_name("slipway")
README = CHART / "README.md"
MARKS = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- end -->)", re.DOTALL)


def rows(text: str) -> list[tuple[str, Any, str]]:
    """Each explained value of a values file: its path with dots, its default, its comment in one line."""
    values, found, path, comment = yaml.safe_load(text), [], [], []
    for line in text.splitlines():
        key = re.match(r"( *)([\w.-]+):", line)
        if line.strip().startswith("#"):
            comment.append(line.strip("# "))
        elif key:
            path = [*path[: len(key[1]) // 2], key[2]]
            if comment:
                found.append((".".join(path), _at(values, path), " ".join(comment)))
            comment = []
    return found


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def table(text: str) -> str:
    """Those rows as Markdown."""
    lines = [f"| `{path}` | `{json.dumps(default, ensure_ascii=False)}` | {comment} |" for path, default, comment in rows(text)]
    return "\n".join(["", "| value | default | what it is |", "| --- | --- | --- |", *lines, "", ""])


if __name__ == "__main__":
    page = README.read_text()
    fresh = MARKS.sub(lambda _: table((CHART / "values.yaml").read_text()), page)
    if "--check" not in sys.argv:
        README.write_text(fresh)
    elif fresh != page:
        sys.exit("helm/slipway/README.md is older than values.yaml: run python helm/readme.py")
