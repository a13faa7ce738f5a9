"""Synthetic images: the same for the same seed, told apart by texture and not by brightness or place."""

import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.archives import open_files
from model.synthetic import CLASSES, draw, encode, synthetic_origin


def silent(done, total):
    pass


def test_the_bytes_depend_on_the_parameters_only(tmp_path):
    def files(place, **changed):
        folder = tmp_path / place
        folder.mkdir()
        params = {"images_per_class": 2, "size_px": 64, "seed": 7, **changed}
        with open_files(synthetic_origin(**params).fetch(folder, silent), folder) as listing:
            return {path: listing.read(path) for path in listing.sizes}

    first = files("one")
    assert first == files("two")
    assert first.items() <= files("more", images_per_class=3).items()
    assert not set(first.values()) & set(files("other", seed=8).values())
    assert len(first) == len(set(first.values())) == 12


def test_an_image_is_a_grey_jpeg_of_the_wanted_size():
    with Image.open(BytesIO(encode(draw("scratches", 0, size_px=100, seed=1)))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (100, 100))


def test_the_identity_names_the_parameters():
    names = {
        synthetic_origin(images_per_class=n, size_px=size, seed=seed).identity for n in (1, 2) for size in (64, 128) for seed in (1, 2)
    }
    assert len(names) == 8
    with pytest.raises(ValueError, match=r"size_px in 64\.\.1024, got 5 and 32"):
        synthetic_origin(images_per_class=5, size_px=32, seed=1)


def test_drawing_is_fast():
    start = time.process_time()
    for name in CLASSES:
        for number in range(5):
            draw(name, number, size_px=200, seed=1)
    assert (time.process_time() - start) / 30 < 0.04  # 1,500 images within a minute on one core


def test_a_linear_model_on_pixels_fails():
    """Ridge regression to one-hot classes, from loose to tight: it learns its own images by heart and guesses the others."""
    shape = (60, len(CLASSES), 32 * 32)
    images = [Image.fromarray(draw(name, number, size_px=128, seed=3)) for number in range(shape[0]) for name in CLASSES]
    pixels = np.array([image.resize((32, 32), Image.Resampling.BOX) for image in images], dtype=np.float64).reshape(shape) / 128 - 1
    truth = np.arange(6)[None]
    known, new = pixels[:45].reshape(-1, shape[2]), pixels[45:].reshape(-1, shape[2])
    targets = np.tile(np.eye(6) - 1 / 6, (45, 1))
    for strength in (1, 100, 10_000):
        weights = known.T @ np.linalg.solve(known @ known.T + strength * np.eye(len(known)), targets)
        assert ((new @ weights).reshape(15, 6, 6).argmax(-1) == truth).mean() < 0.6
        if strength == 1:
            assert ((known @ weights).reshape(45, 6, 6).argmax(-1) == truth).mean() > 0.9


def test_texture_tells_the_classes_apart():
    """A nearest-centroid rule on a few texture measures, far from a network, is well above chance (1 in 6)."""

    def measures(image):
        plane = image.astype(np.float32)
        plane = (plane - plane.mean()) / plane.std()
        steps = [np.abs(plane[lag:] - plane[:-lag]).mean() + np.abs(plane[:, lag:] - plane[:, :-lag]).mean() for lag in (1, 2, 4, 8, 16)]
        uneven = abs(np.log(np.abs(np.diff(plane, axis=0)).mean() / np.abs(np.diff(plane, axis=1)).mean()))
        return [*steps, (plane**3).mean(), (plane**4).mean() ** 0.25, uneven]

    table = np.array([[measures(draw(name, number, size_px=128, seed=3)) for number in range(30)] for name in CLASSES])
    table = (table - table.mean((0, 1))) / table.std((0, 1))
    centroids = table[:, :15].mean(1)
    nearest = np.linalg.norm(table[:, 15:, None] - centroids, axis=-1).argmin(-1)
    assert (nearest == np.arange(6)[:, None]).mean() > 0.7
