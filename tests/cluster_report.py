"""What tests on a real cluster measured, for the report: REPORT names the JSON file that gathers it; without it nothing is written."""

import json
import os
from pathlib import Path
from typing import Any


def record(key: str, figures: dict[str, Any]) -> None:
    """Put figures under a key of the file of REPORT, a line for each key."""
    if not (name := os.environ.get("REPORT")):
        return
    path = Path(name)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in (known | {key: figures}).items()]
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    partial.replace(path)
