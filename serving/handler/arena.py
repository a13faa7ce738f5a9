"""Images that the front door put into shared memory: only where they lie came through TorchServe."""

import mmap
from collections.abc import Sequence
from pathlib import Path


class Arenas:
    """Maps the arenas in one folder, each when it is first named, again when it has grown. A name outside the folder is refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def images(self, name: str, lengths: Sequence[int]) -> list[memoryview]:
        """Views of the images that lie one after the other in the arena `name`.

        Raises: ValueError when there is no such arena or it is shorter.
        """
        known = self._maps.get(name)
        if known is None or len(known) < sum(lengths):
            known = self._maps[name] = self._map(name)
        if len(known) < sum(lengths):
            raise ValueError(f"got {sum(lengths)} bytes in arena {name!r}, it has {len(known)}")
        view, start, views = memoryview(known), 0, []
        for length in lengths:
            views.append(view[start : start + length])
            start += length
        return views

    def _map(self, name: str) -> mmap.mmap:
        if "/" in name or not (self._folder / name).is_file():
            raise ValueError(f"got an arena {name!r}, there is none in {self._folder}")
        with (self._folder / name).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
