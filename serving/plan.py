"""How the CPUs of this process tree are shared out: workers, threads, batches. A pure function, printed with its reasons."""

from dataclasses import dataclass
from math import floor

MAX_WORKERS = 4
MAX_BATCH = 16
IMAGES_PER_CPU = 128


@dataclass(frozen=True)
class Plan:
    """The shares of one `slipway serve`, and why."""

    workers: int
    threads_per_worker: int
    lone_image_threads: int
    slots: int
    max_batch: int
    max_images: int
    reasons: tuple[str, ...]


def make_plan(cpus: float, *, workers: int | None = None, threads: int | None = None) -> Plan:
    """The plan for a limit of `cpus`; `workers` and `threads` override what would be derived.

    Raises: ValueError when an override is below 1.
    """
    for option, value in (("--workers", workers), ("--threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{option} wants at least 1, got {value}")
    whole = max(1, floor(cpus))
    n_workers = workers or min(whole, MAX_WORKERS)
    n_threads = threads or max(1, whole // n_workers)
    slots = n_workers + 1
    return Plan(
        workers=n_workers,
        threads_per_worker=n_threads,
        lone_image_threads=whole,
        slots=slots,
        max_batch=MAX_BATCH,
        max_images=IMAGES_PER_CPU * whole,
        reasons=(
            f"{_count(n_workers, 'worker')}, {'as asked' if workers else f'one a CPU (limit {cpus:g}), at most {MAX_WORKERS}'}",
            f"{_count(n_threads, 'thread')} a worker, {'as asked' if threads else 'the CPUs shared out'}",
            f"{_count(whole, 'thread')} for an image that is alone: nothing else needs the CPUs then",
            f"{slots} batches on their way: one a worker, and one that waits so that no worker does",
            f"at most {IMAGES_PER_CPU * whole} images at a time, {IMAGES_PER_CPU} a CPU, or what the objective allows; the next gets 503",
        ),
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number > 1)}"
