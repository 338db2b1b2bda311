"""The papers' networks have the papers' sizes and initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reconvene.frontend.errors import InputError
from reconvene.frontend.networks import NETWORKS, find_network, resnet20_cifar, vgg16_cifar


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


@pytest.mark.parametrize("name", ["vgg16-cifar", "resnet20-cifar"])
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
