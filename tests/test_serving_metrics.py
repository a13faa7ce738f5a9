"""What /metrics tells, against counts made by hand."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_serving_front_door import Door

from serving.front_door.metrics import Metrics

Labels = dict[str, str]


def series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series of a scrape by its name and labels."""
    families = text_string_to_metric_families(text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def value(text: str, name: str, **labels: str) -> float:
    return series(text)[name, frozenset(labels.items())]


@pytest.fixture
def door() -> Door:
    return Door()


def test_requests_are_counted_by_route_and_status_and_images_by_class(door: Door) -> None:
    for body in (b"one", b"two", b"bad"):
        door.ask("POST", "/predictions/steel", content=body)
    door.ask("POST", "/v1/classify", files=[("files", ("a", b"one")), ("files", ("b", b"bad"))])
    door.batcher.full = True
    assert door.ask("POST", "/predictions/steel", content=b"x").status_code == 503
    text = door.ask("GET", "/metrics").text
    assert value(text, "slipway_request_seconds_count", route="predictions", status="2xx") == 2
    assert value(text, "slipway_request_seconds_count", route="predictions", status="4xx") == 1
    assert value(text, "slipway_request_seconds_count", route="predictions", status="5xx") == 1
    assert value(text, "slipway_request_seconds_count", route="classify", status="2xx") == 1
    assert value(text, "slipway_predictions_total", label="scratches") == 3
    assert value(text, "slipway_predictions_total", label="inclusion") == 0
    assert value(text, "slipway_requests_in_flight") == 0
    assert value(text, "slipway_queue_images") == 7
    assert value(text, "slipway_ready") == 1
    assert value(text, "slipway_model_info", model="steel", version="1.0", digest="0123456789ab", variant="int8") == 1
    assert value(text, "process_resident_memory_bytes") > 1e6


def test_a_batch_is_counted_with_its_stages_and_a_lost_one_apart(door: Door) -> None:
    door.metrics.batch(3, {"statuses": [200] * 3, "decode_s": 0.004, "inference_s": 0.03})
    door.metrics.batch(5, None)
    text = door.metrics.text().decode()
    assert value(text, "slipway_batch_images_sum") == 3
    assert value(text, "slipway_batch_images_bucket", le="2.0") == 0 and value(text, "slipway_batch_images_bucket", le="4.0") == 1
    assert value(text, "slipway_stage_seconds_sum", stage="decode") == pytest.approx(0.004)
    assert value(text, "slipway_stage_seconds_sum", stage="inference") == pytest.approx(0.03)
    assert value(text, "slipway_batches_lost_total") == 1


@pytest.mark.parametrize("label", ['a "b": c', "größe", "back\\slash", ""])
def test_a_class_of_any_name_is_counted(door: Door, label: str) -> None:
    import json

    metrics = Metrics(replace(door.served, labels=("other one", label)), door.batcher, door.readiness)
    metrics.prediction(json.dumps({label: 0.9, "other one": 0.1}, separators=(",", ":")).encode())
    assert value(metrics.text().decode(), "slipway_predictions_total", label=label) == 1


def test_a_thousand_classes_are_at_most_two_hundred_series(door: Door) -> None:
    labels = tuple(f"class {number}" for number in range(1000))
    metrics = Metrics(replace(door.served, labels=labels), door.batcher, door.readiness)
    metrics.prediction(b'{"class 3":1.0}')
    metrics.prediction(b'{"class 999":1.0}')
    text = metrics.text().decode()
    assert len(series(text)) <= 200
    assert value(text, "slipway_predictions_total", label="class 3") == value(text, "slipway_predictions_total", label="other") == 1


def test_with_an_internal_port_metrics_are_not_on_the_other(door: Door) -> None:
    door.app._internal_port = 9090  # what ASGI calls `server` is ("door", None) here
    assert door.ask("GET", "/metrics").status_code == 404
    door.app._internal_port = None
    assert door.ask("GET", "/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_metrics_are_the_text_that_prometheus_reads(door: Door) -> None:
    names: Iterable[str] = (family.name for family in text_string_to_metric_families(door.ask("GET", "/metrics").text))
    assert {"slipway_request_seconds", "slipway_stage_seconds", "slipway_batch_images", "slipway_predictions"} <= set(names)
