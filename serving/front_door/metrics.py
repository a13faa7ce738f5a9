"""What Prometheus reads: requests, stages, batches, predictions by class, the model. At most 200 series, whatever is sent.

Names and labels are a contract: the alerts, the dashboards and the autoscaler read them.
"""

import json
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from serving.front_door.batcher import Batcher
from serving.front_door.readiness import Readiness
from serving.served import Served

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
ROUTES = ("predictions", "classify", "infer")
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STAGE_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
BATCH_IMAGES = (1, 2, 4, 8, 16, 32)
MAX_LABELS = 40  # classes with a series of their own; the rest share `other`


class Metrics:
    """Counts and times of one front door; what `batcher` and `readiness` know is read at the moment of the scrape."""

    def __init__(self, served: Served, batcher: Batcher, readiness: Readiness) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.in_flight = 0
        self._requests = Histogram(
            "slipway_request_seconds", "Time from the head of a request to its answer", ["route", "status"],
            buckets=REQUEST_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._stages = Histogram(
            "slipway_stage_seconds", "Time of a stage of one batch in the worker", ["stage"], buckets=STAGE_SECONDS, registry=self._registry
        )
        self._batches = Histogram("slipway_batch_images", "Images in one batch", buckets=BATCH_IMAGES, registry=self._registry)
        self._predictions = Counter("slipway_predictions_total", "Images by predicted class", ["label"], registry=self._registry)
        self._lost = Counter("slipway_batches_lost_total", "Batches that a worker took and did not answer", registry=self._registry)
        info = Gauge("slipway_model_info", "What is served; always 1", ["model", "version", "digest", "variant"], registry=self._registry)
        info.labels(served.name, served.version, served.short_digest, served.about["variant"]).set(1)
        self._registry.register(_Now(self, batcher, readiness))
        ProcessCollector(registry=self._registry)
        self._by_answer = {json.dumps(label): self._of_class(index, label) for index, label in enumerate(served.labels)}
        self._by_status = {(route, group): self._requests.labels(route, f"{group}xx") for route in ROUTES for group in (2, 4, 5)}
        self._decode, self._inference = self._stages.labels("decode"), self._stages.labels("inference")

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._by_status[route, status // 100].observe(seconds)

    def batch(self, count: int, meta: dict[str, Any] | None) -> None:
        """A worker answered `count` images, with its times in `meta`; or lost them, with None."""
        if meta is None:
            self._lost.inc()
            return
        self._batches.observe(count)
        self._decode.observe(meta.get("decode_s", 0.0))
        self._inference.observe(meta.get("inference_s", 0.0))

    def prediction(self, body: bytes) -> None:
        """An image was answered 200 with `body`, its highest class first."""
        text = body.decode()
        counter = self._by_answer.get(text[1 : text.find('":') + 1])
        if counter is None:  # a label that holds a quote and a colon
            counter = self._by_answer[json.dumps(next(iter(json.loads(text))))]
        counter.inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _of_class(self, index: int, label: str) -> Counter:
        return self._predictions.labels(label if index < MAX_LABELS else "other")


class _Now:
    """What is read at the moment of the scrape."""

    def __init__(self, metrics: Metrics, batcher: Batcher, readiness: Readiness) -> None:
        self._metrics, self._batcher, self._readiness = metrics, batcher, readiness

    def collect(self) -> Iterator[Metric]:
        for name, text, value in (
            ("slipway_requests_in_flight", "Requests that are not answered yet; what the autoscaler reads", self._metrics.in_flight),
            ("slipway_queue_images", "Images that wait for a worker", self._batcher.pending),
            ("slipway_admission_images", "Images that may wait or be in work, by the latency objective", self._batcher.limit),
            ("slipway_ready", "1 while predictions are right", self._readiness.ready),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield CounterMetricFamily(
            "slipway_refused", "Images that were answered 503 because too many were there", value=self._batcher.refused
        )
