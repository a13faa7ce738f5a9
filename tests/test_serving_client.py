"""The client against a transport that plays the server."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.client import Client, Prediction, Unreachable


def classified(label: str, probability: float) -> dict[str, Any]:
    result = {"file": "", "label": label, "probability": probability, "probabilities": {label: probability}}
    return {"model": "m", "version": "1.0", "digest": "d", "results": [result]}


def client(answer: Any, **settings: Any) -> Client:
    return Client("http://here", transport=httpx.MockTransport(answer), **settings)


def test_predictions_come_in_the_order_of_the_files_while_several_are_on_their_way(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(b"%d" % number)
    busy, most, lock = 0, 0, threading.Lock()

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02 if int(request.content) % 2 else 0.001)
        with lock:
            busy -= 1
        return httpx.Response(200, json=classified(request.content.decode(), 0.5))

    with client(answer, concurrency=4) as server:
        assert [prediction.label for prediction in server.classify(paths)] == [str(number) for number in range(12)]
    assert 1 < most <= 4


def test_an_error_of_one_file_is_its_own(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"text")

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"code": 400, "type": "NotAnImage", "message": "got text"})

    with client(answer) as server:
        first, second = server.classify([bad, tmp_path / "missing.jpg"])
    assert first == Prediction(str(bad), error="got text")
    assert second.error is not None and "No such file" in second.error


def test_no_server_is_said_in_words() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with client(refuse) as server, pytest.raises(Unreachable, match="slipway serve"):
        server.classify_bytes(b"x")


def test_a_503_is_tried_again_as_the_server_asks() -> None:
    answers = [httpx.Response(503, headers={"retry-after": "0"}, json={"code": 503, "type": "Full", "message": "full"})] * 2
    answers.append(httpx.Response(200, json=classified("a", 1.0)))

    with client(lambda _: answers.pop(0)) as server:
        assert server.classify_bytes(b"x").label == "a"


def test_a_503_is_not_tried_for_ever() -> None:
    tries = 0

    def busy(_: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return httpx.Response(503, headers={"retry-after": "0"}, json={"code": 503, "type": "Full", "message": "full"})

    with client(busy) as server:
        assert server.classify_bytes(b"x").error == "full"
    assert tries == 5


def test_something_else_at_the_address_is_said_in_words() -> None:
    with client(lambda _: httpx.Response(404, text="<html>")) as server:
        error = server.classify_bytes(b"x").error
    assert error is not None and "is this a Slipway server?" in error


def test_ready_and_info_come_typed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/readyz":
            return httpx.Response(503, json={"code": 503, "type": "NotReady", "message": "the model is being loaded"})
        return httpx.Response(200, content=json.dumps({"name": "steel"}))

    with client(answer) as server:
        assert server.ready() == (False, "the model is being loaded")
        assert server.info() == {"name": "steel"}
