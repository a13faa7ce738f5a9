"""How many images go to a worker together: what is there, divided by the workers, in a size that is inferred at once.

Large batches cost less CPU an image (16 a fifth less than 4), so a batch that would only wait for a worker waits here until it is a
whole share. Senders who were just answered often have more, and it is on its way: a free worker waits for those as well, but not for
anybody else.
"""

from serving.handler import BATCHES

RETURN_S = 0.002  # between two images of senders who were just answered and have more


def size(most: int) -> int:
    """The largest number of images, at most `most`, that a worker infers at once."""
    return next(each for each in BATCHES if each <= max(1, most))


class Sharing:
    """Sizes of batches for `workers`, of at most `max_batch` images. Times are seconds of one clock."""

    def __init__(self, workers: int, max_batch: int) -> None:
        self._workers, self._max_batch = workers, max_batch
        self._returning = 0
        self._last = 0.0

    def came(self, count: int, now: float) -> None:
        """`count` images came."""
        self._returning = max(0, self._returning - count)
        self._last = now

    def answered(self, count: int, now: float) -> None:
        """`count` images were answered: as many may come."""
        self._returning += count
        self._last = now

    def expects_s(self, now: float) -> float:
        """Seconds for which more are expected if nothing comes; 0 when they are not, from then on."""
        left_s = self._last + RETURN_S - now
        if not self._returning or left_s <= 0:
            self._returning = 0
            return 0.0
        return left_s

    def share(self, there: int) -> int:
        """Images of one batch, with `there` images waiting or in work."""
        return size(min(self._max_batch, -(-(there + self._returning) // self._workers)))

    def least(self, there: int, batches: int) -> int:
        """Images that must wait before one more than `batches` is worth it."""
        return self.share(there) if batches >= self._workers or self._returning else 1
