"""One persistent HTTP/1.1 connection to TorchServe over its unix socket, written by hand: this is the hot path of every prediction."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

Done = Callable[[int | Exception, bytes | bytearray], None]  # status or why there is none, body
SEND_BUFFER_BYTES = 4 << 20


class Lost(ConnectionError):
    """TorchServe closed the connection, or answered with something else than HTTP, before its answer was complete."""


class Upstream(asyncio.Protocol):
    """Sends one POST at a time and hands (status, body) to a callback: no task, no stream, no copy of the head."""

    def __init__(self, path: str, content_type: str, on_closed: Callable[[], None]) -> None:
        self._head = f"POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: ".encode()
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self._buffer = bytearray()
        self._body_at = self._wanted = self._status = 0

    def post(self, body: bytes, done: Done) -> None:
        """Send `body`; later `done(status, answer)`, or `done(Lost, b"")`, is called exactly once."""
        if self._transport is None or self._transport.is_closing():
            done(Lost("the connection to TorchServe is closed"), b"")
            return
        self._done = done
        self._transport.writelines((self._head + str(len(body)).encode() + b"\r\n\r\n", body))

    def abort(self) -> None:
        """Close at once; an answer that is still awaited is lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # as much of it as the kernel allows

    def data_received(self, data: bytes) -> None:
        """Collect one answer. Part of asyncio.Protocol."""
        self._buffer += data
        if not self._body_at and not self._read_head():
            return
        if len(self._buffer) < self._body_at + self._wanted:
            return
        body = self._buffer[self._body_at : self._body_at + self._wanted]
        self._finish(self._status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was awaited and say so. Part of asyncio.Protocol."""
        self._transport = None
        self._finish(Lost(f"TorchServe closed the connection{f': {exc}' if exc else ''}"), b"")
        self._on_closed()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        try:
            self._status = int(head[9:12])
            self._wanted = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        except (ValueError, IndexError):
            self.abort()
            return False
        self._body_at = end + 4
        return True

    def _finish(self, status: int | Exception, body: bytes | bytearray) -> None:
        done, self._done = self._done, None
        self._buffer = bytearray()
        self._body_at = self._wanted = 0
        if done is not None:
            done(status, body)


async def connect(socket_path: Path, path: str, *, content_type: str, on_closed: Callable[[], None]) -> Upstream:
    """An open connection to the server that listens on `socket_path`; OSError when nothing does."""
    loop = asyncio.get_running_loop()
    _, upstream = await loop.create_unix_connection(lambda: Upstream(path, content_type, on_closed), str(socket_path))
    return upstream
