"""Where the front door listens, and what it is put together from."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.front_door.admission import Admission
from serving.front_door.batcher import Batcher
from serving.front_door.keys import Keys
from serving.front_door.readiness import Readiness
from serving.plan import Plan
from serving.served import Served
from serving.torchserve.child import TorchServe
from serving.torchserve.config import RESPONSE_TIMEOUT_S

if TYPE_CHECKING:
    from uvicorn import Server

    from serving.front_door.application import FrontDoor

DRAIN_S = 30
KEEP_ALIVE_S = 75


@dataclass(frozen=True)
class Listen:
    """Where the front door listens."""

    host: str
    port: int


def bind(listen: Listen) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises: OSError in words when the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((listen.host, listen.port))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {listen.host}:{listen.port} ({error.strerror}): choose another --port") from error
    return sock


@dataclass(frozen=True)
class Doors:
    """The listening sockets: for callers; for metrics alone, if not there; for whoever runs the server, with the file of their keys."""

    public: socket.socket
    internal: socket.socket | None = None
    admin: tuple[socket.socket, Path] | None = None

    @property
    def sockets(self) -> list[socket.socket]:
        """All of them."""
        return [self.public, *([self.internal] if self.internal else []), *([self.admin[0]] if self.admin else [])]


def front_door(
    torchserve: TorchServe, served: Served, plan: Plan, doors: Doors, readiness: Readiness, *, keys: Path | None, admission: Admission
) -> tuple[Batcher, "FrontDoor"]:
    """The queue to `torchserve`, and the application before it, which listens at `doors`.

    Raises: ValueError or OSError for a file of keys that cannot be used.
    """
    from serving.front_door.admin import Admin
    from serving.front_door.application import FrontDoor
    from serving.front_door.metrics import Metrics

    def on_batch(count: int, meta: dict[str, Any] | None) -> None:
        metrics.batch(count, meta)
        if meta is None:
            readiness.look_now()

    batcher = Batcher(
        torchserve.inference_socket,
        served.name,
        workers=plan.workers,
        slots=plan.slots,
        max_batch=plan.max_batch,
        admission=admission,
        timeout_s=RESPONSE_TIMEOUT_S + 5,
        arenas=torchserve.arenas if served.reads_arenas else None,
        on_batch=on_batch,
    )
    metrics = Metrics(served, batcher, readiness)
    return batcher, FrontDoor(
        served,
        batcher,
        readiness,
        metrics,
        upstream_metrics=torchserve.metrics,
        internal_port=_port(doors.internal) if doors.internal else None,
        admin=(_port(doors.admin[0]), Admin(torchserve.management, Keys(doors.admin[1]))) if doors.admin else None,
        keys=Keys(keys) if keys else None,
    )


def _port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def http_server(door: "FrontDoor") -> "Server":
    """The HTTP server that runs `door`; whoever runs it handles the signals."""
    from uvicorn import Config, Server

    from serving.front_door.connection import Connection

    class DoorServer(Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours are in _asked_to_stop; uvicorn's would end this process by the signal, not with exit 0

    config = Config(
        door,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        backlog=1024,
    )
    return DoorServer(config)
