"""One image that waits for its answer, the batch in which it goes, and the answers that it may get."""

import asyncio
from typing import Any, NamedTuple

from serving.front_door.errors import error_body
from serving.handler import frames
from serving.torchserve.slot import Slot


class Answer(NamedTuple):
    """What one image got: an HTTP status and its JSON body."""

    status: int
    body: bytes


class Job(NamedTuple):
    """An image that waits, who waits for it, and until when: seconds of the monotonic clock."""

    image: bytes
    answer: "asyncio.Future[Answer]"
    deadline: float | None


class Batch(NamedTuple):
    """Images on their way: by which slot, what ends the wait for them, and when they were sent."""

    slot: Slot
    jobs: list[Job]
    timer: asyncio.TimerHandle
    sent_at: float


LOST = Answer(503, error_body(503, "WorkerLost", "the worker that had this image is gone: send it again"))
OVERDUE = Answer(504, error_body(504, "DeadlinePassed", "no answer within the time that the request allowed: allow more, or send less"))
LATE = Answer(503, error_body(503, "Timeout", "no answer from the worker within the time limit: send the image again"))


def answers_of(body: bytes | bytearray, count: int) -> tuple[list[Answer], dict[str, Any]]:
    """The answers to `count` images, and what the worker says of them.

    Raises: ValueError, KeyError or IndexError when `body` is no such answer.
    """
    meta, parts = frames.unpack(body)
    statuses = meta["statuses"]
    if len(statuses) != count or len(parts) != count:
        raise ValueError(f"got {len(parts)} answers for {count} images")
    return [Answer(status, bytes(part)) for status, part in zip(statuses, parts, strict=True)], meta


def settle(awaited: "asyncio.Future[Answer]", answer: Answer) -> None:
    """Answer, unless that was done or nobody waits."""
    if not awaited.done():
        awaited.set_result(answer)
