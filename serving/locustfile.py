"""A load test by Locust, with an image mix like users', four shapes, and an exit status.

    locust -f serving/locustfile.py --headless --host http://127.0.0.1:8080 --load-shape spike --peak 20 --seconds 60 \
        --html build/load.html --report build/load.json

Exit 1 when an objective is not kept or a request was not answered exactly once, with the reasons. One process drives the load.
"""

import json
import logging
import random
import signal
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, constant_pacing, events, task
from locust.contrib.fasthttp import FastHttpUser, ResponseContextManager
from locust.env import Environment
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from serving.load_ledger import Ledger, Objective

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
SIZES = ((500, 400), (500, 400), (1280, 960))  # what is drawn when no images are given: mostly small, some from a phone
DRAWN_EACH = 4
SEVERAL = 4  # images of a request that classifies more than one
NO_IMAGE = b"this is no image"
FINISH_S = 30  # requests on their way at the end are awaited so long
SPAWN_RATE = 100
SHAPES = ("step", "soak", "spike", "crowd")

log = logging.getLogger("slipway.load")


class Run:
    """What one load test sends and has seen; Locust keeps it on its environment."""

    def __init__(self, images: dict[str, bytes]) -> None:
        self.images = images
        self.ledger = Ledger()
        self.model = ""
        self.interrupted = False

    def interrupt(self) -> None:
        """End the load test early. Locust's own ways would end one of its users amid a request."""
        self.interrupted = True


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Slipway")
    group.add_argument("--load-shape", choices=SHAPES, default="step", help="Five steps up, all at once, a burst, or a crowd that stays")
    group.add_argument("--peak", type=int, default=20, help="Users at the peak; each sends its next request when it has an answer")
    group.add_argument("--seconds", type=int, default=60, help="Length of the test")
    group.add_argument("--pace", type=float, default=0.0, help="Seconds from one request of a user to its next; 0 for none between")
    group.add_argument("--images", default="", env_var="SLIPWAY_IMAGES", help="Folder of images to send; without it some are drawn")
    group.add_argument("--host-header", default="", help="Name that the server is asked by, when that of --host is only its address")
    group.add_argument("--key", default="", env_var="SLIPWAY_KEY", help="API key")
    group.add_argument("--objective-p99", type=float, default=1.0, help="Seconds that 99 of 100 right answers take at most")
    group.add_argument("--objective-refused", type=float, default=0.01, help="Share of requests that may be answered 503")
    group.add_argument("--report", default="", help="File for the result as JSON")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    if options is not None:
        environment.stop_timeout = environment.stop_timeout or FINISH_S
        run = environment.slipway = Run(_load(options.images))  # type: ignore[attr-defined]
        if options.headless:
            for number in (signal.SIGINT, signal.SIGTERM):
                gevent.signal_handler(number, run.interrupt)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _judge(environment: Environment, **_: Any) -> None:
    run, options = getattr(environment, "slipway", None), environment.parsed_options
    if run is None or options is None:
        return
    report = run.ledger.report(Objective(options.objective_p99, options.objective_refused))
    report |= {"shape": options.load_shape, "peak_users": options.peak, "seconds": options.seconds, "host": environment.host}
    if options.report:
        Path(options.report).write_text(json.dumps(report, indent=1) + "\n")
    for line in report["broken"]:
        log.error("not kept: %s", line)
    environment.process_exit_code = 1 if report["broken"] else 0


def _load(folder: str) -> dict[str, bytes]:
    """Images by name, of `folder` or drawn."""
    if folder:
        found = {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in SUFFIXES}
        if not found:
            raise ValueError(f"no images in {folder}: wanted files that end in {', '.join(SUFFIXES)}")
        return found
    from serving.bench.images import photographs

    drawn = [photographs(width, height, count=DRAWN_EACH, seed=seed) for seed, (width, height) in enumerate(SIZES)]
    return {f"drawn-{row}-{number}": image for row, images in enumerate(drawn) for number, image in enumerate(images)}


