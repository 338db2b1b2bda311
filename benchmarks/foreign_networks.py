"""Small networks that are not convolutions of images, by name: what `foreign.py` measures. Weights are random."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETWORKS"]


class Residual(nn.Module):
    """``relu(body(x) + way(x))``."""

    def __init__(self, body: nn.Module, way: nn.Module) -> None:
        super().__init__()
        self.body, self.way = body, way

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.way(x))


class Added(nn.Module):
    """``x + body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Causal(nn.Module):
    """A convolution that sees no later sample: what reaches further is cut off."""

    def __init__(self, inputs: int, outputs: int, size: int, dilation: int) -> None:
        super().__init__()
        self.reach = (size - 1) * dilation
        self.layer = nn.Conv1d(inputs, outputs, size, dilation=dilation, padding=self.reach)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:, :, : -self.reach]


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def tc_resnet8() -> tuple[nn.Module, tuple[Any, ...]]:
    """Choi et al. 2019, keyword spotting on 40 features of 98 frames."""

    def block(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(
            nn.Conv1d(inputs, outputs, 9, 2, 4, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(),
            nn.Conv1d(outputs, outputs, 9, 1, 4, bias=False), nn.BatchNorm1d(outputs),
        )  # fmt: skip
        way = nn.Sequential(nn.Conv1d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())
        return Residual(body, way)

    layers = [nn.Conv1d(40, 16, 3, padding=1, bias=False), block(16, 24), block(24, 32), block(32, 48)]
    head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, 12)]
    return nn.Sequential(*layers, *head), (torch.randn(1, 40, 98),)


def tcn() -> tuple[nn.Module, tuple[Any, ...]]:
    """Bai et al. 2018: four residual blocks of dilated causal convolutions on 256 samples."""
    layers: list[nn.Module] = []
    for number in range(4):
        inputs, dilation = 64 if number else 16, 2**number
        body = nn.Sequential(
            Causal(inputs, 64, 3, dilation), nn.ReLU(), Causal(64, 64, 3, dilation), nn.ReLU()
        )  # fmt: skip
        layers.append(Residual(body, nn.Identity() if number else nn.Conv1d(inputs, 64, 1)))
    return nn.Sequential(*layers), (torch.randn(1, 16, 256),)


def conv_tasnet() -> tuple[nn.Module, tuple[Any, ...]]:
    """Luo and Mesgarani 2019: encoder, four blocks of one repeat, mask, decoder, for half a second at 8 kHz."""

    def block(dilation: int) -> nn.Module:
        return Added(
            nn.Sequential(
                nn.Conv1d(128, 256, 1), nn.PReLU(), nn.GroupNorm(1, 256, eps=1e-8),
                nn.Conv1d(256, 256, 3, padding=dilation, dilation=dilation, groups=256), nn.PReLU(),
                nn.GroupNorm(1, 256, eps=1e-8), nn.Conv1d(256, 128, 1),
            )
        )  # fmt: skip

    class Separator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv1d(1, 256, 16, 8, bias=False)
            self.norm, self.narrow = nn.GroupNorm(1, 256, eps=1e-8), nn.Conv1d(256, 128, 1)
            self.blocks = nn.Sequential(*[block(2**number) for number in range(4)])
            self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(128, 256, 1), nn.Sigmoid())
            self.decoder = nn.ConvTranspose1d(256, 1, 16, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            seen = F.relu(self.encoder(x))
            return self.decoder(seen * self.mask(self.blocks(self.narrow(self.norm(seen)))))

    return Separator(), (torch.randn(1, 1, 4000),)


def wav2vec2_features() -> tuple[nn.Module, tuple[Any, ...]]:
    """The seven convolutions of Baevski et al. 2020, of 128 channels here, on half a second at 16 kHz."""
    kinds = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]
    layers: list[nn.Module] = []
    for number, (size, stride) in enumerate(kinds):
        layers.append(nn.Conv1d(128 if number else 1, 128, size, stride, bias=False))
        layers += [nn.GroupNorm(128, 128)] if not number else []
        layers.append(nn.GELU())
    return nn.Sequential(*layers), (torch.randn(1, 1, 8000),)


def whisper_front() -> tuple[nn.Module, tuple[Any, ...]]:
    """The two convolutions before the encoder of Radford et al. 2022 (tiny: 384 channels), for ten seconds."""
    layers = [nn.Conv1d(80, 384, 3, padding=1), nn.GELU(), nn.Conv1d(384, 384, 3, 2, 1), nn.GELU()]
    return nn.Sequential(*layers, Lambda(lambda x: x.permute(0, 2, 1))), (torch.randn(1, 80, 1000),)


