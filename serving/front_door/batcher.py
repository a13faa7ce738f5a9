"""The queue in front of TorchServe: images wait here, and go to it several in one request, as soon as one of few slots is free.

TorchServe batches only what waits in its own queue, and pays for each request in the JVM and in the worker protocol. Here a request of
TorchServe carries what is fair: the images in the system divided by the slots. So a lone image goes at once and alone, a crowd goes in
large frames, every slot is busy, and the queue is ours: bounded, with an answer for each image, and without those who left.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from serving.front_door.errors import error_body, unavailable
from serving.handler import BATCHES, frames
from serving.torchserve.arena import Arena
from serving.torchserve.slot import Slot

MAX_FRAME_BYTES = 8 << 20
MAX_PENDING_BYTES = 256 << 20
SIZES = (2 * BATCHES[0], *BATCHES)  # of a request: what the handler infers at once, or twice that


class Answer(NamedTuple):
    """What one image got: an HTTP status and its JSON body."""

    status: int
    body: bytes


class Job(NamedTuple):
    """An image that waits, and who waits for it."""

    image: bytes
    answer: "asyncio.Future[Answer]"


LOST = Answer(503, error_body(503, "WorkerLost", "the worker that had this image is gone: send it again"))
LATE = Answer(503, error_body(503, "Timeout", "no answer from the worker within the time limit: send the image again"))


class Batcher:
    """Holds the queue. `submit` is the whole interface; `open` and `close` bound its life.

    With `arenas`, a folder that the handler knows too, images go through shared memory there. `on_batch` is called for each batch with
    its number of images and what the worker says about it, None when it was lost.
    """

    def __init__(
        self,
        socket_path: Path,
        model: str,
        *,
        slots: int,
        max_batch: int,
        max_pending: int,
        timeout_s: float,
        arenas: Path | None = None,
        on_batch: Callable[[int, dict[str, Any] | None], None] = lambda count, meta: None,
    ) -> None:
        self._max_batch, self._max_pending, self._timeout_s = max_batch, max_pending, timeout_s
        self._on_batch = on_batch
        self._pending: deque[Job] = deque()
        self._pending_bytes = 0
        self._idle: list[Slot] = []
        self._slots = [
            Slot(
                socket_path,
                model,
                arena=Arena(arenas / f"arena-{number}") if arenas else None,
                on_free=self._free,
                on_lost=self._lost,
            )
            for number in range(slots)
        ]
        self._in_flight = 0

    @property
    def pending(self) -> int:
        """Images that wait for a slot."""
        return len(self._pending)

    @property
    def in_flight(self) -> int:
        """Images that TorchServe has."""
        return self._in_flight

    async def open(self) -> None:
        """Connect every slot; OSError when TorchServe does not listen yet."""
        for slot in self._slots:
            await slot.open()

    async def close(self) -> None:
        """Close every slot; what still waits is answered as lost."""
        for slot in self._slots:
            slot.close()
        while self._pending:
            _answer(self._pending.popleft(), LOST)
        self._pending_bytes = 0

    def submit(self, image: bytes) -> "asyncio.Future[Answer]":
        """The answer of `image`, to be awaited; cancel it when nobody waits any more.

        Raises: ApiError 503 Full when as many images or bytes wait as may.
        """
        self.admit(1, len(image))
        job = Job(image, asyncio.get_running_loop().create_future())
        self._pending.append(job)
        self._pending_bytes += len(image)
        if self._idle:
            self._dispatch()
        return job.answer

    def admit(self, count: int, size: int = 0) -> None:
        """Do nothing when `count` more images, of `size` bytes in all, may wait; else raise ApiError 503 Full."""
        if self._fits(count, size):
            return
        self._pending = deque(job for job in self._pending if not job.answer.done())
        self._pending_bytes = sum(len(job.image) for job in self._pending)
        if not self._fits(count, size):
            waiting = f"{len(self._pending)} images of {self._pending_bytes >> 20} MiB wait"
            allowed = f"{self._max_pending} of {MAX_PENDING_BYTES >> 20} MiB may"
            raise unavailable("Full", f"{waiting}, {allowed}: send it again after a second")

    def _fits(self, count: int, size: int) -> bool:
        return len(self._pending) + count <= self._max_pending and self._pending_bytes + size <= MAX_PENDING_BYTES

    def _dispatch(self) -> None:
        while self._idle and self._pending:
            jobs = self._take()
            if not jobs:
                return
            self._in_flight += len(jobs)
            alone = self._in_flight == 1 and not self._pending
            slot = self._idle.pop()
            timer = asyncio.get_running_loop().call_later(self._timeout_s, self._late, slot, jobs)
            slot.send([job.image for job in jobs], partial(self._done, slot, jobs, timer), alone=alone)

    def _take(self) -> list[Job]:
        """The next jobs that go together: a fair share of the images in the system, but no remainder that the worker would infer alone."""
        fair = min(self._max_batch, -(-(len(self._pending) + self._in_flight) // len(self._slots)))
        share = next(size for size in SIZES if size <= fair)
        jobs: list[Job] = []
        size = 0
        while self._pending and len(jobs) < share:
            job = self._pending[0]
            if not job.answer.done():
                size += len(job.image)
                if jobs and size > MAX_FRAME_BYTES:
                    break
                jobs.append(job)
            self._pending.popleft()
            self._pending_bytes -= len(job.image)
        return jobs

    def _done(self, slot: Slot, jobs: list[Job], timer: asyncio.TimerHandle, status: int | Exception, body: bytes | bytearray) -> None:
        timer.cancel()
        self._in_flight -= len(jobs)
        meta = None
        answers = [LOST] * len(jobs)
        if status == 200:
            with contextlib.suppress(ValueError, KeyError, IndexError):
                answers, meta = _answers(body, len(jobs))
        self._on_batch(len(jobs), meta)
        for job, answer in zip(jobs, answers, strict=True):
            _answer(job, answer)
        if status == 200:
            self._free(slot)
        else:
            slot.reset()  # TorchServe closes the connection after an error; the next batch must not meet that

    def _late(self, slot: Slot, jobs: list[Job]) -> None:
        for job in jobs:
            _answer(job, LATE)
        slot.reset()

    def _free(self, slot: Slot) -> None:
        self._idle.append(slot)
        if self._pending:
            self._dispatch()

    def _lost(self, slot: Slot) -> None:
        if slot in self._idle:
            self._idle.remove(slot)


def _answers(body: bytes | bytearray, count: int) -> tuple[list[Answer], dict[str, Any]]:
    meta, parts = frames.unpack(body)
    statuses = meta["statuses"]
    if len(statuses) != count or len(parts) != count:
        raise ValueError(f"got {len(parts)} answers for {count} images")
    return [Answer(status, bytes(part)) for status, part in zip(statuses, parts, strict=True)], meta


def _answer(job: Job, answer: Answer) -> None:
    if not job.answer.done():
        job.answer.set_result(answer)
