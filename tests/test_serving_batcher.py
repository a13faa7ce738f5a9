"""The batcher against a unix-socket server that plays TorchServe."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.front_door import batcher as module
from serving.front_door.admission import Admission
from serving.front_door.batcher import Batcher
from serving.front_door.errors import ApiError
from serving.handler import frames

Reply = Callable[[list[bytes]], Awaitable[tuple[int, bytes] | None]]


def answered(images: list[bytes]) -> tuple[int, bytes]:
    """What a worker answers: 200 and the image's own text for each, 400 for those that start with `bad`."""
    statuses = [400 if image.startswith(b"bad") else 200 for image in images]
    return 200, frames.pack({"statuses": statuses}, [json.dumps(image[:8].decode()).encode() for image in images])


class FakeTorchServe:
    """Keeps what it was sent; `gate` holds its answers back."""

    def __init__(self) -> None:
        self.metas: list[dict[str, Any]] = []
        self.batches: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arenas: Path | None = None
        self.reply: Callable[[list[bytes]], tuple[int, bytes] | None] = answered

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                assert b"content-type: application/x-slipway-frames" in head
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                meta, views = frames.unpack(body)
                images = [bytes(view) for view in views]
                if "arena" in meta:
                    assert images == [] and self.arenas is not None
                    data = (self.arenas / meta["arena"]).read_bytes()
                    starts = [sum(meta["lengths"][:index]) for index in range(len(meta["lengths"]))]
                    images = [data[start : start + length] for start, length in zip(starts, meta["lengths"], strict=True)]
                self.metas.append(meta)
                self.batches.append(images)
                await self.gate.wait()
                reply = self.reply(images)
                if reply is None:
                    break
                status, answer = reply
                writer.write(b"HTTP/1.1 %d \r\ncontent-length: %d\r\n\r\n" % (status, len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[Batcher, FakeTorchServe]]:
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeTorchServe()
        fake.arenas = settings.get("arenas")
        server = await asyncio.start_unix_server(fake, Path(folder) / "s", limit=1 << 25)
        most = settings.pop("most", 100)
        first = settings.pop("first", most)
        admission = Admission(2.0, least=first, most=most)
        usual = {"workers": settings.get("slots", 3), "slots": 3, "max_batch": 8, "admission": admission, "timeout_s": 5.0}
        batcher = Batcher(Path(folder) / "s", "m", **usual | settings)
        await batcher.open()
        try:
            yield batcher, fake
        finally:
            fake.gate.set()
            await batcher.close()
            server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_lone_image_goes_at_once_and_alone() -> None:
    async def scenario() -> None:
        async with running() as (batcher, fake):
            assert await batcher.submit(b"one") == (200, b'"one"')
            assert fake.batches == [[b"one"]]
            assert fake.metas == [{"alone": True}]

    asyncio.run(scenario())


def test_a_crowd_may_come_to_a_server_that_has_answered_lone_images_only() -> None:
    async def scenario() -> None:
        async with running(first=1, most=100) as (batcher, _):
            await batcher.submit(b"one")
            answers = [batcher.submit(b"%d" % number) for number in range(50)]  # 0.8 x 2 s, and an image takes milliseconds
            assert [answer.status for answer in await asyncio.gather(*answers)] == [200] * 50
            assert batcher.limit > 1

    asyncio.run(scenario())


def test_a_crowd_is_shared_out_evenly_over_the_slots() -> None:
    async def scenario() -> None:
        async with running(slots=3, max_batch=8) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(b"%d" % number) for number in range(24)]
            await until(lambda: len(fake.batches) == 3)
            assert batcher.pending == 21 and batcher.in_flight == 3
            fake.gate.set()
            assert [json.loads((await answer).body) for answer in answers] == [str(number) for number in range(24)]
            assert len(fake.batches) < 10
            assert max(map(len, fake.batches)) == 8
            assert sum(meta["alone"] for meta in fake.metas[:3]) == 1  # the first one, before the others came
            assert batcher.pending == batcher.in_flight == 0

    asyncio.run(scenario())


def test_what_would_wait_for_a_worker_waits_here_until_it_is_a_share() -> None:
    async def scenario() -> None:
        async with running(workers=2, slots=3) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(b"x") for _ in range(3)]
            await until(lambda: len(fake.batches) == 2)
            assert batcher.pending == 1  # both workers have one, and a share of four images in the system is two
            answers.append(batcher.submit(b"x"))
            await until(lambda: len(fake.batches) == 3)
            assert [len(batch) for batch in fake.batches] == [1, 1, 2]
            fake.gate.set()
            await asyncio.gather(*answers)

    asyncio.run(scenario())


