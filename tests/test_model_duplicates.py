"""Near-duplicates are found however they are turned; flat and smooth images match nothing."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from model.duplicates import groups_of, near_duplicates, thumbnail


def texture(seed: int) -> Image.Image:
    """Fine random structure, 192 px."""
    small = np.random.default_rng(seed).integers(40, 200, (64, 64), dtype=np.uint8)
    return Image.fromarray(small).resize((192, 192), Image.Resampling.BICUBIC)


def pairs_of(images: list[Image.Image], similarity: float = 0.7) -> list[tuple[int, int]]:
    return [(pair.first, pair.second) for pair in near_duplicates([thumbnail(image) for image in images], similarity=similarity)]


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_a_turned_or_mirrored_copy_is_found(turn):
    image = texture(1)
    [pair] = near_duplicates([thumbnail(image), thumbnail(image.transpose(turn)), thumbnail(texture(2))], similarity=0.7)
    assert (pair.first, pair.second) == (0, 1)
    assert pair.similarity == pytest.approx(1.0, abs=5e-3)


def test_brightness_contrast_light_size_and_compression_do_not_hide_a_copy():
    image = texture(1)
    slope = Image.linear_gradient("L").resize(image.size)
    copies = [
        image.point(lambda value: value * 0.5 + 90),
        Image.blend(image, slope, 0.3),
        image.resize((500, 500)),
        ImageOps.colorize(image, "black", "orange"),
    ]
    assert [pair for pair in pairs_of([image, *copies]) if pair[0] == 0] == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_featureless_images_match_nothing():
    y, x = np.mgrid[0:200, 0:200] / 200
    flats = [np.full((200, 200), 128.0), 60 + 120 * y, 60 + 120 * x, 200 - 90 * x, 80 + 60 * x + 50 * y**2, np.zeros((200, 200))]
    assert pairs_of([Image.fromarray(flat.astype(np.uint8)) for flat in flats]) == []


def test_the_similarity_is_the_largest_dot_product_over_the_eight_orientations():
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((6, 64, 64))
    planes[3] = np.rot90(planes[0], 3) + planes[3]
    planes /= np.linalg.norm(planes, axis=(1, 2), keepdims=True)
    turned = [[np.rot90(flip, quarter) for flip in (plane, plane.T) for quarter in range(4)] for plane in planes]
    expected = {(i, j): max(float((planes[i] * other).sum()) for other in turned[j]) for i in range(6) for j in range(i + 1, 6)}
    found = {(pair.first, pair.second): pair.similarity for pair in near_duplicates(list(planes.astype(np.float16)), similarity=-1.0)}
    assert found == pytest.approx(expected, abs=2e-3)
    assert expected[0, 3] > 0.6


def test_chunks_give_the_same_pairs_as_one_product(monkeypatch):
    images = [texture(seed % 5) for seed in range(11)]
    whole = pairs_of(images)
    monkeypatch.setattr("model.duplicates.CHUNK", 3)
    assert sorted(pairs_of(images)) == sorted(whole) == [(i, j) for i in range(11) for j in range(i + 1, 11) if (j - i) % 5 == 0]


def test_groups_join_pairs_transitively_and_are_numbered_in_order():
    chain = near_duplicates([thumbnail(texture(seed)) for seed in (1, 2, 1, 3, 2, 1)], similarity=0.7)
    assert groups_of(6, chain) == [0, 1, 0, 2, 1, 0]
    assert groups_of(3, []) == [0, 1, 2]
