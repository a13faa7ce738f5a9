"""Images out of HTTP bodies: read with a limit on bytes and time, raw or as multipart/form-data."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from email.message import Message
from typing import Any, NamedTuple

from serving.front_door.errors import ApiError, unavailable

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Iterable[tuple[bytes, bytes]]

BODY_TIMEOUT_S = 30.0
MAX_ALLOWED_MS = 600_000
MAX_READING_BYTES = 256 << 20
MAX_REQUEST_BYTES = 64 << 20  # of a request that may carry many images
RAW_TYPES = (b"image/", b"application/octet-stream", b"application/x-www-form-urlencoded", b"binary/octet-stream")


class ClientGone(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class Part(NamedTuple):
    """One field of a form."""

    name: str
    filename: str
    data: bytes


class Reading:
    """The bytes of all bodies that are on their way in: bounded, so that many slow uploads cannot fill the memory."""

    def __init__(self, most: int = MAX_READING_BYTES) -> None:
        self._left = most

    @contextlib.contextmanager
    def room(self, length: int | None, limit: int) -> Iterator[None]:
        """Room for a body of `length` bytes, or of `limit`, when it is not known or more; ApiError 503 Full when there is none."""
        size = limit if length is None else min(length, limit)
        if size > self._left:
            raise unavailable("Full", "other requests are still being sent, and fill the memory for them: send it again after a second")
        self._left -= size
        try:
            yield
        finally:
            self._left += size


async def read_body(receive: Receive, length: int | None, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes; `length` is what Content-Length said.

    Raises: ApiError 413 TooLarge, 408 BodyTimeout, 400 EmptyBody; ClientGone.
    """
    if length is not None and length > limit:
        raise too_large(length, limit)
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _rest(receive, body, limit)
        except TimeoutError:
            raise ApiError(408, "BodyTimeout", f"got no whole body within {BODY_TIMEOUT_S:g} s: send it faster or smaller") from None
    elif message["type"] == "http.disconnect":
        raise ClientGone
    if len(body) > limit:
        raise too_large(len(body), limit)
    if not body:
        raise empty_body()
    return bytes(body)


async def _rest(receive: Receive, first: bytes, limit: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise too_large(size, limit)
        more = message.get("more_body", False)
    return b"".join(chunks)


def images_of(content_type: bytes, body: bytes, *, fields: tuple[str, ...]) -> list[Part]:
    """The images of a body: the parts named `fields` of a form, or the body itself.

    Raises: ApiError 415 for a content type that holds no image, 400 for a form without one of `fields`.
    """
    if content_type.startswith(b"multipart/form-data"):
        return _of_form(content_type, body, fields)
    if content_type and not content_type.startswith(RAW_TYPES):
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"got content type {content_type.decode('latin-1')}, wanted the image itself (image/*, application/octet-stream) "
            f"or multipart/form-data with a field {fields[0]}",
        )
    return [Part("", "", body)]


def _of_form(content_type: bytes, body: bytes, fields: tuple[str, ...]) -> list[Part]:
    parts = [part for part in form_parts(content_type, body) if part.name in fields]
    if not parts:
        raise ApiError(400, "NoImage", f"got a form without a field {fields[0]}: send it as curl -F {fields[0]}=@image.jpg")
    for part in parts:
        if not part.data:
            raise ApiError(400, "EmptyBody", f"got an empty field {part.name}, wanted an image")
    return parts


def form_parts(content_type: bytes, body: bytes) -> list[Part]:
    """The parts of a multipart/form-data body, their data uncopied but for one slice (RFC 7578).

    Raises: ApiError 400 BadForm.
    """
    boundary = _parameters(content_type).get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise ApiError(400, "BadForm", "got multipart/form-data without a boundary: let your HTTP client set the content type")
    mark = b"--" + boundary.encode("latin-1")
    chunks = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(chunks) < 3 or not chunks[-1].startswith(b"--"):
        raise ApiError(400, "BadForm", "got a form that was cut: its closing boundary is missing")
    parts = []
    for chunk in chunks[1:-1]:
        head, separator, data = chunk.partition(b"\r\n\r\n")
        disposition = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposition:")), None)
        if not separator or disposition is None:
            raise ApiError(400, "BadForm", "got a form with a part that has no Content-Disposition")
        parameters = _parameters(disposition.partition(b":")[2])
        parts.append(Part(str(parameters.get_param("name", "")), str(parameters.get_param("filename", "")), data))
    return parts


def _parameters(value: bytes) -> Message:
    message = Message()
    message["content-type"] = value.decode("utf-8", "replace").strip()
    return message


def allowed_s(value: bytes | str | None) -> float | None:
    """Seconds that a request allows for its answer, from the milliseconds in its header; None when it says nothing.

    Raises: ApiError 400 BadTimeout.
    """
    if value is None:
        return None
    try:
        milliseconds = int(value)
    except ValueError:
        milliseconds = 0
    if not 1 <= milliseconds <= MAX_ALLOWED_MS:
        raise ApiError(400, "BadTimeout", f"got X-Request-Timeout-Ms: {value!r}, wanted whole milliseconds, 1 to {MAX_ALLOWED_MS}")
    return milliseconds / 1e3


def empty_body() -> ApiError:
    """The answer to nothing."""
    return ApiError(400, "EmptyBody", "got an empty body, wanted an image: send its bytes, for example curl --data-binary @image.jpg")


def too_large(size: int, limit: int) -> ApiError:
    """The answer to more bytes than an image may have."""
    return ApiError(413, "TooLarge", f"got {size} bytes, at most {limit} are allowed: send a smaller image")
