"""`slipway deploy`: one archive to a ready release on the cluster that kubectl points to, or the reason why it is not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cli.deploy.release import Release
    from serving.archive import Archive

CHART = Path(__file__).parents[2] / "helm" / "slipway"


def register(app: typer.Typer) -> None:
    """Add this file's command to the command line."""
    app.command()(deploy)


def deploy(
    archive: Annotated[Path, typer.Argument(help="The .mar that slipway package made.")],
    *,
    image: Annotated[
        str | None, typer.Option(help="Image that holds the archive, REPOSITORY:TAG or REPOSITORY@sha256:...; serving/Dockerfile makes it.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="gs://BUCKET/OBJECT where the same archive lies: pods fetch it there instead of from the image.")
    ] = None,
    values: Annotated[
        list[Path] | None, typer.Option(help="Values for helm/slipway, as helm/slipway/values-dev.yaml; may be repeated.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace; made from k8s/namespace.yaml when it is not there.")] = "slipway",
    release: Annotated[str | None, typer.Option(help="Name of the release. Default: the model's.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change in the cluster, and change nothing.")] = False,
    timeout: Annotated[int, typer.Option(help="Seconds within which all pods must be ready.", min=10)] = 300,
) -> None:
    """Install or upgrade the release that serves an archive, wait until it predicts right, and say where."""
    from cli.deploy.release import Release, changes
    from serving.archive import read

    mar = read(archive)
    known = Release(release or mar.about["name"], namespace, CHART, tuple(values or ()), _own_values(mar, image, uri))
    typer.echo(f"slipway: {known.context()}, namespace {namespace}, release {known.name}", err=True)
    if diff:
        return typer.echo(changes(known) or "nothing would change")
    _bring(known, timeout_s=timeout)
    _greet(known, mar)


def _own_values(mar: "Archive", image: str | None, uri: str | None) -> dict[str, Any]:
    """What the chart must be told of the archive and the image.

    Raises: ValueError for an image without a tag or digest, or a URI that is not a bucket's.
    """
    own: dict[str, Any] = {"model": {"digest": mar.digest}}
    if uri is not None:
        if not uri.startswith("gs://"):
            raise ValueError(f"--uri wants gs://BUCKET/OBJECT, got {uri}")
        own["model"] |= {"source": "gcs", "uri": uri}
    if image is not None:
        reference, _, digest = image.partition("@")
        repository, colon, tag = reference.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = reference, ""
        if not (tag or digest):
            raise ValueError(f"--image wants REPOSITORY:TAG or REPOSITORY@sha256:..., got {image}")
        own["image"] = {"repository": repository, "tag": tag, "digest": digest}
    return own


def _bring(release: "Release", *, timeout_s: int) -> None:
    """Install it, and prove that it serves; on failure say why, go back to what was there before, and exit 1."""
    from cli.deploy.release import Failed, back, install, test

    try:
        install(release, timeout_s=timeout_s, say=lambda line: typer.echo(f"slipway: {line}", err=True))
        test(release)
    except Failed as failure:
        for line in failure.reasons:
            typer.echo(f"slipway: {line}", err=True)
        typer.echo(f"slipway: {release.name} was not deployed; {back(release)}", err=True)
        raise typer.Exit(1) from failure


def _greet(release: "Release", mar: "Archive") -> None:
    from rich.console import Console

    from cli.deploy.release import address

    url, forward = address(release)
    lines = [
        ("release", f"{release.name}, revision {release.revision()}, in namespace {release.namespace} of {release.context()}"),
        ("archive", f"{mar.about['name']} {mar.about['version']} (sha256 {mar.digest[:12]}), served by every pod"),
        *([("reach it", forward)] if forward else []),
        ("try", f"curl --data-binary @image.jpg {url}/predictions/{mar.about['name']}"),
        ("lineage", f"slipway lineage {mar.digest[:12]} --url {url}"),
        ("undo", f"helm rollback {release.name} --namespace {release.namespace}"),
    ]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for word, text in lines:
        console.print(f"{word:<9} {text}")
