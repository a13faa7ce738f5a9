"""The whole tree of `slipway serve`: TorchServe as a child, the front door in this process, their start and their end."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from serving.front_door.admission import Admission
from serving.front_door.batcher import MAX_FRAME_BYTES, Batcher
from serving.front_door.doors import Doors, front_door, http_server
from serving.front_door.readiness import Readiness
from serving.handler import BATCHES
from serving.plan import Plan
from serving.served import Served
from serving.torchserve.child import TorchServe
from serving.torchserve.config import STARTUP_TIMEOUT_S

LAST_WORDS_S = 3.0  # a worker's traceback may come after TorchServe has said that it died
log, torchserve_log = logging.getLogger("slipway"), logging.getLogger("torchserve")


class ServingFailed(RuntimeError):
    """The tree broke down after it had been ready."""


def serve(
    served: Served,
    plan: Plan,
    doors: Doors,
    *,
    keys: Path | None,
    objective_s: float,
    drain_delay_s: float,
    stand_in: bool,
    cache: Path | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is in flight and return.

    With `keys`, images are taken from those whose key is in that file. More images than are answered within `objective_s` are refused.
    After a signal readiness fails at once, but requests are taken for `drain_delay_s` more: whoever sends them, a Kubernetes Service for
    one, needs that long to hear of it. `on_ready` is called once. JVM class caches lie in the folder `cache`.

    Raises: ValueError when the archive does not come up, with the worker's reason; ServingFailed when the tree broke down later.
    """
    torchserve = TorchServe(served, plan, max_frame_bytes=MAX_FRAME_BYTES, stand_in=stand_in, cache=cache)
    try:
        torchserve.start()
        import uvloop  # after the JVM was started: what follows is done while it boots

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            admission = Admission(objective_s, least=plan.slots * BATCHES[0], most=plan.max_images)
            tree = _serve(torchserve, served, plan, doors, keys=keys, admission=admission, drain_delay_s=drain_delay_s, on_ready=on_ready)
            runner.run(tree)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # a second signal: no patience left
    finally:
        torchserve.stop()


async def _serve(
    torchserve: TorchServe,
    served: Served,
    plan: Plan,
    doors: Doors,
    *,
    keys: Path | None,
    admission: Admission,
    drain_delay_s: float,
    on_ready: Callable[[], None],
) -> None:
    readiness = Readiness()
    batcher, door = front_door(torchserve, served, plan, doors, readiness, keys=keys, admission=admission)
    server = http_server(door)

    def ready() -> None:
        on_ready()
        asyncio.get_running_loop().run_in_executor(None, door.load_rest)

    http = asyncio.create_task(server.serve(sockets=doors.sockets))
    child = asyncio.create_task(torchserve.follow(lambda line: torchserve_log.log(*line) if readiness.open else None))
    watch = asyncio.create_task(_come_up(torchserve, batcher, readiness, served, plan, on_ready=ready))
    asked = asyncio.create_task(_asked_to_stop(asyncio.current_task()))
    try:
        await asyncio.wait((http, child, watch, asked), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise _why(readiness, torchserve, child, watch)
        watch.cancel()
        readiness.drain("stopping")
        if drain_delay_s:
            log.info("stopping; requests are still taken for %g s", drain_delay_s)
            await asyncio.wait((child, http), timeout=drain_delay_s)
        server.should_exit = True
        await http
        readiness.close("stopped")
        if torchserve.records:
            log.info("stopped; recording once what the JVM learned, so that the next start takes half the time")
            await torchserve.record(child)
    finally:
        for task in (child, watch, asked):
            task.cancel()
        await batcher.close()
        server.should_exit = server.force_exit = True
        await asyncio.gather(http, child, watch, asked, return_exceptions=True)


async def _asked_to_stop(tree: "asyncio.Task[None] | None") -> None:
    """Return at the first SIGINT or SIGTERM; the second one cancels `tree`."""
    loop, first = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        if first.is_set() and tree is not None:
            tree.cancel()
        first.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await first.wait()


async def _come_up(
    torchserve: TorchServe, batcher: Batcher, readiness: Readiness, served: Served, plan: Plan, *, on_ready: Callable[[], None]
) -> None:
    """Wait for the workers, then for the first golden answers, then watch for ever.

    Raises: ValueError when a worker died before the model was ever ready; TimeoutError; what `Readiness.watch` raises.
    """
    async with asyncio.timeout(STARTUP_TIMEOUT_S):
        while True:
            states = await torchserve.workers()
            if len(states) == plan.workers and all(state == "READY" for state in states.values()):
                break
            if torchserve.log.loading_failed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        while not torchserve.log.raised:
                            await asyncio.sleep(0.04)
                raise ValueError(f"the model was not loaded: {torchserve.log.reason()}")
            await asyncio.sleep(0.04)
        await batcher.open()
    watch = asyncio.create_task(readiness.watch(torchserve.workers, batcher, served, wanted=plan.workers))
    try:
        while not readiness.ready and not watch.done():
            await asyncio.sleep(0.005)
        if readiness.ready:
            on_ready()
        await watch
    finally:
        watch.cancel()


def _why(readiness: Readiness, torchserve: TorchServe, child: "asyncio.Task[int]", watch: "asyncio.Task[None]") -> Exception:
    """Why the tree ended unasked, in words, with the line of the log that matters."""
    failed = watch.exception() if watch.done() and not watch.cancelled() else None
    if child.done():
        what = f"TorchServe ended with exit code {child.result()}: {torchserve.log.reason()}"
    elif isinstance(failed, TimeoutError):
        what = f"the model was not loaded within {STARTUP_TIMEOUT_S} s: {torchserve.log.reason()}"
    else:
        what = str(failed) if failed else "the HTTP server ended"
    came_up = readiness.open
    readiness.close(what)
    return ServingFailed(what) if came_up else ValueError(what)
