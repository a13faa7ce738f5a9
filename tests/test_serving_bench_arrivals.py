"""The open-loop load generator against a server of known behaviour."""

import threading
import time
from typing import Any

import pytest
from test_serving_bench_load import IMAGES, Server, images, server  # noqa: F401 (a fixture)

from serving.bench.arrivals import Arrivals, drive


def drive_it(one: Server, images: list[str], **changes: Any) -> dict[str, Any]:  # noqa: F811
    arrivals: dict[str, Any] = {
        "host": "127.0.0.1", "port": one.server_port, "path": "/predictions/m", "images": images, "labels": list(IMAGES.values()),
        "rate_rps": 100.0, "seconds": 1.0, "lead_in_s": 0.1, "drain_s": 20.0, "objective_s": 1.0, "max_connections": 500,
    }  # fmt: skip
    return drive(Arrivals(**{**arrivals, **changes}))


def slow(body: bytes) -> str:
    time.sleep(0.05)
    return IMAGES[body]


def test_requests_come_at_the_rate_that_was_asked_for_and_not_evenly(images):  # noqa: F811
    with server() as one:
        result = drive_it(one, images, rate_rps=100.0, seconds=3.0, objective_s=20.0)
    assert result["sent"] == pytest.approx(100 * 3.1, abs=4 * (100 * 3.1) ** 0.5), "a Poisson count lies within 4 standard deviations"
    assert result["errors"] == {} and result["answered"] == result["sent"]
    assert result["goodput_rps"] == pytest.approx(100, rel=0.5)
    counts = [second["right"]["count"] for second in result["each_second"]]
    assert sum(counts) == result["right"]["count"] and len(counts) == 3


def test_requests_come_whether_or_not_the_server_keeps_up(images):  # noqa: F811
    with server(label_of=slow) as one:
        result = drive_it(one, images, rate_rps=100.0)
    assert result["answered"] > 60, "a closed loop on one connection would get 20 answers"
    assert result["right"]["p50_ms"] >= 50


def test_an_answer_after_the_objective_is_right_but_no_goodput(images):  # noqa: F811
    with server(label_of=slow) as one:
        result = drive_it(one, images, rate_rps=50.0, objective_s=0.04)
    assert result["goodput_rps"] == 0 and result["right"]["count"] > 10


def test_a_refusal_must_say_when_to_come_again(images):  # noqa: F811
    with server(status="503 X\r\nRetry-After: 1\r\nX-From:") as one:
        stated = drive_it(one, images)
    assert stated["errors"] == {} and stated["refused"]["count"] > 50 and stated["right"]["count"] == 0
    assert 0 <= stated["refused"]["p50_ms"] < 1000
    with server(status=503) as one:
        assert drive_it(one, images)["errors"]["503"] > 50


def test_a_wrong_label_is_an_error(images):  # noqa: F811
    with server(label_of=lambda body: "one") as one:
        result = drive_it(one, images)
    assert result["errors"]["wrong"] == pytest.approx(result["answered"], abs=2)


def test_what_is_never_answered_is_counted_and_no_more_connections_are_opened_than_may_be(images):  # noqa: F811
    with server(label_of=lambda body: threading.Event().wait(2) or "late") as one:
        result = drive_it(one, images, drain_s=0.1, max_connections=5)
    assert result["errors"]["unanswered"] == 5 and result["errors"]["no connection"] == result["sent"] - 5


def test_load_goes_to_this_machine_only(images):  # noqa: F811
    with server() as one, pytest.raises(ValueError, match="this machine only"):
        drive_it(one, images, host="10.0.0.1")
