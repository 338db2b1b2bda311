"""Every kernel family against PyTorch, over shapes that do not divide by anything."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reconvene.backends.compile import compile

TOLERANCE = 1e-5


def agree(module: nn.Module, *inputs: torch.Tensor, target: str = "host") -> None:
    """Compiles `module` and compares it with PyTorch, relative to the largest output."""
    module.eval()
    with torch.no_grad():
        expected = module(*inputs)
    got = compile(module, inputs, target).run(*inputs)
    assert type(got) is type(expected)
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()) + 1e-7)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Gated(nn.Module):
    """A convolution whose channels are weighted image by image, as in the head of LRASPP."""

    def __init__(self, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(24, 40 if groups == 1 else 24, kernel, groups=groups)
        self.gate = nn.Conv2d(24, self.convolution.out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(x)) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(4, 5), (3, 3)])
@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 24)])
def test_a_gate_for_each_image_of_a_batch(batch: int, size: tuple[int, int], kernel: int, groups: int) -> None:
    agree(Gated(kernel, groups), torch.randn(batch, 24, *size))


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "dilation", "groups", "size"),
    [
        ((3, 17), 3, 1, 1, 1, 1, (9, 11)),
        ((3, 32), 7, 2, 3, 1, 1, (23, 23)),
        ((20, 33), 3, 1, 1, 1, 1, (7, 7)),
        ((16, 64), 3, 1, 1, 1, 1, (2, 2)),
        ((40, 72), 3, 2, 1, 1, 1, (14, 13)),
        ((33, 16), 3, 1, 0, 1, 1, (8, 5)),
        ((48, 50), 1, 1, 0, 1, 1, (13, 13)),
        ((17, 31), 1, 2, 0, 1, 1, (9, 9)),
        ((24, 24), 5, 1, 2, 1, 1, (6, 17)),
        ((18, 20), 3, 1, 2, 2, 1, (9, 9)),
        ((1, 5), 3, 1, 1, 1, 1, (4, 4)),
        ((32, 64), 3, 1, 1, 1, 4, (8, 8)),
        ((36, 54), 3, 1, 1, 1, 9, (6, 6)),
        ((33, 66), 3, 1, 1, 1, 33, (6, 6)),
        ((19, 19), 3, 1, 1, 1, 19, (10, 29)),
        ((40, 40), 5, 2, 2, 1, 40, (15, 15)),
        ((16, 16), (3, 1), (2, 1), (1, 0), 1, 16, (9, 9)),
        ((20, 24), (1, 7), 1, (0, 3), 1, 1, (9, 9)),
    ],
)
def test_convolution(channels, kernel, stride, padding, dilation, groups, size) -> None:
    layer = nn.Conv2d(*channels, kernel, stride, padding, dilation, groups)
    agree(nn.Sequential(layer, nn.ReLU()), torch.randn(1, channels[0], *size))


@pytest.mark.parametrize("fill", [0.0, 1.5])
@pytest.mark.parametrize("margins", [(0, 1, 0, 1), (2, 1, 0, 3), (-1, 1, 0, -2), (-1, -1, -2, -1)])
def test_padding_before_a_convolution(margins: tuple[int, ...], fill: float) -> None:
    """Unequal, cropping, and not of zeros: only what the convolution's own padding can say is folded."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 20, 1)
            self.alone, self.padded = nn.Conv2d(20, 18, 3, 2), nn.Conv2d(20, 5, 3, padding=1)
            self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = F.pad(self.first(x), margins, value=fill)
            return self.alone(y), self.padded(y), self.depthwise(y)

    agree(Net(), torch.randn(2, 3, 9, 11))


@pytest.mark.parametrize(
    ("function", "native"),
    [
        (lambda x: x[:, :, ::2, 1:-1], True),
        (lambda x: x[:, 2:9, 1:, ::3], True),
        (lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (-1, 0, 0, -2)), True),
        (lambda x: F.relu(F.pad(x, (1, 0, 2, 1), value=-3.0) + 1), True),
        (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2), False),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), False),
    ],
)
def test_frames(function: Callable[[torch.Tensor], torch.Tensor], native: bool) -> None:
    """Padding, cropping and slicing of the image area, alone and before a convolution."""
    module = nn.Sequential(nn.Conv2d(3, 20, 1), Apply(function))
    x = torch.randn(2, 3, 9, 11)
    agree(module, x)
    agree(nn.Sequential(module, nn.LazyConv2d(5, 3, padding=1)), x)
    assert bool(compile(module, (x,)).foreign) is not native


