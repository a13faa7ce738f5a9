"""`slipway lineage`: from the digest in an answer's header to the data, the commit, the run and the gate behind it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print all that the archive says about itself.")]
UNKNOWN = "not recorded"


def register(app: typer.Typer) -> None:
    """Add this file's command to the command line."""
    app.command()(lineage)


def lineage(
    digest: Annotated[str, typer.Argument(help="The start of an archive's sha256, as in the header X-Slipway-Digest; or a .mar file.")],
    *,
    folder: Annotated[Path, typer.Option("--in", help="Where archives lie.")] = Path("build"),
    url: Annotated[str | None, typer.Option(help="Ask the server here instead, as http://127.0.0.1:8080.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say where a model comes from: data, git commit, run, parameters, metrics, gate."""
    about = _of_server(url, digest) if url else _of_file(digest, folder)
    if as_json:
        typer.echo(json.dumps(about, indent=1, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in _rows(about):
        table.add_row(key, text)
    Console(highlight=False, markup=False).print(table)


def _of_file(digest: str, folder: Path) -> dict[str, Any]:
    from serving.archive import read

    if digest.endswith(".mar"):
        archive = read(Path(digest))
        return {"digest": archive.digest, **archive.about}
    found = [archive for archive in map(read, sorted(folder.glob("*.mar"))) if archive.digest.startswith(digest.lower())]
    if len(found) != 1 or len(digest) < 6:
        raise ValueError(
            f"got {digest}, which {len(found)} archives in {folder} begin with; wanted at least 6 hex digits of one archive's sha256: "
            "give --in FOLDER where it lies, or --url of the server that answered"
        )
    return {"digest": found[0].digest, **found[0].about}


def _of_server(url: str, digest: str) -> dict[str, Any]:
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/')}/info", timeout=10).raise_for_status()
        about: dict[str, Any] = answer.json()
        served = str(about["digest"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise OSError(f"no lineage from {url}: {error}; wanted the address of a slipway serve") from error
    if not served.startswith(digest.lower()):
        raise ValueError(f"{url} serves {served[:12]}, not {digest}: it has another archive now")
    return about


def _rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    origin, gate = about.get("lineage", {}), about.get("gate", {})
    git, best = origin.get("git", {}), origin.get("best", {})
    dirty = {"yes": ", with changes that were not committed"}.get(git.get("dirty", ""), "")
    rows = [
        ("archive", about["digest"]),
        ("model", f"{about['name']} {about['version']}, {about['variant']}, {len(about['labels'])} classes"),
        ("data", origin.get("data_digest", UNKNOWN)),
        ("git commit", git.get("commit", UNKNOWN) + dirty),
        ("run", origin.get("mlflow_run") or UNKNOWN),
        ("start", origin.get("start", UNKNOWN)),
        ("validation", f"top-1 {best['val_top1']:.2%} at epoch {best['epoch']}" if best else UNKNOWN),
        ("parameters", ", ".join(f"{key}={value}" for key, value in sorted(origin.get("params", {}).items())) or UNKNOWN),
        ("gate", f"{'passed' if gate['passed'] else 'refused'}: {gate['reason']}" if gate else UNKNOWN),
    ]
    for rule in [*gate.get("accuracy", ()), *gate.get("quantisation", ())]:
        rows.append(("", f"{'ok ' if rule['passed'] else 'NO '} {rule['name']}: {rule['got']:.4g}, wanted {rule['wanted']}"))
    return rows
