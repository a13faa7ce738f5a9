"""What a worker answers: frames, batches with bad images in them, thread counts, golden images; without TorchServe."""

import json
import logging
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LABELS, picture, write_colours

from serving import archive as archives
from serving.bench import attacks, hostile, pictures
from serving.handler import BATCHES, Handler, frames
from serving.handler.engine import Engine
from serving.handler.resources import cpu_limit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


class Context:
    """As much of TorchServe's context as a handler meets."""

    def __init__(self, *kinds: str | None, folder: Path | None = None) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.kinds = kinds
        self.statuses: dict[int, int] = {}
        self.answered: dict[int, str] = {}

    def get_request_header(self, index: int, key: str) -> str | None:
        assert key == "content-type"
        return self.kinds[index]

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.answered[idx] = value


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("unpacked")
    archives.unpack(archives.read(archive), target)
    return target


@pytest.fixture(scope="module")
def handler(folder: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        handler = Handler()
        handler.open(folder, threads=1, lone_threads=1)
        yield handler


def most_of(body: bytes | memoryview) -> str:
    """The label of an answer, after it was checked to be all probabilities, highest first."""
    answer = json.loads(bytes(body))
    assert sorted(answer) == LABELS
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
    return str(next(iter(answer)))


RED, GREEN, BLUE = picture(255, 0, 0), picture(0, 255, 0), picture(0, 0, 255)
BAD = b"this is text"


def test_frames_come_out_as_they_went_in() -> None:
    meta, parts = {"alone": True, "statuses": [200, 400]}, [b"", b"one", memoryview(b"another"), bytes(70000)]
    got_meta, got_parts = frames.unpack(frames.pack(meta, parts))
    assert (got_meta, [bytes(part) for part in got_parts]) == (meta, [bytes(part) for part in parts])
    assert frames.unpack(bytearray(frames.pack({}, []))) == ({}, [])


def test_frames_have_the_layout_that_is_written_down() -> None:
    assert frames.pack({"a": 1}, [b"xyz"]) == struct.pack("<III", 2, 7, 3) + b'{"a":1}' + b"xyz"


def test_cut_or_damaged_frames_are_no_frames() -> None:
    body = frames.pack({"alone": False}, [RED, BLUE])
    for length in (*range(40), len(body) - 1):
        with pytest.raises(ValueError, match="frames"):
            frames.unpack(body[:length])
    for damaged in (body + b"x", b"\0\0\0\0" + body[4:], b"\xff\xff\xff\xff" + body[4:], struct.pack("<II", 1, 4) + b"null"):
        with pytest.raises(ValueError, match="frames"):
            frames.unpack(damaged)
    with pytest.raises(ValueError):
        frames.unpack(struct.pack("<II", 1, 4) + b"\xff\xfe{}")


def test_each_plain_row_gets_its_own_status_and_answer(handler: Any) -> None:
    context = Context("image/jpeg", None, "image/png", "application/octet-stream")
    results = handler.handle([{"body": bytearray(RED)}, {"data": BAD}, {"body": attacks.constructed()["pdf"][0]}, {"body": BLUE}], context)
    assert [most_of(results[0]), most_of(results[3])] == ["red", "blue"]
    assert context.statuses == {1: 400, 2: 415}
    for index, status in context.statuses.items():
        error = json.loads(results[index])
        assert list(error) == ["code", "type", "message"] and error["code"] == status
    assert set(context.answered.values()) == {"application/json"}


def test_frames_and_plain_rows_may_come_together(handler: Any) -> None:
    context = Context(frames.CONTENT_TYPE, "image/jpeg", frames.CONTENT_TYPE)
    rows = [{"body": frames.pack({}, [RED, BAD, GREEN])}, {"body": BLUE}, {"body": bytearray(frames.pack({"alone": True}, [GREEN]))}]
    several, lone, alone = handler.handle(rows, context)
    assert context.statuses == {} and most_of(lone) == "blue"
    assert context.answered == {0: frames.CONTENT_TYPE, 1: "application/json", 2: frames.CONTENT_TYPE}
    meta, parts = frames.unpack(several)
    assert meta["statuses"] == [200, 400, 200]
    assert meta["decode_s"] >= 0 and meta["inference_s"] > 0
    assert [most_of(parts[0]), json.loads(bytes(parts[1]))["type"], most_of(parts[2])] == ["red", "NotAnImage", "green"]
    assert frames.unpack(alone)[0]["statuses"] == [200]


def test_cut_frames_cost_their_own_row_only(handler: Any) -> None:
    context = Context(frames.CONTENT_TYPE, frames.CONTENT_TYPE, "image/jpeg", frames.CONTENT_TYPE)
    whole = frames.pack({}, [RED])
    cut, good, plain, missing = handler.handle([{"body": whole[:-9]}, {"body": whole}, {"body": GREEN}, {"body": None}], context)
    assert context.statuses == {0: 400, 3: 400}
    assert json.loads(cut)["type"] == json.loads(missing)["type"] == "BadFrames"
    assert most_of(frames.unpack(good)[1][0]) == "red" and most_of(plain) == "green"
    assert context.answered[0] == "application/json"


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"body": None}, 415),
        ({}, 415),
        ({"body": {"instances": []}}, 415),
        ({"body": "text"}, 415),
        ({"body": b""}, 400),
        ({"data": bytearray()}, 400),
    ],
)
def test_a_row_without_the_bytes_of_an_image_is_refused(handler: Any, row: dict[str, Any], status: int) -> None:
    context = Context("application/x-www-form-urlencoded", None)
    results = handler.handle([row, {"body": RED}], context)
    assert context.statuses == {0: status}
    assert json.loads(results[0])["code"] == status and most_of(results[1]) == "red"


