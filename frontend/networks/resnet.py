"""ResNet-18 and ResNet-50 (He et al., 2016), with the stem of ImageNet or of CIFAR and torchvision's parameter names."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..base.errors import InputError
from .initial_weights import initialize, scaled

__all__ = ["ResNet", "Stem", "resnet18", "resnet50"]

Stem = Literal["imagenet", "cifar"]
_STAGES = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 one has the stride, as in torchvision."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        return torch.relu(self.bn3(self.conv3(hidden)) + self.downsample(x))


class ResNet(nn.Module):
    """Four stages of residual blocks: input (N, 3, H, W), output (N, classes).

    Args:
        block: the kind of block.
        blocks: how many of them each stage has.
        classes: outputs.
        width: scales every layer.
        stem: ``imagenet``, a 7x7 convolution of stride 2 and max pooling; ``cifar``, a 3x3 convolution of stride 1.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], blocks: tuple[int, ...], classes: int, width: float, stem: Stem
    ) -> None:
        super().__init__()
        channels = scaled(_STAGES[0], width)
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        elif stem == "cifar":
            self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
            self.maxpool = nn.Identity()
        else:
            raise InputError(f"a ResNet has no stem '{stem}'; there are imagenet and cifar")
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (stage, count) in enumerate(zip(_STAGES, blocks, strict=True), 1):
            inner = scaled(stage, width)
            layers: list[nn.Module] = []
            for place in range(count):
                layers.append(block(channels, inner, 2 if number > 1 and place == 0 else 1))
                channels = inner * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for number in range(1, len(_STAGES) + 1):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return self.fc(hidden.mean((2, 3)))


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


def resnet18(classes: int = 1000, width: float = 1.0, stem: Stem = "imagenet") -> ResNet:
    """ResNet-18: 11,689,512 parameters with 1000 classes; 11,173,962 with CIFAR's stem and 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, width, stem)


def resnet50(classes: int = 1000, width: float = 1.0, stem: Stem = "imagenet") -> ResNet:
    """ResNet-50: 25,557,032 parameters with 1000 classes; 23,520,842 with CIFAR's stem and 10 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, width, stem)
