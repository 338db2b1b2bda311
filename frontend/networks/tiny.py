"""The four reference networks of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597; github.com/mlcommons/tiny), for
microcontrollers: image classification, keyword spotting, visual wake words, anomaly detection.

Convolutions have biases before batch normalisation, and windows of stride 2 are padded below and to the right, as there.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .initial_weights import initialize, scaled

__all__ = ["Autoencoder", "DsCnn", "MobileNetV1", "ResNet8"]


class _Convolution(nn.Sequential):
    """A convolution that keeps its input's size, or divides it by the stride and rounds up; then BatchNorm, and ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, relu: bool = True
    ) -> None:
        # With a stride of 2 an even image needs a pixel less in front than behind.
        padding = (kernel // 2 - (stride - 1), kernel // 2) * 2 if kernel > 1 else (0, 0, 0, 0)
        layers: list[nn.Module] = [nn.ZeroPad2d(padding)] if stride > 1 and kernel > 1 else []
        inside = 0 if layers else kernel // 2
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups), nn.BatchNorm2d(outputs)]
        super().__init__(*layers, *([nn.ReLU()] if relu else []))


class _Residual(nn.Module):
    """Two 3x3 convolutions beside what they read, through a 1x1 convolution without normalisation where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, outputs, 3, stride)
        self.second = _Convolution(outputs, outputs, 3, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet8(nn.Module):
    """Image classification: three residual blocks. Input (N, 3, 32, 32), output (N, classes); 77,706 weights, 12.5 M MACs."""

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        one, two, three = (scaled(channels, width) for channels in (16, 32, 64))
        self.features = nn.Sequential(
            _Convolution(3, one, 3), _Residual(one, one, 1), _Residual(one, two, 2), _Residual(two, three, 2)
        )
        self.fc = nn.Linear(three, classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))


class DsCnn(nn.Module):
    """Keyword spotting: depthwise separable convolutions on a second of sound as 49 frames of 10 MFCC.

    Input (N, 1, 49, 10), output (N, classes); 22,604 weights, 2.66 M MACs.
    """

    def __init__(self, classes: int = 12, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(64, width)
        stem = nn.Conv2d(1, channels, (10, 4), 2)
        layers: list[nn.Module] = [nn.ZeroPad2d((1, 1, 4, 5)), stem, nn.BatchNorm2d(channels), nn.ReLU()]
        for _ in range(4):
            layers += [_Convolution(channels, channels, 3, groups=channels), _Convolution(channels, channels, 1)]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        self.apply(initialize)

    def forward(self, frames: Tensor) -> Tensor:
        return self.fc(self.features(frames).mean((2, 3)))


class MobileNetV1(nn.Module):
    """Visual wake words: MobileNetV1 (Howard et al. 2017) of a quarter of its width.

    Input (N, 3, 96, 96), output (N, classes); 210,850 weights, 7.49 M MACs.
    """

    _BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

    def __init__(self, classes: int = 2, width: float = 0.25) -> None:
        super().__init__()
        channels = scaled(32, width)
        layers: list[nn.Module] = [_Convolution(3, channels, 3, 2)]
        for wanted, stride in self._BLOCKS:
            outputs = scaled(wanted, width)
            layers += [_Convolution(channels, channels, 3, stride, groups=channels), _Convolution(channels, outputs, 1)]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))


class Autoencoder(nn.Module):
    """Anomaly detection: 640 numbers of a spectrogram through 8 and back. Input and output (N, 640); 265,864 weights."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        inner = scaled(128, width)
        sizes = (640, *[inner] * 4, 8, *[inner] * 4)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(inner, 640))
        self.apply(initialize)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
