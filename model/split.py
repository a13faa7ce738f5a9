"""Five disjoint splits, stratified by class, in which a group of near-duplicates never straddles."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate

SPLITS = ("train", "val", "calib", "test", "drift")


def split_groups(
    keys: Sequence[str], labels: Sequence[str], *, groups: Sequence[int], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each image. Each class fills the splits one after another in an order hashed from the seed.

    Images keep their place in that order when others are added, so a larger set moves only the few at the borders. A
    group goes where its middle falls: a split's share of a class is within one group of its target. Groups of several
    classes are placed first, each where it is missed most.

    Raises: ValueError for wrong fractions, and when a class has too few groups to give each split one.
    """
    check_fractions(fractions)
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    rank = {group: min(_hash(seed, keys[position]) for position in positions) for group, positions in members.items()}
    counts = {group: Counter(labels[position] for position in members[group]) for group in sorted(members, key=rank.__getitem__)}
    totals = Counter(labels)
    placed = _place_mixed(counts, totals, fractions)
    for label in sorted(totals):
        mixed = Counter(dict.fromkeys(SPLITS, 0))
        for group, split in placed.items():
            mixed[split] += counts[group][label]
        own = {group: count[label] for group, count in counts.items() if set(count) == {label}}
        wanted = {split: max(0.0, fractions[split] * totals[label] - mixed[split]) for split in SPLITS}
        filled = _fill(own, wanted)
        _leave_none_empty(label, totals[label], filled, mixed)
        placed |= filled
    return [placed[group] for group in groups]


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raise ValueError unless the five splits each have a positive share and the shares sum to one."""
    if set(fractions) != set(SPLITS):
        raise ValueError(f"data.fractions has {', '.join(map(str, fractions))}; wanted exactly {', '.join(SPLITS)}")
    for split, share in fractions.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"data.fractions.{split} is {share!r}; wanted a number between 0 and 1")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"data.fractions sum to {sum(fractions.values()):g}; wanted 1")


def _hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _place_mixed(counts: Mapping[int, Counter[str]], totals: Counter[str], fractions: Mapping[str, float]) -> dict[int, str]:
    """The split of each group of several classes: the one that lacks most of what the group holds."""
    placed: dict[int, str] = {}
    lacking = {split: {label: fractions[split] * total for label, total in totals.items()} for split in SPLITS}
    for group, count in counts.items():
        if len(count) < 2:
            continue
        best = max(SPLITS, key=lambda split: sum(min(number, lacking[split][label]) for label, number in count.items()))
        for label, number in count.items():
            lacking[best][label] -= number
        placed[group] = best
    return placed


def _fill(sizes: Mapping[int, int], wanted: Mapping[str, float]) -> dict[int, str]:
    """Lay groups of one class end to end and cut the line in proportion to `wanted`; a group goes where its middle lies."""
    scale = sum(sizes.values()) / (sum(wanted.values()) or 1.0)
    borders = [border * scale for border in accumulate(wanted[split] for split in SPLITS)]
    placed: dict[int, str] = {}
    start = 0
    for group, size in sizes.items():
        middle = start + size / 2
        placed[group] = next((split for split, border in zip(SPLITS, borders, strict=True) if middle < border), SPLITS[0])
        start += size
    return placed


def _leave_none_empty(label: str, total: int, filled: dict[int, str], mixed: Mapping[str, int]) -> None:
    """Move groups from the fullest split into splits that got no image of the class; changes `filled`."""
    for split in SPLITS:
        if mixed[split] or split in filled.values():
            continue
        donor, spare = Counter(filled.values()).most_common(1)[0] if filled else ("", 0)
        if spare < 2:
            raise ValueError(
                f"class {label!r} has {total} images in {len(filled)} groups of its own (near-duplicates stay together), too few to give "
                f"each of {', '.join(SPLITS)} one: add images of it, leave the class out, or raise data.duplicate_similarity"
            )
        filled[next(group for group in reversed(filled) if filled[group] == donor)] = split
