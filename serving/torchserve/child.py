"""TorchServe 0.12.0 as a child process: its configuration, its start, its log, its end.

The JVM is started directly, not by TorchServe's launcher. Everything it opens lies in one private folder: three unix sockets, its
temporary files, the model store. Nothing of it can be reached over the network but the two gRPC servers, which cannot be switched off;
they stay on loopback and can register nothing.

A JVM spends half of its start on loading classes. The first TorchServe that ends in order leaves them in a cache, where a cache folder
is given; the next one starts in half the time.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from serving.plan import Plan
from serving.served import Served
from serving.torchserve.arena import SHARED_MEMORY
from serving.torchserve.config import LOG4J, config_properties, environment
from serving.torchserve.java import class_cache, class_cache_flag, find_java, java_flags
from serving.torchserve.log import Line, Log
from serving.torchserve.private_folder import PrivateFolder

PR_SET_PDEATHSIG = 1
RECORD_TIMEOUT_S = 20
GET_TIMEOUT_S = 5.0


class TorchServe:
    """The child process and its private folder. `start` at once, `follow` and `workers` inside an event loop, `stop` at the end."""

    def __init__(self, served: Served, plan: Plan, *, max_frame_bytes: int, stand_in: bool = True, cache: Path | None = None) -> None:
        self._private = PrivateFolder()
        self.folder = self._private.path
        self._shared = PrivateFolder(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else self._private
        self.model, self._version = served.name, served.version
        self.log = Log()
        self._plan, self._stand_in, self._cache_folder = plan, stand_in, cache
        self._record_to: Path | None = None
        self._archive = served.path.resolve()
        self._max_request_bytes = max(served.max_image_bytes, max_frame_bytes) + (64 << 10)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def inference_socket(self) -> Path:
        """Where predictions go."""
        return self.folder / "inference"

    @property
    def arenas(self) -> Path:
        """Where images lie for the workers: in shared memory, where there is some."""
        return self._shared.path

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Write the configuration and start the JVM; returns at once.

        Raises: FileNotFoundError when Java or TorchServe is not installed.
        """
        home = _torchserve_home()
        java, version = find_java()
        jar = home / "ts" / "frontend" / "model-server.jar"
        for name in ("store", "tmp", "log"):
            (self.folder / name).mkdir()
        (self.folder / "store" / f"{self.model}.mar").symlink_to(self._archive)
        (self.folder / "log4j2.xml").write_text(LOG4J)
        config = self.folder / "config.properties"
        config.write_text(
            config_properties(
                self.folder,
                self.model,
                self._version,
                plan=self._plan,
                max_request_bytes=self._max_request_bytes,
                grpc_ports=_free_ports(),
            )
        )
        command = [
            str(java),
            *java_flags(version, heap_mb=_heap_mb(self._max_request_bytes, self._plan.slots)),
            *self._cache_flags(version, jar),
            f"-Dmodel_server_home={home}",
            f"-Dlog4j.configurationFile={(self.folder / 'log4j2.xml').as_uri()}",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            *("-cp", str(jar), "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable, "-f", str(config), "-s", str(self.folder / "store"), "-ncs"),
        ]
        libc, parent = ctypes.CDLL(None), os.getpid()

        def die_with_parent() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(self.folder, self._plan, stand_in=self._stand_in, arenas=self.arenas),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C in a terminal reaches us alone; `stop` reaches the workers too
            preexec_fn=die_with_parent,  # noqa: PLW1509 (there are no threads yet)
        )

    async def follow(self, say: Callable[[Line], None]) -> int:
        """Read the log until the JVM ends, which is its exit code; lines that are not chatter are kept, and said."""
        assert self._process is not None and self._process.stdout is not None
        reader = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout)
        while line := await reader.readline():
            said = self.log.add(line.decode(errors="replace"))
            if said is not None:
                say(said)
        while self._process.poll() is None:
            await asyncio.sleep(0.01)
        return self._process.returncode

    async def workers(self) -> dict[int, str]:
        """Each worker's process id and status, READY when its model is loaded; empty when TorchServe does not answer."""
        try:
            _, body = await self.management(f"/models/{self.model}")
            return {worker["pid"]: worker["status"] for worker in json.loads(body)[0]["workers"]}
        except (OSError, TimeoutError, EOFError, ValueError, LookupError):
            return {}

    async def management(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET at TorchServe's management API; OSError, TimeoutError or EOFError when it does not answer."""
        return await _get(self.folder / "management", path)

    async def metrics(self) -> tuple[int, bytes]:
        """As `management`, of what TorchServe tells Prometheus."""
        return await _get(self.folder / "metrics", "/metrics")

    @property
    def records(self) -> bool:
        """Whether an end in order would leave a class cache for the next start."""
        return self._record_to is not None

    async def record(self, followed: "asyncio.Task[int]") -> None:
        """Let the JVM end in order and keep its class cache; takes some seconds. `followed` is the task of `follow`."""
        assert self._process is not None and self._record_to is not None
        self._process.terminate()
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(followed, RECORD_TIMEOUT_S)
            partial = self._record_to.with_suffix(f".{os.getpid()}")
            shutil.copyfile(self.folder / "classes", partial)
            partial.replace(self._record_to)

    def stop(self) -> None:
        """Kill the JVM with its workers and remove the private folders.

        Nothing may be in flight any more: then a kill leaves nothing behind that TorchServe's own stop, which takes 2.5 s, would not.
        """
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for folder in {self._private, self._shared}:
            folder.remove()

    def _cache_flags(self, version: int, jar: Path) -> list[str]:
        cache = class_cache(version, jar, self._cache_folder) if self._cache_folder else None
        if cache is None:
            return []
        if cache.exists():
            return [class_cache_flag(version, cache, record=False)]
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return []
        if os.access(cache.parent, os.W_OK):
            self._record_to = cache
            return [class_cache_flag(version, self.folder / "classes", record=True)]
        return []


def _torchserve_home() -> Path:
    spec = importlib.util.find_spec("ts")
    home = Path(spec.origin).parent.parent if spec and spec.origin else None
    if home is None or not (home / "ts" / "frontend" / "model-server.jar").exists():
        raise FileNotFoundError("TorchServe is not installed here: install the project with its extra, pip install -e .[serve]")
    return home


def _heap_mb(max_request_bytes: int, slots: int) -> int:
    return 64 + slots * 4 * (max_request_bytes >> 20)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


async def _get(socket_path: Path, path: str) -> tuple[int, bytes]:
    async with asyncio.timeout(GET_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            return int(head[9:12]), await reader.readexactly(length)
        finally:
            writer.close()
