"""Composition root: the only reader of argv, environment and params.yaml. One file a group of commands."""

import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

from cli import bench, data, deploy, lineage, pipeline, serve, trial

app = typer.Typer(
    name="slipway",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From a folder of images to a served classifier: data -> train -> export -> quantise -> evaluate -> gate -> package -> serve.",
)
app.add_typer(data.app, name="data")
pipeline.register(app)
serve.register(app)
bench.register(app)
lineage.register(app)
deploy.register(app)
trial.register(app)


def main() -> None:
    """Run the command line; exit 2 with one message for the user's fault, 1 for ours, 130 after Ctrl-C."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin for each other stop dead on a busy machine
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("SLIPWAY_DEBUG"):
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]slipway:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)
