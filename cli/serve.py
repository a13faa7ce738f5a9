"""`slipway serve` and `slipway predict`."""

import json
import logging
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.logs import Form

if TYPE_CHECKING:
    from serving.client import Prediction
    from serving.served import Served

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class Runtime(StrEnum):
    """What runs the archive."""

    torchserve = "torchserve"
    flask = "flask"


class Device(StrEnum):
    """What runs the network."""

    cpu = "cpu"
    cuda = "cuda"


def register(app: typer.Typer) -> None:
    """Add this file's commands to the command line."""
    app.command()(serve)
    app.command()(predict)
    app.command()(key)


def serve(
    archive: Annotated[Path, typer.Argument(help="The .mar that slipway package made.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    runtime: Annotated[
        Runtime, typer.Option(help="What runs the archive: torchserve, or flask under gunicorn, which needs no Java and batches nothing.")
    ] = Runtime.torchserve,
    internal_port: Annotated[
        int | None, typer.Option(help="Tell /metrics on this port alone, for a network that callers do not reach. Default: on --port.")
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(help="Tell on this port what TorchServe's management API says, to those with an admin key. Default: nowhere."),
    ] = None,
    admin_keys: Annotated[Path | None, typer.Option(help="File of admin keys' hashes, made by slipway key; with --admin-port.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys' hashes, made by slipway key; it may change at any time. Default: no key needed.")
    ] = None,
    objective: Annotated[
        float,
        typer.Option(help="Seconds within which an accepted image is to be answered; more than fit into them get 503.", min=0.05, max=25),
    ] = 2.0,
    drain_delay: Annotated[
        float, typer.Option(help="Seconds for which requests are still taken after SIGTERM; in a cluster, about 5.", min=0, max=600)
    ] = 0.0,
    digest: Annotated[str | None, typer.Option(help="sha256 that the archive must have, else it is not served. Default: any.")] = None,
    device: Annotated[
        Device, typer.Option(envvar="SLIPWAY_DEVICE", help="Where the network runs: cpu, or cuda, an NVIDIA GPU (the image's gpu target).")
    ] = Device.cpu,
    log: Annotated[Form, typer.Option(help="Lines for people, or JSON for programs, on standard error.")] = Form.text,
    workers: Annotated[int | None, typer.Option(help="TorchServe workers. Default: from the CPU limit.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one worker. Default: from the CPU limit.")] = None,
) -> None:
    """Serve one archive over HTTP: TorchServe behind the front door, or Flask alone."""
    from serving.front_door.doors import Doors, Listen, bind
    from serving.handler.resources import cpu_limit
    from serving.logs import log_to
    from serving.plan import make_plan
    from serving.process_tree import ServingFailed
    from serving.process_tree import serve as run
    from serving.served import open_archive

    plan = make_plan(cpu_limit(), workers=workers, threads=threads)
    served = open_archive(archive)
    if digest not in (None, served.digest):
        raise ValueError(f"got {archive} with sha256 {served.digest}, wanted {digest}: this is another archive than was meant")
    if device is Device.cuda and not served.knows_gpus:
        raise ValueError(f"{archive} was packaged before GPUs were known: make it again with `slipway package`, or take --device cpu")
    if runtime is Runtime.flask and (internal_port is not None or admin_port is not None or keys is not None or drain_delay):
        raise ValueError("--internal-port, --admin-port, --keys and --drain-delay are the front door's: leave them out, or take torchserve")
    if (admin_port is None) != (admin_keys is None):
        raise ValueError("--admin-port and --admin-keys go together: the port is never open to everybody")
    os.environ["SLIPWAY_DEVICE"] = device  # for every process that runs the archive's handler
    reasons = [*plan.reasons, *(["the network runs on the GPU"] if device is Device.cuda else [])]
    log_to(None, log)
    sock = bind(Listen(host, port))
    internal = bind(Listen(host, internal_port)) if internal_port is not None else None
    admin = (bind(Listen(host, admin_port)), admin_keys) if admin_port is not None and admin_keys is not None else None
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
    url = f"http://{shown}:{sock.getsockname()[1]}"
    if runtime is Runtime.flask:
        from serving.flask_app import serve as run_flask

        return run_flask(served, plan, sock=sock, on_ready=lambda: _greet(served, url, [f"Flask, {plan.workers} processes, one CPU each"]))
    try:
        run(
            served,
            plan,
            Doors(sock, internal, admin),
            keys=keys,
            objective_s=objective,
            drain_delay_s=drain_delay,
            stand_in=os.environ.get("SLIPWAY_TORCH_STAND_IN") != "0",
            cache=_cache_folder(),
            on_ready=lambda: _greet(served, url, reasons),
        )
    except ServingFailed as error:
        logging.getLogger("slipway").error(str(error))
        raise typer.Exit(1) from error
    logging.getLogger("slipway").info("stopped")


def _cache_folder() -> Path:
    """Where JVM class caches are kept: SLIPWAY_CACHE, else the user's cache folder."""
    return Path(os.environ.get("SLIPWAY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway")


def _greet(served: "Served", url: str, reasons: Sequence[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    lines = [
        ("model", f"{served.name} {served.version}, {len(served.labels)} classes, {served.about['variant']}"),
        ("archive", f"{served.path} (sha256 {served.short_digest})"),
        *(("" if number else "plan", reason) for number, reason in enumerate(reasons)),
        ("ready at", url),
        ("try", f"curl --data-binary @image.jpg {url}/predictions/{served.name}"),
        ("stop", "Ctrl-C"),
    ]
    console = Console(soft_wrap=True, highlight=False)
    for key, text in lines:
        console.print(f"[bold]{key:<9}[/]{escape(text)}")


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is; appears in the log, never the key itself.")],
    rate: Annotated[float | None, typer.Option(help="Requests a second that it may send. Default: as many as it likes.")] = None,
) -> None:
    """Make an API key: the key for the caller, and the line with its hash for the file that serve --keys reads."""
    from serving.front_door.keys import new_key

    secret, line = new_key(name, rate=rate)
    typer.echo(f"key, shown this once: {secret}", err=True)
    typer.echo(line)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    url: Annotated[str, typer.Option(help="Where slipway serve listens.")] = "http://127.0.0.1:8080",
    top: Annotated[int, typer.Option(help="Labels to show for each image.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Send images to a running server and show what they are."""
    from dataclasses import asdict

    from serving.client import Client

    paths = _expand(images)
    with Client(url) as client:
        predictions = list(client.classify(paths))
    if as_json:
        typer.echo(json.dumps([asdict(prediction) for prediction in predictions], indent=1))
    else:
        show_predictions(predictions, top)
    if failed := sum(prediction.error is not None for prediction in predictions):
        typer.echo(f"slipway: {failed} of {len(predictions)} images got no prediction", err=True)
        raise typer.Exit(2)


def _expand(paths: list[Path]) -> list[Path]:
    """The files among `paths`, and the images below its folders in order of their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
            if not found:
                raise ValueError(f"no images in {path}: wanted files that end in {', '.join(IMAGE_SUFFIXES)}")
            files += found
        else:
            files.append(path)
    return files


def show_predictions(predictions: "list[Prediction]", top: int) -> None:
    """Print a table: a row an image, its label with a bar, and the next `top` - 1 labels."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("label")
    table.add_column("probability", no_wrap=True)
    table.add_column("then", style="dim")
    for prediction in predictions:
        if prediction.error is not None:
            table.add_row(escape(prediction.file), "[red]error[/]", f"[red]{escape(prediction.error)}[/]", "")
            continue
        best, *others = list(prediction.probabilities.items())[:top]
        bar = "█" * round(best[1] * 20)
        then = ", ".join(f"{label} {probability:.1%}" for label, probability in others)
        table.add_row(escape(prediction.file), f"[bold]{escape(best[0])}[/]", f"{bar:<20} {best[1]:6.1%}", escape(then))
    Console().print(table)
