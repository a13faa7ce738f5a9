"""Training: it learns, and a run that was killed at any moment ends as if it had not been."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from tiny_run import PARAMS, rows, trained
from torch import nn

from model import checkpoint, network, train
from model.device import Device
from model.transforms import augmentation


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(network, "build", tiny_run.build_small)


@pytest.fixture(scope="module")
def data(tiny: Path) -> Path:
    return tiny / "data"


def artefacts(target: Path) -> tuple[bytes, bytes]:
    return (target / "weights.safetensors").read_bytes(), (target / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tiny: Path) -> tuple[bytes, bytes]:
    """What the run of `tiny`, never disturbed, left."""
    return artefacts(tiny / "train")


def test_it_learns(tiny: Path) -> None:
    history = rows(tiny / "train")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert max(row["val_top1"] for row in history) >= 0.95


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(data: Path, straight: tuple[bytes, bytes], tmp_path: Path) -> None:
    assert trained(data, tmp_path / "same")["epochs"] == 4
    assert artefacts(tmp_path / "same") == straight
    trained(data, tmp_path / "other", seed=2, epochs=1)
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes().splitlines()[0] != straight[1].splitlines()[0]


def interrupt(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Make the `call`-th call of model.train's `name` raise, once."""
    whole, calls = getattr(train, name), 0

    def once(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(train, name, once)


@pytest.mark.parametrize(
    "moment",
    [("_to_network", 5, 0), ("_epoch", 3, 2), ("_to_network", 20, 1), ("validate", 2, 1)],
    ids=["in the first epoch", "between epochs", "in the middle of an epoch", "before validation"],
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    moment: tuple[str, int, int], data: Path, straight: tuple[bytes, bytes], tmp_path: Path
) -> None:
    name, call, survived = moment
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, name, call)
        trained(data, tmp_path)
    assert (len(rows(tmp_path)) if survived else len(list(tmp_path.iterdir()))) == survived
    assert trained(data, tmp_path)["epochs"] == 4
    assert artefacts(tmp_path) == straight
    assert not list(tmp_path.glob(".partial*"))


