"""What became of every request of a load test: each has a name that must come back once, and each image one right answer."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Objective:
    """What a load test must keep: seconds of the 99th percentile, and the share of requests that may be refused with a 503."""

    p99_s: float
    refused: float


@dataclass
class Ledger:
    """Requests by their names while they are on their way, and what they ended as. `done` also learns each image's answer."""

    waiting: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def sent(self, name: str) -> None:
        """A request is on its way."""
        self.waiting.add(name)

    def done(self, name: str, returned: str | None, outcome: str, *, seconds: float, image: str = "", answer: Any = None) -> str:
        """How the request `name` ended: `outcome`, unless the answer is another request's, a second one, or wrong.

        `returned` is the name in the answer, None when there was none. `outcome` is right, refused, or what went wrong in a word;
        `answer` is what the server says of `image`, and must always be the same.
        """
        if name not in self.waiting:
            outcome = "answered twice"
        elif outcome in ("right", "refused") and returned != name:
            outcome = "another's answer"
        elif outcome == "right" and image and self.answers.setdefault(image, answer) != answer:
            outcome = "changed answer"
        self.waiting.discard(name)
        self.outcomes[outcome] += 1
        if outcome == "right":
            self.latencies_s.append(seconds)
        return outcome

    def report(self, objective: Objective) -> dict[str, Any]:
        """All of it as JSON, with what is not as it should be in `broken`."""
        total, right = self.outcomes.total() + len(self.waiting), self.outcomes["right"]
        ordered = sorted(self.latencies_s)
        p = {f"p{share}_s": ordered[ceil(len(ordered) * share / 100) - 1] if ordered else None for share in PERCENTILES}
        refused = self.outcomes["refused"] / total if total else 0.0
        broken = [f"{count} requests: {what}" for what, count in sorted(self.outcomes.items()) if what not in ("right", "refused")]
        if self.waiting:
            broken.append(f"{len(self.waiting)} requests: never answered")
        if not right:
            broken.append("no request was answered right")
        if refused > objective.refused:
            broken.append(f"{refused:.2%} of the requests were refused, wanted at most {objective.refused:.2%}")
        if p["p99_s"] is not None and p["p99_s"] > objective.p99_s:
            broken.append(f"99 % of the answers took up to {p['p99_s']:.3f} s, wanted at most {objective.p99_s:g} s")
        return {"requests": total, "outcomes": dict(self.outcomes), **p, "refused_share": refused, "broken": broken}
