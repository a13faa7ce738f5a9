"""API keys: who gets in, how often, and what happens when their file changes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_serving_front_door import Door, problem

from serving.front_door import keys as module
from serving.front_door.application import FrontDoor
from serving.front_door.errors import ApiError
from serving.front_door.keys import Keys, new_key, read_keys


def line(name: str, key: str, rate: str = "") -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()} {rate}".strip() + "\n"


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# who may ask\n\n" + line("line-1", "secret") + line("lab", "other", "2"))
    return path


def refused(keys: Keys, key: bytes | None) -> ApiError:
    with pytest.raises(ApiError) as error:
        keys.admit(None, key)
    return error.value


def test_a_known_key_gets_in_by_either_header(file: Path, clock: Clock) -> None:
    keys = Keys(file)
    assert keys.admit(b"Bearer secret", None) == keys.admit(b"bearer  secret ", None) == keys.admit(None, b"secret") == "line-1"


@pytest.mark.parametrize("authorization", [None, b"", b"Basic c2VjcmV0", b"Bearer ", b"Bearer wrong", b"secret", b"Bearer \xff\xfe"])
def test_any_other_is_answered_401(file: Path, clock: Clock, authorization: bytes | None) -> None:
    with pytest.raises(ApiError) as error:
        Keys(file).admit(authorization, None)
    assert (error.value.status, error.value.headers["www-authenticate"]) == (401, 'Bearer realm="slipway"')
    assert "secret" not in error.value.message


def test_a_rate_is_a_bucket_of_one_second(file: Path, clock: Clock) -> None:
    keys = Keys(file)
    assert keys.admit(None, b"other") == keys.admit(None, b"other") == "lab"
    error = refused(keys, b"other")
    assert (error.status, error.kind, error.headers["retry-after"]) == (429, "TooManyRequests", "1")
    assert keys.admit(None, b"secret") == "line-1", "another caller is not held up"
    clock.now += 0.5
    assert keys.admit(None, b"other") == "lab"
    assert refused(keys, b"other").status == 429
    clock.now += 60
    assert keys.admit(None, b"other") == keys.admit(None, b"other") == "lab"
    assert refused(keys, b"other").status == 429, "a pause saves up no more than a second's worth"


def test_keys_are_rotated_without_a_restart_and_a_broken_file_changes_nothing(file: Path, clock: Clock) -> None:
    keys = Keys(file)
    file.write_text(line("line-1", "fresh"))
    clock.now += 2
    assert keys.admit(None, b"fresh") == "line-1"
    assert refused(keys, b"secret").status == 401
    file.write_text("nonsense\n")
    clock.now += 2
    assert keys.admit(None, b"fresh") == "line-1"
    file.unlink()
    clock.now += 2
    assert keys.admit(None, b"fresh") == "line-1"
    file.write_text(line("line-1", "newest"))
    clock.now += 2
    assert keys.admit(None, b"newest") == "line-1"


def test_a_kubernetes_secret_that_swaps_its_link_is_noticed(tmp_path: Path, clock: Clock) -> None:
    for name, key in (("one", "first"), ("two", "later")):
        (tmp_path / name).write_text(line("caller", key))
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "keys").symlink_to("one")
    keys = Keys(tmp_path / "keys")
    (tmp_path / "swap").symlink_to("two")
    (tmp_path / "swap").replace(tmp_path / "keys")
    clock.now += 2
    assert keys.admit(None, b"later") == "caller"


@pytest.mark.parametrize(
    ("text", "words"),
    [("lab 123\n", "line 1"), ("", "none"), (line("a", "x") + line("a", "y"), "a, a"), (line("a", "x", "-1"), "line 1")],
)
def test_a_file_that_is_wrong_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_keys(tmp_path / "keys")


def test_a_made_key_is_admitted_by_its_line_and_no_two_are_alike(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from cli import main; main()", "key", "lab", "--rate", "5"], capture_output=True, text=True, check=True
    )
    (tmp_path / "keys").write_text(done.stdout)
    assert Keys(tmp_path / "keys").admit(None, done.stderr.split()[-1].encode()) == "lab"
    assert new_key("a")[0] != new_key("a")[0]
    with pytest.raises(ValueError, match="wanted a NAME"):
        new_key("two words")


@pytest.mark.parametrize("path", ["/predictions/steel", "/v1/classify"])
def test_images_need_a_key_and_probes_do_not(file: Path, path: str) -> None:
    door = Door()
    door.app = FrontDoor(door.served, door.batcher, door.readiness, door.metrics, keys=Keys(file))  # type: ignore[arg-type]
    assert problem(door.ask("POST", path, content=b"jpeg")) == (401, "NoKey")
    assert problem(door.ask("POST", path, content=b"jpeg", headers={"x-api-key": "guess"})) == (401, "WrongKey")
    assert door.batcher.images == []
    assert door.ask("POST", path, content=b"jpeg", headers={"authorization": "Bearer secret"}).status_code == 200
    for open_path in ("/readyz", "/healthz", "/ping", "/", "/info", "/metrics"):
        assert door.ask("GET", open_path).status_code == 200
