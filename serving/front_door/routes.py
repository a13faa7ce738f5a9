"""Everything but predictions: readiness, health, lists, lineage, /v1/classify, OpenAPI. Errors have the one error body."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serving.front_door.batcher import Batcher
from serving.front_door.bodies import MAX_REQUEST_BYTES, ClientGone, Part, allowed_s, images_of, read_body, too_large
from serving.front_door.errors import ApiError, error_body, unavailable
from serving.front_door.jobs import Answer
from serving.front_door.kserve import add_kserve
from serving.front_door.metrics import Metrics
from serving.front_door.page import add_page
from serving.front_door.problems import ALLOWED, OF_IMAGES, Problem, problems
from serving.front_door.readiness import Readiness
from serving.front_door.results import classification
from serving.served import Served

DESCRIBED = "described here for /docs, answered by the front door before it comes here"
IMAGE = {"type": "string", "format": "binary", "minLength": 1}
IMAGE_BODY = {"content": {"image/*": {"schema": IMAGE}}, "required": True}
FILES = {"type": "object", "required": ["files"], "properties": {"files": {"type": "array", "items": IMAGE, "minItems": 1}}}
FORM = {"schema": FILES, "encoding": {"files": {"contentType": "image/*"}}}
FILES_BODY = {"content": {"multipart/form-data": FORM, "image/*": {"schema": IMAGE}}, "required": True}
UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"model": dict[str, str], "description": "predictions would fail or be wrong"}}


class Result(BaseModel):
    """One image: its label and all probabilities, highest first, or why there are none."""

    file: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    error: Problem | None = None


class Classification(BaseModel):
    """Results in the order of the files, and the archive they come from."""

    model: str
    version: str
    digest: str
    results: list[Result]


def make_app(served: Served, batcher: Batcher, readiness: Readiness, metrics: Metrics) -> FastAPI:
    """The FastAPI application for one archive."""
    app = FastAPI(
        title="Slipway",
        version=served.version,
        description=f"Model **{served.name}** {served.version}, archive sha256 `{served.digest}`.",
        docs_url=None,  # ours is in page/: theirs takes its scripts from another server
        redoc_url=None,
    )
    _add_error_handlers(app)
    _add_state_routes(app, served, batcher)
    add_page(app, served)
    _add_image_routes(app, served, batcher, readiness, metrics)
    add_kserve(app, served, batcher, readiness, metrics)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Make the OpenAPI document now, without the 422 that FastAPI adds to every route with a parameter: none of ours answers it."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def on_api_error(_: Request, error: ApiError) -> Response:
        return Response(error.body, error.status, error.headers, "application/json")

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HttpError")
        wanted = f"wanted {error.headers['Allow']}" if error.headers and "Allow" in error.headers else "see /docs"
        message = f"got {request.method} {request.url.path}: {error.detail}; {wanted}"
        return Response(error_body(error.status_code, kind, message), error.status_code, error.headers, "application/json")

    @app.exception_handler(Exception)
    async def on_fault(_: Request, error: Exception) -> Response:
        return Response(error_body(500, "Internal", f"our fault ({type(error).__name__}); see the log"), 500, media_type="application/json")


def _add_state_routes(app: FastAPI, served: Served, batcher: Batcher) -> None:
    @app.get("/readyz", tags=["state"], summary="200 only while predictions are right", responses=problems(503))
    @app.get("/healthz", tags=["state"], summary="200 while this server may still come right by itself", responses=problems(503))
    @app.get("/ping", tags=["TorchServe"], summary="As TorchServe's, but Healthy only while predictions are right", responses=UNHEALTHY)
    async def probe() -> dict[str, str]:
        raise NotImplementedError(DESCRIBED)

    @app.get("/models", tags=["TorchServe"], summary="The one model, as TorchServe lists it")
    async def models() -> dict[str, list[dict[str, str]]]:
        return {"models": [{"modelName": served.name, "modelUrl": f"{served.name}.mar"}]}

    @app.get("/info", tags=["state"], summary="What is served and where it comes from")
    async def info() -> dict[str, Any]:
        return {**served.info(), "objective_s": batcher.objective_s}


def _add_image_routes(app: FastAPI, served: Served, batcher: Batcher, readiness: Readiness, metrics: Metrics) -> None:
    async def predictions(model: Annotated[str, Path(examples=[served.name])]) -> dict[str, float]:
        raise NotImplementedError(DESCRIBED)

    for method in ("POST", "PUT"):
        app.add_api_route(
            "/predictions/{model}",
            predictions,
            methods=[method],
            tags=["TorchServe"],
            summary="Classify one image; label to probability, highest first",
            openapi_extra={"requestBody": IMAGE_BODY, "parameters": [ALLOWED]},
            responses=problems(404, *OF_IMAGES),
            operation_id=f"{method.lower()}_predictions",
        )

    @app.post(
        "/v1/classify",
        tags=["classify"],
        summary="Classify one image or many; an error of one image is its own",
        openapi_extra={"requestBody": FILES_BODY, "parameters": [ALLOWED]},
        response_model=Classification,
        responses=problems(*OF_IMAGES, several=Problem | Classification),
    )
    async def classify(request: Request) -> Any:
        if not readiness.open:
            raise unavailable("NotReady", readiness.reason)
        length = request.headers.get("content-length")
        try:
            body = await read_body(request.receive, int(length) if length else None, MAX_REQUEST_BYTES)
        except ClientGone:
            return Response()
        parts = images_of(request.headers.get("content-type", "").encode("latin-1"), body, fields=("files", "file", "data"))
        answers = await _answers(parts, batcher, served.max_image_bytes, timeout_s=allowed_s(request.headers.get("x-request-timeout-ms")))
        for answer in answers:
            if answer.status == 200:
                metrics.prediction(answer.body)
        status, content = classification(served, parts, answers)
        retry = {"retry-after": "1"} if status == 503 else None
        return Response(content, status, retry, "application/json")


async def _answers(parts: list[Part], batcher: Batcher, limit: int, *, timeout_s: float | None) -> list[Answer]:
    small = [part.data for part in parts if len(part.data) <= limit]
    answers = iter(await asyncio.gather(*batcher.submit_all(small, timeout_s=timeout_s)))
    return [next(answers) if len(part.data) <= limit else Answer(413, too_large(len(part.data), limit).body) for part in parts]
