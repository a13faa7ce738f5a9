"""A typed HTTP client of the front door: images in, predictions out. Used by `slipway predict` and by tests."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

RETRIES = 5


class Unreachable(ConnectionError):
    """No server answers at the address."""


@dataclass(frozen=True)
class Prediction:
    """One image's answer: its label and all probabilities, highest first; or `error` in words."""

    file: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Client:
    """A client for one server. Every wait has a limit; a 503 is tried again as the server asks, a few times."""

    def __init__(self, url: str, *, timeout_s: float = 60.0, concurrency: int = 8, transport: httpx.BaseTransport | None = None) -> None:
        self._url, self._concurrency = url.rstrip("/"), concurrency
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def ready(self) -> tuple[bool, str]:
        """Whether the server is ready, and what it says about it. Raises: Unreachable."""
        answer = self._send("GET", "/readyz")
        return answer.status_code == 200, str(_json(answer).get("message", "ready"))

    def info(self) -> dict[str, Any]:
        """What is served: name, version, digest, labels, lineage. Raises: Unreachable."""
        return _json(self._send("GET", "/info"))

    def classify(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """A prediction for each path, in their order, several on their way at once. Raises: Unreachable."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                yield from pool.map(self.classify_file, paths)
            except Unreachable:
                pool.shutdown(cancel_futures=True)
                raise

    def classify_file(self, path: Path) -> Prediction:
        """The prediction for the image at `path`; a file that cannot be read is an error of that file. Raises: Unreachable."""
        try:
            image = path.read_bytes()
        except OSError as error:
            return Prediction(str(path), error=f"cannot be read: {error.strerror}")
        return self.classify_bytes(image, name=str(path))

    def classify_bytes(self, image: bytes, *, name: str = "") -> Prediction:
        """The prediction for one image. Raises: Unreachable."""
        answer = self._send("POST", "/v1/classify", content=image, headers={"content-type": "application/octet-stream"})
        content = _json(answer)
        if answer.status_code != 200:
            return Prediction(name, error=str(content.get("message", f"HTTP {answer.status_code}")))
        result = content["results"][0]
        return Prediction(name, result["label"], result["probability"], result["probabilities"])

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        for attempt in range(RETRIES):
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                raise Unreachable(
                    f"no answer from {self._url} ({error}): start the server with `slipway serve MODEL.mar`, or give its address with --url"
                ) from error
            if answer.status_code != 503 or method == "GET" or attempt == RETRIES - 1:
                break
            time.sleep(min(5.0, float(answer.headers.get("retry-after", 1))))
        return answer


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return {"message": f"got HTTP {answer.status_code} without a JSON object: is this a Slipway server?"}
    return content
