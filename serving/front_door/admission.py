"""How many images may be in the system: as many as are answered within the latency objective, by what the workers are seen to do."""

import math

SAFETY = 0.8  # of the objective: the rest is for the images of a batch that came last, and for a worker that is slower for a moment
MEMORY_S = 4.0  # of the mean: what was seen this long ago counts 1/e
KNOWN_S = 0.5  # of work without a pause, before the rate is believed


class Admission:
    """The bound on images in the system, by Little's law: rate times objective, from `least` to `most`."""

    def __init__(self, objective_s: float, *, least: int, most: int) -> None:
        self.objective_s = objective_s
        self._least, self.most = least, most
        self._images = self._seconds = self._shown = 0.0
        self._since: float | None = None
        self.limit = least  # images that may wait or be in work

    def wait_s(self, ahead: int) -> float:
        """Seconds until an image with `ahead` images before it is answered; 0 while the rate is not known."""
        return ahead * self._seconds / self._images if self._seconds >= KNOWN_S else 0.0

    def answered(self, count: int, *, now: float, waiting: bool) -> None:
        """`count` images were answered at `now`; with `waiting`, others wait, so that the workers will not pause before the next answer."""
        if self._since is not None:
            passed = now - self._since
            kept = math.exp(-passed / MEMORY_S)
            self._images, self._seconds = self._images * kept + count, self._seconds * kept + passed
            if self._seconds >= KNOWN_S:
                self._bound(self._images / self._seconds)
        self._since = now if waiting else None

    def batch(self, count: int, took_s: float) -> None:
        """A batch of `count` images took so long: the workers do no less, which counts until their rate is known."""
        self._shown = max(self._shown, count / took_s)
        if self._seconds < KNOWN_S:
            self._bound(self._shown)

    def _bound(self, rate: float) -> None:
        self.limit = max(self._least, min(self.most, int(SAFETY * self.objective_s * rate)))
