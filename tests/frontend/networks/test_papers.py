"""The papers' networks have the papers' sizes and initial weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.networks.papers import NETWORKS, find_network, network_for, resnet20_cifar, vgg16_cifar
from reconvene.frontend.networks.resnet import resnet18, resnet50


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_vgg16_has_dnnshifters_parameters() -> None:
    model = vgg16_cifar()
    assert parameters(model) == 14_728_266
    assert sum(isinstance(layer, nn.Conv2d) and layer.bias is not None for layer in model.modules()) == 13
    assert isinstance(model.features[-1], nn.AvgPool2d)
    assert (model.fc.in_features, model.fc.out_features) == (512, 10)


def test_vgg16_with_batch_norm_folded_has_dnnshifters_parameters_and_the_same_outputs() -> None:
    model = vgg16_cifar().eval()
    layers = list(model.features)
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = folded.pop()
            assert isinstance(convolution, nn.Conv2d)
            folded.append(fuse_conv_bn_eval(convolution, layer))
        else:
            folded.append(layer)
    small = nn.Sequential(*folded, nn.Flatten(), model.fc)
    assert parameters(small) == 14_719_818
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-4)


def test_initial_weights_are_open_lths() -> None:
    model = vgg16_cifar()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.min() >= 0 and layer.weight.max() <= 1 and layer.weight.std() > 0.2
            assert not layer.bias.any()
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.in_channels * 9)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_resnet20_has_open_lths_convolutions() -> None:
    model = resnet20_cifar()
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 21
    assert parameters(model) == 272_474


@pytest.mark.parametrize(
    ("build", "classes", "stem", "count"),
    [
        (resnet18, 1000, "imagenet", 11_689_512),
        (resnet18, 10, "cifar", 11_173_962),
        (resnet50, 1000, "imagenet", 25_557_032),
        (resnet50, 10, "cifar", 23_520_842),
    ],
)
def test_resnets_have_the_known_parameters(build: Any, classes: int, stem: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(classes, stem=stem)) == count


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_resnets_are_torchvisions(depth: int) -> None:
    import torchvision

    ours = {18: resnet18, 50: resnet50}[depth](width=1.0).eval()
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-3)


def test_short_names_take_the_stem_that_suits_the_images() -> None:
    small, large = network_for("resnet18", 10, 32, 0.125), network_for("resnet18", 200, 64, 0.125)
    assert small.build().conv1.kernel_size == (3, 3) and large.build().conv1.kernel_size == (7, 7)
    assert large.build().eval()(torch.zeros(large.shape)).shape == (1, 200)
    named = network_for("resnet18-cifar", 200, 64, 0.125).build()
    assert named.conv1.kernel_size == (3, 3)


def test_vgg16_takes_larger_images() -> None:
    network = network_for("vgg16", 200, 64, 0.125)
    assert network.build().eval()(torch.zeros(network.shape)).shape == (1, 200)


@pytest.mark.parametrize(
    ("name", "side", "width", "message"),
    [
        ("alexnet", 32, 1.0, "'alexnet'.*resnet50"),
        ("efficientnet-lite0", 32, 1.0, "can be fitted"),
        ("vgg16", 40, 1.0, "multiple of 16"),
        ("resnet18", 32, -1.0, "width -1.0"),
    ],
)
def test_networks_that_fit_no_data_set_say_why(name: str, side: int, width: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network_for(name, 10, side, width)


@pytest.mark.parametrize("name", ["vgg16-cifar", "resnet20-cifar", "resnet18-cifar"])
def test_networks_by_name_take_their_example_shape(name: str) -> None:
    network = find_network(name)
    assert network.build().eval()(torch.zeros(network.shape)).shape == (1, 10)


def test_width_scales_every_layer() -> None:
    assert vgg16_cifar(classes=3, width=0.5).fc.weight.shape == (3, 256)
    with pytest.raises(InputError, match="width"):
        vgg16_cifar(width=0)


def test_an_unknown_network_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'alexnet'.*vgg16-cifar"):
        find_network("alexnet")
    assert "vgg16-cifar" in NETWORKS
