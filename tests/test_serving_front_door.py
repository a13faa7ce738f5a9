"""The front door through ASGI, with a batcher that answers by itself."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.front_door.admin import Admin
from serving.front_door.application import FrontDoor
from serving.front_door.bodies import Reading, form_parts
from serving.front_door.errors import ApiError, unavailable
from serving.front_door.jobs import Answer
from serving.front_door.keys import Keys
from serving.front_door.metrics import Metrics
from serving.front_door.readiness import Readiness
from serving.served import Golden, Served

GOOD = b'{"scratches":0.9,"inclusion":0.1}'


class StandInBatcher:
    """Answers 200 but for images that start with `bad`; keeps what it was sent."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.timeouts: list[float | None] = []
        self.full = False
        self.hold = False
        self.pending, self.limit, self.refused, self.objective_s, self.silent_s = 7, 96, 0, 2.0, 0.1

    def admit(self, count: int, size: int = 0, *, timeout_s: float | None = None) -> None:
        if self.full:
            raise unavailable("Full", "full")

    def submit_all(self, images: list[bytes], *, timeout_s: float | None = None) -> "list[asyncio.Future[Answer]]":
        return [self.submit(image, timeout_s=timeout_s) for image in images]

    def submit(self, image: bytes, *, timeout_s: float | None = None) -> "asyncio.Future[Answer]":
        self.admit(1)
        self.images.append(image)
        self.timeouts.append(timeout_s)
        future = asyncio.get_running_loop().create_future()
        bad = image.startswith(b"bad")
        if not self.hold:
            future.set_result(Answer(400, ApiError(400, "NotAnImage", "got text").body) if bad else Answer(200, GOOD))
        return future


class Door:
    """A front door and what belongs to it."""

    def __init__(self) -> None:
        self.batcher = StandInBatcher()
        self.readiness = Readiness()
        self.readiness.ready = self.readiness.open = True
        self.served = Served(
            path=Path("steel.mar"),
            name="steel",
            version="1.0",
            digest="0123456789abcdef" * 4,
            labels=("inclusion", "scratches"),
            max_image_bytes=1000,
            golden=(Golden("golden/0.jpg", b"x", (0.1, 0.9)),),
            golden_tolerance=0.03,
            reads_arenas=False,
            knows_gpus=False,
            about={
                "format": 1,
                "name": "steel",
                "version": "1.0",
                "variant": "int8",
                "labels": ["inclusion", "scratches"],
                "lineage": {"commit": "abc"},
                "golden": [],
            },
        )
        self.metrics = Metrics(self.served, self.batcher, self.readiness)  # type: ignore[arg-type]
        self.app = FrontDoor(self.served, self.batcher, self.readiness, self.metrics)  # type: ignore[arg-type]

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())


@pytest.fixture
def door() -> Door:
    return Door()


def problem(answer: httpx.Response) -> tuple[int, str]:
    """The status and the type of an answer that is the one error body, and nothing else."""
    content = answer.json()
    assert sorted(content) == ["code", "message", "type"] and content["code"] == answer.status_code and content["message"]
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"] and answer.headers["x-slipway-digest"] == "0123456789ab"
    return answer.status_code, content["type"]


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/steel", "/predictions/steel/1.0"])
def test_a_raw_body_of_any_binary_type_is_the_image(door: Door, content_type: str | None, method: str, path: str) -> None:
    answer = door.ask(method, path, content=b"jpeg bytes", headers={"content-type": content_type} if content_type else {})
    assert (answer.status_code, answer.content) == (200, GOOD)
    assert door.batcher.images == [b"jpeg bytes"]
    assert answer.headers["x-slipway-digest"] == "0123456789ab"


def test_a_form_with_the_field_data_holds_the_image(door: Door) -> None:
    awkward = b"\r\n--\r\nbytes\r\n\r\n of an image\r\n"
    answer = door.ask("POST", "/predictions/steel", files={"other": b"no", "data": ("x.jpg", awkward, "image/jpeg")})
    assert answer.status_code == 200
    assert door.batcher.images == [awkward]


def test_errors_of_the_hot_route_have_the_one_body(door: Door) -> None:
    assert problem(door.ask("POST", "/predictions/other", content=b"x")) == (404, "UnknownModel")
    assert problem(door.ask("POST", "/predictions/steel/2.0", content=b"x")) == (404, "UnknownModel")
    refused = door.ask("GET", "/predictions/steel")
    assert problem(refused) == (405, "MethodNotAllowed") and refused.headers["allow"] == "POST, PUT"
    assert problem(door.ask("POST", "/predictions/steel", content=b"")) == (400, "EmptyBody")
    assert problem(door.ask("POST", "/predictions/steel", content=b"x" * 1001)) == (413, "TooLarge")
    assert problem(door.ask("POST", "/predictions/steel", content=b"bad")) == (400, "NotAnImage")
    assert problem(door.ask("POST", "/predictions/steel", json={"a": 1})) == (415, "UnsupportedMediaType")
    assert problem(door.ask("POST", "/predictions/steel", files={"wrong": b"x"})) == (400, "NoImage")
    broken = {"content-type": "multipart/form-data; boundary=b"}
    assert problem(door.ask("POST", "/predictions/steel", content=b"--b\r\nnever closed", headers=broken)) == (400, "BadForm")


