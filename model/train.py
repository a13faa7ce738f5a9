"""Fine-tuning, top to bottom: warm up the head, train all layers on a cosine schedule, average, validate, keep the best, resume."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from model import checkpoint, device, network
from model.dataset import Decode, ImageDataset, read_rgb
from model.shards import labels, read_index
from model.transforms import augmentation


@dataclass
class State:
    """All that changes while training: what a checkpoint holds."""

    net: nn.Module
    ema: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    epoch: int = 0
    best: dict[str, Any] | None = None
    seconds: float = 0.0

    def parts(self) -> dict[str, Any]:
        """The members that have a state_dict of their own."""
        return {"net": self.net, "ema": self.ema, "optimiser": self.optimiser, "schedule": self.schedule, "scaler": self.scaler}


def train(
    data: Path,
    target: Path,
    decode_for: Callable[[int], Decode],
    fingerprint: str,
    *,
    arch: str,
    weights: str,
    size_px: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    label_smoothing: float,
    ema_decay: float,
    head_warmup_epochs: int,
    layer_decay: float,
    warmup_fraction: float,
    patience_epochs: int,
    crop_scale_min: float,
    jitter: float,
    orientation: str,
    loader_workers: int,
    seed: int,
) -> dict[str, Any]:
    """What came out, as written to `target`/train.json; the best averaged weights are in weights.safetensors beside it.

    Validation decodes with `decode_for(size_px)`, which is how serving decodes. A run with the same `fingerprint` that was
    killed goes on after its last whole epoch, and ends as if it had not been killed.

    Raises: ValueError for parameters or data that cannot be trained on; FileNotFoundError without data or weights.
    """
    if epochs < 1 or batch_size < 2 or size_px < 1:
        raise ValueError(f"train wants epochs and size_px of at least 1, batch_size of at least 2; got {epochs}, {size_px}, {batch_size}")
    where = device.choose()
    torch.manual_seed(seed)
    net = network.build(arch, len(labels(data)))
    start = network.load_pretrained(net, arch, weights)
    loaders = _loaders(data, decode_for, size_px, batch_size, loader_workers, augment=augmentation(
        size_px=size_px, crop_scale_min=crop_scale_min, jitter=jitter, orientation=orientation))  # fmt: skip
    state = _state(
        net.to(where.name).to(memory_format=torch.channels_last),
        network.parameter_groups(net, learning_rate=learning_rate, weight_decay=weight_decay, layer_decay=layer_decay),
        steps=epochs * len(loaders["train"]), warmup_fraction=warmup_fraction, ema_decay=ema_decay, where=where,
    )  # fmt: skip
    target.mkdir(parents=True, exist_ok=True)
    resumed = _resume(state, target, fingerprint)
    loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    with _progress(f"{arch} at {size_px} px, {start}{', resumed' if resumed else ''}; {where.reason}") as progress:
        task = progress.add_task("training", total=epochs * len(loaders["train"]), completed=state.epoch * len(loaders["train"]), words="")
        while state.epoch < epochs and not _out_of_patience(state, patience_epochs):
            network.freeze_backbone(state.net, state.epoch < head_warmup_epochs)
            begun = time.perf_counter()
            losses = _epoch(state, loaders["train"], loss, where, seed=seed, tick=lambda: progress.advance(task))
            row = {"epoch": state.epoch + 1, "train_loss": losses, **validate(state.ema.module, loaders["val"], where)}
            state.epoch, state.seconds = state.epoch + 1, state.seconds + time.perf_counter() - begun
            _keep(state, row, target, fingerprint)
            progress.update(task, words=_words(row, state))
    result = {
        "arch": arch, "size_px": size_px, "start": start, "device": where.reason, "labels": labels(data), "epochs": state.epoch,
        "best": {key: value for key, value in (state.best or {}).items() if key != "weights"}, "train_seconds": round(state.seconds, 1),
    }  # fmt: skip
    return result


def _loaders(
    data: Path, decode_for: Callable[[int], Decode], size_px: int, batch_size: int, workers: int, *, augment: Callable[[Tensor], Tensor]
) -> dict[str, DataLoader[tuple[Tensor, int]]]:
    def raw(content: bytes) -> Any:
        return read_rgb(content, min_side_px=2 * size_px)

    train_set = ImageDataset(data, read_index(data, split="train"), decode=raw, augment=augment)
    if len(train_set) < batch_size:
        raise ValueError(f"train.batch_size is {batch_size}, but there are only {len(train_set)} training images: lower it or add images")
    val_set = ImageDataset(data, read_index(data, split="val"), decode=decode_for(size_px))
    return {
        "train": DataLoader(train_set, batch_size, shuffle=True, drop_last=True, num_workers=workers),
        "val": DataLoader(val_set, 2 * batch_size),
    }


def _state(
    net: nn.Module, groups: list[dict[str, Any]], *, steps: int, warmup_fraction: float, ema_decay: float, where: device.Device
) -> State:
    warmup = max(1, int(steps * warmup_fraction))

    def rate(step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        return (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        """Exponential average whose memory grows with the run, so that early epochs are not dominated by the first weights."""
        decay = min(ema_decay, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, 1 - decay) if old.is_floating_point() else old.copy_(new)

    optimiser = torch.optim.AdamW(groups)
    return State(
        net,
        AveragedModel(net, multi_avg_fn=average, use_buffers=True),
        optimiser,
        torch.optim.lr_scheduler.LambdaLR(optimiser, rate),
        torch.amp.GradScaler(where.name, enabled=where.precision == torch.float16),
    )


def _epoch(
    state: State, loader: DataLoader[tuple[Tensor, int]], loss: nn.Module, where: device.Device, *, seed: int, tick: Callable[[], object]
) -> float:
    """Mean training loss of one pass; its random numbers depend on the seed and the epoch alone."""
    torch.manual_seed(seed * 100_003 + state.epoch)
    loader.dataset.seed = seed * 100_003 + state.epoch  # type: ignore[attr-defined]
    total = torch.zeros((), device=where.name)
    for images, targets in loader:
        inputs = _to_network(images, where)
        with where.autocast():
            value = loss(state.net(inputs), targets.to(where.name))
        state.optimiser.zero_grad(set_to_none=True)
        state.scaler.scale(value).backward()
        state.scaler.step(state.optimiser)
        state.scaler.update()
        state.schedule.step()
        state.ema.update_parameters(state.net)
        total += value.detach()
        tick()
    mean = float(total) / len(loader)
    if not math.isfinite(mean):
        raise ValueError(f"training diverged in epoch {state.epoch + 1} (loss {mean}): lower train.learning_rate")
    return mean


def _to_network(images: Tensor, where: device.Device) -> Tensor:
    """uint8 (N, 3, S, S) to float in [0, 1] on the device."""
    return images.to(where.name, memory_format=torch.channels_last).float() / 255


@torch.inference_mode()
def validate(net: nn.Module, loader: DataLoader[tuple[Tensor, int]], where: device.Device) -> dict[str, float]:
    """Top-1 accuracy and cross-entropy of `net` over the loader."""
    net.eval()
    correct, entropy, count = 0, 0.0, 0
    for images, targets in loader:
        logits = net(_to_network(images, where)).float().cpu()
        correct += int((logits.argmax(1) == targets).sum())
        entropy += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += len(targets)
    return {"val_top1": correct / count, "val_loss": entropy / count}


def _keep(state: State, row: dict[str, Any], target: Path, fingerprint: str) -> None:
    """Remember the epoch on disk: its line, the best weights so far, and the checkpoint."""
    from safetensors.torch import save_file

    if state.best is None or (row["val_top1"], -row["val_loss"]) >= (state.best["val_top1"], -state.best["val_loss"]):
        state.best = row
        weights = {name: value.detach().cpu().contiguous() for name, value in state.ema.module.state_dict().items()}
        save_file(weights, target / ".partial.weights.safetensors")
        (target / ".partial.weights.safetensors").replace(target / "weights.safetensors")
    lines = (target / "metrics.jsonl").read_text().splitlines()[: state.epoch - 1] if state.epoch > 1 else []
    (target / ".partial.metrics.jsonl").write_text("\n".join([*lines, json.dumps(row)]) + "\n")
    (target / ".partial.metrics.jsonl").replace(target / "metrics.jsonl")
    parts = {name: part.state_dict() for name, part in state.parts().items()}
    rest = {"epoch": state.epoch, "best": state.best, "seconds": state.seconds, "fingerprint": fingerprint}
    checkpoint.save(target / "checkpoint.pt", {**parts, **rest})


def _resume(state: State, target: Path, fingerprint: str) -> bool:
    saved = checkpoint.load(target / "checkpoint.pt", fingerprint=fingerprint)
    if saved is None:
        return False
    for name, part in state.parts().items():
        part.load_state_dict(saved[name])
    state.epoch, state.best, state.seconds = saved["epoch"], saved["best"], saved["seconds"]
    return True


def _out_of_patience(state: State, patience_epochs: int) -> bool:
    return state.best is not None and state.epoch - int(state.best["epoch"]) >= patience_epochs


def _words(row: dict[str, Any], state: State) -> str:
    return f"loss {row['train_loss']:.3f}  val {row['val_top1']:.1%}  best {(state.best or row)['val_top1']:.1%}"


def _progress(title: str) -> Progress:
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"), speed_estimate_period=120,
        console=Console(stderr=True),  # standard output is for the result
    )  # fmt: skip
    progress.console.print(title, highlight=False)
    return progress
