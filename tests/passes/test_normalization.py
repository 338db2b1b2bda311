"""Normalisation over channels: zero channels leave a transformer's residual stream, in as many rounds as one likes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact, prune
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.values import operator_name

from ..support.models import Exactness, randomise, widths


class Encoder(nn.Module):
    """A token, positions and two pre-norm blocks: everything that writes into the residual stream."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 6, width))
        self.norms = nn.ModuleList(norm(width) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(width, 24) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(24, width) for _ in range(2))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.position
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            y = y + down(up(norm(y)).relu())
        return self.head(self.norms[2](y)[:, 0])


INPUT = (torch.zeros(2, 5, 6),)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_the_embedding_width_is_a_group(norm: type[nn.Module]) -> None:
    result = Exactness(randomise(Encoder(norm)), INPUT).check("M2")
    assert widths(result) == {"embed": 8, "up.0": 12, "up.1": 12, "down.0": 8, "down.1": 8, "head": 3}
    assert {name: tuple(value.shape) for name, value in result.module.named_parameters()}["position"] == (1, 6, 8)


def test_a_channel_that_normalisation_does_not_zero_stays() -> None:
    model = randomise(Encoder())
    gone = torch.arange(16) < 4
    masks = {name: (~gone).expand(value.shape) for name, value in model.named_parameters() if value.shape[-1] == 16}
    masks = {name: mask for name, mask in masks.items() if name in ("token", "position")}
    for layer in ("embed", "down.0", "down.1"):
        masks |= {f"{layer}.weight": ~gone[:, None].expand(16, model.get_parameter(f"{layer}.weight").shape[1])}
        masks |= {f"{layer}.bias": ~gone}
    result = Exactness(model, INPUT).check(masks)
    assert widths(result)["embed"] == 16, "the mean is subtracted from a zero as from every other channel"
    group = next(group for group in result.groups if group.name == "token")
    assert (group.asked, group.got) == (4, 0)


def test_rounds_of_pruning_leave_one_normalisation_of_the_first_width() -> None:
    model: nn.Module | CapturedModule = randomise(Encoder()).double().eval()
    inputs = (torch.randn(2, 5, 6, dtype=torch.float64),)
    for left in (8, 4, 2):
        result = prune(model, inputs, method="random", sparsity=0.5)
        again = compact(result.module, inputs)
        names = [operator_name(node) for node in again.module.graph.nodes if node.op == "call_function"]
        assert names.count("aten.constant_pad_nd") == names.count("aten.layer_norm") == 3
        assert len(again.module.graph.nodes) == len(result.module.graph.nodes)
        assert result.module.get_parameter("embed.weight").shape[0] == left
        model = result.module


class Grouped(nn.Module):
    """Convolutions with group normalisation between them."""

    def __init__(self, groups: int, rank: int = 2, affine: bool = True) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d}[rank]
        self.first, self.norm = convolution(3, 16, 3, padding=1), nn.GroupNorm(groups, 16, affine=affine)
        self.second, self.gain = convolution(16, 12, 3, padding=1), nn.Parameter(torch.randn(12, *(1,) * rank))
        self.last = convolution(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x)).relu()).relu() * self.gain)


def without(model: nn.Module, channels: list[int], names: tuple[str, ...] = ("first", "norm")) -> dict[str, Tensor]:
    """Masks that zero all that makes some channels."""
    masks = {}
    for name, value in model.named_parameters():
        if name.split(".")[0] in names:
            masks[name] = torch.ones(value.shape, dtype=torch.bool)
            masks[name][channels] = False
    return masks


IMAGES = (torch.zeros(2, 3, 6, 5),)


