"""One of the few places that a batch can take in TorchServe: a connection that is renewed when it is lost, and an arena of its own."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.handler import frames
from serving.torchserve.arena import Arena
from serving.torchserve.upstream import Done, Upstream, connect

RECONNECT_S = 0.1


class Slot:
    """Sends one batch at a time. `on_free` is called with it whenever it has become usable, `on_lost` when it no longer is."""

    def __init__(
        self, socket_path: Path, model: str, *, arena: Arena | None, on_free: Callable[["Slot"], None], on_lost: Callable[["Slot"], None]
    ) -> None:
        self._socket_path, self._path, self._arena = socket_path, f"/predictions/{model}", arena
        self._on_free, self._on_lost = on_free, on_lost
        self._upstream: Upstream | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect; OSError when TorchServe does not listen."""
        self._upstream = await connect(self._socket_path, self._path, content_type=frames.CONTENT_TYPE, on_closed=self._lost)
        self._on_free(self)

    def send(self, images: Sequence[bytes], done: Done, *, alone: bool, deadlines: Sequence[float | None] | None = None) -> None:
        """Send `images` as one request; `done` is called exactly once. `deadlines` are on the monotonic clock, which processes share."""
        assert self._upstream is not None
        meta: dict[str, Any] = {"alone": alone} if deadlines is None else {"alone": alone, "deadlines": deadlines}
        where = self._arena.put(images) if self._arena else None
        body = frames.pack({**meta, **where}, ()) if where else frames.pack(meta, images)
        self._upstream.post(body, done)

    def reset(self) -> None:
        """Give up what is awaited and connect anew."""
        if self._upstream is not None:
            self._upstream.abort()

    def close(self) -> None:
        """Close for good."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self.reset()
        if self._arena is not None:
            self._arena.close()

    def _lost(self) -> None:
        self._upstream = None
        self._on_lost(self)
        if not self._closed:
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while True:
            try:
                await self.open()
            except OSError:
                await asyncio.sleep(RECONNECT_S)
            else:
                return
