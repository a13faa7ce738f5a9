"""Downloads are whole or refused, from a web server and from a bucket."""

import http.server
import os
import socket
import threading
from functools import partial

import pytest

from model import sources
from model.sources import origin

CONTENT = os.urandom(300_000)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /short promises more than it sends, /broken answers 500."""

    def do_GET(self):
        if self.path == "/broken":
            self.send_error(500)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "images 1.tar").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=5)


@pytest.fixture
def bucket(monkeypatch):
    from gcp_storage_emulator.server import create_server
    from google.cloud import storage

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="steel")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    storage.Client.create_anonymous_client().bucket("steel").blob("raw/images.tar").upload_from_string(CONTENT)
    yield "gs://steel"
    server.stop()


def test_a_web_address_is_downloaded_with_progress(web, tmp_path):
    seen = []
    path = origin(f"{web}/images%201.tar").fetch(tmp_path, lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "images 1.tar"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (300_000, 300_000)


def test_the_identity_of_a_web_address_follows_its_content(web, tmp_path):
    first = origin(f"{web}/images%201.tar").identity
    assert first == origin(f"{web}/images%201.tar").identity
    (tmp_path / "www" / "images 1.tar").write_bytes(b"other")
    assert origin(f"{web}/images%201.tar").identity not in (first, None)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/none.tar", FileNotFoundError, "answers 404"),
        ("/broken", OSError, "answers 500"),
        ("/short", OSError, "broke off"),
    ],
)
def test_what_cannot_be_downloaded_whole_is_told(web, tmp_path, path, error, message):
    with pytest.raises(error, match=message):
        origin(web + path).fetch(tmp_path, lambda done, total: None)


def test_a_download_beyond_the_limit_is_stopped(web, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_DOWNLOAD_BYTES", 100_000)
    with pytest.raises(ValueError, match="larger than 100,000 bytes"):
        origin(f"{web}/images%201.tar").fetch(tmp_path, lambda done, total: None)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(OSError, match=r"cannot reach http://127\.0\.0\.1:9/x\.tar"):
        origin("http://127.0.0.1:9/x.tar")


def test_a_bucket_object_is_downloaded_by_the_real_client(bucket, tmp_path):
    seen = []
    found = origin(f"{bucket}/raw/images.tar")
    path = found.fetch(tmp_path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (300_000, 300_000)
    assert found.identity == origin(f"{bucket}/raw/images.tar").identity


def test_a_missing_object_or_bucket_is_told(bucket):
    for address in (f"{bucket}/raw/none.tar", "gs://nowhere/images.tar"):
        with pytest.raises(FileNotFoundError, match=f"no {address}"):
            origin(address)


@pytest.mark.parametrize(
    ("src", "error", "message"),
    [
        ("gs://steel", ValueError, "wanted gs://BUCKET/ARCHIVE"),
        ("gs://steel/folder/", ValueError, "wanted gs://BUCKET/ARCHIVE"),
        ("s3://steel/images.tar", ValueError, "cannot import from s3://"),
        ("missing/folder", FileNotFoundError, "no missing/folder"),
    ],
)
def test_unusable_addresses_are_refused(src, error, message):
    with pytest.raises(error, match=message):
        origin(src)


def test_the_identity_of_a_folder_follows_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"one")
    first = origin(str(tmp_path)).identity
    assert origin(str(tmp_path)).identity == first
    (tmp_path / "a" / "1.jpg").write_bytes(b"longer")
    assert origin(str(tmp_path)).identity != first
