"""The end of a command that judges: the result written, drawn and told."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from serving.bench.verdicts import Verdict


def finish(
    result: dict[str, Any],
    verdicts: "Sequence[Verdict]",
    *,
    lines: Sequence[str],
    draw: Callable[[dict[str, Any], Path], None],
    report: Path | None,
    figure: Path | None,
    as_json: bool,
) -> bool:
    """Whether every verdict passed, after `result` was written to `report`, drawn to `figure` and printed with `lines` above it."""
    from serving.bench.verdicts import all_passed

    passed = all_passed(verdicts)
    whole = {**result, "verdicts": [asdict(verdict) for verdict in verdicts], "passed": passed}
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        partial = report.with_name(f"{report.name}.partial")
        partial.write_text(json.dumps(whole, indent=1) + "\n")
        partial.replace(report)
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw(whole, figure)
    if as_json:
        typer.echo(json.dumps(whole))
    else:
        _show(whole, verdicts, lines)
    return passed


def _show(result: dict[str, Any], verdicts: "Sequence[Verdict]", lines: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from cli.bench.table import WIDTH

    archive, machine = result["archive"], result["machine"]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    about = f"{archive['name']}, {archive['arch']} {archive['variant']} at {archive['size_px']} px; {machine['cpu']}"
    for line in (about, *lines):
        console.print(line, markup=False, soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    for verdict in verdicts:
        table.add_row("[green]ok[/]" if verdict.passed else "[bold red]NO[/]", verdict.name, verdict.got, f"wanted {verdict.wanted}")
    console.print()
    console.print(table)
