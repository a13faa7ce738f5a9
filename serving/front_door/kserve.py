"""The Open Inference Protocol (KServe v2) over JSON: images in as base64 strings, probabilities and labels out.

Source: kserve/open-inference-protocol, "Open Inference Protocol, Version 2.0". Errors keep this server's one error body.
"""

import asyncio
import base64
import binascii
import json
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.front_door.batcher import Batcher
from serving.front_door.bodies import ClientGone, allowed_s, read_body
from serving.front_door.errors import ApiError, unavailable
from serving.front_door.metrics import Metrics
from serving.front_door.problems import ALLOWED, OF_IMAGES, problems
from serving.front_door.readiness import Readiness
from serving.served import Served

MAX_BODY_BYTES = 64 << 20
MAX_IMAGES = 256
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="  # of one pixel
EXAMPLE = '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["<base64 of an image file>"]}]}'


class Tensor(BaseModel):
    """The one input: one image a string."""

    model_config = ConfigDict(extra="ignore")
    name: str
    shape: list[int]
    datatype: Literal["BYTES"]
    data: list[str] = Field(min_length=1, max_length=MAX_IMAGES, description="image files, base64")


class Inference(BaseModel):
    """A request for inference."""

    model_config = ConfigDict(extra="ignore")
    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)


class Output(BaseModel):
    """One output: `probabilities` (N, K) in the order of the model's labels, or `label` (N)."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] | list[str]


class Inferred(BaseModel):
    """The answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Output]


def add_kserve(app: FastAPI, served: Served, batcher: Batcher, readiness: Readiness, metrics: Metrics) -> None:
    """Add the protocol's paths for the one model."""
    Model = Annotated[str, Path(examples=[served.name])]

    def known(model: str) -> None:
        if model != served.name:
            raise ApiError(404, "UnknownModel", f"got model {model}, this server has {served.name}")

    def ready() -> None:
        if not readiness.ready:
            raise unavailable("NotReady", readiness.reason)

    @app.get("/v2", tags=["KServe v2"], summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "slipway", "version": served.version, "extensions": []}

    @app.get("/v2/health/live", tags=["KServe v2"], summary="As /healthz: 503 when it should be started anew", responses=problems(503))
    async def live() -> dict[str, bool]:
        if why := readiness.stuck(batcher.silent_s):
            raise unavailable("Stuck", why)
        return {"live": True}

    @app.get("/v2/health/ready", tags=["KServe v2"], summary="200 only while predictions are right", responses=problems(503))
    async def server_ready() -> dict[str, bool]:
        ready()
        return {"ready": True}

    @app.get("/v2/models/{model}", tags=["KServe v2"], summary="Inputs and outputs of the model", responses=problems(404))
    async def metadata(model: Model) -> dict[str, Any]:
        known(model)
        return {
            "name": served.name,
            "versions": [served.version],
            "platform": "torchserve_openvino",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(served.labels)]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
            "parameters": {"labels": list(served.labels)},
        }

    @app.get("/v2/models/{model}/ready", tags=["KServe v2"], summary="200 only while they are right", responses=problems(404, 503))
    async def model_ready(model: Model) -> dict[str, Any]:
        known(model)
        ready()
        return {"name": served.name, "ready": True}

    @app.post(
        "/v2/models/{model}/infer",
        tags=["KServe v2"],
        summary="Classify images that come as base64",
        response_model=Inferred,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _schema()}}}, "parameters": [ALLOWED]},
        responses=problems(404, *OF_IMAGES),
    )
    async def infer(model: Model, request: Request) -> Any:
        known(model)
        if not readiness.open:
            raise unavailable("NotReady", readiness.reason)
        asked, images = _read(await _body(request), served.max_image_bytes)
        answers = await asyncio.gather(*batcher.submit_all(images, timeout_s=allowed_s(request.headers.get("x-request-timeout-ms"))))
        for number, answer in enumerate(answers):
            if answer.status != 200:
                problem = json.loads(answer.body)
                retry = {"retry-after": "1"} if answer.status == 503 else None
                raise ApiError(answer.status, problem["type"], f"image {number}: {problem['message']}", headers=retry)
        for answer in answers:
            metrics.prediction(answer.body)
        return _inferred(served, asked.id, [json.loads(answer.body) for answer in answers])


def _inferred(served: Served, request_id: str | None, rows: list[dict[str, float]]) -> Inferred:
    """The answer for images whose probabilities by label are `rows`."""
    probabilities = [row[label] for row in rows for label in served.labels]
    return Inferred(
        model_name=served.name,
        model_version=served.version,
        id=request_id,
        outputs=[
            Output(name="probabilities", shape=[len(rows), len(served.labels)], datatype="FP32", data=probabilities),
            Output(name="label", shape=[len(rows)], datatype="BYTES", data=[max(row, key=row.__getitem__) for row in rows]),
        ],
    )


def _schema() -> dict[str, Any]:
    """The JSON schema of `Inference` in one piece, as the OpenAPI document needs it, with an example."""
    schema = Inference.model_json_schema()
    schema["properties"]["inputs"]["items"] = schema.pop("$defs")["Tensor"]
    return {**schema, "example": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [PNG]}]}}


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length")
    try:
        return await read_body(request.receive, int(length) if length else None, MAX_BODY_BYTES)
    except ClientGone:
        raise ApiError(400, "ClientGone", "the client left") from None


def _read(body: bytes, max_image_bytes: int) -> tuple[Inference, list[bytes]]:
    try:
        asked = Inference.model_validate_json(body)
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()[:5])
        raise ApiError(400, "InvalidRequest", f"{words}; wanted {EXAMPLE}") from None
    tensor = asked.inputs[0]
    if tensor.shape not in ([len(tensor.data)], [len(tensor.data), 1]):
        raise ApiError(400, "InvalidRequest", f"got shape {tensor.shape} for {len(tensor.data)} strings, wanted [{len(tensor.data)}]")
    try:
        images = [base64.b64decode(text, validate=True) for text in tensor.data]
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "InvalidRequest", f"inputs.0.data: {error}; wanted base64 of image files") from None
    for image in images:
        if len(image) > max_image_bytes:
            raise ApiError(413, "TooLarge", f"got an image of {len(image)} bytes, at most {max_image_bytes} are allowed")
        if not image:
            raise ApiError(400, "EmptyBody", "got an empty string, wanted base64 of an image file")
    return asked, images
