"""Two thousand hostile bodies against a real `slipway serve`: each is refused in words, no neighbour and no worker suffers."""

import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from test_torchserve import Serve, serving

from model.synthetic import CLASSES, draw
from model.synthetic import encode as encode_grey
from serving import archive as archives
from serving.bench import attacks, hostile, pictures

pytestmark = pytest.mark.torchserve
BODIES = 2000


@dataclass(frozen=True)
class Answered:
    """A body, its answer, and the right answer of a good one."""

    body: hostile.Body
    status: int
    content: bytes
    expected: dict[str, float] | None


@pytest.fixture(scope="module")
def steel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images as a user has them."""
    folder = tmp_path_factory.mktemp("steel")
    for number, name in enumerate(sorted(CLASSES)):
        (folder / f"{name}.jpg").write_bytes(encode_grey(draw(name, number, size_px=96, seed=1)))
    return folder


def send(serve: Serve, bodies: list[tuple[hostile.Body, dict[str, float] | None]], *, threads: int) -> list[Answered]:
    """The answers of all bodies, sent by several clients at a time, hostile and good mixed."""
    waiting: queue.SimpleQueue[tuple[hostile.Body, dict[str, float] | None]] = queue.SimpleQueue()
    for item in bodies:
        waiting.put(item)
    answers: list[Answered] = []

    def work() -> None:
        with httpx.Client(timeout=60) as client:
            while True:
                try:
                    body, expected = waiting.get_nowait()
                except queue.Empty:
                    return
                answer = client.post(f"{serve.url}/predictions/colours", content=body.content)
                answers.append(Answered(body, answer.status_code, answer.content, expected))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert not worker.is_alive(), "a request hangs"
    return answers


def test_hostile_bodies_are_refused_and_their_neighbours_answered(archive: Path, steel: Path, tmp_path: Path) -> None:
    archives.unpack(archives.read(archive), tmp_path)
    handler = archives.load_handler(tmp_path, threads=1)
    good = [hostile.Body("good", content, False) for content in pictures.good(40)]
    right = {body.content: json.loads(handler.classify([body.content])[0][0][1]) for body in good}
    bodies: list[tuple[hostile.Body, dict[str, float] | None]] = []
    for number, body in enumerate(hostile.hostile(BODIES, seed=11, folder=steel)):
        bodies.append((body, None))
        if number % 4 == 0:
            bodies.append((good[number % len(good)], right[good[number % len(good)].content]))
    assert sum(body.refused for body, _ in bodies) > BODIES / 2

    with serving(archive, "--workers", "2") as serve:
        serve.wait_until_ready()
        before = {worker.pid for worker in serve.workers()}
        assert len(before) == 2
        answers = send(serve, bodies, threads=12)
        assert {worker.pid for worker in serve.workers()} == before, "a worker was replaced"
        assert httpx.get(f"{serve.url}/readyz").status_code == 200

    assert len(answers) == len(bodies)
    for answer in answers:
        content = json.loads(answer.content)
        if answer.body.refused:
            assert 400 <= answer.status < 500, (answer.body.name, answer.status, content)
            assert list(content) == ["code", "type", "message"] and content["code"] == answer.status, content
            assert content["type"].isalnum() and content["message"]
        else:
            assert answer.status == 200, (answer.body.name, answer.status, content)
            assert sum(content.values()) == pytest.approx(1, abs=1e-4)
        if answer.expected is not None:
            assert content == pytest.approx(answer.expected, abs=1e-4)
    statuses = {status for name, (_, status) in attacks.constructed().items() for answer in answers if answer.body.name == name}
    assert statuses == {400, 413, 415}
    for answer in answers:
        if answer.body.name in attacks.constructed():
            assert answer.status == attacks.constructed()[answer.body.name][1], answer.body.name
    said = "".join(serve.said)
    assert "Traceback" not in said and "Internal" not in said, said[-2000:]
