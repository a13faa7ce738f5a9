"""One benchmark from an archive and images to a result: the limit and the servers are started, warmed up, compared, and ended."""

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.evaluate import cpu_name
from model.tracking import git_state
from serving.archive import unpack
from serving.bench import direct_torchserve, limit, servers, stock_torchserve
from serving.bench.cells import load_cell
from serving.bench.rounds import as_json, compare, costs, summarise
from serving.handler.resources import cpu_limit
from serving.plan import make_plan
from serving.served import open_archive

if TYPE_CHECKING:
    from serving.archive import Archive

START_S = 120.0
WARM_S, WARM_CONNECTIONS = 2.0, 8
BATCH_S = 0.5  # a run of one batch size, to find the best
PACKAGES = ("openvino", "torchserve", "torch", "torchvision", "uvicorn")

Tell = Callable[[str], None]
NotStarted = tuple[str, AbstractContextManager[servers.Server]]


def run(
    archive: "Archive",
    images: Sequence[Path],
    *,
    serve_options: Sequence[str],
    urls: Sequence[str],
    against: str | None,
    connections: Sequence[int],
    rounds: int,
    seconds: float,
    scratch: Path,
    tell: Tell,
) -> dict[str, Any]:
    """The result of a benchmark; a server is started for each of `serve_options`, files are written to the folder `scratch`.

    Raises: ValueError when something does not come up, with its last words.
    """
    if against == "torchserve":
        stock_torchserve.check(archive.about["preprocess"]["size_px"])
    with ExitStack() as stack:
        tell("loading the archive in process")
        in_process = stack.enter_context(limit.started(_unpacked(archive, scratch), images, cpus=max(1, int(cpu_limit()))))
        answers = in_process.answers()
        found = [servers.running(url, archive.about["labels"]) for url in urls]
        to_start = [ours(archive, options, image=images[0], label=answers.labels[0], scratch=scratch) for options in serve_options]
        if against == "torchserve":
            to_start += _stock(archive, image=images[0], scratch=scratch)
        elif against == "direct":
            to_start += _direct(archive, serve_options[0], image=images[0].read_bytes(), label=answers.labels[0], scratch=scratch)
        for name, starting in to_start:
            tell(f"starting {name}")
            found.append(stack.enter_context(starting))
        for server in found:
            tell(f"warming up {server.name}")
            load_cell(server, images, answers.labels, connections=WARM_CONNECTIONS, number=-1, seconds=WARM_S)
        tell("finding the best batch of the limit")
        batches = in_process.choose_batch(BATCH_S)
        cells = compare(
            in_process, found, images=images, labels=answers.labels, connections=connections, rounds=rounds, seconds=seconds, tell=tell
        )
    return {
        **facts(archive, answers.capabilities),
        "settings": {"connections": list(connections), "seconds": seconds, "rounds": rounds, "against": against},
        "limit": {"batch": in_process.batch, "images_per_second": batches},
        "servers": [as_json(server) for server in found],
        "rows": [as_json(row) for row in summarise(cells)],
        "costs": [as_json(cost) for cost in costs(cells, to_start[0][0], list(direct_torchserve.VARIANTS))] if against == "direct" else [],
        "cells": [as_json(cell) for cell in cells],
    }


def facts(archive: "Archive", capabilities: Sequence[str]) -> dict[str, Any]:
    """When, from which commit, on which machine, with which packages and which archive: what every report begins with."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(),
        "machine": {
            "cpu": cpu_name(),
            "cpus": cpu_limit(),
            "capabilities": list(capabilities),
            "packages": {name: _installed(name) for name in PACKAGES},
        },
        "archive": _about(archive),
    }


def right_answers(archive: "Archive", images: Sequence[Path], *, scratch: Path) -> limit.Answers:
    """What the archive's handler answers in a process of its own, which has ended when this returns."""
    with limit.started(_unpacked(archive, scratch), images, cpus=1) as in_process:
        return in_process.answers()


def _unpacked(archive: "Archive", scratch: Path) -> Path:
    folder = scratch / "unpacked"
    folder.mkdir()
    unpack(archive, folder)
    return folder


def ours(archive: "Archive", options: str, *, image: Path, label: str, scratch: Path) -> NotStarted:
    """`slipway serve` with `options`, not started yet, and its name; what it says goes to a file in `scratch`."""
    name = f"slipway serve {options}".strip()
    command = [sys.executable, "-c", "from cli import main; main()", "serve", str(archive.path), *shlex.split(options)]
    server = servers.started(
        name,
        lambda port: [*command, "--host", "127.0.0.1", "--port", str(port)],
        path=f"/predictions/{archive.about['name']}",
        image=image.read_bytes(),
        label=label,
        log=scratch / "slipway.log",
        patience_s=START_S,
    )
    return name, server


def _stock(archive: "Archive", *, image: Path, scratch: Path) -> list[NotStarted]:
    stock = scratch / "stock.mar"
    stock_torchserve.write_archive(stock, arch=_about(archive)["arch"], classes=len(archive.about["labels"]))
    return [
        (name, stock_torchserve.stock(name, stock, folder=scratch / f"stock-{number}", image=image.read_bytes()))
        for number, name in enumerate(stock_torchserve.VARIANTS)
    ]


def _direct(archive: "Archive", options: str, *, image: bytes, label: str, scratch: Path) -> list[NotStarted]:
    """TorchServe without the front door, with the workers and threads that `slipway serve` has with `options`."""
    parser = ArgumentParser()
    for option in ("--workers", "--threads"):
        parser.add_argument(option, type=int)
    asked, _ = parser.parse_known_args(shlex.split(options))
    served, plan = open_archive(archive.path), make_plan(cpu_limit(), workers=asked.workers, threads=asked.threads)
    return [
        (name, direct_torchserve.direct(name, served, plan, folder=scratch / f"direct-{number}", image=image, label=label))
        for number, name in enumerate(direct_torchserve.VARIANTS)
    ]


def _about(archive: "Archive") -> dict[str, Any]:
    about = archive.about
    return {
        "name": about["name"],
        "digest": archive.digest,
        "variant": about["variant"],
        "arch": about["lineage"].get("params", {}).get("arch", "unknown network"),
        "size_px": about["preprocess"]["size_px"],
        "classes": len(about["labels"]),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
