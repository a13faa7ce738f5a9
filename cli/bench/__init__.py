"""`slipway bench`: how fast an archive is served, beside what this machine can do at most and beside stock TorchServe."""

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from cli.bench.overload import overload
from cli.bench.soak import soak

BUILD = Path("build")
PEERS = ("torchserve", "direct")


def register(app: typer.Typer) -> None:
    """Add the commands that measure servers to the command line."""
    app.command()(bench)
    app.command()(overload)
    app.command()(soak)


def bench(
    archive: Annotated[Path | None, typer.Argument(help="The .mar to measure. Default: one made for this, see --size.")] = None,
    *,
    size_px: Annotated[int, typer.Option("--size", help="Without an archive: side of the network's input, in pixels.")] = 224,
    arch: Annotated[str, typer.Option(help="Without an archive: the network.")] = "resnet18",
    connections: Annotated[str, typer.Option(help="Connections at once, a load for each number.")] = "1,16,64",
    seconds: Annotated[float, typer.Option(help="Time of one measurement.", min=0.2, max=600)] = 4,
    rounds: Annotated[int, typer.Option(help="How often everything is measured, by turns.", min=1, max=100)] = 2,
    images: Annotated[str, typer.Option(help="WIDTHxHEIGHT of synthetic photographs, a folder, or `run`: its test split.")] = "500x400",
    against: Annotated[
        str | None,
        typer.Option(
            help="`torchserve`: also measure stock TorchServe, as it comes and tuned. `direct`: also the same archive in a TorchServe "
            "without the front door, with batches of several sizes."
        ),
    ] = None,
    serve_options: Annotated[list[str] | None, typer.Option(help='For slipway serve, as "--workers 1"; repeat to compare.')] = None,
    url: Annotated[list[str] | None, typer.Option(help="A server of this archive that already runs here; repeat to compare.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
) -> None:
    """Measure how an archive is served: throughput, latency, CPU, memory and start, beside what this machine can do at most."""
    from cli.bench.images import load_images
    from cli.bench.run import run
    from cli.bench.table import show
    from serving.archive import read

    counts = _counts(connections)
    if against not in (None, *PEERS):
        raise ValueError(f"--against knows {', '.join(PEERS)}, got {against!r}")
    if against == "direct" and (url or len(serve_options or [""]) > 1):
        raise ValueError(
            "--against direct compares with one slipway serve that is started here: leave out --url and give --serve-options once"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended on the way out
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, progress() as tell:
        opened = read(archive or _made(arch, size_px, tell))
        tell("reading the images")
        files, about_images = load_images(images, opened, Path(folder) / "images", build=BUILD)
        result = run(
            opened,
            files,
            serve_options=serve_options or ([] if url else [""]),
            urls=url or [],
            against=against,
            connections=counts,
            rounds=rounds,
            seconds=seconds,
            scratch=Path(folder),
            tell=tell,
        )
    result["images"] = about_images
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(result, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        show(result)


def _made(arch: str, size_px: int, tell: Callable[[str], None]) -> Path:
    from cli.bench.archive import bench_archive

    tell(f"making an archive with {arch} at {size_px} px; the first time, that takes a minute or two")
    with redirect_stdout(sys.stderr):  # what the quantiser says
        return bench_archive(arch, size_px, BUILD / "bench")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or len(set(counts)) != len(counts) or not all(1 <= count <= 512 for count in counts):
        raise ValueError(f"--connections wants different numbers from 1 to 512 with commas between them, as 1,16,64, got {text!r}")
    return counts


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that says on stderr what is being done, in one line that goes away."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console, columns = Console(stderr=True), (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=2, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)
