"""The image's size by part, and the budget."""

from collections import Counter

from serving.image.size import report, sizes


def test_each_file_counts_once_for_the_part_it_belongs_to(tmp_path):
    site = tmp_path / "opt/slipway/lib/python3.11/site-packages"
    for path, size in {
        site / "numpy/core.so": 300,
        site / "numpy.libs/blas.so": 50,
        site / "six.py": 7,
        tmp_path / "opt/java/lib/modules": 200,
        tmp_path / "opt/slipway/cache/classes.jsa": 30,
        tmp_path / "models/model.mar": 11,
        tmp_path / "usr/bin/sh": 5,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "usr/bin/dash").hardlink_to(tmp_path / "usr/bin/sh")
    (tmp_path / "models/latest").symlink_to("/nowhere/that/exists")
    assert sizes(tmp_path) == {
        "numpy": 350,
        "six.py": 7,
        "java": 200,
        "java's class cache": 30,
        "model": 11 + len("/nowhere/that/exists"),
        "debian and its python": 5,
    }


def test_the_budget_is_six_hundred_megabytes():
    assert report(Counter(java=600_000_000))[1]
    text, fits = report(Counter(java=600_000_000, model=1))
    assert not fits
    assert "600.0 MB  in all, of 600 allowed" in text


def test_small_parts_are_one_line():
    found = Counter({f"part{number}": 1_000_000 + number for number in range(20)})
    lines = report(found)[0].splitlines()
    assert len(lines) == 14
    assert "8.0 MB  the rest" in lines[-2]
