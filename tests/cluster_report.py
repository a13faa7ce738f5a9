"""What tests on a real cluster measured, for the report: REPORT names the JSON file that gathers it; without it nothing is written."""

import json
import os
from pathlib import Path
from typing import Any


def record(key: str, figures: dict[str, Any]) -> None:
    """Merge figures under a key into the file of REPORT; what was there under that key goes."""
    if not (name := os.environ.get("REPORT")):
        return
    path = Path(name)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(known | {key: figures}, indent=1) + "\n")
    partial.replace(path)