def test_senders_who_come_again_at_once_go_together_and_another_waits_for_nobody() -> None:
    async def scenario() -> None:
        async with running(workers=1, slots=2) as (batcher, fake):
            await asyncio.gather(*batcher.submit_all([b"x"] * 4))
            await asyncio.gather(*(batcher.submit(b"y") for _ in range(4)))
            assert [len(batch) for batch in fake.batches] == [4, 4]
            await batcher.submit(b"z")
            assert [len(batch) for batch in fake.batches] == [4, 4, 1]

    asyncio.run(scenario())


def test_a_batch_has_at_most_max_batch_images() -> None:
    async def scenario() -> None:
        async with running(slots=1, max_batch=4) as (batcher, fake):
            answers = [batcher.submit(b"x") for _ in range(11)]
            await asyncio.gather(*answers)
            assert [len(batch) for batch in fake.batches] == [1, 4, 4, 2]

    asyncio.run(scenario())


def test_a_batch_is_bounded_in_bytes_unless_one_image_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME_BYTES", 1000)

    async def scenario() -> None:
        async with running(slots=1) as (batcher, fake):
            answers = [batcher.submit(b"a" * size) for size in (10, 400, 600, 1, 5000, 10)]
            assert [answer.status for answer in await asyncio.gather(*answers)] == [200] * 6
            assert [[len(image) for image in batch] for batch in fake.batches] == [[10], [400, 600], [1], [5000], [10]]

    asyncio.run(scenario())


def test_one_bad_image_does_not_fail_its_batch() -> None:
    async def scenario() -> None:
        async with running(slots=1) as (batcher, _):
            answers = await asyncio.gather(*(batcher.submit(image) for image in (b"first", b"good", b"bad", b"fine")))
            assert [answer.status for answer in answers] == [200, 200, 400, 200]

    asyncio.run(scenario())


def test_beyond_what_may_be_there_the_answer_is_503_at_once() -> None:
    async def scenario() -> None:
        async with running(slots=1, most=3) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(b"x") for _ in range(3)]
            with pytest.raises(ApiError) as refused:
                batcher.submit(b"y")
            assert (refused.value.status, refused.value.kind) == (503, "Full")
            assert refused.value.headers == {"retry-after": "1"}
            fake.gate.set()
            assert [answer.status for answer in await asyncio.gather(*answers)] == [200] * 3

    asyncio.run(scenario())


def test_many_images_of_one_request_come_together_or_not_at_all() -> None:
    async def scenario() -> None:
        async with running(slots=1, first=3, most=6) as (batcher, fake):
            answers = batcher.submit_all([b"x"] * 6)  # alone, they may be more than a crowd may at first
            assert [answer.status for answer in await asyncio.gather(*answers)] == [200] * 6
            fake.gate.clear()
            one = batcher.submit(b"y")
            with pytest.raises(ApiError, match="1 images are there"):
                batcher.submit_all([b"x"] * 6)
            assert batcher.pending + batcher.in_flight == 1 and batcher.refused == 6
            fake.gate.set()
            assert (await one).status == 200

    asyncio.run(scenario())


def test_a_request_is_answered_504_when_its_time_is_over_and_its_image_is_not_sent_any_more() -> None:
    async def scenario() -> None:
        async with running(slots=1) as (batcher, fake):
            fake.gate.clear()
            first, waits = batcher.submit(b"first"), batcher.submit(b"waits", timeout_s=0.05)
            late = await waits
            assert (late.status, json.loads(late.body)["type"]) == (504, "DeadlinePassed")
            fake.gate.set()
            assert (await first).status == (await batcher.submit(b"next")).status == 200
            assert fake.batches == [[b"first"], [b"next"]]

    asyncio.run(scenario())


def test_the_worker_is_told_until_when_each_image_is_awaited() -> None:
    async def scenario() -> None:
        async with running(slots=1) as (batcher, fake):
            before = time.monotonic()
            await asyncio.gather(*batcher.submit_all([b"a"], timeout_s=3.0), batcher.submit(b"b"))
            await batcher.submit(b"c")
            assert [meta.get("deadlines") for meta in fake.metas][1:] == [None, None]
            assert fake.metas[0]["deadlines"] == [pytest.approx(before + 3, abs=0.5)]

    asyncio.run(scenario())


def test_a_request_that_allows_less_time_than_an_answer_takes_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with running(slots=1, max_batch=1) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(b"x") for _ in range(4)]
            batcher._admission.answered(0, now=0.0, waiting=True)
            batcher._admission.answered(10, now=5.0, waiting=False)  # 2 images a second
            with pytest.raises(ApiError, match="an answer takes 2 s now, the request allows 1 s"):
                batcher.submit(b"y", timeout_s=1.0)
            allowed = batcher.submit(b"z", timeout_s=5.0)
            fake.gate.set()
            assert [answer.status for answer in await asyncio.gather(*answers, allowed)] == [200] * 5

    asyncio.run(scenario())


