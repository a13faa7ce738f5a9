"""What `helm test` runs in the cluster: `check.py predict|refuse|measure URL...`. Standard library only.

A URL may end in #SHA256, the archive that must be served there. With KEYS set, callers need a key, and none is at hand here.
"""

import json
import os
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from urllib.parse import urldefrag

KEYS = bool(os.environ.get("KEYS"))
PATIENCE_S = 60


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and body of the answer to GET, or to POST of an image. Asks again for a minute while nobody answers."""
    request = urllib.request.Request(url, body, {"Content-Type": "image/png"} if body else {})
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def grey_png(size_px: int = 64) -> bytes:
    """A grey image."""
    head = struct.pack(">IIBBBBB", size_px, size_px, 8, 0, 0, 0, 0)
    body = zlib.compress((b"\0" + b"\x80" * size_px) * size_px)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def predict(url: str, digest: str) -> str:
    """Ready, with the archive of the release; an image gets probabilities that add up to 1, or without a key a 401."""
    status, text = ask(f"{url}/readyz")
    assert status == 200, f"/readyz answered {status}: {text}"
    served = json.loads(text)
    assert digest in ("", served["digest"]), f"serves {served['digest']}, the release wants {digest}"
    status, text = ask(f"{url}/predictions/{served['model']}", grey_png())
    if KEYS:
        assert status == 401, f"an image without a key was answered {status}: {text}"
        return f"{served['model']} is ready and wants a key"
    assert status == 200, f"an image was answered {status}: {text}"
    probabilities = json.loads(text)
    assert abs(sum(probabilities.values()) - 1) < 1e-3, f"probabilities add up to {sum(probabilities.values())}"
    return f"{served['model']} {served['version']} says {next(iter(probabilities))}"


def refuse(url: str, _: str) -> str:
    """What must be closed is closed: another model, metrics and TorchServe's management on the public port."""
    for path in ("/predictions/no-such-model", "/metrics", "/models/no-such-model"):
        status, text = ask(url + path)
        assert status == 404 and json.loads(text)["code"] == 404, f"{path} answered {status}: {text}"
    return "unknown models, metrics and management are answered 404"


def measure(url: str, _: str) -> str:
    """Metrics are told on the internal port, and say ready."""
    status, text = ask(f"{url}/metrics")
    assert status == 200 and "\nslipway_ready 1.0\n" in text, f"/metrics answered {status}: {text[:500]}"
    return f"{sum(not line.startswith('#') for line in text.splitlines())} series"


CHECKS: dict[str, Callable[[str, str], str]] = {"predict": predict, "refuse": refuse, "measure": measure}

if __name__ == "__main__":
    for argument in sys.argv[2:]:
        address = urldefrag(argument)
        try:
            print(f"{address.url}: {CHECKS[sys.argv[1]](*address)}")
        except (AssertionError, OSError) as failure:
            sys.exit(f"{address.url}: {failure}")
