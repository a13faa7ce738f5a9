"""Figures of training and evaluation as SVG; equal numbers give equal bytes."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def _figure(path: Path, *, width: float, height: float) -> Iterator[Any]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(
        {"svg.hashsalt": "slipway", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None})


def curves(metrics_file: Path, path: Path) -> None:
    """Training loss, validation loss and validation top-1 by epoch, from the run's metrics.jsonl."""
    rows = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    epochs = [row["epoch"] for row in rows]
    with _figure(path, width=8, height=3.2) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [row["train_loss"] for row in rows], color="#888888", label="training (smoothed labels)")
        left.plot(epochs, [row["val_loss"] for row in rows], color="#1f6fb2", label="validation (averaged weights)")
        left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
        left.legend(frameon=False)
        right.plot(epochs, [100 * row["val_top1"] for row in rows], color="#1f6fb2")
        right.set(xlabel="epoch", ylabel="validation top-1 (%)", ylim=(0, 101))


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Counts of true class by predicted class; the diagonal is blue, every mistake is red."""
    count = len(labels)
    with _figure(path, width=2.6 + 0.55 * count, height=1.9 + 0.5 * count) as figure:
        axes = figure.subplots()
        totals = [max(1, sum(row)) for row in matrix]
        for true, row in enumerate(matrix):
            for predicted, value in enumerate(row):
                colour = "#1f6fb2" if true == predicted else "#c0392b"
                strength = value / totals[true] if true == predicted else min(1.0, 0.25 + value / totals[true]) * bool(value)
                axes.add_patch(_square(predicted, true, colour, strength))
                if value and count <= 30:
                    axes.text(predicted, true, value, ha="center", va="center", color="white" if strength > 0.5 else "black")
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.set_xticks(range(count), labels, rotation=45, ha="right")
        axes.set_yticks(range(count), labels)
        axes.tick_params(length=0)
        axes.set_aspect("equal")


def _square(x: int, y: int, colour: str, strength: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, alpha=0.04 + 0.96 * strength, linewidth=0)


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Accuracy against confidence for each variant, with the diagonal of perfect calibration; dots grow with their images."""
    with _figure(path, width=4.2, height=4) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", linewidth=1)
        for (name, rows), colour in zip(bins.items(), ("#888888", "#1f6fb2", "#c0392b"), strict=False):
            total = sum(row["count"] for row in rows)
            x, y = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
            axes.plot(x, y, color=colour, linewidth=1, label=name)
            axes.scatter(x, y, [12 + 200 * row["count"] / total for row in rows], color=colour, alpha=0.7, linewidth=0)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence of the prediction", ylabel="share that is right")
        axes.legend(frameon=False, loc="upper left")
