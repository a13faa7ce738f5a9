"""The in-process limit with the tiny archive of conftest.py."""

from pathlib import Path

import pytest
from conftest import picture

from serving import archive as archives
from serving.bench import limit


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    archives.unpack(archives.read(archive), folder)
    return folder


def images(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def test_the_limit_answers_as_the_handler_does_and_runs_every_way(unpacked, tmp_path):
    paths = images(tmp_path, picture(255, 0, 0), picture(0, 0, 255), picture(0, 255, 0, kind="PNG"))
    with limit.started(unpacked, paths, cpus=2) as two:
        answers = two.answers()
        assert answers.labels == ("red", "blue", "green")
        assert "FP32" in answers.capabilities
        assert set(two.choose_batch(0.05)) == {1, 4, 8} and two.batch in (1, 4, 8)
        for run in (two.run(0.2), two.run(0.2, batch=1), two.run_alone(0.2)):
            assert run.throughput_rps > 10 and run.cpu_ms > 0
            assert 0 < run.p50_ms <= run.p95_ms <= run.p99_ms


def test_an_image_that_the_handler_refuses_is_named(unpacked, tmp_path):
    paths = images(tmp_path, picture(255, 0, 0), b"no image")
    with limit.started(unpacked, paths, cpus=1) as one, pytest.raises(ValueError, match=r"1\.jpg: got 8 bytes that are no image"):
        one.answers()


def test_an_archive_that_does_not_load_says_why(unpacked, tmp_path):
    (unpacked / "golden" / "0.jpg").write_bytes(picture(0, 0, 255))
    with limit.started(unpacked, images(tmp_path, picture(1, 2, 3)), cpus=1) as one, pytest.raises(ValueError, match="golden image"):
        one.answers()
