"""What the OpenAPI document says of errors: the one body, and when each status comes."""

from typing import Any

from pydantic import BaseModel

from serving.front_door.bodies import MAX_ALLOWED_MS

WHEN = {
    400: "no image, a cut one, or a request that cannot be read",
    401: "no key, or an unknown one, where keys are needed",
    404: "nothing of that name here",
    408: "the body did not come in time",
    413: "more bytes or pixels than are taken",
    415: "a format or a content type that is not taken",
    429: "more requests than this key may send",
    500: "a fault of the server; its log says more",
    503: "not ready, full, or a worker was lost: send it again after Retry-After",
    504: "no answer within the time that the request allowed",
}
WAIT = {"Retry-After": {"description": "seconds", "schema": {"type": "string", "pattern": r"^\d+$"}}}
OF_AN_IMAGE = (400, 413, 415, 500, 503, 504)  # what one image may be answered
OF_IMAGES = (400, 401, 408, 413, 415, 429, 500, 503, 504)  # what a route that takes images may answer besides 200

ALLOWED = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "milliseconds that the sender waits: later there is no answer, and with no hope of one there is a 503 at once",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_ALLOWED_MS},
}


class Problem(BaseModel):
    """The one error body."""

    code: int
    type: str
    message: str


def problems(*statuses: int, several: Any = Problem) -> dict[int | str, dict[str, Any]]:
    """These statuses as FastAPI takes them for a route's `responses`; `several` is the body when no image of several has a prediction."""
    return {
        status: {"model": several if status in OF_AN_IMAGE else Problem, "description": WHEN[status]}
        | ({"headers": WAIT} if status in (429, 503) else {})
        for status in sorted(statuses)
    }
