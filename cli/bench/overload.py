"""`slipway overload`: several times as many images as a server can answer, and what becomes of it."""

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

BUILD = Path("build")
OBJECTIVE_S = 1.0  # of a server that states none


def overload(
    archive: Annotated[Path, typer.Argument(help="The .mar that is served.")],
    *,
    url: Annotated[str | None, typer.Option(help="A server of this archive that already runs here. Default: one is started.")] = None,
    serve_options: Annotated[str, typer.Option(help='For the slipway serve that is started, as "--workers 1".')] = "",
    times: Annotated[float, typer.Option(help="Images to send, as a multiple of what the server can answer.", min=1, max=20)] = 3,
    seconds: Annotated[float, typer.Option(help="Time for which that many are sent.", min=1, max=3600)] = 60,
    objective: Annotated[
        float | None, typer.Option(help="Seconds within which an answer is of use. Default: what the server states, else 1.", min=0.01)
    ] = None,
    images: Annotated[str, typer.Option(help="WIDTHxHEIGHT of synthetic photographs, a folder, or `run`: its test split.")] = "500x400",
    report: Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw it, second by second, to this file, as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
) -> None:
    """Send a server several times what it can answer, and judge what becomes of it; exit 1 when it does not hold.

    First a closed loop finds the maximum of the server. Then images come at random moments, --times as many as that, for --seconds,
    whether or not the server keeps up. It holds when it still answers 0.9 of its maximum in time, 99 of 100 answers within the
    objective, refuses the rest with 503 and Retry-After within 5 ms, and has no more memory afterwards than before.

    A server that is started here gets all CPUs but one and its load that one; with --url, or a single CPU, they share. The goodput is
    judged at equal speed of the machine: with what an image cost the workers then and at the maximum.
    """
    from cli.bench import progress
    from cli.bench.images import load_images
    from cli.bench.plots import draw_overload
    from cli.bench.run import facts, ours, right_answers
    from cli.bench.verdicts import finish
    from serving.archive import read
    from serving.bench import children, servers
    from serving.bench.overload import judge, objective_of
    from serving.bench.overload import overload as run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended on the way out
    with tempfile.TemporaryDirectory(prefix="overload-") as folder, progress() as tell, ExitStack() as stack:
        scratch, opened = Path(folder), read(archive)
        tell("reading the images, and answering them in process")
        files, about_images = load_images(images, opened, scratch / "images", build=BUILD)
        answers = right_answers(opened, files, scratch=scratch)
        cpus, load_cpus = children.apart()
        if url:
            load_cpus = cpus = sorted({*cpus, *load_cpus})
            server = servers.running(url, opened.about["labels"])
        else:
            with children.on(cpus):
                name, starting = ours(opened, serve_options, image=files[0], label=answers.labels[0], scratch=scratch)
                tell(f"starting {name}")
                server = stack.enter_context(starting)
        objective_s = objective or objective_of(server) or OBJECTIVE_S
        with children.on(load_cpus):
            found = run(server, files, answers.labels, times=times, seconds=seconds, objective_s=objective_s, tell=tell)
    told = {"images": about_images, "server": server.name, "maximum_rps": found.maximum_rps, "cpus": len(cpus), "shared": cpus == load_cpus}
    steady = {"goodput_at_equal_speed": found.goodput_at_equal_speed}
    result = {**facts(opened, answers.capabilities), **told, **steady, **asdict(found)}
    if not finish(result, judge(found), lines=_lines(result), draw=draw_overload, report=report, figure=figure, as_json=as_json):
        raise typer.Exit(1)


def _lines(result: dict[str, Any]) -> list[str]:
    run = result["open_loop"]
    where = "shared with the load" if result["shared"] else "the load another"
    return [
        f"{result['server']}, {result['images']['about']}",
        f"{result['rate_rps']:.0f} images a second for {result['seconds']:g} s, {result['times']:g} times what it could answer before",
        f"right answers: p50 {_ms(run['right']['p50_ms'])}, p99 {_ms(run['right']['p99_ms'])}, counted from when each was due",
        f"refusals: p50 {_ms(run['refused']['p50_ms'])}, p99 {_ms(run['refused']['p99_ms'])}, counted from the request written",
        f"the server had {result['cpus']} of {result['machine']['cpus']:g} CPUs, {where}; the load took {run['load_cores']:.2f}",
        f"it sent 99 of 100 requests within {run['late_p99_ms']:.1f} ms of when they were due; other processes, and the machine's host, "
        f"took {result['others_cores']:.2f} CPUs",
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
