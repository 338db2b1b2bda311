"""The papers' networks, written out so that their parameter counts and initial weights are the papers'.

Initial weights are those of `initial_weights`. Seed with `torch.manual_seed` before building.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..base.errors import InputError
from .initial_weights import initialize, scaled
from .pretrained import efficientnet_lite0
from .resnet import Stem, resnet18, resnet50
from .tiny import Autoencoder, DsCnn, MobileNetV1, ResNet8

__all__ = [
    "NETWORKS",
    "Network",
    "ResNetCifar",
    "VggCifar",
    "find_network",
    "network_for",
    "resnet20_cifar",
    "vgg16_cifar",
]

CIFAR_SHAPE = (1, 3, 32, 32)
_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class VggCifar(nn.Module):
    """VGG-16 for small images: input (N, 3, side, side), output (N, classes). `side` is a multiple of 16."""

    def __init__(self, classes: int = 10, width: float = 1.0, side: int = 32) -> None:
        super().__init__()
        if side < 16 or side % 16:
            raise InputError(f"VGG-16 halves its images four times: a side of {side} is no multiple of 16")
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
        layers.append(nn.AvgPool2d(side // 16))
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


def vgg16_cifar(classes: int = 10, width: float = 1.0, side: int = 32) -> VggCifar:
    """VGG-16 for CIFAR-10 as in DNNShifter: 14,728,266 parameters; 14,719,818 once BatchNorm is folded."""
    return VggCifar(classes, width, side)


def resnet20_cifar(classes: int = 10, width: float = 1.0) -> ResNetCifar:
    """ResNet-20 for CIFAR-10 as in open_lth, with convolutions on the two shortcuts: 272,474 parameters."""
    return ResNetCifar(3, classes, width)


@dataclass(frozen=True)
class Network:
    """A network that the command line knows by name."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of its example input, (N, C, H, W)."""


Builder = Callable[[int, float, int], nn.Module]
"""Takes the number of classes, the width and the images' side."""


def _with_stem(build: Callable[[int, float, Stem], nn.Module], stem: Stem) -> Builder:
    return lambda classes, width, side: build(classes, width, stem)


BUILDERS: Mapping[str, tuple[Builder, int, int]] = MappingProxyType(
    {
        "vgg16-cifar": (vgg16_cifar, 10, 32),
        "resnet20-cifar": (lambda classes, width, side: resnet20_cifar(classes, width), 10, 32),
        "resnet8-cifar": (lambda classes, width, side: ResNet8(classes, width), 10, 32),
        "resnet18-cifar": (_with_stem(resnet18, "cifar"), 10, 32),
        "resnet50-cifar": (_with_stem(resnet50, "cifar"), 10, 32),
        "resnet18-imagenet": (_with_stem(resnet18, "imagenet"), 1000, 224),
        "resnet50-imagenet": (_with_stem(resnet50, "imagenet"), 1000, 224),
    }
)
"""The papers' networks by name: how each is built, and its own number of classes and side of images."""

SHORT_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "vgg16": ("vgg16-cifar", "vgg16-cifar"),
        "resnet20": ("resnet20-cifar", "resnet20-cifar"),
        "resnet8": ("resnet8-cifar", "resnet8-cifar"),
        "resnet18": ("resnet18-cifar", "resnet18-imagenet"),
        "resnet50": ("resnet50-cifar", "resnet50-imagenet"),
    }
)
"""What a name without a stem stands for, for images of at most 32 pixels a side and for larger ones."""


def _named(name: str) -> Network:
    build, classes, side = BUILDERS[name]
    return Network(lambda: build(classes, 1.0, side), (1, 3, side, side))


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {name: _named(name) for name in BUILDERS}
    | {
        "ds-cnn": Network(DsCnn, (1, 1, 49, 10)),
        "mobilenet-v1-vww": Network(MobileNetV1, (1, 3, 96, 96)),
        "autoencoder-ad": Network(Autoencoder, (1, 640)),
        "efficientnet-lite0": Network(efficientnet_lite0, (1, 3, 224, 224)),
    }
)


def find_network(name: str) -> Network:
    """The network called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in NETWORKS:
        raise InputError(f"no network is called '{name}'; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_for(name: str, classes: int, side: int, width: float = 1.0) -> Network:
    """One of the papers' networks, fitted to a data set.

    Args:
        name: of `BUILDERS`, or a short name such as ``resnet50``, which takes the stem that suits `side`.
        classes: of the data set.
        side: of its images, in pixels.
        width: scales the channels of every layer.

    Raises:
        InputError: there is no such network, or it does not take such images.
    """
    small, large = SHORT_NAMES.get(name, (name, name))
    full = small if side <= 32 else large
    if full not in BUILDERS:
        raise InputError(
            f"no network called '{name}' can be fitted to a data set; there are {', '.join([*SHORT_NAMES, *BUILDERS])}"
        )
    if not width > 0:
        raise InputError(f"width {width} of the network is not above 0; 1.0 is the paper's width")
    if full.startswith("vgg16") and (side < 16 or side % 16):
        raise InputError(f"VGG-16 halves its images four times: a side of {side} is no multiple of 16")
    return Network(lambda: BUILDERS[full][0](classes, width, side), (1, 3, side, side))
