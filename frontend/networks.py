"""The papers' networks, written out so that their parameter counts and initial weights are the papers'.

Initial weights follow open_lth, which both papers build on: Kaiming normal for convolutions and linear layers,
BatchNorm weights uniform in 0..1, BatchNorm biases 0. Seed with `torch.manual_seed` before building.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from .errors import InputError
from .pretrained import efficientnet_lite0

__all__ = ["NETWORKS", "Network", "ResNetCifar", "VggCifar", "find_network", "resnet20_cifar", "vgg16_cifar"]

CIFAR_SHAPE = (1, 3, 32, 32)
_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class VggCifar(nn.Module):
    """VGG-16 for 32x32 images: input (N, 3, 32, 32), output (N, classes)."""

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in _VGG16:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
                continue
            out = scaled(item, width)
            # The bias is redundant before BatchNorm; DNNShifter has it, and its parameter counts include it.
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        layers.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).flatten(1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """ResNet for 32x32 images in three stages of `blocks` blocks: input (N, 3, 32, 32), output (N, classes)."""

    def __init__(self, blocks: int = 3, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in (16, 32, 64)]
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        body: list[nn.Module] = []
        channels = widths[0]
        for stage, out in enumerate(widths):
            for block in range(blocks):
                body.append(ResidualBlock(channels, out, stride=2 if stage and not block else 1))
                channels = out
        self.blocks = nn.Sequential(*body)
        self.fc = nn.Linear(channels, classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.blocks(torch.relu(self.bn(self.conv(images))))
        return self.fc(hidden.mean((2, 3)))


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1. Raises InputError for a width that is not above 0."""
    if not width > 0:
        raise InputError(f"width {width} of the network is not above 0; 1.0 is the paper's width")
    return max(1, round(channels * width))


def initialize(module: nn.Module) -> None:
    """Sets one layer's initial weights as open_lth does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)


def vgg16_cifar(classes: int = 10, width: float = 1.0) -> VggCifar:
    """VGG-16 for CIFAR-10 as in DNNShifter: 14,728,266 parameters; 14,719,818 once BatchNorm is folded."""
    return VggCifar(classes, width)


def resnet20_cifar(classes: int = 10, width: float = 1.0) -> ResNetCifar:
    """ResNet-20 for CIFAR-10 as in open_lth, with convolutions on the two shortcuts: 272,474 parameters."""
    return ResNetCifar(3, classes, width)


@dataclass(frozen=True)
class Network:
    """A network that the command line knows by name."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of its example input, (N, C, H, W)."""


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "vgg16-cifar": Network(vgg16_cifar, CIFAR_SHAPE),
        "resnet20-cifar": Network(resnet20_cifar, CIFAR_SHAPE),
        "efficientnet-lite0": Network(efficientnet_lite0, (1, 3, 224, 224)),
    }
)


def find_network(name: str) -> Network:
    """The network called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in NETWORKS:
        raise InputError(f"no network is called '{name}'; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]
