"""Load from inside a cluster: Namespace.load runs this text in a pod, `- ADDRESS HOST LABEL STOP` with an image on standard input.

Callers ask for that image until the file STOP is there, half of them on connections that stay, half on a new one each time. Prints as
JSON what became of every request.
"""

import json
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

CALLERS = 4
PAUSE_S = 0.05

address, host, label, stop = sys.argv[1:]
image = sys.stdin.buffer.read()


def ask(client, *, fresh):
    """The first digits of the digest that answered, and what was wrong with the answer."""
    name = uuid.uuid4().hex
    try:
        answer = client.post(address, content=image, headers={"x-request-id": name} | ({"connection": "close"} if fresh else {}))
    except httpx.HTTPError as error:
        return "", repr(error)
    if answer.status_code != 200:
        return "", f"{answer.status_code}: {answer.text[:200]}"
    if answer.headers.get("x-request-id") != name:
        return "", "another request's answer"
    if next(iter(answer.json())) != label:
        return "", f"a wrong answer: {answer.text[:200]}"
    return answer.headers["x-slipway-digest"], ""


def call(number):
    """What became of the requests of one caller: when each ended, seconds that it took, digest, what was wrong."""
    ended = []
    with httpx.Client(timeout=30, headers={"host": host} if host else {}) as client:
        while not Path(stop).exists():
            asked = time.time()
            digest, wrong = ask(client, fresh=number % 2 == 1)
            ended.append((time.time(), time.time() - asked, digest, wrong))
            time.sleep(PAUSE_S)
    return ended


def second(rows):
    """What one second saw: answers by digest, failures, the slowest request."""
    answers = Counter(digest for *_, digest, wrong in rows if not wrong)
    slowest_ms = max((round(1000 * took) for _, took, *_ in rows), default=0)
    return {"answers": answers, "failed": sum(bool(wrong) for *_, wrong in rows), "slowest_ms": slowest_ms}


started = time.time()
with ThreadPoolExecutor(CALLERS) as pool:
    ended = [row for rows in pool.map(call, range(CALLERS)) for row in rows]
seconds = round(time.time() - started, 1)
each = [second([row for row in ended if int(row[0] - started) == at]) for at in range(int(seconds) + 1)]
print(
    json.dumps(
        {
            "requests": len(ended),
            "failures": [[round(at - started, 3), wrong] for at, _, _, wrong in ended if wrong],
            "slowest_ms": max(one["slowest_ms"] for one in each),
            "started": started,
            "seconds": seconds,
            "each_second": each,
        }
    )
)
