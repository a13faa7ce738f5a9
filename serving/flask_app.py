"""The way out: the same archive behind a small Flask application under gunicorn, without TorchServe and without a JVM.

Each gunicorn process loads the archive's own handler. What is answered is what the front door answers; what is left out is
batching, the queue in front of it, keys, KServe's protocol and the page.
"""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from serving.archive import load_handler, read, unpack
from serving.front_door.bodies import empty_body, images_of, too_large
from serving.front_door.errors import ApiError, error_body
from serving.front_door.results import Classified, classification
from serving.plan import Plan
from serving.served import Served

THREADS = 8  # of one process: they read slow clients' bodies while one image is computed
FORM_OVERHEAD_BYTES = 4096
MAX_CLASSIFY_BYTES = 64 << 20


def make_app(served: Served, handler: Any) -> Flask:
    """The application for one archive and its handler, opened and checked."""
    app = Flask("slipway")
    computing = threading.Lock()

    def classify(images: list[bytes]) -> list[Classified]:
        with computing:
            answers: list[Classified] = handler.classify(images, alone=len(images) == 1)[0]
        return answers

    @app.after_request
    def name(response: Response) -> Response:
        response.headers["x-slipway-digest"] = served.short_digest
        return response

    @app.errorhandler(ApiError)
    def on_api_error(error: ApiError) -> Response:
        return Response(error.body, error.status, error.headers, content_type="application/json")

    @app.errorhandler(HTTPException)
    def on_http_error(error: HTTPException) -> Response:
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.code or 500, "HttpError")
        message = f"got {request.method} {request.path}: {error.name}"
        return Response(error_body(error.code or 500, kind, message), error.code, content_type="application/json")

    @app.post("/predictions/<model>", strict_slashes=True)
    @app.put("/predictions/<model>")
    @app.post("/predictions/<model>/<version>")
    @app.put("/predictions/<model>/<version>")
    def predictions(model: str, version: str = served.version) -> Response:
        if (model, version) != (served.name, served.version):
            wanted = f"/predictions/{served.name}"
            raise ApiError(404, "UnknownModel", f"got {request.path}, this server has {wanted} in version {served.version}")
        kind = request.headers.get("content-type", "").encode("latin-1")
        body = _body(served.max_image_bytes + FORM_OVERHEAD_BYTES * kind.startswith(b"multipart/"))
        ((status, content),) = classify([images_of(kind, body, fields=("data", "body", "file"))[0].data])
        return Response(content, status, content_type="application/json")

    @app.post("/v1/classify")
    def many() -> Response:
        parts = images_of(
            request.headers.get("content-type", "").encode("latin-1"), _body(MAX_CLASSIFY_BYTES), fields=("files", "file", "data")
        )
        status, content = classification(served, parts, classify([part.data for part in parts]))
        return Response(content, status, content_type="application/json")

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready", "model": served.name, "version": served.version, "digest": served.digest}

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ping")
    def ping() -> dict[str, str]:
        return {"status": "Healthy"}

    @app.get("/models")
    def models() -> dict[str, Any]:
        return {"models": [{"modelName": served.name, "modelUrl": f"{served.name}.mar"}]}

    @app.get("/info")
    def info() -> Response:
        return Response(json.dumps(served.info()), content_type="application/json")

    return app


def _body(limit: int) -> bytes:
    """The whole body, of at most `limit` bytes.

    Raises: ApiError 413 TooLarge, 400 EmptyBody.
    """
    if request.content_length is not None and request.content_length > limit:
        raise too_large(request.content_length, limit)
    body = request.stream.read(limit + 1)
    if len(body) > limit:
        raise too_large(len(body), limit)
    if not body:
        raise empty_body()
    return body


def serve(served: Served, plan: Plan, *, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, with a process a worker of `plan`; `on_ready` is called when the first has its model.

    Raises: ValueError when the archive does not load; its reason is in the log.
    """
    from gunicorn.app.base import BaseApplication

    with TemporaryDirectory(prefix="slipway-") as name:
        folder = Path(name)
        unpack(read(served.path), folder)

        class Application(BaseApplication):  # type: ignore[misc]
            def load_config(self) -> None:
                settings = {
                    "bind": f"fd://{sock.fileno()}",
                    "workers": plan.workers,
                    "worker_class": "gthread",
                    "threads": THREADS,
                    "timeout": 60,
                    "graceful_timeout": 30,
                    "loglevel": "warning",
                    "post_worker_init": lambda worker: on_ready() if worker.age == 1 else None,
                }
                for key, value in settings.items():
                    self.cfg.set(key, value)

            def load(self) -> Flask:
                return make_app(served, load_handler(folder, threads=plan.threads_per_worker))

        try:
            Application().run()
        except SystemExit as ended:
            if ended.code:
                raise ValueError(f"{served.path} was not loaded: gunicorn ended with {ended.code}, its log says why") from None
