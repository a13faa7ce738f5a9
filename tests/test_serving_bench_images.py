"""Synthetic photographs."""

import io

from PIL import Image

from serving.bench.images import photographs


def test_photographs_weigh_what_photographs_weigh():
    files = photographs(500, 400, count=8)
    assert all(60_000 < len(file) < 150_000 for file in files), [len(file) for file in files]
    assert all(Image.open(io.BytesIO(file)).size == (500, 400) for file in files)


def test_the_same_arguments_give_the_same_pictures_each_another():
    assert photographs(80, 60, count=3) == photographs(80, 60, count=3)
    assert len(set(photographs(80, 60, count=5))) == 5
    assert photographs(80, 60, count=1, seed=2) != photographs(80, 60, count=1)
