"""Mixed traffic for a long time: good images, hostile ones, several at once, and clients that leave or speak no HTTP.

Each connection is a thread that sends one request after the other and holds the answer against what it must be.
"""

import http.client
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.bench.hostile import Body
from serving.bench.load import check_loopback
from serving.bench.servers import Server
from serving.bench.wire import names, post_of

TIMEOUT_S = 60.0
BOUNDARY = "a-boundary-that-is-in-no-image"
RIGHT, STATED_503 = "right", "503 with Retry-After"
NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # how TLS begins
    b"GET / HTTP/9.9\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"POST /predictions HTTP/1.1\r\n: x\r\n\r\n",
)


@dataclass(frozen=True)
class Good:
    """An image and its right label."""

    content: bytes
    label: str


class Traffic:
    """The connections and what they were answered. `start`, read `outcomes` at any time, `stop`.

    `outcomes` counts by what was sent ("good", "hostile", "several", "leaves", "no http") and what came of it: "right", "503 with
    Retry-After", or what it was instead.
    """

    def __init__(self, server: Server, good: Sequence[Good], hostile: Sequence[Body], *, connections: int, seed: int) -> None:
        check_loopback(server.host)
        self._server, self._good, self._hostile = server, good, hostile
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, str] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(random.Random(seed + number),), daemon=True) for number in range(connections)
        ]

    def start(self) -> None:
        """Begin on every connection."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until every connection has the answer it waits for."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S + 1)

    def _drive(self, chance: random.Random) -> None:
        ways: tuple[tuple[str, Callable[[http.client.HTTPConnection, random.Random], str]], ...] = (
            ("good", self._send_good),
            ("hostile", self._send_hostile),
            ("several", self._send_several),
            ("leaves", self._leave),
            ("no http", self._send_no_http),
        )
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=TIMEOUT_S)
        while not self._stopped.is_set():
            (kind, way), *_ = chance.choices(ways, (55, 35, 4, 3, 3))
            try:
                outcome = way(connection, chance)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome = f"no answer: {type(error).__name__}"
            with self._lock:
                self.outcomes[kind, outcome] += 1
        connection.close()

    def _send_good(self, connection: http.client.HTTPConnection, chance: random.Random) -> str:
        image = chance.choice(self._good)
        status, body = self._post(connection, self._server.path, image.content)
        return (RIGHT if names(image.label, body) else "wrong label") if status == "200" else status

    def _send_hostile(self, connection: http.client.HTTPConnection, chance: random.Random) -> str:
        body = chance.choice(self._hostile)
        status, _ = self._post(connection, self._server.path, body.content)
        if (status.startswith("4") and status.isdigit()) if body.refused else status == "200":
            return RIGHT
        if status != STATED_503:
            with self._lock:
                self.examples.setdefault(body.name, status)
        return status

    def _send_several(self, connection: http.client.HTTPConnection, chance: random.Random) -> str:
        """One request with good images and hostile ones: each good one must get its label."""
        good, hostile = chance.sample(self._good, k=min(3, len(self._good))), chance.choice(self._hostile)
        parts = [hostile.content, *(image.content for image in good)]
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'.encode()
        form = b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
        status, body = self._post(connection, "/v1/classify", form, content_type=f"multipart/form-data; boundary={BOUNDARY}")
        if status != "200":
            return status
        first, *others = json.loads(body)["results"]
        labels = [result.get("label") for result in others]
        hostile_is_right = (first.get("label") is None) == hostile.refused
        return RIGHT if labels == [image.label for image in good] and hostile_is_right else "wrong results"

    def _leave(self, _: http.client.HTTPConnection, chance: random.Random) -> str:
        """Send a request, or a part of one, and close before the answer."""
        request = post_of(self._server.host, self._server.path, chance.choice(self._good).content)
        with socket.create_connection((self._server.host, self._server.port), TIMEOUT_S) as one:
            one.sendall(request[: chance.choice((10, len(request) // 2, len(request)))])
            self._stopped.wait(chance.choice((0.0, 0.005, 0.05)))
        return RIGHT

    def _send_no_http(self, _: http.client.HTTPConnection, chance: random.Random) -> str:
        with socket.create_connection((self._server.host, self._server.port), TIMEOUT_S) as one:
            one.sendall(chance.choice(NO_HTTP))
            one.shutdown(socket.SHUT_WR)
            answer = one.recv(4096)
        return RIGHT if not answer or (answer[9:10] in (b"4", b"5") and not answer.startswith(b"HTTP/1.1 500")) else f"{answer[:15]!r}"

    def _post(
        self, connection: http.client.HTTPConnection, path: str, content: bytes, *, content_type: str = "application/octet-stream"
    ) -> tuple[str, bytes]:
        """The status, or STATED_503, and the body."""
        connection.request("POST", path, content, {"Content-Type": content_type})
        answer = connection.getresponse()
        body = answer.read()
        stated = answer.status == 503 and answer.headers.get("Retry-After")
        return STATED_503 if stated else str(answer.status), body