def test_images_may_lie_in_shared_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_ARENAS", str(folder))
    with warnings.catch_warnings():
        sharing = Handler()
        sharing.open(folder, threads=1, lone_threads=1)

    def answers(meta: dict[str, Any]) -> tuple[int, list[str]]:
        context = Context(frames.CONTENT_TYPE)
        (result,) = sharing.handle([{"body": frames.pack(meta, [])}], context)
        if 0 in context.statuses:
            return context.statuses[0], [json.loads(result)["type"]]
        return 200, [most_of(part) for part in frames.unpack(result)[1]]

    arena = folder / "arena-0"
    arena.write_bytes(RED + GREEN)
    assert answers({"arena": "arena-0", "lengths": [len(RED), len(GREEN)]}) == (200, ["red", "green"])
    with arena.open("r+b") as file:
        file.write(BLUE + GREEN + GREEN + RED)
    assert answers({"arena": "arena-0", "lengths": [len(BLUE)]}) == (200, ["blue"])
    grown = [len(BLUE), len(GREEN), len(GREEN), len(RED)]
    assert answers({"arena": "arena-0", "lengths": grown}) == (200, ["blue", "green", "green", "red"])
    for meta in (
        {"arena": "arena-0", "lengths": [1 << 40]},
        {"arena": "arena-0"},
        {"arena": "arena-1", "lengths": [1]},
        {"arena": "../arena-0", "lengths": [1]},
        {"arena": "..", "lengths": [1]},
        {"arena": 7, "lengths": [1]},
        {"arena": "arena-0", "lengths": ["1"]},
    ):
        assert answers(meta) == (400, ["BadFrames"]), meta


