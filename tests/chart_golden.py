"""Record the default render anew: `.venv/bin/python tests/chart_golden.py`."""

from chart import text
from first_party import ROOT

if __name__ == "__main__":
    (ROOT / "tests" / "golden" / "chart-default.yaml").write_text(text())
