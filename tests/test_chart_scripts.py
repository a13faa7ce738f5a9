"""The two programs that travel in the chart, run as a pod runs them, against a bucket and a server that misbehave."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chart import CHART

FILES = CHART / "files"
ARCHIVE = b"an archive" * 1000
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
RIGHT = {
    "/readyz": (200, json.dumps({"status": "ready", "model": "steel", "version": "1", "digest": DIGEST})),
    "/predictions/steel": (200, json.dumps({"scratch": 0.75, "patch": 0.25})),
    "/predictions/no-such-model": (404, '{"code": 404}'),
    "/models/no-such-model": (404, '{"code": 404}'),
}


@pytest.fixture
def serve():
    """Starts a server that answers by path; returns its address and the requests that it saw."""
    servers = []

    def start(answers):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                seen.append((self.path, dict(self.headers), body))
                status, content = answers.get(self.path, (404, '{"code": 404}'))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content if isinstance(content, bytes) else content.encode())

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(script, *arguments, **environment):
    command = [sys.executable, "-I", "-S", FILES / script, *map(str, arguments)]  # without any installed package
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def fetch(serve, target, digest):
    metadata, _ = serve({"/computeMetadata/v1/instance/service-accounts/default/token": (200, '{"access_token": "t0"}')})
    bucket, seen = serve({"/download/storage/v1/b/models/o/a%2Fsteel.mar?alt=media": (200, ARCHIVE)})
    done = run(
        "fetch.py", "gs://models/a/steel.mar", target, digest,
        GCE_METADATA_HOST=metadata.removeprefix("http://"), STORAGE_EMULATOR_HOST=bucket,
    )  # fmt: skip
    return done, seen


def test_an_archive_is_fetched_with_the_pods_own_identity(serve, tmp_path):
    done, seen = fetch(serve, tmp_path / "model.mar", DIGEST)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.mar").read_bytes() == ARCHIVE and [*tmp_path.iterdir()] == [tmp_path / "model.mar"]
    assert seen[0][1]["Authorization"] == "Bearer t0"


def test_an_archive_with_another_digest_is_not_left_for_the_server(serve, tmp_path):
    done, _ = fetch(serve, tmp_path / "model.mar", "0" * 64)
    assert done.returncode == 1 and f"sha256 {DIGEST}, wanted {'0' * 64}" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_bucket_that_refuses_is_named_in_one_line(serve, tmp_path):
    metadata, _ = serve({"/computeMetadata/v1/instance/service-accounts/default/token": (200, '{"access_token": "t0"}')})
    bucket, _ = serve({})
    done = run(
        "fetch.py", "gs://models/none.mar", tmp_path / "m.mar", DIGEST,
        GCE_METADATA_HOST=metadata.removeprefix("http://"), STORAGE_EMULATOR_HOST=bucket,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr == "fetch: HTTP Error 404: Not Found\n"


def test_the_check_takes_right_predictions_of_the_right_archive(serve):
    url, seen = serve(RIGHT)
    done = run("check.py", "predict", f"{url}#{DIGEST}", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("steel 1 says scratch") == 2
    images = [body for path, _, body in seen if path == "/predictions/steel"]
    assert len(images) == 2
    import io

    from PIL import Image

    assert Image.open(io.BytesIO(images[0])).convert("RGB").getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"/readyz": (503, "loading")}, "/readyz answered 503"),
        ({"/readyz": (200, '{"model": "steel", "version": "1", "digest": "other"}')}, "serves other, the release wants"),
        ({"/predictions/steel": (500, "broken")}, "an image was answered 500: broken"),
        ({"/predictions/steel": (200, '{"a": 0.9, "b": 0.9}')}, "probabilities add up to 1.8"),
    ],
)
def test_the_check_refuses_what_is_wrong(serve, changed, reason):
    url, _ = serve(RIGHT | changed)
    done = run("check.py", "predict", f"{url}#{DIGEST}")
    assert done.returncode == 1 and reason in done.stderr


def test_where_keys_are_wanted_an_image_without_one_must_be_refused(serve):
    for status, code in ((401, 0), (200, 1)):
        url, _ = serve(RIGHT | {"/predictions/steel": (status, "{}")})
        assert run("check.py", "predict", url, KEYS="yes").returncode == code


def test_open_doors_are_found(serve):
    url, _ = serve(RIGHT)
    assert run("check.py", "refuse", url).returncode == 0
    for path in ("/metrics", "/predictions/no-such-model", "/models/no-such-model"):
        url, _ = serve(RIGHT | {path: (200, "open")})
        done = run("check.py", "refuse", url)
        assert done.returncode == 1 and f"{path} answered 200" in done.stderr


def test_metrics_must_say_ready(serve):
    for value, code in (("1.0", 0), ("0.0", 1)):
        url, _ = serve({"/metrics": (200, f"# TYPE slipway_ready gauge\nslipway_ready {value}\n")})
        assert run("check.py", "measure", url).returncode == code
