"""One suite for both runtimes: the same archive, the same requests, the same statuses and bodies."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import LABELS, picture
from test_torchserve import Serve, serving

from serving.bench import attacks
from serving.served import open_archive

pytestmark = pytest.mark.torchserve
RED, BLUE = picture(255, 0, 0), picture(0, 0, 255, kind="PNG")
PREDICT = "/predictions/colours"
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module", params=["torchserve", "flask"])
def runtime(request: pytest.FixtureRequest, archive: Path) -> Iterator[Serve]:
    with serving(archive, "--workers", "1", "--runtime", request.param) as serve:
        serve.wait_until_ready()
        yield serve


def ask(serve: Serve, method: str, path: str, **request: Any) -> httpx.Response:
    return httpx.request(method, serve.url + path, timeout=30, **request)


def test_golden_images_predict_as_recorded(runtime: Serve, archive: Path) -> None:
    served = open_archive(archive)
    for golden in served.golden:
        answer = ask(runtime, "POST", PREDICT, content=golden.image)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        assert answer.headers["x-slipway-digest"] == served.short_digest
        assert answer.json() == pytest.approx(dict(zip(LABELS, golden.probabilities, strict=True)), abs=1e-3)
        assert list(answer.json()) == sorted(answer.json(), key=answer.json().__getitem__, reverse=True)


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        (("POST", PREDICT, {"content": b"no image"}), 400, "NotAnImage"),
        (("POST", PREDICT, {"content": b""}), 400, "EmptyBody"),
        (("POST", PREDICT, {"content": RED, "headers": {"content-type": "text/html"}}), 415, "UnsupportedMediaType"),
        (("POST", PREDICT, {"content": b"x" * 300_000}), 413, "TooLarge"),
        (("POST", PREDICT, {"content": picture(1, 2, 3, size_px=1200)}), 413, None),
        (("POST", PREDICT, {"files": {"other": ("x.jpg", RED)}}), 400, "NoImage"),
        (("POST", PREDICT, {"content": b"cut", "headers": {"content-type": "multipart/form-data; boundary=x"}}), 400, "BadForm"),
        (("POST", "/predictions/other", {"content": RED}), 404, "UnknownModel"),
        (("POST", PREDICT + "/9.9", {"content": RED}), 404, "UnknownModel"),
        (("GET", PREDICT, {}), 405, "MethodNotAllowed"),
        (("DELETE", "/v1/classify", {}), 405, "MethodNotAllowed"),
        (("GET", "/nowhere", {}), 404, "NotFound"),
        (("POST", "/v1/classify", {"content": b"no image"}), 400, "NotAnImage"),
        (("POST", "/v1/classify", {"files": [("files", ("a", b"no")), ("files", ("b", b"nor this"))]}), 400, None),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else str(value),
)
def test_errors_have_the_same_status_and_type(
    runtime: Serve, request_: tuple[str, str, dict[str, Any]], status: int, kind: str | None
) -> None:
    method, path, request = request_
    answer = ask(runtime, method, path, **request)
    assert answer.status_code == status, answer.text
    if kind is not None:
        content = answer.json()
        assert (content["code"], content["type"], sorted(content)) == (status, kind, ["code", "message", "type"])


@pytest.mark.parametrize("path", [PREDICT, PREDICT + "/1.0"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("request_", [{"content": RED}, {"content": RED, "headers": OCTETS}, {"files": {"data": ("x.jpg", RED)}}], ids=str)
def test_every_way_to_send_an_image_is_taken(runtime: Serve, method: str, path: str, request_: dict[str, Any]) -> None:
    answer = ask(runtime, method, path, **request_)
    assert answer.status_code == 200 and next(iter(answer.json())) == "red"


def test_several_images_are_answered_each_for_itself(runtime: Serve) -> None:
    files = [("files", ("a.jpg", RED)), ("files", ("b", b"no image")), ("files", ("c.png", BLUE))]
    answer = ask(runtime, "POST", "/v1/classify", files=files)
    content = answer.json()
    assert answer.status_code == 200 and (content["model"], content["version"]) == ("colours", "1.0") and len(content["digest"]) == 64
    first, second, third = content["results"]
    assert (first["file"], first["label"], third["label"]) == ("a.jpg", "red", "blue")
    assert first["probability"] == first["probabilities"]["red"] and sorted(first["probabilities"]) == LABELS
    assert second["error"]["type"] == "NotAnImage" and second.get("label") is None


def test_state_is_told_alike(runtime: Serve, archive: Path) -> None:
    served = open_archive(archive)
    state = {"status": "ready", "model": "colours", "version": "1.0", "digest": served.digest}
    for path, expected in (
        ("/readyz", state),
        ("/healthz", {"status": "alive"}),
        ("/ping", {"status": "Healthy"}),
        ("/models", {"models": [{"modelName": "colours", "modelUrl": "colours.mar"}]}),
        ("/info", json.loads(json.dumps(served.info()))),
    ):
        answer = ask(runtime, "GET", path)
        told = answer.json()
        told.pop("objective_s", None)  # of the front door, whatever the archive is
        assert (answer.status_code, told) == (200, expected)


def test_hostile_images_are_refused_with_the_same_status(runtime: Serve) -> None:
    for name, (body, status) in attacks.constructed().items():
        answer = ask(runtime, "POST", PREDICT, content=body, headers=OCTETS)
        assert answer.status_code == status, (name, answer.text)
    noise = random.Random(5)
    for size in (1, 100, 10_000):
        assert ask(runtime, "POST", PREDICT, content=noise.randbytes(size), headers=OCTETS).status_code == 400
