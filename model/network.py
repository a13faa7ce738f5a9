"""The network: a torchvision ResNet with a new head, its parameter groups, and the form in which it is exported."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

ARCHITECTURES = {"resnet18": "ResNet18_Weights", "resnet34": "ResNet34_Weights", "resnet50": "ResNet50_Weights"}
# Channel statistics of ImageNet, which torchvision's weights were trained with (torchvision model documentation).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL_PLANE_PIXELS = 4
STAGES = ("fc", "layer4", "layer3", "layer2", "layer1", "conv1")


def build(arch: str, num_classes: int) -> nn.Module:
    """A ResNet with `num_classes` logits and fresh weights; input (N, 3, H, W) in [0, 1], output (N, K)."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"train.arch wants one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, zero_init_residual=True)
    for module in network.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3):
            module.__class__ = SmallPlaneConv2d  # the same parameters under the same names; torchvision offers no other way
    return network


class SmallPlaneConv2d(nn.Conv2d):
    """A 3 x 3 convolution with padding 1 that is trained on a CPU as one matrix product where its output has few pixels.

    Same results; at 64 pixels, where the last layers have 2 x 2, a ResNet-18 trains 1.5 times as fast (oneDNN's own needs 5 times as
    long for these layers). Outside training it is the plain convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        stride = self.stride[0]
        count, channels, height, width = input.shape
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        if not self.training or not input.is_cpu or rows * columns > SMALL_PLANE_PIXELS:
            return super().forward(input)
        padded = nn.functional.pad(input.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        windows = padded.unfold(1, 3, stride).unfold(2, 3, stride).permute(0, 1, 2, 4, 5, 3)  # (N, H', W', 3, 3, C)
        weight = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, 9 * channels)
        product = nn.functional.linear(windows.reshape(-1, 9 * channels), weight)
        return product.reshape(count, rows, columns, self.out_channels).permute(0, 3, 1, 2)


def load_pretrained(network: nn.Module, arch: str, weights: str) -> str:
    """What `network` now starts from, in words: `weights` is none, imagenet or a file (ours or torchvision's).

    A head of another number of classes is left fresh. When ImageNet weights cannot be downloaded the network stays fresh
    and the words say so.

    Raises: FileNotFoundError for a missing file; ValueError for a file that holds another architecture.
    """
    if weights == "none":
        return "from scratch"
    if weights == "imagenet":
        try:
            state = getattr(torchvision.models, ARCHITECTURES[arch]).DEFAULT.get_state_dict(progress=True)
        except OSError as error:
            return f"from scratch: ImageNet weights cannot be had ({error}); give a local file in train.weights to use them"
    else:
        state = _read_weights(Path(weights))
    head = {"fc.weight", "fc.bias"}
    own = network.state_dict()
    if any(key in state and state[key].shape != own[key].shape for key in head):
        state = {key: value for key, value in state.items() if key not in head}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {arch}: {str(error).splitlines()[-1].strip()}") from None
    if unexpected or set(missing) - head:
        raise ValueError(f"{weights} does not fit {arch}: it lacks {missing[:3]} and has {unexpected[:3]} too many")
    if not weights.endswith(".safetensors"):  # ours are; torchvision's are not, and want normalised pixels
        fold_normalisation(network)
    return f"from {weights}" + (" with a fresh head" if missing else "")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise FileNotFoundError(f"train.weights wants none, imagenet or a file of weights; {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as weights ({error}): wanted a .safetensors that `slipway train` wrote") from None
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever it trips over
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} cannot be read as weights ({words}): wanted a state_dict saved by torch") from None
    return state


def parameter_groups(network: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: a lower rate for each stage further from the head, no weight decay on norms and biases."""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        stage = name.split(".")[0].replace("bn1", "conv1")
        groups.setdefault((STAGES.index(stage), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * layer_decay**depth, "weight_decay": weight_decay if decays else 0.0}
        for (depth, decays), parameters in sorted(groups.items())
    ]


def freeze_backbone(network: nn.Module, frozen: bool) -> None:
    """Let only the head learn (`frozen`), or everything; frozen batch norms keep their statistics."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith("fc."))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not frozen)


def fold_normalisation(network: nn.Module) -> None:
    """Let a network trained on normalised ImageNet pixels take pixels in [0, 1]: the first convolution divides, its norm subtracts.

    Exact but for the outermost pixels, where the zero padding now means black instead of ImageNet's mean; fine-tuning absorbs it.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    convolution, norm = network.get_submodule("conv1"), network.get_submodule("bn1")
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    with torch.no_grad():
        convolution.weight /= std
        norm.running_mean += (convolution.weight * mean).sum((1, 2, 3))


class Exported(nn.Module):
    """What is exported: uint8 images (N, S, S, 3) RGB in; logits (N, K) and embedding (N, D) out.

    The first pooling stands before its activation, which computes the same: with a quantiser between the two, OpenVINO 2026.4.1
    computes the INT8 form wrongly (agreement with fp32 of 33 % where ONNX Runtime has 99 %).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        stem = [network.get_submodule(name) for name in ("conv1", "bn1", "maxpool", "relu")]
        stages = [network.get_submodule(name) for name in ("layer1", "layer2", "layer3", "layer4", "avgpool")]
        self.body = nn.Sequential(*stem, *stages, nn.Flatten())
        self.head = network.get_submodule("fc")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the embedding before the head."""
        embedding = self.body(images.permute(0, 3, 1, 2).float() / 255)  # (N, S, S, 3) to (N, D)
        return self.head(embedding), embedding