@pytest.mark.parametrize("batch", [2, 3])
def test_batches(batch: int) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 3, padding=1, groups=20),
        nn.Conv2d(20, 9, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(9, 7),
        nn.ReLU(),
        nn.Linear(7, 21),
    )
    agree(module, torch.randn(batch, 3, 10, 10))


@pytest.mark.parametrize(("features", "rows"), [((37, 10), 1), ((64, 130), 1), ((20, 33), 5)])
def test_linear(features: tuple[int, int], rows: int) -> None:
    agree(nn.Sequential(nn.Linear(*features), nn.Tanh()), torch.randn(rows, features[0]))


def test_linear_on_rows() -> None:
    """As in transformers, where the features are the last of several axes."""
    module = nn.Sequential(nn.Linear(20, 37), nn.Linear(37, 16), nn.ReLU())
    agree(module, torch.randn(2, 7, 20))
    agree(Apply(lambda x: module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), torch.randn(1, 20, 3, 5))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 3)])
def test_flatten_before_linear(size: tuple[int, int]) -> None:
    """The weights of the linear layer take the order of the blocked image, gaps and halo included."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(5, 19, 1)
            self.side = nn.Conv2d(19, 3, 3, padding=1)
            self.last = nn.Linear(19 * size[0] * size[1], 6)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.first(x)
            return self.side(y), self.last(y.flatten(1))

    agree(Net(), torch.randn(1, 5, *size))


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.AdaptiveAvgPool2d((5, 2)),
        nn.AdaptiveAvgPool2d((3, 3)),
    ],
    ids=repr,
)
def test_pool(pool: nn.Module) -> None:
    """Negative inputs, so that a zero border would show in a maximum."""
    agree(nn.Sequential(nn.Conv2d(3, 18, 1), pool), torch.randn(1, 3, 10, 12) - 3)


@pytest.mark.parametrize(
    "function",
    [
        F.relu6,
        F.hardswish,
        F.hardsigmoid,
        F.silu,
        torch.sigmoid,
        torch.tanh,
        F.leaky_relu,
        F.gelu,
        F.elu,
        lambda x: F.hardtanh(x, -0.5, 2.0),
        lambda x: (2 - x) * x.abs() - 1,
        lambda x: torch.maximum(x, -x * 0.5),
        lambda x: 1 / (x * x + 1),
        lambda x: torch.softmax(x, 1),
    ],
)
def test_elementwise(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Between two convolutions, so that what the function makes of unused lanes is read again."""
    module = nn.Sequential(nn.Conv2d(2, 21, 1), Apply(function), nn.Conv2d(21, 5, 3, padding=1))
    agree(module, torch.randn(1, 2, 5, 6) * 20)


def test_exponential_keeps_its_range() -> None:
    values = torch.tensor([0.0, 1e-6, -1e-6, 1.0, -1.0, 20.0, -20.0, 88.0, -88.0, 1e4, -1e4, 3.4e38])
    built = compile(nn.Sigmoid(), (values.reshape(1, -1),))
    torch.testing.assert_close(built.run(values.reshape(1, -1)), torch.sigmoid(values).reshape(1, -1))


