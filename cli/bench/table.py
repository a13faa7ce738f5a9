"""What a benchmark found, for people: one table, the machine above it, doubts below it."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

DISTURBED_CORES = 0.2
LOAD_IS_HEAVY_CORES = 0.5
WIDTH = 140  # where the output is no terminal


def show(result: dict[str, Any]) -> None:
    """Print a result of `cli.bench`."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    archive, machine = result["archive"], result["machine"]
    console.print(f"[bold]{escape(archive['name'])}[/], {archive['arch']} {archive['variant']} at {archive['size_px']} px")
    console.print(escape(result["images"]["about"]))
    console.print(f"{escape(machine['cpu'])}, {machine['cpus']:g} CPUs")
    console.print(f"OpenVINO {machine['packages']['openvino']} with {', '.join(machine['capabilities'])}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("server", overflow="fold")
    for heading in ("conn.", "images/s", "of the limit", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms", "load cores", "MB", "start s"):
        table.add_column(heading, justify="right", no_wrap=True)
    starts = {server["name"]: server["start_s"] for server in result["servers"]}
    for row in result["rows"]:
        is_first = next(other for other in result["rows"] if other["name"] == row["name"]) is row
        if is_first:
            table.add_section()
        table.add_row(escape(row["name"]) if is_first else "", *_cells(row, starts.get(row["name"]) if is_first else None))
    console.print(table)
    console.print(
        "CPU ms: of the server's processes, an image. Load cores: CPUs that the load generator took. "
        "MB: most memory of the server's processes seen, in proportion (PSS)."
    )
    console.print(
        f"The limit: the handler in {machine['cpus']:.0f} processes without a server, batches of {result['limit']['batch']}; "
        "at 1 connection, one image at a time on all CPUs."
    )
    for row in result["rows"]:
        if row["cpu_parts_ms"] and row["connections"] == max(result["settings"]["connections"]):
            parts = ", ".join(f"{place} {used:.2f}" for place, used in row["cpu_parts_ms"].items())
            console.print(f"CPU ms of {escape(row['name'])} at {row['connections']} connections: {parts}")
    for cost in result.get("costs", ()):
        middle, low, high = cost["of_best"]
        console.print(
            f"{escape(cost['name'])} at {cost['connections']} connections: {middle:.2f} ({low:.2f} to {high:.2f}) of the throughput of "
            f"{cost['best']}, {cost['added_cpu_ms']:+.2f} ms to its CPU an image; "
            f"{cost['added_p50_ms']:+.1f} ms to the p50 of {cost['fastest']}"
        )
    for doubt in doubts(result):
        console.print(f"[yellow]{doubt}[/]")


def doubts(result: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know, in sentences."""
    found = []
    cells: Sequence[dict[str, Any]] = result["cells"]
    disturbed = [cell["others_cores"] for cell in cells if cell["others_cores"] > DISTURBED_CORES]
    if disturbed:
        found.append(
            f"Other processes took up to {max(disturbed):.1f} cores in {len(disturbed)} of {len(cells)} measurements: "
            "compare within a round, and rather the CPU an image costs: on a busy machine, whoever has more threads gets more."
        )
    load = max((cell["load_cores"] for cell in cells), default=0.0)
    if load > LOAD_IS_HEAVY_CORES:
        found.append(f"The load generator itself took up to {load:.1f} cores, which the servers did not have.")
    if any(row["errors"] for row in result["rows"]):
        found.append("There were errors: figures of a server that fails say little.")
    names = {row["name"] for row in result["rows"]}
    wanted = {(name, count) for name in names for count in result["settings"]["connections"]}
    if missing := sorted(wanted - {(row["name"], row["connections"]) for row in result["rows"]}):
        left_out = ", ".join(f"{name} at {count} connections" for name, count in missing)
        found.append(f"Left out, because the answers would not come in time: {left_out}.")
    return found


def _cells(row: dict[str, Any], start_s: float | None) -> list[str]:
    middle, low, high = row["of_limit"]
    spread = f" ({low:.2f} to {high:.2f})" if row["rounds"] > 1 else ""
    errors = ", ".join(f"{number} {kind}" for kind, number in row["errors"].items())
    return [
        str(row["connections"]),
        _number(row["throughput_rps"]),
        "1" if (middle, low, high) == (1, 1, 1) else f"{middle:.2f}{spread}",
        *(_number(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
        f"[red]{errors}[/]" if errors else "0",
        "" if row["cpu_ms"] is None else f"{row['cpu_ms']:.2f}",
        f"{row['load_cores']:.2f}" if row["load_cores"] else "",
        "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}",
        "" if start_s is None else f"{start_s:.1f}",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
