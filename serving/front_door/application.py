"""The front door: an ASGI application that answers predictions and probes itself; the rest goes to FastAPI (routes.py).

A prediction costs the front door about a quarter of a millisecond of CPU; the same through a FastAPI route and httpx costs several.
FastAPI is loaded when the model is ready, or when the first request needs it: importing it takes as long as loading a model.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from itertools import count
from typing import Any

from serving.front_door.batcher import Batcher
from serving.front_door.bodies import MAX_REQUEST_BYTES, ClientGone, Reading, Receive
from serving.front_door.errors import ApiError, error_body
from serving.front_door.jobs import Answer
from serving.front_door.keys import Keys
from serving.front_door.metrics import CONTENT_TYPE, Metrics
from serving.front_door.predictions import METHODS, PREFIX, Predictions
from serving.front_door.readiness import Readiness
from serving.served import Served

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Ask = Callable[[], Awaitable[tuple[int, bytes]]]  # TorchServe's status and body
Headers = list[tuple[bytes, bytes]]
Refusal = tuple[int, bytes, bytes]  # status, lines of the head, body

REFUSAL = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nx-slipway-digest: %b\r\n"
ADMITTED = "slipway.admitted"  # where a scope says that `refusal` has let it in
log = logging.getLogger(__name__)


class FrontDoor:
    """Answers predictions and probes itself and hands the rest on; adds X-Request-Id and X-Slipway-Digest to every answer.

    With `internal_port`, metrics are told on that port alone; with `keys`, images are taken only from those who have one.
    """

    def __init__(
        self,
        served: Served,
        batcher: Batcher,
        readiness: Readiness,
        metrics: Metrics,
        *,
        upstream_metrics: Ask | None = None,
        internal_port: int | None = None,
        admin: tuple[int, App] | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._served, self._batcher, self._readiness, self._metrics = served, batcher, readiness, metrics
        self._taking_images = {"/v1/classify": "classify", f"/v2/models/{served.name}/infer": "infer"}  # of what FastAPI answers
        self._internal_port, self._admin, self._keys = internal_port, admin, keys
        self._upstream_metrics = upstream_metrics
        self._reading = Reading()
        self._rest: App | None = None
        self._probes = {"/readyz": self._readyz, "/healthz": self._healthz, "/ping": self._ping}
        self._digest = served.short_digest.encode()
        self._predictions = Predictions(served, batcher, readiness, self._reading, keys)
        self._ids = (f"{prefix}{number:x}".encode() for prefix in [secrets.token_hex(6)] for number in count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        path = scope["path"] if scope["type"] == "http" else ""
        if self._admin is not None and self._is_admin(scope):
            await self._admin[1](scope, receive, send)
        elif path.startswith(PREFIX):
            await self._predict(scope, receive, send)
        elif path.startswith("/metrics") and self._internal_port in (None, scope["server"][1]):
            await self._tell_metrics(path, scope, receive, send)
        elif path in self._probes and scope["method"] in ("GET", "HEAD"):
            await self._send(send, self._probes[path](), next(self._ids))
        else:
            await self._hand_on(scope, receive, send)

    async def _tell_metrics(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path == "/metrics":
            await self._send(send, Answer(200, self._metrics.text()), next(self._ids), content_type=CONTENT_TYPE)
        elif path == "/metrics/torchserve" and self._upstream_metrics is not None:
            try:
                status, body = await self._upstream_metrics()
            except (OSError, TimeoutError, EOFError, ValueError, LookupError):
                return await self._send(send, Answer(503, error_body(503, "NotReady", "TorchServe does not answer")), next(self._ids))
            await self._send(send, Answer(status, body), next(self._ids), content_type=CONTENT_TYPE)
        else:
            await self._hand_on(scope, receive, send)

    def load_rest(self) -> App:
        """The FastAPI application; takes most of a second the first time."""
        if self._rest is None:
            from serving.front_door.routes import make_app

            self._rest = make_app(self._served, self._batcher, self._readiness, self._metrics)
        return self._rest

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, started, status = self._taking_images.get(scope.get("path", "")), time.perf_counter(), 500
        headers = dict(scope.get("headers", ()))
        request_id, length = _request_id(scope) or next(self._ids), headers.get(b"content-length")

        async def send_named(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._named(request_id)]
            await send(message)

        rest = self._rest if self._rest is not None else await asyncio.to_thread(self.load_rest)
        if route is None:
            return await rest(scope, receive, send_named)
        self._metrics.in_flight += 1
        try:
            if self._keys is not None:
                self._keys.admit(headers.get(b"authorization"), headers.get(b"x-api-key"))
            with self._reading.room(int(length) if length else None, MAX_REQUEST_BYTES):
                await rest(scope, receive, send_named)
        except ApiError as error:
            status = error.status
            await self._send(send, Answer(status, error.body), request_id, error.headers.items())
        finally:
            self._metrics.in_flight -= 1
            self._metrics.request(route, status, time.perf_counter() - started)

    def _readyz(self) -> Answer:
        if not self._readiness.ready:
            return Answer(503, error_body(503, "NotReady", self._readiness.reason))
        served = self._served
        return Answer(200, _json({"status": "ready", "model": served.name, "version": served.version, "digest": served.digest}))

    def _healthz(self) -> Answer:
        why = self._readiness.stuck(self._batcher.silent_s)
        return Answer(503, error_body(503, "Stuck", why)) if why else Answer(200, _json({"status": "alive"}))

    def _ping(self) -> Answer:
        return Answer(200, _json({"status": "Healthy"})) if self._readiness.ready else Answer(503, _json({"status": "Unhealthy"}))

    def refusal(self, scope: Scope) -> Refusal | None:
        """What a prediction is refused with before its body is read; None for one that is let in, and for all other requests."""
        if not scope["path"].startswith(PREFIX) or scope["method"] not in METHODS or self._is_admin(scope) or self._readiness.draining:
            return None
        started = time.perf_counter()
        try:
            scope[ADMITTED] = self._predictions.admit(scope)
        except ApiError as error:
            body, more = error.body, "".join([f"{name}: {value}\r\n" for name, value in error.headers.items()]).encode()
            head = REFUSAL % (len(body), _request_id(scope) or next(self._ids), self._digest) + more
            self._metrics.request("predictions", error.status, time.perf_counter() - started)
            return error.status, head, body
        return None

    def _is_admin(self, scope: Scope) -> bool:
        return self._admin is not None and scope["server"][1] == self._admin[0]

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, started = _request_id(scope) or next(self._ids), time.perf_counter()
        self._metrics.in_flight += 1
        extra: Iterable[tuple[str, str]] = ()
        try:
            admitted = scope.get(ADMITTED) or self._predictions.admit(scope)
            answer = await self._predictions.answer(admitted, receive, scope.get("slipway.connection"))
        except ClientGone:
            return
        except ApiError as error:
            answer, extra = Answer(error.status, error.body), error.headers.items()
        except Exception:
            log.exception("request %s failed", request_id.decode())
            answer = Answer(500, ApiError(500, "Internal", f"our fault; the log has it under {request_id.decode()}").body)
        finally:
            self._metrics.in_flight -= 1
        if answer.status == 200:
            self._metrics.prediction(answer.body)
        self._metrics.request("predictions", answer.status, time.perf_counter() - started)
        await self._send(send, answer, request_id, extra)

    async def _send(
        self,
        send: Send,
        answer: Answer,
        request_id: bytes,
        extra: Iterable[tuple[str, str]] = (),
        *,
        content_type: bytes = b"application/json",
    ) -> None:
        if answer.status == 503 and not extra:
            extra = (("retry-after", "1"),)
        headers = self._headers(answer.body, request_id, extra, content_type)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _headers(
        self, body: bytes, request_id: bytes, extra: Iterable[tuple[str, str]], content_type: bytes = b"application/json"
    ) -> Headers:
        return [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            *self._named(request_id),
            *((name.encode(), value.encode()) for name, value in extra),
        ]

    def _named(self, request_id: bytes) -> list[tuple[bytes, bytes]]:
        """Headers of every answer. While stopping, clients are told to connect anew, to a server that stays."""
        headers = [(b"x-request-id", request_id), (b"x-slipway-digest", self._digest)]
        return [*headers, (b"connection", b"close")] if self._readiness.draining else headers


def _request_id(scope: Scope) -> bytes | None:
    """The caller's own name for its request, unless it is no name."""
    given: bytes | None = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
    return given if given and len(given) <= 128 and given.isascii() and given.decode("latin-1").isprintable() else None


def _json(value: dict[str, str]) -> bytes:
    return json.dumps(value).encode()