@pytest.mark.parametrize(
    ("groups", "channels"),
    [
        (1, [0, 3, 15]),
        (1, list(range(15))),
        (4, [0, 1, 2, 3]),  # A whole group.
        (4, [0, 4, 8, 12]),  # Equally many of each.
        (4, [0, 1, 2, 3, 5, 11, 12]),  # A whole group, and some of others.
        (2, [0, 1, 2, 3, 4, 5, 6, 7, 9]),  # One group is left, without one of its channels.
        (16, [2, 3]),
    ],
)
def test_zero_channels_leave_their_group(groups: int, channels: list[int]) -> None:
    model = randomise(Grouped(groups))
    result = Exactness(model, IMAGES).check(without(model, channels))
    assert widths(result) == {"first": 16 - len(channels), "second": 12, "last": 4}
    names = [operator_name(node) for node in result.module.graph.nodes]
    whole = all(len([c for c in channels if c * groups // 16 == group]) in (0, 16 // groups) for group in range(groups))
    assert ("aten.constant_pad_nd" in names) != whole


def test_pruning_takes_whole_groups_and_single_channels_of_one_group() -> None:
    image = (torch.randn(2, 3, 6, 5),)
    several = prune(randomise(Grouped(4)), image)
    assert [operator_name(node) for node in several.module.graph.nodes].count("aten.constant_pad_nd") == 0
    assert several.module.first.weight.shape[0] == 8
    one = prune(randomise(Grouped(1, rank=1)), (torch.randn(2, 3, 9),), sparsity=0.3)
    assert one.module.first.weight.shape[0] == 11
    assert one.report.refusals == ()


def test_what_group_normalisation_does_not_scale_by_zero_stays() -> None:
    model = randomise(Grouped(4))
    result = Exactness(model, IMAGES).check(without(model, [0, 4, 8], ("first",)))
    assert widths(result)["first"] == 16
    plain = randomise(Grouped(1, affine=False))
    assert widths(Exactness(plain, IMAGES).check(without(plain, [0, 4, 8], ("first",))))["first"] == 16


class Spelled(nn.Module):
    """RMS normalisation as language models spell it out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("norm", [Spelled, nn.RMSNorm, lambda width: nn.GroupNorm(1, width)])
def test_rounds_of_pruning_leave_one_correction(norm: type[nn.Module]) -> None:
    model: nn.Module | CapturedModule = randomise(
        nn.Sequential(nn.Linear(6, 16), norm(16), nn.Linear(16, 16), norm(16), nn.Linear(16, 3))
    ).double()
    inputs = (torch.randn(4, 6, dtype=torch.float64),)
    sizes = []
    for left in (8, 4, 2):
        result = prune(model, inputs, method="random", sparsity=0.5)
        assert result.module.get_parameter("0.weight").shape[0] == left
        assert result.module.get_parameter("2.weight").shape == (left, left)
        sizes.append(len(result.module.graph.nodes))
        model = result.module
    assert len(set(sizes)) == 1


def test_the_width_of_a_network_with_spelled_out_normalisation_is_a_group() -> None:
    result = Exactness(randomise(Encoder(Spelled)), INPUT).check("M2")
    assert widths(result) == {"embed": 8, "up.0": 12, "up.1": 12, "down.0": 8, "down.1": 8, "head": 3}


def test_a_mean_over_channels_counts_constants() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2, 3], [0, 0, 0], [3, 1, 2], [0, 0, 0]]))
        model[0].bias.copy_(torch.tensor([0.5, 1, -1, 2]))

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = model

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).mean(-1)

    result = Exactness(Mean(), (torch.zeros(5, 3),)).check()
    assert widths(result)["features.0"] == 2
    added = [node.args[1] for node in result.module.graph.nodes if operator_name(node) in ("aten.mul", "aten.add")]
    assert added == [0.5, pytest.approx(float(torch.sigmoid(torch.tensor([1.0, 2.0])).sum()) / 4)]


@pytest.mark.parametrize(
    ("norm", "kind", "reads", "left"),
    [
        (nn.LayerNorm(8), "zero", True, 8),
        (nn.LayerNorm(8), "zero", False, 4),
        (nn.LayerNorm(8), "constant", False, 8),
        (nn.LayerNorm(8), "any", False, 8),
        (nn.RMSNorm(8), "zero", True, 4),
        (nn.RMSNorm(8), "zero", False, 4),
        (nn.RMSNorm(8), "constant", False, 8),
        (nn.RMSNorm(8), "any", False, 8),
        (nn.GroupNorm(2, 8), "zero", True, 8),
        (nn.GroupNorm(2, 8), "zero", False, 4),
        (nn.GroupNorm(2, 8), "constant", False, 8),
        (nn.GroupNorm(2, 8), "any", False, 8),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_what_counts_in_the_statistics_stays_though_nobody_reads_it(
    norm: nn.Module, kind: str, reads: bool, left: int
) -> None:
    """Every second channel is zero, another constant, or anything before the normalisation; and is read after it, or not."""
    model = randomise(nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 3)))
    gone = torch.arange(8) % 2 == 0
    masks = {} if kind == "any" else {"0.weight": ~gone[:, None].expand(8, 6)}
    masks |= {"0.bias": ~gone} if kind == "zero" else {}
    masks |= {} if reads else {"2.weight": ~gone[None].expand(3, 8)}
    assert widths(Exactness(model, (torch.zeros(2, 6),)).check(masks))["0"] == left
