"""`slipway soak`: an archive served under mixed traffic for a long time, and whether its processes grow or fail."""

import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serving.archive import Archive
    from serving.bench.hostile import Body

BUILD = Path("build")
HOSTILE, SEED = 2000, 11
SHOWN = 10  # of the hostile bodies that were answered otherwise


def soak(
    archive: Annotated[Path, typer.Argument(help="The .mar to serve.")],
    *,
    minutes: Annotated[float, typer.Option(help="How long; Ctrl-C ends it early and loses nothing.", min=0.1, max=10_000)] = 30,
    connections: Annotated[int, typer.Option(help="Connections at once.", min=1, max=512)] = 8,
    serve_options: Annotated[str, typer.Option(help='For slipway serve, as "--workers 1".')] = "",
    images: Annotated[str, typer.Option(help="The good ones: WIDTHxHEIGHT of synthetic photographs, a folder, or `run`.")] = "500x400",
    report: Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw it to this file, as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
) -> None:
    """Serve an archive for a long time under good and hostile traffic, and judge what it holds; exit 1 when it grows or fails.

    Of the requests, 55 % are good images, 35 % are bodies made to break a decoder, the rest are several images at once, clients that
    leave before their answer, and bytes that are no HTTP. Each second the memory (PSS), open files and threads of all processes are
    read. It holds when none of them grows in the second half by more than chance explains, no process was replaced, every good image
    got its label, every hostile one what it must, and no answer was 5xx but a 503 with Retry-After.
    """
    from cli.bench import progress
    from cli.bench.images import load_images
    from cli.bench.plots import draw_soak
    from cli.bench.run import facts, ours, right_answers
    from cli.bench.verdicts import finish
    from serving.archive import read
    from serving.bench.soak import as_json as told
    from serving.bench.soak import judge
    from serving.bench.soak import soak as run
    from serving.bench.traffic import Good

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, progress() as tell:
        scratch, opened = Path(folder), read(archive)
        tell("making the images, and answering the good ones in process")
        files, about_images = load_images(images, opened, scratch / "images", build=BUILD)
        answers = right_answers(opened, files, scratch=scratch)
        good = [Good(file.read_bytes(), label) for file, label in zip(files, answers.labels, strict=True)]
        name, starting = ours(opened, serve_options, image=files[0], label=answers.labels[0], scratch=scratch)
        hostile = _hostile(opened)
        tell(f"starting {name}")
        with starting as server:
            found = run(server, good, hostile, seconds=60 * minutes, connections=connections, tell=tell)
    result = {**facts(opened, answers.capabilities), "images": about_images, "server": name, "connections": connections, **told(found)}
    passed = finish(result, judge(found), lines=_lines(result), draw=draw_soak, report=report, figure=figure, as_json=as_json)
    if found.interrupted or not passed:
        raise typer.Exit(130 if found.interrupted else 1)


def _hostile(archive: "Archive") -> "list[Body]":
    """Bodies to break a decoder, with what must become of each under the limits of this archive."""
    from serving.bench.hostile import hostile

    limits = archive.about["limits"]
    return hostile(HOSTILE, seed=SEED, max_bytes=limits["max_image_bytes"], max_pixels=limits["max_pixels"])


def _lines(result: dict[str, Any]) -> list[str]:
    total = sum(sum(outcomes.values()) for outcomes in result["requests"].values())
    memory = result["samples"]["memory_bytes"]
    lines = [
        f"{result['server']}, {result['connections']} connections, good ones are {result['images']['about']}",
        f"{result['seconds'] / 60:.1f} minutes{', ended early' if result['interrupted'] else ''}, {total} requests, "
        f"{total / result['seconds']:.0f} a second; memory {memory[0] / 1e6:.0f} MB at the start, {memory[-1] / 1e6:.0f} MB at the end",
    ]
    otherwise = list(result["hostile_answered_otherwise"].items())
    return [*lines, *(f"hostile and answered otherwise than it must be: {name}: {got}" for name, got in otherwise[:SHOWN])]
