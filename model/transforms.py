"""Training augmentation, and the reference of what serving does to an image, both by torchvision."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

ORIENTATIONS = ("any", "horizontal", "none")


def augmentation(*, size_px: int, crop_scale_min: float, jitter: float, orientation: str) -> Callable[[Tensor], Tensor]:
    """Random crop, orientation, brightness and contrast: uint8 (3, H, W) to uint8 (3, S, S), resized with antialiasing.

    Raises: ValueError for an unknown orientation.
    """
    if orientation not in ORIENTATIONS:
        raise ValueError(f"train.orientation wants one of {', '.join(ORIENTATIONS)}, got {orientation!r}")
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(size_px, scale=(crop_scale_min, 1.0), ratio=(0.8, 1.25), antialias=True),
        v2.ColorJitter(brightness=jitter, contrast=jitter),
    ]
    if orientation != "none":
        steps.append(v2.RandomHorizontalFlip())
    if orientation == "any":
        steps += [v2.RandomVerticalFlip(), v2.Lambda(_quarter_turn)]
    compose: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return compose


def _quarter_turn(image: Tensor) -> Tensor:
    return torch.rot90(image, int(torch.randint(0, 2, ())), (1, 2))


def reference(size_px: int) -> Callable[[Tensor], Tensor]:
    """What serving must match: shorter side to `size_px` with antialiasing, centre crop; uint8 (3, H, W) to (3, S, S)."""
    compose: Callable[[Tensor], Tensor] = v2.Compose([v2.Resize(size_px, antialias=True), v2.CenterCrop(size_px)])
    return compose