def test_a_body_that_grows_past_the_limit_is_refused_while_it_is_read(door: Door) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    assert problem(door.ask("POST", "/predictions/steel", content=endless())) == (413, "TooLarge")
    assert sent < 3000


def test_before_the_model_is_loaded_predictions_are_503_with_the_reason(door: Door) -> None:
    door.readiness.close("1 of 2 workers are ready")
    for answer in (
        door.ask("POST", "/predictions/steel", content=b"x"),
        door.ask("POST", "/v1/classify", content=b"x"),
        door.ask("GET", "/readyz"),
    ):
        assert problem(answer) == (503, "NotReady")
        assert "1 of 2 workers" in answer.json()["message"] and answer.headers["retry-after"] == "1"
    assert door.ask("GET", "/ping").json() == {"status": "Unhealthy"}
    assert door.ask("GET", "/healthz").status_code == 200


def test_a_full_queue_is_503_with_retry_after(door: Door) -> None:
    door.batcher.full = True
    for path in ("/predictions/steel", "/v1/classify"):
        answer = door.ask("POST", path, content=b"x")
        assert problem(answer) == (503, "Full") and answer.headers["retry-after"] == "1"


def test_other_routes_answer_errors_with_the_one_body(door: Door) -> None:
    assert problem(door.ask("GET", "/nothing")) == (404, "NotFound")
    assert problem(door.ask("DELETE", "/models")) == (405, "MethodNotAllowed")
    assert problem(door.ask("POST", "/readyz")) == (405, "MethodNotAllowed")
    assert problem(door.ask("POST", "/v1/classify", content=b"")) == (400, "EmptyBody")
    assert problem(door.ask("POST", "/v1/classify", content=b"bad")) == (400, "NotAnImage")
    assert problem(door.ask("POST", "/v1/classify", content=b"x" * 1001)) == (413, "TooLarge")
    assert problem(door.ask("POST", "/v1/classify", json={})) == (415, "UnsupportedMediaType")


def test_state_routes_say_what_is_served(door: Door) -> None:
    assert door.ask("GET", "/readyz").json()["digest"] == door.served.digest
    assert door.ask("GET", "/ping").json() == {"status": "Healthy"}
    assert door.ask("GET", "/models").json() == {"models": [{"modelName": "steel", "modelUrl": "steel.mar"}]}
    info = door.ask("GET", "/info").json()
    assert info["digest"] == door.served.digest and info["lineage"] == {"commit": "abc"} and "golden" not in info
    assert 'href="docs"' in door.ask("GET", "/").text


def test_classify_answers_one_raw_image(door: Door) -> None:
    content = door.ask("POST", "/v1/classify", content=b"x").json()
    assert content == {
        "model": "steel",
        "version": "1.0",
        "digest": door.served.digest,
        "results": [{"file": "", "label": "scratches", "probability": 0.9, "probabilities": {"scratches": 0.9, "inclusion": 0.1}}],
    }


def test_classify_answers_many_files_each_with_its_own_error(door: Door) -> None:
    files = [("files", (name, data)) for name, data in (("a.jpg", b"x"), ("b.txt", b"bad"), ("c.jpg", b"y" * 1001), ("d.jpg", b"z"))]
    answer = door.ask("POST", "/v1/classify", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["file"] for result in results] == ["a.jpg", "b.txt", "c.jpg", "d.jpg"]
    assert [result.get("label") for result in results] == ["scratches", None, None, "scratches"]
    assert [result.get("error", {}).get("type") for result in results] == [None, "NotAnImage", "TooLarge", None]
    assert door.batcher.images == [b"x", b"bad", b"z"]


