"""Child processes that die with this one, and what a tree of processes costs: CPU seconds, and memory in proportion."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """The running process: in a process group of its own, so that Ctrl-C reaches us alone; ended with SIGTERM when we die."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        command,
        env=None if environment is None else {**os.environ, **environment},
        cwd=folder,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (it calls nothing but the kernel)
    )


@contextlib.contextmanager
def on(cpus: Collection[int]) -> Iterator[None]:
    """Run this thread, and the processes it starts meanwhile for as long as they live, on these of its CPUs alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def apart() -> tuple[list[int], list[int]]:
    """The CPUs that this process may use, as those of a server and one for its load; both all of them where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[:-1] or cpus, cpus[-1:]


def stop(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """End a process with all its descendants: SIGTERM, and SIGKILL for what is left after `patience_s`."""
    members = list(_members(process.pid))
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def cpu_s(root: int) -> dict[str, float]:
    """CPU seconds that the process `root` and its descendants have used so far, those that ended included, by place in the tree.

    A place is named by the programs above it and its own, as in "python > java > python".
    """
    places: dict[int, str] = {}
    used: dict[str, float] = {}
    for member in _members(root):  # parents come before their children
        with contextlib.suppress(psutil.Error):
            above = places.get(member.ppid())
            place = places[member.pid] = f"{above} > {member.name()}" if above else member.name()
            times = member.cpu_times()
            used[place] = used.get(place, 0.0) + times.user + times.system + times.children_user + times.children_system
    return used


def is_ours(pid: int) -> bool:
    """Whether the process `pid` descends from this one."""
    try:
        return os.getpid() in [parent.pid for parent in psutil.Process(pid).parents()]
    except psutil.NoSuchProcess:
        return False


def machine_cpu_s() -> float:
    """CPU seconds that this machine has been busy so far, time stolen by its host included."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def pss_bytes(root: int) -> int:
    """Proportional set size of the process `root` and its descendants (Linux `smaps_rollup`); what may not be read counts 0."""
    total = 0
    for member in _members(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total


@dataclass(frozen=True)
class Tree:
    """What a tree of processes holds at one moment; what may not be read counts 0."""

    memory_bytes: int
    files: int
    threads: int
    pids: frozenset[int]


def tree(root: int) -> Tree:
    """What the process `root` and its descendants hold now."""
    files, threads, pids = 0, 0, set()
    for member in _members(root):
        with contextlib.suppress(psutil.Error):
            threads += member.num_threads()
            pids.add(member.pid)
            files += member.num_fds()
    return Tree(pss_bytes(root), files, threads, frozenset(pids))


def _members(root: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        yield process
        yield from process.children(recursive=True)