class Shape(LoadTestShape):
    """Users over time: `step` climbs to the peak in five, `soak` stays there, `spike` is there for a fifth, `crowd` for half of it."""

    def tick(self) -> tuple[int, float] | None:
        """Users just now, and how quickly they come; None at the end."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        share = self.get_run_time() / options.seconds  # type: ignore[no-untyped-call]
        run: Run = self.runner.environment.slipway  # type: ignore[attr-defined]
        if share >= 1 or run.interrupted:
            return None
        fifth = int(share * 5)
        crowded = 0.1 <= share < 0.6  # what comes before and after fills a fraction of a pod
        heights = {"step": (fifth + 1) / 5, "soak": 1.0, "spike": 1.0 if fifth == 2 else 0.2, "crowd": 1.0 if crowded else 0.1}
        height = heights[options.load_shape]
        return max(1, round(options.peak * height)), SPAWN_RATE


class Caller(FastHttpUser):
    """Sends mostly one image, sometimes several at once, and now and then something that is none."""

    def __init__(self, environment: Environment) -> None:
        name = environment.parsed_options.host_header if environment.parsed_options else ""
        self.default_headers = {"Host": name} if name else None
        super().__init__(environment)

    def wait_time(self) -> float:
        """Seconds until the next request."""
        pace: float = constant_pacing(self.environment.parsed_options.pace)(self)
        return pace

    def stop(self, force: bool = False) -> bool:
        """False: the user ends after its wait or its answer. Locust kills who waits, also who has just woken and asked."""
        if force:
            return bool(super().stop(force=True))
        self._state = LOCUST_STATE_STOPPING
        return False

    def on_start(self) -> None:
        """Learn the model's name."""
        self.run_state: Run = self.environment.slipway
        if not self.run_state.model:
            with self.client.get("/info", catch_response=True) as answer:
                if answer.status_code != 200:
                    answer.failure(f"/info answered {answer.status_code}: is this a slipway serve?")
                    raise StopUser
                self.run_state.model = answer.json()["name"]

    @task(16)
    def one(self) -> None:
        """One image, as TorchServe's clients send it."""
        name, image = random.choice(list(self.run_state.images.items()))
        self._send(f"/predictions/{self.run_state.model}", image, "image/jpeg", of=name, label=lambda body: next(iter(body)))

    @task(3)
    def several(self) -> None:
        """Some images in one form; each gets its own result, in their order."""
        names = random.sample(list(self.run_state.images), min(SEVERAL, len(self.run_state.images)))
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{Path(name).name}"\r\n\r\n'.encode()
            + self.run_state.images[name]
            for name in names
        ]
        body = b"\r\n".join(parts) + f"\r\n--{boundary}--\r\n".encode()
        self._send(
            "/v1/classify",
            body,
            f"multipart/form-data; boundary={boundary}",
            of=" ".join(names),
            label=lambda body: [result["label"] for result in body["results"]],
        )

    @task(1)
    def none(self) -> None:
        """Something that is no image: 400 is right, and nobody else may feel it."""
        self._send(f"/predictions/{self.run_state.model}", NO_IMAGE, "image/jpeg", of="", wanted=400, label=lambda body: body["type"])

    def _send(self, path: str, body: bytes, kind: str, *, of: str, label: Any, wanted: int = 200) -> None:
        name, ledger = uuid.uuid4().hex, self.run_state.ledger
        headers = {"Content-Type": kind, "X-Request-Id": name}
        if key := self.environment.parsed_options.key:
            headers["X-Api-Key"] = key
        ledger.sent(name)
        with self.client.post(path, data=body, headers=headers, catch_response=True) as answer:  # type: ignore[arg-type]
            outcome, said = _judged(answer, wanted, label)
            seconds = answer.request_meta["response_time"] / 1000
            ended = ledger.done(
                name, answer.headers.get("x-request-id") if answer.headers else None, outcome, seconds=seconds, image=of, answer=said
            )
            if ended in ("right", "refused"):
                answer.success()
            else:
                answer.failure(ended)


def _judged(answer: ResponseContextManager, wanted: int, label: Any) -> tuple[str, Any]:
    """right with the label, refused, or what is wrong with the answer."""
    if answer.status_code == 503 and answer.headers and answer.headers.get("retry-after"):
        return "refused", None
    if answer.status_code != wanted:
        return (f"status {answer.status_code}" if answer.status_code else "no answer"), None
    try:
        return "right", label(answer.json())
    except (ValueError, LookupError, TypeError, StopIteration):
        return "not the answer that was wanted", None