def pointnet() -> tuple[nn.Module, tuple[Any, ...]]:
    """Qi et al. 2017 without its transforms, on 1024 points."""
    widths = [3, 64, 64, 64, 128, 1024]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
    head = [nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 40)]
    return nn.Sequential(*layers, Lambda(lambda x: x.max(2)[0]), *head), (torch.randn(1, 3, 1024),)


def mobilefacenet_head() -> tuple[nn.Module, tuple[Any, ...]]:
    """Chen et al. 2018: inverted residuals with PReLU, and the depthwise layer over the whole image."""

    def block() -> nn.Module:
        return Added(
            nn.Sequential(
                nn.Conv2d(128, 256, 1, bias=False), nn.BatchNorm2d(256), nn.PReLU(256),
                nn.Conv2d(256, 256, 3, padding=1, groups=256, bias=False), nn.BatchNorm2d(256), nn.PReLU(256),
                nn.Conv2d(256, 128, 1, bias=False), nn.BatchNorm2d(128),
            )
        )  # fmt: skip

    layers = [block(), block(), nn.Conv2d(128, 512, 1, bias=False), nn.BatchNorm2d(512), nn.PReLU(512)]
    head = [nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512), nn.Conv2d(512, 128, 1)]
    return nn.Sequential(*layers, *head), (torch.randn(1, 128, 7, 7),)


class Branches(nn.Module):
    """Layers of one input, added."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [layer(x) for layer in self.layers]
        return sum(others, first)


def aspp() -> tuple[nn.Module, tuple[Any, ...]]:
    """Atrous branches of Chen et al. 2017, on 33x33 pixels."""
    layers = [nn.Sequential(nn.Conv2d(64, 64, 3, padding=d, dilation=d), nn.ReLU()) for d in (6, 12, 18)]
    return Branches(*layers), (torch.randn(1, 64, 33, 33),)


def aspp_depthwise() -> tuple[nn.Module, tuple[Any, ...]]:
    """The same with a depthwise and a pointwise layer each, as in Chen et al. 2018."""
    layers = [
        nn.Sequential(nn.Conv2d(64, 64, 3, padding=d, dilation=d, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1))
        for d in (6, 12, 18)
    ]
    return Branches(*layers), (torch.randn(1, 64, 33, 33),)


def generator() -> tuple[nn.Module, tuple[Any, ...]]:
    """Radford et al. 2016 (DCGAN) to 32x32 pixels: transposed convolutions."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(64, 128, 4), nn.BatchNorm2d(128), nn.ReLU()]
    for inputs, outputs in ((128, 64), (64, 32)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh()), (torch.randn(1, 64, 1, 1),)


def vocoder() -> tuple[nn.Module, tuple[Any, ...]]:
    """Kong et al. 2020 (HiFi-GAN): transposed convolutions and dilated residual blocks, of 32 frames."""

    def block(channels: int) -> nn.Module:
        layers: list[nn.Module] = []
        for dilation in (1, 3, 5):
            layers += [nn.LeakyReLU(0.1), nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)]
        return Added(nn.Sequential(*layers))

    layers: list[nn.Module] = [nn.Conv1d(80, 128, 7, padding=3)]
    for inputs, size, stride in ((128, 16, 8), (64, 8, 4)):
        layers += [nn.LeakyReLU(0.1), nn.ConvTranspose1d(inputs, inputs // 2, size, stride, (size - stride) // 2)]
        layers.append(block(inputs // 2))
    return nn.Sequential(*layers, nn.Conv1d(32, 1, 7, padding=3), nn.Tanh()), (torch.randn(1, 80, 32),)


def gru() -> tuple[nn.Module, tuple[Any, ...]]:
    """Of RNNoise's size (Valin 2018): 42 features of 20 frames."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.gains = nn.GRU(42, 96, batch_first=True), nn.Linear(96, 22)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.gains(self.cells(x)[0]))

    return Recurrent(), (torch.randn(1, 20, 42),)


def attention() -> tuple[nn.Module, tuple[Any, ...]]:
    """Two layers of an encoder (Vaswani et al. 2017) of 192 features on 64 tokens."""
    layer = nn.TransformerEncoderLayer(192, 3, 768, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(1, 64, 192),)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    network.__name__: network
    for network in (
        tc_resnet8, tcn, conv_tasnet, wav2vec2_features, whisper_front, pointnet, mobilefacenet_head, aspp, aspp_depthwise,
        generator, vocoder, gru, attention,
    )
}  # fmt: skip
"""Each gives a module and its inputs."""
