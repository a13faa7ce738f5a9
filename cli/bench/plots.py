"""Figures of overload and soak as SVG; equal numbers give equal bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLUE, GREY, RED = "#1f6fb2", "#888888", "#c0392b"
UNITS = {"memory_bytes": ("PSS, MiB", 1 << 20), "files": ("open files", 1), "threads": ("threads", 1)}


@contextmanager
def rows(path: Path, *, count: int, height: float) -> Iterator[Any]:
    """Axes above each other with one x axis, `count` of them; the figure is written to `path` as the block ends."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(
        {"svg.hashsalt": "slipway", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(8, height), layout="constrained")
        yield figure.subplots(count, 1, sharex=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_overload(result: dict[str, Any], path: Path) -> None:
    """Answers and refusals in each second, with what came and the maximum as lines; below, what the slowest of them took."""
    seconds = result["open_loop"]["each_second"]
    x = range(len(seconds))
    with rows(path, count=2, height=5) as (rates, times):
        rates.axhline(result["rate_rps"], color=GREY, linestyle=":", label="sent")
        rates.plot(x, [one["refused"]["count"] for one in seconds], color=RED, label="refused: 503 and Retry-After")
        rates.plot(x, [one["right"]["count"] for one in seconds], color=BLUE, label="answered right")
        rates.axhline(result["maximum_rps"], color=BLUE, linestyle=":", label="maximum: closed loop")
        rates.set(ylabel="images a second", ylim=(0, None))
        _legend_above(rates)
        times.axhline(1e3 * result["objective_s"], color=GREY, linestyle=":", label="objective")
        times.plot(x, [one["right"]["p99_ms"] for one in seconds], color=BLUE, label="p99 of right answers")
        times.plot(x, [one["refused"]["p99_ms"] for one in seconds], color=RED, label="p99 of refusals")
        times.set(xlabel="seconds", ylabel="ms", yscale="log")
        _legend_above(times)


def draw_soak(result: dict[str, Any], path: Path) -> None:
    """Memory, open files and threads over time; over the second half, the straight line whose slope is judged."""
    samples = result["samples"]
    minutes = [at / 60 for at in samples["at_s"]]
    half = len(minutes) // 2
    with rows(path, count=3, height=6) as axes:
        for axis, (figure, (unit, scale)) in zip(axes, UNITS.items(), strict=True):
            values = [value / scale for value in samples[figure]]
            axis.plot(minutes, values, color=BLUE, linewidth=1)
            if trend := result["trends_per_second"][figure]:
                later = minutes[half:]
                middle, mean = sum(later) / len(later), sum(values[half:]) / len(later)
                axis.plot(later, [mean + 60 * trend[0] / scale * (at - middle) for at in later], color=RED, linestyle="--")
            axis.set(ylabel=unit, ylim=(0, None))
        axes[-1].set(xlabel="minutes")


def _legend_above(axis: Any) -> None:
    """Its lines' names in one row above it, where they hide nothing."""
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
