"""The Open Inference Protocol, with expectations from its specification."""

import base64
from typing import Any

import pytest
from test_serving_front_door import Door, problem

INFER = "/v2/models/steel/infer"


@pytest.fixture
def door() -> Door:
    return Door()


def asking(*images: bytes, **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}
    return {"id": "42", "inputs": [tensor | changes]}


def test_images_in_one_tensor_give_probabilities_in_the_order_of_the_labels(door: Door) -> None:
    answer = door.ask("POST", INFER, json=asking(b"one", b"two"))
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "steel",
        "model_version": "1.0",
        "id": "42",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.1, 0.9]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["scratches", "scratches"]},
        ],
    }
    assert door.batcher.images == [b"one", b"two"]


def test_health_and_metadata_are_where_the_protocol_puts_them(door: Door) -> None:
    assert door.ask("GET", "/v2").json()["name"] == "slipway"
    metadata = door.ask("GET", "/v2/models/steel").json()
    assert (metadata["name"], metadata["versions"]) == ("steel", ["1.0"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/steel/ready"):
        assert door.ask("GET", path).status_code == 200
    door.readiness.close("gone")
    assert door.ask("GET", "/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/steel/ready"):
        assert problem(door.ask("GET", path)) == (503, "NotReady")
    assert problem(door.ask("POST", INFER, json=asking(b"one"))) == (503, "NotReady")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [1]},
        asking(b"one", datatype="FP32"),
        asking(b"one", shape=[3]),
        asking(b"one", shape=[]),
        asking(b"one", data=["%%%"]),
        asking(b"one", data=["ü"]),
        asking(b"one", data=[1]),
        asking(b"one", data=[]),
        asking(),
    ],
    ids=str,
)
def test_what_is_no_request_of_the_protocol_is_answered_400(door: Door, body: Any) -> None:
    assert problem(door.ask("POST", INFER, json=body)) == (400, "InvalidRequest")
    assert door.batcher.images == []


def test_an_image_that_is_none_or_too_large_names_itself(door: Door) -> None:
    answer = door.ask("POST", INFER, json=asking(b"one", b"bad"))
    assert problem(answer) == (400, "NotAnImage") and answer.json()["message"].startswith("image 1: ")
    assert problem(door.ask("POST", INFER, json=asking(b"x" * 1001))) == (413, "TooLarge")
    assert problem(door.ask("POST", INFER, json=asking(b""))) == (400, "EmptyBody")
    assert problem(door.ask("POST", INFER, content=b"{")) == (400, "InvalidRequest")
    assert problem(door.ask("POST", "/v2/models/other/infer", json=asking(b"x"))) == (404, "UnknownModel")
    door.batcher.full = True
    refused = door.ask("POST", INFER, json=asking(b"one"))
    assert problem(refused) == (503, "Full") and refused.headers["retry-after"] == "1"


def test_images_of_a_request_that_fails_are_not_counted_as_predictions(door: Door) -> None:
    good, bad = (base64.b64encode(image).decode() for image in (b"good", b"bad"))
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [good, bad]}]
    assert door.ask("POST", "/v2/models/steel/infer", json={"inputs": inputs}).status_code == 400
    assert 'slipway_predictions_total{label="scratches"} 0.0' in door.ask("GET", "/metrics").text
