"""`slipway lineage` with archives whose lineage is known."""

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import write_colours

import cli

LINEAGE = {
    "data_digest": "da7a" * 16,
    "git": {"commit": "c0ffee", "dirty": "yes"},
    "mlflow_run": "run-7",
    "start": "from scratch",
    "best": {"epoch": 3, "val_top1": 0.975},
    "params": {"epochs": 4, "arch": "resnet18"},
}
GATE = {
    "passed": True,
    "reason": "int8 is chosen",
    "accuracy": [{"name": "top-1", "got": 0.97, "wanted": ">= 0.95", "passed": True}],
    "quantisation": [],
}
Slipway = Callable[..., tuple[int, str, str]]


@pytest.fixture
def slipway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Slipway:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slipway", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "known.mar", lineage=LINEAGE, gate=GATE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_start_of_a_digest_finds_the_archive_among_others(slipway: Slipway, known: Path) -> None:
    write_colours(known.with_name("other.mar"), version="2.0")
    code, out, _ = slipway("lineage", sha256(known)[:12], "--in", str(known.parent))
    assert code == 0
    for fact in (sha256(known), "da7a" * 16, "c0ffee, with changes", "run-7", "97.50% at epoch 3", "epochs=4", "passed: int8 is chosen"):
        assert fact in out, fact
    assert "ok  top-1: 0.97, wanted >= 0.95" in out


def test_a_file_is_read_directly_and_json_holds_everything(slipway: Slipway, known: Path) -> None:
    code, out, _ = slipway("lineage", str(known), "--json")
    about = json.loads(out)
    assert (code, about["digest"], about["lineage"], about["gate"]) == (0, sha256(known), LINEAGE, GATE)


def test_an_archive_that_recorded_little_says_so(slipway: Slipway, archive: Path) -> None:
    code, out, _ = slipway("lineage", str(archive))
    assert code == 0 and "git commit  not recorded" in out and "gate        not recorded" in out


@pytest.mark.parametrize("digest", ["00000000", "a", ""])
def test_a_digest_of_no_archive_or_too_short_is_the_users_fault(slipway: Slipway, known: Path, digest: str) -> None:
    code, _, err = slipway("lineage", digest, "--in", str(known.parent))
    assert code == 2 and "wanted at least 6 hex digits" in err and "--url" in err


@pytest.fixture
def server() -> Iterator[str]:
    class Info(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"digest": "ab" * 32, "name": "colours", "version": "1.0", "variant": "fp32", "labels": ["a", "b"]}).encode()
            self.send_response(200 if self.path == "/info" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Info)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


def test_a_server_tells_its_lineage_when_it_serves_that_digest(slipway: Slipway, server: str) -> None:
    code, out, _ = slipway("lineage", "abababababab", "--url", server + "/")
    assert code == 0 and "ab" * 32 in out and "colours 1.0, fp32, 2 classes" in out
    code, _, err = slipway("lineage", "cdcdcd", "--url", server)
    assert code == 2 and "serves abababababab, not cdcdcd" in err


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no address"])
def test_an_address_without_a_server_is_the_users_fault(slipway: Slipway, url: str) -> None:
    code, _, err = slipway("lineage", "abababababab", "--url", url)
    assert code == 2 and "wanted the address of a slipway serve" in err
