"""Training state on disk: written whole or not at all, so that a run killed at any moment goes on from its last epoch."""

from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to a temporary name, then rename."""
    temporary = path.with_name(f".partial.{path.name}")
    torch.save(state, temporary)
    temporary.replace(path)


def load(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The state saved at `path` by a run with the same fingerprint, else None."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state if state["fingerprint"] == fingerprint else None
