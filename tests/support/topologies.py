"""Ten small networks whose channel bookkeeping is known to go wrong elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "BranchMasks",
    "ChannelShuffle",
    "ConcatThenSlice",
    "CrossStage",
    "Functional",
    "Grouped",
    "LiteralReshape",
    "SharedTwice",
    "SqueezeExcite",
    "TransposedOutputPadding",
]


class CrossStage(nn.Module):
    """C2f: halves by chunk, one of them through convolutions, all of it concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.inner, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.norm(self.first(x)).sigmoid().chunk(2, 1))
        parts.append(F.silu(self.inner(parts[-1])))
        parts.append(F.silu(self.again(parts[-1])))
        return self.head(F.silu(self.last(torch.cat(parts, 1))))


class LiteralReshape(nn.Module):
    """Sizes written out as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).sigmoid().reshape(2, 8, 36).reshape(2, 288)
        return self.head(self.hidden(y).relu().view(2, 10))


class ChannelShuffle(nn.Module):
    """Grouped convolutions with view, transpose, view between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12)
        self.depthwise, self.last = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 6, 1)
        self.head = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        n, c, h, w = y.shape
        y = y.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(self.last(self.depthwise(y)).relu())


class SharedTwice(nn.Module):
    """One convolution called with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.head = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.head(self.shared(self.shared(y).relu()).relu())


class Functional(nn.Module):
    """Convolutions without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))
        self.reader = nn.Parameter(torch.randn(4, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(torch.sigmoid(F.conv2d(x, self.kernel, self.shift)), self.reader)


class ConcatThenSlice(nn.Module):
    """A slice that begins in one operand of a concatenation and ends in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x).relu(), self.right(x).sigmoid()], 1)[:, 4:12])


class SqueezeExcite(nn.Module):
    """A gate computed from the channels it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        gate = self.excite(self.squeeze(F.adaptive_avg_pool2d(y, 1)).relu()).sigmoid()
        return self.head(y * gate)


class Grouped(nn.Module):
    """A convolution of four groups whose survivors are not equally many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.first(x).relu()).relu())


class TransposedOutputPadding(nn.Module):
    """Upsampling by a transposed convolution with output padding."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
        self.head = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.norm(self.first(x)).relu()).relu())


class BranchMasks(nn.Module):
    """A residual block whose two branches lose different channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        return self.head((self.norm(self.branch(y)) + y).relu())