def test_a_fault_of_ours_costs_one_image(handler: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    whole = handler.decode

    def faulty(image: Any, to: Any) -> Any:
        if bytes(image) == GREEN:
            raise ZeroDivisionError("on purpose")
        return whole(image, to)

    monkeypatch.setattr(handler, "decode", faulty)
    answers, _ = handler.classify([RED, GREEN, BLUE])
    assert [status for status, _ in answers] == [200, 500, 200]
    assert json.loads(answers[1][1])["type"] == "Internal"
    assert "on purpose" in capsys.readouterr().err


def test_no_row_and_no_image_are_answered_with_nothing(handler: Any) -> None:
    assert handler.handle([], Context()) == []
    (empty,) = handler.handle([{"body": frames.pack({}, [])}], Context(frames.CONTENT_TYPE))
    assert frames.unpack(empty)[0]["statuses"] == []


def test_more_images_than_fit_one_inference_are_all_answered_in_order(handler: Any) -> None:
    images = [(RED, GREEN, BLUE, BAD)[number % 4] for number in range(2 * max(BATCHES) + 5)]
    answers, _ = handler.classify(images)
    assert [status for status, _ in answers] == [400 if image == BAD else 200 for image in images]
    for image, (status, body) in zip(images, answers, strict=True):
        if status == 200:
            assert most_of(body) == {RED: "red", GREEN: "green", BLUE: "blue"}[image]


def test_a_batch_answers_as_its_images_do_alone(handler: Any) -> None:
    images = [pictures.encode(pictures.photo(seed=number), "JPEG") for number in range(max(BATCHES))]
    together, _ = handler.classify(images)
    for image, (status, body) in zip(images, together, strict=True):
        for alone in (False, True):
            (one,), _ = handler.classify([image], alone=alone)
            assert one[0] == status == 200
            assert json.loads(one[1]) == pytest.approx(json.loads(body), abs=1e-4)


def test_the_lone_network_equals_the_batch_network(folder: Path) -> None:
    engine = Engine(folder / "model.onnx", threads=1, lone_threads=2)
    assert engine._lone is not engine._batch
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    for one, other in zip(engine(image, alone=True), engine(image), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits_and_belong_to_nobody_else(folder: Path) -> None:
    engine = Engine(folder / "model.onnx", threads=1, lone_threads=1)
    reds = np.zeros((2, 32, 32, 3), np.uint8)
    reds[..., 0] = 255
    probabilities, embeddings = engine(reds)
    logits = np.array([0, 0, 0.02 * 255])
    np.testing.assert_allclose(probabilities, np.tile(np.exp(logits) / np.exp(logits).sum(), (2, 1)), atol=1e-6)
    np.testing.assert_allclose(embeddings, np.tile([255, 0, 0], (2, 1)), atol=1e-4)
    engine(np.zeros_like(reds))  # the next inference must not write over what was given out
    np.testing.assert_allclose(embeddings[0], [255, 0, 0], atol=1e-4)


@pytest.fixture
def nice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What a worker asked for, which the process of the tests does not get."""
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    return asked


def test_a_worker_leaves_the_cpu_to_the_front_door_first(folder: Path, nice: list[int]) -> None:
    level = logging.getLogger().level
    Handler().initialize(Context(folder=folder))
    logging.getLogger().setLevel(level)  # `initialize` made it quieter
    assert len(nice) == 1 and nice[0] > 0


@pytest.mark.usefixtures("nice")
def test_several_threads_answer_as_one_does(folder: Path, handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_THREADS", "2")
    monkeypatch.setenv("SLIPWAY_CPUS", "2")
    with warnings.catch_warnings():
        threaded = Handler()
        threaded.initialize(Context(folder=folder))
    logging.getLogger().setLevel(logging.INFO)  # `initialize` made it quieter
    images = [body.content for body in hostile.hostile(60, seed=3)] + [RED, GREEN, BLUE] * 9
    ours, theirs = threaded.classify(images)[0], handler.classify(images)[0]
    assert [status for status, _ in ours] == [status for status, _ in theirs]
    for (status, one), (_, other) in zip(ours, theirs, strict=True):
        if status == 200:
            assert json.loads(one) == pytest.approx(json.loads(other), abs=1e-4)


@pytest.mark.usefixtures("nice")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"golden": [{"file": "golden/0.jpg", "probabilities": [0.5, 0.4, 0.1]}]}, "golden image golden/0.jpg predicts"),
        ({"limits": {"max_image_bytes": 10, "max_pixels": 1}}, "'code': 413"),
        ({"golden": [{"file": "golden/0.jpg", "probabilities": [float("nan")] * 3}]}, "off by nan"),
    ],
)
def test_a_golden_image_that_predicts_otherwise_stops_the_worker(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    archive = write_colours(tmp_path / "wrong.mar", **changes)
    with pytest.raises(RuntimeError, match=words), warnings.catch_warnings():
        archives.unpack(archives.read(archive), tmp_path / "x")
        Handler().initialize(Context(folder=tmp_path / "x"))


def test_odd_images_bring_no_warnings_into_the_log(folder: Path) -> None:
    """In a process of its own, because pytest has its own idea of warnings."""
    script = (
        "import sys, pathlib; from serving.bench import hostile; from serving.handler import Handler; handler = Handler();"
        "handler.open(pathlib.Path(sys.argv[1]), threads=1, lone_threads=1);"
        "handler.classify([body.content for body in hostile.hostile(1500, seed=4)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent,
        env={"PYTHONPATH": f"{Path(__file__).parents[1]}", "PYTHONWARNINGS": "always"}, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr  # libtiff's own words cannot be turned off


def test_the_front_door_gets_frames_without_the_decoders() -> None:
    script = "import sys, serving.handler.frames; print({'cv2', 'numpy', 'PIL', 'openvino', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "100 100000\n"}, 0.1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "75000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu.max": "a b"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_cpu_limit_is_the_smaller_of_quota_and_affinity(
    files: dict[str, str], limit: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert cpu_limit(tmp_path) == (3.0 if limit is None else limit)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5})
    assert cpu_limit(tmp_path) == (1.0 if limit is None else min(1.0, limit))


def test_signals_still_arrive_after_another_thread_drops_the_last_engine(folder: Path) -> None:
    program = f"""
import os, signal, threading
from pathlib import Path
from serving.handler.engine import Engine
engines = [Engine(Path({str(folder / "model.onnx")!r}), threads=1, lone_threads=1)]
dropper = threading.Thread(target=engines.clear)
dropper.start()
dropper.join()
signal.signal(signal.SIGUSR1, lambda *_: print("arrived"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "arrived\n"), ended.stderr
