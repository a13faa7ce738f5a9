"""The network: its parameter groups, frozen backbone, starting weights, and the form that is exported."""

import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

from model import network


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def randomised(net: nn.Module) -> nn.Module:
    """`net` with norms that do something, as after training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net.eval()


def test_the_head_has_a_logit_for_each_class() -> None:
    for arch, width in (("resnet18", 512), ("resnet50", 2048)):
        net = network.build(arch, 7).eval()
        with torch.inference_mode():
            assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7)
        assert net.get_submodule("fc").in_features == width
    with pytest.raises(ValueError, match="wants one of resnet18, resnet34, resnet50, got 'vgg'"):
        network.build("vgg", 7)


def test_rates_fall_from_the_head_down_and_norms_are_not_decayed() -> None:
    net = network.build("resnet18", 3)
    groups = network.parameter_groups(net, learning_rate=1.0, weight_decay=0.05, layer_decay=0.5)
    rate_of = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rate_of) == len(list(net.parameters()))
    by_hand = {"fc": 1, "layer4": 1 / 2, "layer3": 1 / 4, "layer2": 1 / 8, "layer1": 1 / 16, "conv1": 1 / 32, "bn1": 1 / 32}
    for name, parameter in net.named_parameters():
        is_matrix = name.endswith("weight") and ("conv" in name or "downsample.0" in name or name == "fc.weight")
        assert rate_of[id(parameter)] == (by_hand[name.split(".")[0]], 0.05 if is_matrix else 0.0), name


def test_one_rate_for_all_when_layers_do_not_decay() -> None:
    groups = network.parameter_groups(network.build("resnet50", 2), learning_rate=0.3, weight_decay=0.0, layer_decay=1.0)
    assert {group["lr"] for group in groups} == {0.3}


def test_a_frozen_backbone_keeps_its_weights_and_its_statistics() -> None:
    net = network.build("resnet18", 2).train()
    network.freeze_backbone(net, True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameter_groups(net, learning_rate=0.1, weight_decay=0.5, layer_decay=1.0))
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(torch.rand(4, 3, 32, 32)), torch.tensor([0, 1, 0, 1])).backward()
        optimiser.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    network.freeze_backbone(net, False)
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(torch.rand(4, 3, 32, 32)), torch.tensor([0, 1, 0, 1])).backward()
    optimiser.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {"conv1.weight", "bn1.running_mean", "bn1.weight", "layer4.1.bn2.num_batches_tracked"} <= changed


def test_a_folded_network_takes_plain_pixels_and_is_exact_away_from_the_border() -> None:
    trained = randomised(network.build("resnet18", 2))
    folded = network.build("resnet18", 2).eval()
    folded.load_state_dict(trained.state_dict())
    network.fold_normalisation(folded)
    pixels = torch.rand(2, 3, 64, 64)
    normalised = v2.Normalize(network.IMAGENET_MEAN, network.IMAGENET_STD)(pixels)
    with torch.inference_mode():
        one = folded.get_submodule("bn1")(folded.get_submodule("conv1")(pixels))
        other = trained.get_submodule("bn1")(trained.get_submodule("conv1")(normalised))
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # a 7 x 7 kernel of stride 2 sees the padding in 2 rows
    torch.testing.assert_close(one[inner], other[inner], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one, other, atol=1e-2)


def test_weights_of_torchvision_come_with_a_fresh_head_and_folded(tmp_path: Path) -> None:
    theirs = randomised(network.build("resnet18", 1000))
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    net = network.build("resnet18", 3)
    head = net.get_submodule("fc").weight.clone()
    words = network.load_pretrained(net, "resnet18", str(tmp_path / "resnet18.pth"))
    assert words == f"from {tmp_path / 'resnet18.pth'} with a fresh head"
    assert torch.equal(net.get_submodule("fc").weight, head)
    assert torch.equal(net.get_parameter("layer3.0.conv1.weight"), theirs.get_parameter("layer3.0.conv1.weight"))
    std = torch.tensor(network.IMAGENET_STD).view(1, 3, 1, 1)
    torch.testing.assert_close(net.get_parameter("conv1.weight"), theirs.get_parameter("conv1.weight") / std)


def test_our_own_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    ours, path = randomised(network.build("resnet18", 3)), tmp_path / "weights.safetensors"
    save_file(dict(ours.state_dict()), path)
    net = network.build("resnet18", 3)
    assert network.load_pretrained(net, "resnet18", str(path)) == f"from {path}"
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in net.state_dict().items())
    other = network.build("resnet18", 5)
    assert network.load_pretrained(other, "resnet18", str(path)) == f"from {path} with a fresh head"
    assert torch.equal(other.get_parameter("conv1.weight"), ours.get_parameter("conv1.weight"))


def test_weights_that_do_not_fit_are_refused_in_words(tmp_path: Path) -> None:
    net = network.build("resnet18", 3)
    for arch in ("resnet34", "resnet50"):
        torch.save(network.build(arch, 3).state_dict(), tmp_path / f"{arch}.pth")
        with pytest.raises(ValueError, match=f"{arch}.pth does not fit resnet18"):
            network.load_pretrained(net, "resnet18", str(tmp_path / f"{arch}.pth"))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "wrapped.pth")
    with pytest.raises(ValueError, match="does not fit resnet18"):
        network.load_pretrained(net, "resnet18", str(tmp_path / "wrapped.pth"))
    with pytest.raises(FileNotFoundError, match=r"train\.weights wants none, imagenet or a file of weights; nowhere\.pth does not exist"):
        network.load_pretrained(net, "resnet18", "nowhere.pth")
    for name in ("text.pth", "text.safetensors", "empty.pth"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"this is no file of weights, but text")
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights"):
            network.load_pretrained(net, "resnet18", str(tmp_path / name))


def test_without_a_network_imagenet_weights_leave_a_fresh_start_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    net = network.build("resnet18", 3)
    before = net.get_parameter("conv1.weight").clone()
    words = network.load_pretrained(net, "resnet18", "imagenet")
    assert words.startswith("from scratch: ImageNet weights cannot be had") and "train.weights" in words
    assert torch.equal(net.get_parameter("conv1.weight"), before)
    assert network.load_pretrained(net, "resnet18", "none") == "from scratch"


def test_imagenet_weights_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = randomised(network.build("resnet34", 1000))
    asked = []

    def given(url: str, **_: object) -> dict[str, torch.Tensor]:
        asked.append(url)
        return theirs.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", given)
    net = network.build("resnet34", 4)
    assert network.load_pretrained(net, "resnet34", "imagenet") == "from imagenet with a fresh head"
    assert "resnet34" in asked[0]
    assert torch.equal(net.get_parameter("layer4.2.conv2.weight"), theirs.get_parameter("layer4.2.conv2.weight"))


def test_the_exported_form_is_the_network_on_bytes_with_its_embedding() -> None:
    net = randomised(network.build("resnet18", 3))
    images = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits, embedding = network.Exported(net)(images)
        torch.testing.assert_close(logits, net(images.permute(0, 3, 1, 2) / 255), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(net.get_submodule("fc")(embedding), logits)
    assert embedding.shape == (2, 512)


@pytest.mark.parametrize(("side", "stride"), [(2, 1), (4, 2), (3, 2), (1, 1)])
def test_a_convolution_over_few_pixels_trains_as_torchs_own_does(side: int, stride: int) -> None:
    convolution = next(module for module in network.build("resnet18", 3).modules() if isinstance(module, network.SmallPlaneConv2d))
    torch.manual_seed(side)
    convolution.stride = (stride, stride)
    ours, theirs = (torch.rand(3, 64, side, side, requires_grad=True) for _ in range(2))
    theirs.data.copy_(ours.data)
    expected = torch.nn.functional.conv2d(theirs, convolution.weight, stride=stride, padding=1)
    upstream = torch.rand_like(expected)
    (weight_gradient,) = torch.autograd.grad((expected * upstream).sum(), convolution.weight, retain_graph=True)
    (expected * upstream).sum().backward()
    convolution.weight.grad = None
    got = convolution.train()(ours)
    (got * upstream).sum().backward()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(convolution.weight.grad, weight_gradient, rtol=1e-4, atol=1e-5)
