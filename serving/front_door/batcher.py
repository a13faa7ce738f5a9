"""The queue in front of TorchServe: images wait here, and go to it several in one request, as soon as one of few slots is free.

TorchServe batches only what waits in its own queue, and pays for each request in the JVM and in the worker protocol. Here a request of
TorchServe carries what is fair (sharing.py). So a lone image goes at once and alone, a crowd goes in large frames, every worker is busy,
and the queue is ours: bounded, with an answer for each image, and without those who left.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from serving.front_door.admission import Admission
from serving.front_door.errors import unavailable
from serving.front_door.jobs import LATE, LOST, OVERDUE, Answer, Batch, Job, answers_of, settle
from serving.front_door.sharing import Sharing, size
from serving.torchserve.arena import Arena
from serving.torchserve.slot import Slot

MAX_FRAME_BYTES = 8 << 20
SWEEP_S = 0.1  # between two looks for images whose client left: one costs as much as many refusals
MAX_PENDING_BYTES = 256 << 20


class Batcher:
    """Holds the queue. `submit` and `submit_all` are the whole interface; `open` and `close` bound its life.

    With `arenas`, a folder that the handler knows too, images go through shared memory there. `on_batch` is called for each batch with
    its number of images and what the worker says about it, None when it was lost.
    """

    def __init__(
        self,
        socket_path: Path,
        model: str,
        *,
        workers: int,
        slots: int,
        max_batch: int,
        admission: Admission,
        timeout_s: float,
        arenas: Path | None = None,
        on_batch: Callable[[int, dict[str, Any] | None], None] = lambda count, meta: None,
    ) -> None:
        self._sharing, self._admission, self._timeout_s = Sharing(workers, max_batch), admission, timeout_s
        self.refused = 0
        self._answered_at = time.monotonic()
        self._swept_at = 0.0
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
        self._in_flight = self._batches = 0  # images and batches that TorchServe has
        self._looks_again = False

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
            settle(self._pending.popleft().answer, LOST)
        self._pending_bytes = 0

    @property
    def silent_s(self) -> float:
        """Seconds since a worker last answered."""
        return time.monotonic() - self._answered_at

    @property
    def objective_s(self) -> float:
        """Seconds within which an accepted image is to be answered."""
        return self._admission.objective_s

    @property
    def limit(self) -> int:
        """Images that may wait or be in work; the next is refused."""
        return self._admission.limit

    def submit(self, image: bytes, *, timeout_s: float | None = None) -> "asyncio.Future[Answer]":
        """As `submit_all` for one image."""
        return self.submit_all([image], timeout_s=timeout_s)[0]

    def submit_all(self, images: Sequence[bytes], *, timeout_s: float | None = None) -> list["asyncio.Future[Answer]"]:
        """The answer of each image, to be awaited; cancel it when nobody waits any more. After `timeout_s` it is 504, whatever happens.

        Raises: ApiError 503 Full when as many images or bytes are there as may be, or too many for an answer in time.
        """
        self.admit(len(images), sum(map(len, images)), timeout_s=timeout_s)
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in images]
        now = time.monotonic()
        self._sharing.came(len(images), now)
        deadline = now + timeout_s if timeout_s is not None else None
        self._pending.extend(Job(image, answer, deadline) for image, answer in zip(images, answers, strict=True))
        self._pending_bytes += sum(map(len, images))
        if timeout_s is not None:
            for answer in answers:
                loop.call_later(timeout_s, settle, answer, OVERDUE)
        if self._idle:
            self._dispatch()
        return answers

    def admit(self, count: int, n_bytes: int = 0, *, timeout_s: float | None = None) -> None:
        """Do nothing when `count` more images, of `n_bytes` in all, may come; else raise ApiError 503 Full."""
        fits = self._fits(count, n_bytes)
        if not fits and (now := time.monotonic()) - self._swept_at > SWEEP_S:
            self._swept_at = now
            self._pending = deque(job for job in self._pending if not job.answer.done())
            self._pending_bytes = sum(len(job.image) for job in self._pending)
            fits = self._fits(count, n_bytes)
        if not fits:
            limits = f"{self.limit} and {MAX_PENDING_BYTES >> 20} MiB may"
            self._refuse(count, f"{self._there} images are there, {self._pending_bytes >> 20} MiB wait; {limits}")
        if timeout_s is not None and (wait_s := self._admission.wait_s(self._there)) > timeout_s:
            self._refuse(count, f"an answer takes {wait_s:.2g} s now, the request allows {timeout_s:g} s")

    def _refuse(self, count: int, why: str) -> NoReturn:
        self.refused += count
        raise unavailable("Full", f"{why}: send it again after a second")

    @property
    def _there(self) -> int:
        return len(self._pending) + self._in_flight

    def _fits(self, count: int, n_bytes: int) -> bool:
        there = self._there
        limit = self._admission.limit if there else self._admission.most  # a form of many images may come when it is alone
        return there + count <= limit and self._pending_bytes + n_bytes <= MAX_PENDING_BYTES

    def _dispatch(self) -> None:
        while self._idle and len(self._pending) >= self._sharing.least(self._there, self._batches):
            jobs = self._take()
            if not jobs:
                return
            self._in_flight += len(jobs)
            self._batches += 1
            alone = self._in_flight == 1 and not self._pending
            slot = self._idle.pop()
            timer = asyncio.get_running_loop().call_later(self._timeout_s, self._late, slot, jobs)
            deadlines = [job.deadline for job in jobs] if any(job.deadline for job in jobs) else None
            done = partial(self._done, Batch(slot, jobs, timer, time.monotonic()))
            slot.send([job.image for job in jobs], done, alone=alone, deadlines=deadlines)

    def _look_again(self) -> None:
        """Send what waited for more images as soon as no more are expected."""
        left_s = self._sharing.expects_s(time.monotonic())
        self._looks_again = left_s > 0
        if self._looks_again:
            asyncio.get_running_loop().call_later(left_s, self._look_again)
        else:
            self._dispatch()

    def _take(self) -> list[Job]:
        """The next jobs that go together: a share, as far as it fits into one frame."""
        share = size(min(self._sharing.share(self._there), len(self._pending)))
        jobs: list[Job] = []
        n_bytes = 0
        while self._pending and len(jobs) < share:
            job = self._pending[0]
            if not job.answer.done():
                n_bytes += len(job.image)
                if jobs and n_bytes > MAX_FRAME_BYTES:
                    break
                jobs.append(job)
            self._pending.popleft()
            self._pending_bytes -= len(job.image)
        return jobs

    def _done(self, batch: Batch, status: int | Exception, body: bytes | bytearray) -> None:
        slot, jobs, timer, sent_at = batch
        timer.cancel()
        self._in_flight -= len(jobs)
        self._batches -= 1
        meta = None
        answers = [LOST] * len(jobs)
        if status == 200:
            with contextlib.suppress(ValueError, KeyError, IndexError):
                answers, meta = answers_of(body, len(jobs))
        self._on_batch(len(jobs), meta)
        if meta is not None:
            self._answered_at = time.monotonic()
            self._admission.answered(len(jobs), now=self._answered_at, waiting=bool(self._pending))
            self._admission.batch(len(jobs), self._answered_at - sent_at)
        for job, answer in zip(jobs, answers, strict=True):
            settle(job.answer, answer)
        self._sharing.answered(len(jobs), time.monotonic())
        if status == 200:
            self._idle.append(slot)
        else:
            slot.reset()  # TorchServe closes the connection after an error; the next batch must not meet that
        if not self._looks_again:
            self._look_again()
        self._dispatch()

    def _late(self, slot: Slot, jobs: list[Job]) -> None:
        for job in jobs:
            settle(job.answer, LATE)
        slot.reset()

    def _free(self, slot: Slot) -> None:
        self._idle.append(slot)
        self._dispatch()

    def _lost(self, slot: Slot) -> None:
        if slot in self._idle:
            self._idle.remove(slot)
