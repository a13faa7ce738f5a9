"""Where images come from: a local folder or archive, a web address, an object in Google Cloud Storage."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

MAX_DOWNLOAD_BYTES = 64 << 30
TIMEOUT_S = 30.0

Progress = Callable[[int, int | None], None]  # bytes or images done, and in all where that is known


@dataclass(frozen=True)
class Origin:
    """A source by name. `identity` changes when its content does, None if nothing tells; `fetch(scratch, progress)` makes it local.

    `stage` names what fetching is: download (progress in bytes) or draw (in images).
    """

    name: str
    identity: str | None
    fetch: Callable[[Path, Progress], Path]
    stage: str = "download"


def origin(src: str) -> Origin:
    """The origin that an address names: gs://BUCKET/OBJECT, http(s)://..., otherwise a local path.

    Raises: FileNotFoundError when nothing is there; ValueError for an unusable address; OSError when it cannot be reached.
    """
    scheme = src.partition("://")[0] if "://" in src else ""
    if scheme == "gs":
        return _bucket_object(src)
    if scheme in ("http", "https"):
        return _web(src)
    if scheme:
        raise ValueError(f"cannot import from {scheme}://, only from a path, http://, https:// or gs:// (got {src})")
    return _local(Path(src))


def _local(path: Path) -> Origin:
    if not path.exists():
        raise FileNotFoundError(f"no {path}: give a folder of class folders, an archive of one, or its http://, https:// or gs:// address")
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*"))
    facts = hashlib.sha256(str(path.resolve()).encode("utf-8", "backslashreplace"))
    for file in files:
        status = file.lstat()
        facts.update(json.dumps([str(file), status.st_size, status.st_mtime_ns]).encode())
    return Origin(str(path), facts.hexdigest(), lambda scratch, progress: path)


def _web(url: str) -> Origin:
    try:
        response = httpx.head(url, follow_redirects=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"cannot reach {url} ({error or type(error).__name__}): check the address and the network") from error
    tag = response.headers.get("etag") or response.headers.get("last-modified") if response.is_success else None
    identity = f"{url} {tag} {response.headers.get('content-length')}" if tag else None
    return Origin(url, identity, lambda scratch, progress: _download(url, scratch / _file_name(url), progress))


def _download(url: str, to: Path, progress: Progress) -> Path:
    """Raises: FileNotFoundError for a 404; OSError for another status or a dropped connection; ValueError beyond the size limit."""
    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as response,
            to.open("wb") as file,
        ):
            if response.status_code == httpx.codes.NOT_FOUND:
                raise FileNotFoundError(f"{url} answers 404, there is nothing: check the address")
            if not response.is_success:
                raise OSError(
                    f"{url} answers {response.status_code} {response.reason_phrase}, wanted 200: check the address and your access"
                )
            length = response.headers.get("content-length", "")
            target = _Bounded(file, url, int(length) if length.isdigit() else None, progress)
            for piece in response.iter_raw(1 << 20):
                target.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"the download of {url} broke off ({error or type(error).__name__}): run the command again") from error
    target.check_whole()
    return to


def _bucket_object(address: str) -> Origin:
    """An object in Google Cloud Storage, read with the default credentials, or without any where there are none.

    STORAGE_EMULATOR_HOST leads to an emulator, as in every Google client.
    """
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud import storage

    parts = urlsplit(address)
    bucket, name = parts.netloc, unquote(parts.path.lstrip("/"))
    if not bucket or not name or name.endswith("/"):
        raise ValueError(f"wanted gs://BUCKET/ARCHIVE.tar (or .tar.gz, .zip), got {address}")
    try:
        client: Any = storage.Client.create_anonymous_client() if os.environ.get("STORAGE_EMULATOR_HOST") else storage.Client()
    except (DefaultCredentialsError, OSError):
        client = storage.Client.create_anonymous_client()
    try:
        blob: Any = client.bucket(bucket).blob(name)
        blob.reload(timeout=TIMEOUT_S)
    except NotFound as error:
        raise FileNotFoundError(f"no {address}: check bucket and object with `gcloud storage ls gs://{bucket}`") from error
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise OSError(f"cannot read {address} ({error}): check your access with `gcloud auth application-default login`") from error

    def fetch(scratch: Path, progress: Progress) -> Path:
        to = scratch / _file_name(address)
        try:
            with to.open("wb") as file:
                target = _Bounded(file, address, blob.size, progress)
                blob.download_to_file(target, timeout=TIMEOUT_S)
        except (GoogleAPIError, GoogleAuthError, httpx.HTTPError) as error:
            raise OSError(f"the download of {address} broke off ({error}): run the command again") from error
        target.check_whole()
        return to

    return Origin(address, f"{address} {blob.generation} {blob.crc32c} {blob.size}", fetch)


class _Bounded:
    """A file to download into: counts, reports progress, and stops at MAX_DOWNLOAD_BYTES."""

    def __init__(self, file: BinaryIO, name: str, expected: int | None, progress: Progress) -> None:
        self._file, self._name, self._expected, self._progress = file, name, expected, progress
        self._done = 0

    def write(self, piece: bytes) -> int:
        """Write one piece. Raises: ValueError beyond the limit."""
        self._done += len(piece)
        if max(self._done, self._expected or 0) > MAX_DOWNLOAD_BYTES:
            raise ValueError(f"{self._name} is larger than {MAX_DOWNLOAD_BYTES:,} bytes: import it in parts")
        self._progress(self._done, self._expected)
        return self._file.write(piece)

    def check_whole(self) -> None:
        """Raise OSError unless all the announced bytes came."""
        if self._expected is not None and self._done != self._expected:
            raise OSError(f"{self._name} broke off after {self._done:,} of {self._expected:,} bytes: run the command again")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _file_name(address: str) -> str:
    return Path(unquote(urlsplit(address).path)).name or "archive"
