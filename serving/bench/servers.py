"""Servers to measure: `slipway serve` started here, or one that already runs, until it answers the first image right."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from serving.bench import children
from serving.bench.load import check_loopback

POLL_S = 0.01
STOP_S = 30.0


@dataclass(frozen=True)
class Server:
    """A server that answers right: where, its root process where that is known, and seconds from its start to the first right answer.

    `checked` says whether its labels can be held against the archive's.
    """

    name: str
    host: str
    port: int
    path: str
    pid: int | None
    start_s: float | None
    checked: bool


@contextmanager
def started(
    name: str,
    command: Callable[[int], Sequence[str]],
    *,
    path: str,
    image: bytes,
    label: str | None,
    log: Path,
    patience_s: float,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """The server that `command` starts on the port it is given, ready; it ends with the context. What it says goes to `log`.

    `label` is the right answer for `image`; with None, any 200 will do.

    Raises: ValueError with its last words when it ends, or is not ready within `patience_s`.
    """
    port = free_port()
    begin = time.monotonic()
    with log.open("wb") as output:
        process = children.start(command(port), stdout=output, stderr=subprocess.STDOUT, folder=folder, environment=environment)
    try:
        while not _is_right(port, path, image, label, patience_s=patience_s):
            if process.poll() is not None:
                raise ValueError(f"{name} ended with exit code {process.returncode} before it was ready: {_last_words(log)}")
            if time.monotonic() > begin + patience_s:
                raise ValueError(f"{name} gave no right answer within {patience_s:g} s: {_last_words(log)}")
            time.sleep(POLL_S)
        yield Server(name, "127.0.0.1", port, path, process.pid, time.monotonic() - begin, label is not None)
    finally:
        children.stop(process, patience_s=STOP_S)


def running(url: str, labels: Sequence[str]) -> Server:
    """The Slipway server that already runs at `url`.

    Raises: ValueError when it is not on this machine, does not answer, or serves other classes than `labels`.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    host, port = parts.hostname or "", parts.port or 80
    check_loopback(host)
    try:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/info")
        about = json.loads(connection.getresponse().read())
        name, served = about["name"], about["labels"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"no Slipway server answers at {url} ({error}): start one with `slipway serve MODEL.mar`") from None
    if list(served) != list(labels):
        raise ValueError(
            f"{url} serves {name} with the classes {', '.join(served)}; the archive has {', '.join(labels)}: give its own archive"
        )
    return Server(url, host, port, f"/predictions/{name}", _listener(port), None, True)


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_right(port: int, path: str, image: bytes, label: str | None, *, patience_s: float) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_s)
    try:
        connection.request("POST", path, image, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return False
        return label is None or max(content := json.loads(body), key=content.__getitem__) == label
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _listener(port: int) -> int | None:
    """The process that listens on `port`, None when it may not be known."""
    try:
        found = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    return next((one.pid for one in found if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port), None)


def _last_words(log: Path) -> str:
    lines = [text for line in log.read_text(errors="replace").splitlines() if (text := line.strip(" \t│─╭╮╰╯"))]
    return " / ".join(lines[-3:]) or "it said nothing"
