"""Bring an archive from a bucket: `fetch.py gs://BUCKET/OBJECT TARGET SHA256`. Runs before the server, with the standard library only."""

import hashlib
import json
import os
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
METADATA = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
STORAGE = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")


def token() -> str:
    """A token of the pod's own Google identity."""
    url = f"http://{METADATA}/computeMetadata/v1/instance/service-accounts/default/token"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return str(json.load(answer)["access_token"])


def fetch(uri: str, target: Path, *, digest: str) -> int:
    """The bytes written to `target`, which holds the object `uri` or does not exist.

    Raises: ValueError when its sha256 is not `digest`; OSError when it cannot be read.
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    url = f"{STORAGE}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token()}"})
    unfinished, found, written = target.with_suffix(".part"), hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, unfinished.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            found.update(chunk)
            written += file.write(chunk)
    if found.hexdigest() != digest:
        unfinished.unlink()
        raise ValueError(f"got {uri} with sha256 {found.hexdigest()}, wanted {digest}: set model.digest and model.uri to one archive")
    unfinished.rename(target)
    return written


if __name__ == "__main__":
    try:
        print(f"{sys.argv[2]}: {fetch(sys.argv[1], Path(sys.argv[2]), digest=sys.argv[3])} bytes, sha256 as wanted")
    except (OSError, ValueError) as error:
        sys.exit(f"fetch: {error}")
