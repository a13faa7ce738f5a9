"""The one error of every HTTP answer: {"code": 400, "type": "NotAnImage", "message": "got ..., wanted ..., do ..."}."""

import json
from functools import lru_cache


class ApiError(Exception):
    """An answer other than 200: its HTTP status, its type in CamelCase, and what was got, what was wanted, what to do next."""

    def __init__(self, status: int, kind: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers or {}

    @property
    def body(self) -> bytes:
        """The JSON body."""
        return error_body(self.status, self.kind, self.message)


@lru_cache(maxsize=64)  # under an overload the same is said a thousand times a second
def error_body(status: int, kind: str, message: str) -> bytes:
    """The error body as JSON bytes."""
    return json.dumps({"code": status, "type": kind, "message": message}).encode()


def unavailable(kind: str, message: str, *, retry_after_s: int = 1) -> ApiError:
    """A 503 that says when to come again."""
    return ApiError(503, kind, message, headers={"retry-after": str(retry_after_s)})
