"""Splits are disjoint, stratified, stable, and never tear a group apart."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from model.split import SPLITS, split_groups

FRACTIONS = {"train": 0.72, "val": 0.06, "calib": 0.04, "test": 0.12, "drift": 0.06}


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def drawn(seed: int, images: int = 900, *, mixed: bool = False):
    """Keys, labels and groups: three classes, groups of up to five images of one class or, if mixed, of several."""
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for group in range(images):
        label = str(rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1]))
        for _ in range(int(rng.choice([1, 2, 5], p=[0.8, 0.15, 0.05]))):
            labels.append(str(rng.choice(["a", "b", "c"])) if mixed and rng.random() < 0.05 else label)
            groups.append(group)
    return [key(number) for number in range(len(labels))], labels, groups


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mixed", [False, True])
def test_a_group_never_straddles_and_shares_are_within_one_group_of_their_target(seed, mixed):
    keys, labels, groups = drawn(seed, mixed=mixed)
    splits = split_groups(keys, labels, groups=groups, fractions=FRACTIONS, seed=seed)
    by_group = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        by_group[group].add(split)
    assert all(len(found) == 1 for found in by_group.values())
    totals, cells = Counter(labels), Counter(zip(labels, splits, strict=True))
    for label, total in totals.items():
        for split in SPLITS:
            assert abs(cells[label, split] - FRACTIONS[split] * total) <= 5, (label, split)


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    keys, labels, groups = drawn(1)
    first = split_groups(keys, labels, groups=groups, fractions=FRACTIONS, seed=1)
    order = np.random.default_rng(0).permutation(len(keys))
    again = split_groups(
        [keys[i] for i in order], [labels[i] for i in order], groups=[groups[i] for i in order], fractions=FRACTIONS, seed=1
    )
    assert [first[i] for i in order] == again
    assert first != split_groups(keys, labels, groups=groups, fractions=FRACTIONS, seed=2)


def test_added_images_move_only_those_at_the_borders():
    keys = [key(number) for number in range(1100)]
    before = split_groups(keys[:1000], ["a"] * 1000, groups=range(1000), fractions=FRACTIONS, seed=3)
    after = split_groups(keys, ["a"] * 1100, groups=range(1100), fractions=FRACTIONS, seed=3)
    moved = sum(one != other for one, other in zip(before, after, strict=False))
    assert moved < 60  # a fresh draw would move about 450


def test_small_classes_get_one_image_in_every_split_or_an_error():
    keys = [key(number) for number in range(12)]
    labels = ["a"] * 7 + ["b"] * 5
    splits = split_groups(keys, labels, groups=range(12), fractions=FRACTIONS, seed=0)
    assert set(splits[:7]) == set(splits[7:]) == set(SPLITS)
    with pytest.raises(ValueError, match="class 'b' has 5 images in 4 groups"):
        split_groups(keys, labels, groups=[*range(11), 10], fractions=FRACTIONS, seed=0)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 1.0}, "wanted exactly train, val, calib, test, drift"),
        ({**FRACTIONS, "train": 0.8}, "sum to 1.08"),
        ({**FRACTIONS, "val": 0, "train": 0.78}, "val is 0"),
        ({**FRACTIONS, "val": "6%"}, "val is '6%'"),
    ],
)
def test_wrong_fractions_are_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        split_groups([], [], groups=[], fractions=fractions, seed=0)
