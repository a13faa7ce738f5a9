"""`slipway data`: images from anywhere, or drawn, to the shards, index and report of a run."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.params import section

if TYPE_CHECKING:
    from model.ingest import Progress as OnProgress

app = typer.Typer(no_args_is_help=True, help="Import, draw or describe the images of a run.")

Name = Annotated[str, typer.Option("--name", help="The run; its data lies in build/NAME/data.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one number of params.yaml, as data.seed=3.")
]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if nothing changed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

SHOWN = 5  # items of a kind printed; report.json has them all


@app.command("import")
def import_(
    src: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A folder of class folders, or a .tar, .tar.gz or .zip of one; a path, http(s):// or gs://."),
    ],
    name: Name = "demo",
    overrides: Overrides = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check, de-duplicate, split and pack the images of SRC."""
    from model.ingest import build_dataset
    from model.sources import origin

    folder = _data_folder(name)
    params = section("data", build_dataset, run=name, overrides=overrides or ())
    with _progress(as_json) as progress:
        report = build_dataset(origin(src), folder, **params, force=force, progress=progress)
    _finish(report, folder, as_json=as_json)


@app.command()
def synth(name: Name = "demo", overrides: Overrides = None, force: Force = False, as_json: AsJson = False) -> None:
    """Draw steel-like images of six defects, then check, split and pack them as an import does."""
    from model.ingest import build_dataset
    from model.synthetic import synthetic_origin

    folder = _data_folder(name)
    drawn = synthetic_origin(**section("synth", synthetic_origin, run=name, overrides=overrides or ()))
    params = section("data", build_dataset, run=name, overrides=overrides or ())
    with _progress(as_json) as progress:
        report = build_dataset(drawn, folder, **params, force=force, progress=progress)
    _finish(report, folder, as_json=as_json)


@app.command()
def describe(name: Name = "demo", as_json: AsJson = False) -> None:
    """Show the report of a run's data and draw its two pictures again."""
    from model.describe import draw
    from model.ingest import read_report

    folder = _data_folder(name)
    report = read_report(folder)
    draw(folder)
    _finish(report, folder, as_json=as_json)


@app.command()
def sample(
    name: Name = "demo",
    per_class: Annotated[int, typer.Option(help="Images of each class.", min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Write a few test images as files, to try the model with: build/NAME/samples/CLASS/."""
    from model.samples import write_samples

    target = _data_folder(name).with_name("samples")
    files = write_samples(_data_folder(name), target, per_class=per_class)
    print(json.dumps([str(file) for file in files]) if as_json else f"{_count(len(files), 'image')} in {target}")


def _data_folder(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"--name wants letters, digits, dot, dash and underscore, got {name!r}")
    return Path("build") / name / "data"


@contextmanager
def _progress(quiet: bool) -> Iterator["OnProgress"]:
    """A callback that shows one bar a stage on standard error."""
    columns = TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int | None) -> None:
            written = decimal if stage == "download" else "{:,}".format
            amount = written(done) + (f" of {written(total)}" if total else "")
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, amount=amount)
            bars.update(tasks[stage], completed=done, amount=amount)

        yield show


def _finish(report: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(report))
    for name, text in _facts(report):
        console.print(f"[dim]{name:<16}[/] {escape(text)}")
    for warning in report["warnings"]:
        console.print(f"[yellow]warning[/]          {escape(warning)}")
    if report.get("unchanged"):
        console.print(f"[green]unchanged[/]        {folder} was made from this data with these parameters; --force makes it again")
    else:
        contents = f"index.csv, report.json, contact_sheet.png, classes.svg, {_count(report['shards'], 'shard')}"
        console.print(f"[green]ready[/]            {folder}: {contents}")


def _table(report: dict[str, Any]) -> Table:
    from model.split import SPLITS

    table = Table(
        title=escape(report["source"]),
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("class")
    for column in (*SPLITS, "kept", "found"):
        table.add_column(column, justify="right")
    for label, row in report["classes"].items():
        table.add_row(escape(label), *(f"{row['splits'][split]:,}" for split in SPLITS), f"[bold]{row['kept']:,}[/]", f"{row['found']:,}")
    table.add_section()
    found = sum(row["found"] for row in report["classes"].values())
    table.add_row("all", *(f"{report['splits'][split]:,}" for split in SPLITS), f"[bold]{report['images']:,}[/]", f"{found:,}")
    return table


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines below the table: a name, and what there is to say about it."""
    yield "images", f"{decimal(report['bytes'])}; {_shares(report['sizes'])} px; {_shares(report['modes'])}"
    same, alike = report["exact_duplicates"], report["near_duplicates"]
    largest = max((len(group["sources"]) for group in alike["groups"]), default=0)
    yield "same bytes", f"{_count(len(same), 'image')} found more than once, kept once" if same else "none"
    for sources in report["label_conflicts"][:SHOWN]:
        yield "label conflict", f"dropped {', '.join(sources)}: same bytes in different classes"
    kept_together = (
        f"{_count(alike['pairs'], 'pair')} in {_count(len(alike['groups']), 'group')}, the largest of {largest}; each stays in one split"
    )
    yield "near-duplicates", kept_together if alike["pairs"] else "none"
    for source, reason in list(report["rejected"].items())[:SHOWN]:
        yield "refused", f"{source}: {reason}"
    if report["left_out"]:
        yield "other files", f"{len(report['left_out']):,} left out: {_shares(Counter(report['left_out'].values()))}"


def _shares(counts: Mapping[str, int]) -> str:
    """The values with their counts, or the only value alone."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({number:,})" for value, number in counts.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