@pytest.mark.parametrize("widths", [(16, 32), (5, 7, 9), (20, 3), (1, 1, 1, 1)])
def test_concat(widths: tuple[int, ...]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(4, width, 3, padding=1) for width in widths)
            self.norm = nn.BatchNorm2d(sum(widths))
            self.last = nn.Conv2d(sum(widths), 6, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cat([part(x) for part in self.parts], 1)
            return self.last(F.relu(self.norm(y)) + 0.5)

    net = Net()
    nn.init.uniform_(net.norm.weight)
    nn.init.normal_(net.norm.bias)
    agree(net, torch.randn(1, 4, 6, 7))


@pytest.mark.parametrize("channels", [32, 20])
def test_split_and_channel_shuffle(channels: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, channels, 1)
            self.branch = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
            self.depthwise = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.first(x).chunk(2, 1)
            y = torch.cat([left, F.relu(self.branch(right))], 1)
            n, c, h, w = y.shape
            y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            left, right = y.chunk(2, 1)
            return torch.cat([left + right, self.depthwise(right)[:, 1:-1], left], 1)

    agree(Net(), torch.randn(1, 3, 6, 6))


def test_squeeze_and_excite() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 22, 3, padding=1)
            self.down, self.up = nn.Conv2d(22, 5, 1), nn.Conv2d(5, 22, 1)
            self.last = nn.Conv2d(22, 22, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.hardswish(self.body(x))
            gate = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
            return self.last(y * gate) + y

    agree(Net(), torch.randn(2, 3, 9, 9))


def test_batch_norm_is_folded_only_where_nobody_else_reads() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.first(x)
            return y, F.relu(self.norm(y) + y)

    net = Net()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    agree(net, torch.randn(1, 3, 6, 6))


def test_two_convolutions_added() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(6, 20, 3, 2, 1), nn.Conv2d(6, 20, 1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.left(x) + self.right(x))

    agree(Net(), torch.randn(1, 6, 9, 9))


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 13, 8), (2, 3, 8, 37)), ((5, 20, 33), (5, 33, 16)), ((1, 1, 7), (1, 7, 3)), ((4, 9), (9, 1))],
)
def test_products_of_computed_matrices(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    module = Apply(lambda x, y: torch.softmax((x * 2) @ y, -1))
    agree(module, torch.randn(left) * 3, torch.randn(right))
    foreign = compile(module, (torch.randn(left), torch.randn(right))).foreign
    assert not {"matmul", "nn.softmax"} & set(foreign)


@pytest.mark.parametrize("width", [1, 5, 16, 50, 197])
def test_softmax_of_rows(width: int) -> None:
    x = torch.randn(3, 4, width) * 30
    if width > 1:
        x[0, 0, 0], x[0, 0, -1], x[0, 1, 0] = -1e30, -math.inf, 1e30
    agree(Apply(lambda x: torch.softmax(x, -1)), x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_between_linear_layers(approximate: str) -> None:
    """Rows along several axes, as in transformers, and the ends of the number line."""
    module = nn.Sequential(nn.Linear(20, 37), nn.GELU(approximate), nn.Linear(37, 16))
    x = torch.randn(2, 3, 7, 20)
    agree(module, x)
    assert not compile(module, (x,)).foreign
    ends = torch.tensor([[0.0, 1e-30, -1e-6, 0.5, -0.5, 3.0, -3.0, 5.7, -5.7, 30.0, -30.0, 1e30, -1e30]])
    expected = nn.functional.gelu(ends, approximate=approximate)
    got = compile(nn.GELU(approximate), (ends,)).run(ends)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_foreign_operators_keep_working() -> None:
    """Transposed convolution, interpolation and attention have no family here."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 2, 2)
            self.norm, self.linear = nn.LayerNorm(12), nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.interpolate(self.up(F.relu(self.first(x))), scale_factor=2.0)
            rows = self.norm(y.flatten(2)[:, :, :12])
            return self.linear(torch.softmax(rows @ rows.transpose(1, 2), -1) @ rows)

    agree(Net(), torch.randn(1, 3, 5, 5))


def test_other_dtypes_are_computed_as_given() -> None:
    """TVM's importer knows no float64 convolutions and linear layers, so arithmetic only."""
    agree(Apply(lambda x, y: torch.relu(x * y) + x), *torch.randn(2, 1, 3, 6, 6, dtype=torch.float64))


def test_identity_and_plain_outputs() -> None:
    agree(Apply(lambda x, y: (x, x + y, y * 2)), torch.randn(1, 5, 3, 3), torch.randn(1, 5, 3, 3))
