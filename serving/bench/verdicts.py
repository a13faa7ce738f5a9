"""What a measurement is held against: what was got, what was wanted, and whether that is enough."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One rule: its name, what came out and what was wanted, in words, and whether it passed."""

    name: str
    got: str
    wanted: str
    passed: bool


def all_passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether there is a verdict at all and each of them passed."""
    return bool(verdicts) and all(verdict.passed for verdict in verdicts)
