"""The front door behind its real HTTP server, asked over a socket; the batcher answers by itself."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_serving_front_door import GOOD, Door

from serving.front_door import connection, doors
from serving.front_door.application import FrontDoor
from serving.front_door.doors import Listen, bind, http_server
from serving.front_door.keys import Keys, new_key

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ANSWER = re.compile(rb"HTTP/1.1 (\d+) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")


def post(body: bytes = b"jpeg", *headers: str, version: str = "1.1") -> bytes:
    """A request for a prediction."""
    lines = [f"POST /predictions/steel HTTP/{version}", "host: door", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection: status, headers, body."""
    found = ANSWER.fullmatch(await reader.readuntil(b"\r\n\r\n"))
    assert found is not None
    headers = dict(line.lower().split(": ", 1) for line in found[2].decode().splitlines())
    return int(found[1]), headers, await reader.readexactly(int(headers["content-length"]))


@asynccontextmanager
async def connected(door: Door) -> AsyncIterator[Stream]:
    """A connection to the server of `door`; at the end the server must stop by itself."""
    sock = bind(Listen("127.0.0.1", 0))
    server = http_server(door.app)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await asyncio.wait_for(serving, 10)


def test_a_refusal_comes_before_the_body_and_the_connection_stays_good() -> None:
    async def scenario() -> None:
        door = Door()
        door.batcher.full = True
        async with connected(door) as (reader, writer):
            request = post(b"x" * 900, "x-request-id: mine")
            writer.write(request[:-800])
            status, headers, body = await answer(reader)
            assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "mine")
            assert b'"type": "Full"' in body and "connection" not in headers
            door.batcher.full = False
            writer.write(request[-800:] + post(b"jpeg"))
            assert (await answer(reader))[::2] == (200, GOOD)
            assert door.batcher.images == [b"jpeg"]
        assert 'slipway_request_seconds_count{route="predictions",status="5xx"} 1.0' in door.metrics.text().decode()

    asyncio.run(scenario())


def test_requests_sent_without_waiting_are_answered_in_their_order() -> None:
    async def scenario() -> None:
        door = Door()
        async with connected(door) as (reader, writer):
            wrong = post().replace(b"steel", b"other")
            writer.write(b"".join(post(b"jpeg") + wrong for _ in range(2000)))
            statuses = [(await answer(reader))[0] for _ in range(4000)]
        assert statuses == [200, 404] * 2000

    asyncio.run(scenario())


def test_a_refused_client_that_keeps_no_connection_is_let_go() -> None:
    async def scenario() -> None:
        door = Door()
        door.batcher.full = True
        async with connected(door) as (reader, writer):
            writer.write(post(version="1.0"))
            status, headers, _ = await answer(reader)
            assert (status, headers["connection"]) == (503, "close")
            assert await reader.read() == b""

    asyncio.run(scenario())


def test_a_key_pays_once_for_a_request_that_is_let_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        key, line = new_key("caller", rate=0.1)
        (tmp_path / "keys").write_text(line)
        door = Door()
        door.app = FrontDoor(door.served, door.batcher, door.readiness, door.metrics, keys=Keys(tmp_path / "keys"))
        async with connected(door) as (reader, writer):
            writer.write(post(b"jpeg", f"x-api-key: {key}") + post(b"jpeg", f"x-api-key: {key}"))
            assert [(await answer(reader))[0] for _ in range(2)] == [200, 429]

    asyncio.run(scenario())


@asynccontextmanager
async def refused() -> AsyncIterator[Stream]:
    """A connection to a server that is full."""
    door = Door()
    door.batcher.full = True
    async with connected(door) as stream:
        yield stream


@pytest.mark.parametrize("sent", [30, -20], ids=["half of a head", "half of a body that was refused"])
def test_who_does_not_send_the_rest_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(connection, "REST_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with refused() as (reader, writer):
            writer.write(post(b"x" * 100)[:sent])
            told = await reader.read()
            assert told.startswith(b"HTTP/1.1 503") == (sent < 0)

    asyncio.run(scenario())


def test_an_idle_connection_is_closed_also_when_the_refused_body_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "KEEP_ALIVE_S", 1)

    async def scenario() -> None:
        async with refused() as (reader, writer):
            request = post(b"x" * 100)
            writer.write(request[:-50])
            assert (await answer(reader))[0] == 503
            writer.write(request[-50:])
            assert await reader.read() == b""

    asyncio.run(scenario())
