"""Whether predictions are right just now, and if not, why. TorchServe's own /ping is Healthy when nothing can predict."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

from serving.front_door.batcher import Batcher
from serving.front_door.errors import ApiError
from serving.served import Golden, Served

POLL_S = 1.0
GIVE_UP_S = 60.0
GOLDEN_TIMEOUT_S = 30.0
HEARTBEAT_S = 10.0  # without traffic a golden image is sent this often
HEARTBEAT_TIMEOUT_S = 5.0
STUCK_S = 90.0  # longer than TorchServe takes to replace a worker that hangs
log = logging.getLogger("slipway")


class WrongPrediction(ValueError):
    """A golden image did not predict as recorded in the archive."""


class Readiness:
    """`ready` only while every worker is READY and the golden images went through TorchServe and were answered as recorded.

    `open` from the first time on: while one worker is being replaced, the others answer.
    """

    def __init__(self) -> None:
        self.ready = False
        self.open = False
        self.draining = False
        self.reason = "the model is being loaded"
        self._kick = asyncio.Event()
        self._told = True

    def stuck(self, silent_s: float) -> str:
        """Why this process should be started anew, after `silent_s` without an answer from a worker; empty when it should not."""
        if not self.open or silent_s <= STUCK_S:
            return ""
        return f"no worker has answered for {silent_s:.0f} s, not even a golden image: start anew"

    def look_now(self) -> None:
        """Have the watcher look at once instead of at its next turn: a batch was lost."""
        self._kick.set()

    def drain(self, reason: str) -> None:
        """Not ready any more, but open: what still comes is answered."""
        self.ready, self.draining, self.reason = False, True, reason

    def close(self, reason: str) -> None:
        """Neither ready nor open any more: nothing can be answered."""
        self.ready, self.open, self.reason = False, False, reason

    async def watch(self, workers: Callable[[], Awaitable[dict[int, str]]], batcher: Batcher, served: Served, *, wanted: int) -> None:
        """Keep `ready` true to the facts, until cancelled.

        Raises: RuntimeError when not all workers came back within a minute; WrongPrediction.
        """
        known: dict[int, str] | None = None
        since = time.monotonic()
        while True:
            states = await workers()
            good = len(states) == wanted and all(state == "READY" for state in states.values())
            if not good and self.ready:
                self.ready, since = False, time.monotonic()
            if not good:
                running = sum(state == "READY" for state in states.values())
                self.reason = f"{running} of {wanted} workers are ready"
                self._tell()
                if time.monotonic() - since > GIVE_UP_S:
                    raise RuntimeError(f"{self.reason}, for {GIVE_UP_S:g} s: giving up, so that whoever supervises us starts afresh")
            elif not self.ready or states != known:
                self.ready = False
                await self._try_golden(batcher, served, timeout_s=GOLDEN_TIMEOUT_S)
            elif batcher.silent_s > HEARTBEAT_S:
                await self._try_golden(batcher, served, timeout_s=HEARTBEAT_TIMEOUT_S)
            known = states
            self._tell()
            self._kick.clear()
            try:
                async with asyncio.timeout(POLL_S if self.ready else POLL_S / 10):
                    await self._kick.wait()
            except TimeoutError:
                pass

    def _tell(self) -> None:
        """Say in the log that what was ready is not any more, or is again: nothing is replaced silently."""
        if self.open and self.ready != self._told:
            log.log(logging.INFO if self.ready else logging.WARNING, "ready" if self.ready else f"not ready: {self.reason}")
            self._told = self.ready

    async def _try_golden(self, batcher: Batcher, served: Served, *, timeout_s: float) -> None:
        try:
            await check_golden(batcher, served, timeout_s=timeout_s)
        except (TimeoutError, ApiError) as error:
            self.ready, self.reason = False, f"a golden image got no answer within {timeout_s:g} s: {error}".removesuffix(": ")
        else:
            self.ready, self.open, self.reason = True, True, "ready"


async def check_golden(batcher: Batcher, served: Served, *, timeout_s: float = GOLDEN_TIMEOUT_S) -> None:
    """Send the golden images through TorchServe.

    Raises: WrongPrediction naming the image, the label and both probabilities; TimeoutError.
    """
    async with asyncio.timeout(timeout_s):
        for golden in served.golden:
            answer = await batcher.submit(golden.image)
            if answer.status == 503:
                raise TimeoutError(answer.body.decode())
            if answer.status != 200:
                raise WrongPrediction(f"{golden.file} was answered {answer.status}: {answer.body.decode()}")
            _compare(golden, json.loads(answer.body), served)


def _compare(golden: Golden, got: dict[str, float], served: Served) -> None:
    for label, recorded in zip(served.labels, golden.probabilities, strict=True):
        if not abs(got.get(label, -1.0) - recorded) <= served.golden_tolerance:
            raise WrongPrediction(
                f"{golden.file} predicts {label} with {got.get(label)}, the archive recorded {recorded:.4f} "
                f"(tolerance {served.golden_tolerance:g}): the model does not compute here what it did when it was packaged"
            )