def test_few_large_images_fill_the_queue_as_many_small_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 10)
    monkeypatch.setattr(module, "SWEEP_S", 0.0)

    async def scenario() -> None:
        async with running(slots=1, most=100) as (batcher, fake):
            fake.gate.clear()
            first = batcher.submit(b"in flight, and so no part of the queue"[:10])
            waits = batcher.submit(b"123456")
            with pytest.raises(ApiError, match="may: send it again"):
                batcher.submit(b"12345")
            waits.cancel()
            instead = batcher.submit(b"1234567890")
            fake.gate.set()
            assert [answer.status for answer in await asyncio.gather(first, instead)] == [200, 200]
            assert (await batcher.submit(b"1234567890")).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["connection lost", "503", "500", "no frames", "too few answers"])
def test_a_lost_worker_costs_its_batch_only(fault: str) -> None:
    async def scenario() -> None:
        async with running(slots=2, max_batch=3) as (batcher, fake):

            def reply(images: list[bytes]) -> tuple[int, bytes] | None:
                if b"kill" not in images:
                    return answered(images)
                return {
                    "connection lost": None,
                    "503": (503, b'{"code":503,"type":"InternalServerException","message":"Prediction failed"}'),
                    "500": (500, b'{"code":500,"type":"InternalServerException","message":"Worker died."}'),
                    "no frames": (200, b"nonsense"),
                    "too few answers": (200, frames.pack({"statuses": [200]}, [b"{}"])),
                }[fault]

            fake.reply = reply
            fake.gate.clear()
            answers = [batcher.submit(image) for image in (b"a", b"b", b"kill", b"d", b"e", b"f", b"g")]
            await until(lambda: len(fake.batches) == 2)
            fake.gate.set()
            got = await asyncio.gather(*answers)
            with_it = next(batch for batch in fake.batches if b"kill" in batch)
            for image, answer in zip((b"a", b"b", b"kill", b"d", b"e", b"f", b"g"), got, strict=True):
                assert answer.status == (503 if image in with_it else 200), image
            assert json.loads(got[2].body)["type"] == "WorkerLost"
            assert (await batcher.submit(b"after")).status == 200

    asyncio.run(scenario())


def test_an_image_whose_client_left_is_not_sent() -> None:
    async def scenario() -> None:
        async with running(slots=1, most=4) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(image) for image in (b"first", b"left", b"gone", b"stays")]
            answers[1].cancel()
            answers[2].cancel()
            others = [batcher.submit(b"more"), batcher.submit(b"more")]  # the places of those who left are free again
            fake.gate.set()
            assert (await answers[3]).status == 200
            await asyncio.gather(*others)
            assert sorted(image for batch in fake.batches for image in batch) == [b"first", b"more", b"more", b"stays"]

    asyncio.run(scenario())


def test_no_answer_within_the_time_limit_is_a_503_and_the_slot_comes_back() -> None:
    async def scenario() -> None:
        async with running(slots=1, timeout_s=0.1) as (batcher, fake):
            fake.gate.clear()
            late = await batcher.submit(b"x")
            assert (late.status, json.loads(late.body)["type"]) == (503, "Timeout")
            fake.gate.set()
            await until(lambda: len(batcher._idle) == 1)
            assert (await batcher.submit(b"y")).status == 200

    asyncio.run(scenario())


def test_closing_answers_what_still_waits() -> None:
    async def scenario() -> None:
        async with running(slots=1) as (batcher, fake):
            fake.gate.clear()
            answers = [batcher.submit(b"x") for _ in range(3)]
            await batcher.close()
            assert [(await answer).status for answer in answers] == [503] * 3

    asyncio.run(scenario())


def test_images_go_through_shared_memory_and_come_out_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(slots=2, arenas=tmp_path) as (batcher, fake):
            images = [b"%d:" % number + b"x" * (number * 10_000) for number in (3, 0, 7, 1, 9, 2, 8, 5)]
            for _ in range(3):
                answers = await asyncio.gather(*(batcher.submit(image) for image in images))
                assert [json.loads(answer.body) for answer in answers] == [image[:8].decode() for image in images]
            assert sorted(image for batch in fake.batches for image in batch) == sorted(images * 3)
            assert all("arena" in meta for meta in fake.metas)

    asyncio.run(scenario())


def test_without_room_in_shared_memory_images_go_through_torchserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with running(arenas=tmp_path) as (batcher, fake):
            monkeypatch.setattr("serving.torchserve.arena.os.pwritev", full)
            assert (await batcher.submit(b"one")).status == 200
            assert fake.batches == [[b"one"]] and "arena" not in fake.metas[0]

    asyncio.run(scenario())
