"""Golden images and the drift reference: deterministic, and every odd encoding decodes to the same picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.drift_reference import drift_reference
from model.golden import awkward, golden_images
from model.shards import read_bytes, read_index
from serving.bench import pictures
from serving.handler.decode import Preprocess, decode

TO = Preprocess(size_px=32, resize_px=32, max_image_bytes=1 << 24, max_pixels=1 << 24)


def test_the_surest_right_image_of_each_class_is_taken(tiny: Path) -> None:
    records = read_index(tiny / "data")
    sure = [0.5 + index / 1000 for index in range(len(records))]
    right = [index % 5 != 0 for index in range(len(records))]
    files = golden_images(tiny / "data", records, right, sure)
    assert list(files)[:3] == ["golden/amber.png", "golden/blue.png", "golden/grey.png"]
    for label in ("amber", "blue", "grey"):
        best = max(index for index, record in enumerate(records) if record.label == label and record.split == "test" and right[index])
        assert files[f"golden/{label}.png"] == read_bytes(tiny / "data", records[best])
    assert golden_images(tiny / "data", records, right, sure) == files
    assert len(files) == 3 + len(awkward(pictures.images()["baseline"]))


def test_nothing_that_is_right_is_told_in_words(tiny: Path) -> None:
    records = read_index(tiny / "data", split="val")
    with pytest.raises(ValueError, match="no test image is predicted right"):
        golden_images(tiny / "data", records, [True] * len(records), [0.9] * len(records))


def test_every_odd_encoding_decodes_to_the_picture_that_went_in() -> None:
    picture = pictures.photo(64, 64, seed=3)
    files = awkward(pictures.encode(picture, "PNG"))
    assert files == awkward(pictures.encode(picture, "PNG"))
    small = picture.resize((32, 32), Image.Resampling.BILINEAR)
    grey = np.repeat(np.asarray(small.convert("L"))[..., None], 3, axis=2)
    wanted = {
        "golden/odd-grey.jpg": grey,
        "golden/odd-cmyk.jpg": np.asarray(small),
        "golden/odd-rotated.jpg": np.asarray(small.rotate(-90)),
        "golden/odd-16bit.png": grey,
    }
    for name, pixels in wanted.items():
        assert np.abs(decode(files[name], TO).astype(int) - pixels).mean() < 5, name
    fade = np.linspace(0, 1, 32)[:, None, None]
    on_white = fade * np.asarray(small) + (1 - fade) * 255
    assert np.abs(decode(files["golden/odd-alpha.png"], TO) - on_white).mean() < 3


def test_a_large_picture_is_made_small_before_it_is_encoded_oddly() -> None:
    for content in awkward(pictures.encode(pictures.photo(1200, 900), "JPEG")).values():
        assert max(Image.open(io.BytesIO(content)).size) == 512


def test_the_drift_reference_holds_what_went_in_and_equal_inputs_give_equal_bytes() -> None:
    probabilities, embeddings = np.eye(3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
    images = [
        pictures.encode(Image.new("RGB", (30, 20), (255, 255, 255)), "PNG"),
        pictures.encode(Image.new("L", (2000, 1000), 100), "JPEG"),
        pictures.encode(Image.fromarray(np.tile(np.array([0, 200], np.uint8), (8, 8))), "BMP"),
    ]
    content = drift_reference(images, probabilities, embeddings)
    assert content == drift_reference(images, probabilities, embeddings)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert sorted(arrays) == ["embeddings", "probabilities", "statistics"]
        assert arrays["embeddings"].dtype == np.float16 and np.array_equal(arrays["probabilities"], probabilities)
        assert arrays["statistics"].tolist() == [
            [255, 0, 30, 20],
            [pytest.approx(100, abs=1), pytest.approx(0, abs=1), 2000, 1000],
            [100, 100, 16, 8],
        ]