def test_a_request_id_is_kept_and_else_made(door: Door) -> None:
    for path in ("/predictions/steel", "/v1/classify"):
        assert door.ask("POST", path, content=b"x", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
        made = {door.ask("POST", path, content=b"x").headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3
        assert door.ask("POST", path, content=b"x", headers={"x-request-id": "x" * 200}).headers["x-request-id"] != "x" * 200


def test_openapi_describes_what_the_front_door_answers_itself(door: Door) -> None:
    paths = door.ask("GET", "/openapi.json").json()["paths"]
    assert {"/predictions/{model}", "/v1/classify", "/readyz", "/healthz", "/ping", "/models", "/info"} <= set(paths)


def test_form_parts_are_found_by_name_with_their_bytes_untouched() -> None:
    body = (
        b'preamble\r\n--XY\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--XY\r\ncontent-type: image/png\r\ncontent-disposition: form-data; name="data"; filename="caf\xc3\xa9.png"\r\n'
        b"\r\n\x00\r\n--X\r\n--XY--\r\n"
    )
    parts = form_parts(b'multipart/form-data; boundary="XY"', body)
    assert parts == [("a", "", b"1"), ("data", "café.png", b"\x00\r\n--X")]


def test_when_the_client_leaves_its_image_is_forgotten(door: Door) -> None:
    class Connection:
        awaited: "asyncio.Future[Answer] | None" = None
        gone = False

    async def scenario() -> None:
        connection, sent = Connection(), []
        door.batcher.hold = True
        scope = {"type": "http", "path": "/predictions/steel", "method": "POST", "headers": [], "slipway.connection": connection}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        request: Callable[..., Coroutine[Any, Any, None]] = door.app.__call__
        task = asyncio.create_task(request(scope, receive, send))
        await asyncio.sleep(0.01)
        assert connection.awaited is not None
        awaited = connection.awaited
        connection.gone = True
        awaited.cancel()
        await task
        assert awaited.cancelled() and sent == []

    asyncio.run(scenario())


def test_every_error_body_is_json_with_three_keys() -> None:
    assert json.loads(unavailable("Full", "later").body) == {"code": 503, "type": "Full", "message": "later"}


def test_while_stopping_answers_still_come_and_tell_clients_to_connect_anew(door: Door) -> None:
    assert "connection" not in door.ask("POST", "/predictions/steel", content=b"jpeg").headers
    door.readiness.drain("stopping")
    assert problem(door.ask("GET", "/readyz")) == (503, "NotReady")
    for method, path in (("POST", "/predictions/steel"), ("POST", "/v1/classify"), ("GET", "/info")):
        answer = door.ask(method, path, content=b"jpeg")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("path", ["/predictions/steel", "/v1/classify"])
def test_the_time_that_a_request_allows_goes_with_its_image(door: Door, path: str) -> None:
    assert door.ask("POST", path, content=b"x", headers={"x-request-timeout-ms": "250"}).status_code == 200
    assert door.ask("POST", path, content=b"x").status_code == 200
    assert door.batcher.timeouts == [0.25, None]


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "", "600001", "9" * 5000])
@pytest.mark.parametrize("path", ["/predictions/steel", "/v1/classify"])
def test_a_time_that_is_none_is_a_400(door: Door, path: str, value: str) -> None:
    assert problem(door.ask("POST", path, content=b"x", headers={"x-request-timeout-ms": value})) == (400, "BadTimeout")
    assert door.batcher.images == []


def test_healthz_fails_when_no_worker_has_answered_for_long_but_not_while_the_model_loads(door: Door) -> None:
    assert door.ask("GET", "/healthz").json() == {"status": "alive"}
    door.batcher.silent_s = 1000.0
    for path in ("/healthz", "/v2/health/live"):
        assert problem(door.ask("GET", path)) == (503, "Stuck")
    door.readiness.open = False
    assert door.ask("GET", "/healthz").status_code == 200


def test_uploads_that_would_fill_the_memory_are_refused_and_their_room_comes_back(door: Door) -> None:
    reading = Reading(most=100)
    with reading.room(60, 80):
        with pytest.raises(ApiError) as refused, reading.room(None, 80):
            pass
        assert (refused.value.status, refused.value.kind) == (503, "Full")
        with reading.room(40, 80):
            pass
    with reading.room(1_000_000, 80), reading.room(20, 80):  # what is too long is cut off at the limit
        pass


async def told(path: str, *, key: str | None = "opens", method: str = "GET", fails: bool = False, keys: Path) -> httpx.Response:
    async def ask(path: str) -> tuple[int, bytes]:
        if fails:
            raise ConnectionRefusedError
        return (200, b'[{"modelName":"steel"}]') if path in ("/models", "/models/steel") else (404, b"no such model")

    transport = httpx.ASGITransport(Admin(ask, Keys(keys)))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return await client.request(method, path, headers={"x-api-key": key} if key else {})


@pytest.mark.parametrize(
    ("path", "options", "status", "kind"),
    [
        ("/models/steel", {"key": None}, 401, "NoKey"),
        ("/models/steel", {"key": "wrong"}, 401, "WrongKey"),
        ("/models/steel", {"method": "DELETE"}, 405, "MethodNotAllowed"),
        ("/models?url=http://x/evil.mar", {"method": "POST"}, 405, "MethodNotAllowed"),
        ("/models/steel/../../x", {}, 404, "NotFound"),
        ("/models/steel%0d%0aDELETE", {}, 404, "NotFound"),
        ("/workflows", {}, 404, "NotFound"),
        ("/models/other", {}, 404, "TorchServe"),
        ("/models/steel", {"fails": True}, 503, "NotReady"),
    ],
)
def test_the_admin_port_tells_only_reads_and_only_to_admins(tmp_path: Path, path: str, options: Any, status: int, kind: str) -> None:
    (tmp_path / "keys").write_text(f"me {hashlib.sha256(b'opens').hexdigest()}\n")
    answer = asyncio.run(told(path, keys=tmp_path / "keys", **options))
    assert (answer.status_code, answer.json()["type"]) == (status, kind)


def test_the_admin_port_tells_what_torchserve_says(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"me {hashlib.sha256(b'opens').hexdigest()}\n")
    answer = asyncio.run(told("/models/steel", keys=tmp_path / "keys"))
    assert (answer.status_code, answer.json()) == (200, [{"modelName": "steel"}])
