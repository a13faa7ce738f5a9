"""`slipway try`: a run's archive served for a moment and asked for a few test images, as its users will."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serving.client import Prediction

BUILD = Path("build")
STOP_S = 60.0  # a server that does not stop by itself is killed


def register(app: typer.Typer) -> None:
    """Add this file's command to the command line."""
    app.command("try")(try_)


def try_(
    name: Annotated[str, typer.Option("--name", help="The run; its archive is build/NAME.mar.")] = "demo",
    per_class: Annotated[int, typer.Option(help="Test images of each class.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Serve build/NAME.mar for a moment, ask it for a few test images, and compare its answers with the evaluation's."""
    from model.samples import write_samples
    from serving.client import Client

    samples = write_samples(BUILD / name / "data", BUILD / name / "samples", per_class=per_class)
    with _server(BUILD / f"{name}.mar") as url, Client(url) as client:
        about = client.info()
        answers = list(client.classify(samples))
    evaluated = _evaluated(BUILD / name / "evaluate" / f"predictions-{about['variant']}.csv")
    same = sum(answer.label == evaluated[Path(answer.file).stem] for answer in answers)
    result = {"digest": about["digest"], "variant": about["variant"], "images": len(answers), "as_evaluated": same}
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _report(name, result, answers)
    if same < len(answers):
        typer.echo(f"slipway: {len(answers) - same} of {len(answers)} answers are not what build/{name}/evaluate says", err=True)
        raise typer.Exit(1)


@contextmanager
def _server(archive: Path) -> Iterator[str]:
    """The address of `slipway serve` on a free port, once it is ready; it is stopped when the block ends, however it ends.

    Raises: ValueError when it does not come up; it has said why by then.
    """
    command = [sys.executable, "-c", "from cli import main; main()", "serve", str(archive), "--port", "0"]
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves the block, as Ctrl-C does
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        ready = next((line for line in server.stdout if line.startswith("ready at")), None)
        if ready is None:
            raise ValueError(f"{archive} was not served, for the reason above")
        yield ready.split()[2]
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        signal.signal(signal.SIGTERM, before)


def _evaluated(predictions: Path) -> dict[str, str]:
    """The predicted class of each image by key."""
    with predictions.open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["predicted"] for row in csv.DictReader(file)}


def _report(name: str, result: dict[str, Any], answers: "list[Prediction]") -> None:
    from rich.console import Console

    from cli.serve import show_predictions

    samples, archive = BUILD / name / "samples", BUILD / f"{name}.mar"
    show_predictions([replace(answer, file=str(Path(answer.file).relative_to(samples).with_suffix(""))) for answer in answers], 1)
    slipway = "slipway" if shutil.which("slipway") else ".venv/bin/slipway"
    measured = json.loads((BUILD / name / "evaluate" / "evaluation.json").read_text())["variants"][result["variant"]]
    low, high = measured["top1_interval"]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print()
    for word, text in (
        ("accuracy", f"{measured['top1']:.1%} of {measured['images']} test images ({low:.1%} to {high:.1%}), {result['variant']}"),
        ("served", f"{result['as_evaluated']} of {result['images']} answers as evaluated; the server is stopped again"),
        ("archive", f"{archive}, sha256 {result['digest'][:12]}"),
        ("next", f"{slipway} serve {archive}"),
        ("", f"curl --data-binary @{answers[0].file} http://127.0.0.1:8080/predictions/{name}"),
        ("", f"{slipway} predict {samples}"),
        ("", "make model DATA=FOLDER NAME=steel, with your images in one folder a class"),
    ):
        console.print(f"{word:<9} {text}")