def test_a_process_killed_while_it_saves_goes_on_as_if_it_had_not_been(data: Path, straight: tuple[bytes, bytes], tmp_path: Path) -> None:
    """The moment between the new weights and the checkpoint that knows of them."""
    script = f"""
import os, signal, sys, pathlib, torch, tiny_run
from model import checkpoint, network
torch.set_num_threads(1)
network.build, save, saved = tiny_run.build_small, checkpoint.save, []
def killed(path, state):
    saved.append(state["epoch"])
    if saved == [1, 2]:
        os.kill(os.getpid(), {signal.SIGKILL.value})
    save(path, state)
checkpoint.save = killed
tiny_run.trained(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(data), str(tmp_path)], check=False, timeout=200, capture_output=True, cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(rows(tmp_path)) == 2 and torch.load(tmp_path / "checkpoint.pt")["epoch"] == 1
    trained(data, tmp_path)
    assert artefacts(tmp_path) == straight


def test_a_finished_run_is_not_trained_again_and_other_parameters_start_anew(tiny: Path, data: Path, tmp_path: Path) -> None:
    first = trained(data, tmp_path, epochs=1)
    with pytest.MonkeyPatch.context() as patched:
        interrupt(patched, "_epoch", 1)
        assert trained(data, tmp_path, epochs=1) == first
    trained(data, tmp_path, fingerprint="two", epochs=1, seed=5)
    assert len(rows(tmp_path)) == 1
    assert checkpoint.load(tmp_path / "checkpoint.pt", fingerprint="one") is None
    assert checkpoint.load(tmp_path / "checkpoint.pt", fingerprint="two")
    assert checkpoint.load(tmp_path / "none.pt", fingerprint="one") is None


def test_more_loader_workers_give_the_same_batches(data: Path) -> None:
    from cli.served_path import decode_for

    augment = augmentation(size_px=32, crop_scale_min=0.5, jitter=0.3, orientation="any")

    def epoch(workers: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        loader = train._loaders(data, decode_for, 32, 16, workers, augment=augment)["train"]
        torch.manual_seed(seed)
        loader.dataset.seed = seed  # type: ignore[attr-defined]
        return list(loader)

    alone, shared, other = epoch(0, 7), epoch(2, 7), epoch(0, 8)
    assert len(alone) == 6
    for (images, targets), (images_too, targets_too) in zip(alone, shared, strict=True):
        assert images.shape == (16, 3, 32, 32) and images.dtype == torch.uint8
        assert torch.equal(images, images_too) and torch.equal(targets, targets_too)
    assert not all(torch.equal(one[0], another[0]) for one, another in zip(alone, other, strict=True))


def test_head_warm_up_moves_the_head_alone_and_then_everything(data: Path, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    whole = train.validate

    with pytest.MonkeyPatch.context() as patched:
        nets: list[nn.Module] = []
        make = train._state

        def state(net: nn.Module, *arguments: Any, **options: Any) -> train.State:
            nets.append(net)
            seen.append({name: value.clone() for name, value in net.state_dict().items()})
            return make(net, *arguments, **options)

        def validate(*arguments: Any) -> dict[str, float]:
            seen.append({name: value.clone() for name, value in nets[0].state_dict().items()})
            return whole(*arguments)

        patched.setattr(train, "_state", state)
        patched.setattr(train, "validate", validate)
        trained(data, tmp_path, head_warmup_epochs=2, epochs=3)

    start, first, second, third = seen
    moved = [
        {name for name in start if not torch.equal(one[name], other[name])}
        for one, other in ((start, first), (first, second), (second, third))
    ]
    assert moved[0] == moved[1] == {"fc.weight", "fc.bias"}
    assert {"conv1.weight", "bn1.running_mean", "bn1.weight", "layer4.0.bn2.running_var", "fc.bias"} <= moved[2]


def test_patience_ends_a_run_that_no_longer_improves(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = iter([0.5, 0.8, 0.7, 0.6, 0.9])
    monkeypatch.setattr(train, "validate", lambda *_: {"val_top1": next(worse), "val_loss": 1.0})
    result = trained(data, tmp_path, patience_epochs=2, epochs=5)
    assert result["epochs"] == 4 and result["best"]["epoch"] == 2


def test_of_equal_accuracies_the_lower_loss_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(0.8, 0.5), (0.8, 0.3), (0.8, 0.4)])
    monkeypatch.setattr(train, "validate", lambda *_: dict(zip(("val_top1", "val_loss"), next(found), strict=True)))
    assert trained(data, tmp_path, epochs=3)["best"]["epoch"] == 2


def tiny_state(**options: Any) -> train.State:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    groups = [{"params": list(net.parameters()), "lr": 2.0, "weight_decay": 0.0}]
    where = Device("cpu", torch.float32, "a test")
    return train._state(net, groups, **{"steps": 10, "warmup_fraction": 0.2, "ema_decay": 0.5, "where": where} | options)


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    state = tiny_state()
    rates = []
    for _ in range(10):
        rates.append(state.optimiser.param_groups[0]["lr"])
        state.optimiser.step()
        state.schedule.step()
    wanted = [1.0, 2.0] + [1 + math.cos(math.pi * step / 8) for step in range(8)]
    assert rates == pytest.approx(wanted)
    assert state.optimiser.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_the_average_forgets_its_first_weights_quickly() -> None:
    """After the first update it is the weights themselves; update n then keeps min(decay, (1 + n) / (10 + n)) of the average."""
    for decay, wanted in ((0.5, [1.0, 1 + 9 / 11, (1 + 9 / 11) * 3 / 12 + 3 * 9 / 12]), (0.1, [1.0, 1.9, 2.89])):
        state = tiny_state(ema_decay=decay)
        for step, value in enumerate(wanted):
            nn.init.constant_(state.net.weight, step + 1.0)  # type: ignore[arg-type]
            state.ema.update_parameters(state.net)
            assert float(state.ema.module.weight.detach()) == pytest.approx(value, rel=1e-5)


def test_what_cannot_be_trained_is_told_in_words(data: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"batch_size": 97}, "only 96 training images"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 1}, "batch_size of at least 2"),
        ({"orientation": "sideways"}, "orientation wants one of any, horizontal, none"),
        ({"weights": "nowhere.pth"}, "nowhere.pth does not exist"),
        ({"learning_rate": 1e30}, "training diverged in epoch 1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            trained(data, tmp_path / "no", **changes)
    assert not (tmp_path / "no" / "weights.safetensors").exists()


def test_standard_output_is_left_to_the_result(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = trained(data, tmp_path, epochs=1)
    said = capsys.readouterr()
    assert said.out == "" and "resnet18 at 32 px, from scratch" in said.err
    assert set(result) >= {"arch", "size_px", "start", "device", "labels", "epochs", "best", "train_seconds"}
    assert result["labels"] == ["amber", "blue", "grey"] and PARAMS["arch"] == result["arch"]
