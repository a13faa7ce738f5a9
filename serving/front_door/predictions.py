"""The hot route, /predictions/{model}[/{version}]: one image in, its probabilities out.

A request is let in by its head alone, so that one too many is refused before its body is read.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from serving.front_door.batcher import Batcher
from serving.front_door.bodies import ClientGone, Reading, Receive, allowed_s, images_of, read_body
from serving.front_door.errors import ApiError, unavailable
from serving.front_door.jobs import Answer
from serving.front_door.keys import Keys
from serving.front_door.readiness import Readiness
from serving.served import Served

PREFIX = "/predictions/"
METHODS = ("POST", "PUT")
FORM_OVERHEAD_BYTES = 4096


class Admitted(NamedTuple):
    """What the head of a request that was let in says: bytes of its body, when that is known, their type, seconds until its answer."""

    length: int | None
    content_type: bytes
    timeout_s: float | None


class Predictions:
    """Lets requests in, and answers them from `batcher`."""

    def __init__(self, served: Served, batcher: Batcher, readiness: Readiness, reading: Reading, keys: Keys | None) -> None:
        self._served, self._batcher, self._readiness, self._reading, self._keys = served, batcher, readiness, reading, keys
        self._paths = frozenset({f"{PREFIX}{served.name}", f"{PREFIX}{served.name}/{served.version}"})

    def admit(self, scope: MutableMapping[str, Any]) -> Admitted:
        """Let in the request with this ASGI scope, or raise ApiError."""
        given = dict(scope["headers"])
        if self._keys is not None:
            self._keys.admit(given.get(b"authorization"), given.get(b"x-api-key"))
        if scope["path"] not in self._paths:
            wanted = f"{PREFIX}{self._served.name}"
            raise ApiError(404, "UnknownModel", f"got {scope['path']}, this server has {wanted} in version {self._served.version}")
        if scope["method"] not in METHODS:
            message = f"got {scope['method']}, wanted POST or PUT with an image as body"
            raise ApiError(405, "MethodNotAllowed", message, headers={"allow": ", ".join(METHODS)})
        if not self._readiness.open:
            raise unavailable("NotReady", f"{self._readiness.reason}: send the image again when /readyz answers 200")
        timeout_s = allowed_s(given.get(b"x-request-timeout-ms"))
        self._batcher.admit(1, timeout_s=timeout_s)
        length = given.get(b"content-length")
        return Admitted(int(length) if length else None, given.get(b"content-type", b""), timeout_s)

    async def answer(self, admitted: Admitted, receive: Receive, connection: Any) -> Answer:
        """The answer to its image; `connection` is the one it came by, when that can say that its client left.

        Raises: ApiError; ClientGone.
        """
        length, content_type, timeout_s = admitted
        is_form = content_type.startswith(b"multipart/")
        most = self._served.max_image_bytes + FORM_OVERHEAD_BYTES * is_form
        with self._reading.room(length, most):
            body = await read_body(receive, length, most)
        if content_type:
            body = images_of(content_type, body, fields=("data", "body", "file"))[0].data
        answer = self._batcher.submit(body, timeout_s=timeout_s)
        if connection is None:
            return await answer
        connection.awaited = answer
        try:
            return await answer
        except asyncio.CancelledError:
            if connection.gone:
                raise ClientGone from None
            raise
        finally:
            connection.awaited = None
