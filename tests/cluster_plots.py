"""Draw figures/releases.svg from what the tests on a cluster wrote down: `.venv/bin/python tests/cluster_plots.py`."""

import json
from pathlib import Path
from typing import Any

from first_party import ROOT

from cli.bench.plots import BLUE, GREY, RED, rows


def draw(load: dict[str, Any], path: Path) -> None:
    """Answers a second of the model before and of the next one, and failures; below, the slowest answer; each step where it began."""
    seconds = load["each_second"]
    x = range(len(seconds))
    before, following = list(dict.fromkeys(digest for second in seconds for digest in second["answers"]))
    with rows(path, count=2, height=5) as (answers, times):
        answers.plot(x, [second["answers"].get(before, 0) for second in seconds], color=GREY, label="answered by the model before")
        answers.plot(x, [second["answers"].get(following, 0) for second in seconds], color=BLUE, label="by the next one")
        answers.plot(x, [second["failed"] for second in seconds], color=RED, label="failed")
        answers.set(ylabel="requests a second", ylim=(0, None))
        answers.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
        times.plot(x, [second["slowest_ms"] for second in seconds], color=GREY)
        times.set(xlabel="seconds", ylabel="slowest answer, ms", ylim=(0, None))
        for at, name in load["marks"]:
            for axis in (answers, times):
                axis.axvline(at, color=GREY, linewidth=0.5, linestyle=":")
            answers.annotate(name, (at, 1), xycoords=("data", "axes fraction"), rotation=30, fontsize=8)


if __name__ == "__main__":
    found = json.loads((ROOT / "reports" / "metrics" / "cluster-releases.json").read_text())
    draw(found["canary and promotion"], ROOT / "figures" / "releases.svg")
