"""The ten topologies that break others: exact, and with as many channels left as can be worked out by hand.

Half of every group's channels is masked at random. A layer that keeps one more than half keeps a constant carrier.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ..support import topologies
from ..support.models import Exactness, randomise, widths

INPUT = (torch.zeros(2, 3, 8, 8),)

WIDTHS = {
    "BranchMasks": {"M1": {"stem": 5, "branch": 5}, "M2": {"stem": 4, "branch": 4}},
    "ChannelShuffle": {"M1": {"first": 6, "depthwise": 6, "last": 4}, "M2": {"first": 6, "depthwise": 6, "last": 3}},
    # Four channels of the two halves are read by the slice and kept; the others were never read.
    "ConcatThenSlice": {"M1": {"left": 2, "right": 2}, "M2": {"left": 2, "right": 2}},
    # sigmoid(0) is not 0: the padded convolution of the second half needs a carrier in both cases.
    "CrossStage": {
        "M1": {"first": 9, "inner": 5, "again": 4, "last": 4},
        "M2": {"first": 9, "inner": 4, "again": 4, "last": 4},
    },
    "Functional": {"M1": {"kernel": 4}, "M2": {"kernel": 4}},
    # Under M1 each of the four groups keeps two channels and a carrier.
    "Grouped": {"M1": {"first": 12, "grouped": 8}, "M2": {"first": 8, "grouped": 8}},
    "LiteralReshape": {"M1": {"conv": 4, "hidden": 5}, "M2": {"conv": 4, "hidden": 5}},
    # One weight serves two inputs: nothing can be folded into it, so constants that are not 0 stay.
    "SharedTwice": {"M1": {"first": 6, "shared": 6}, "M2": {"first": 4, "shared": 4}},
    "SqueezeExcite": {"M1": {"first": 5, "squeeze": 2, "excite": 5}, "M2": {"first": 4, "squeeze": 2, "excite": 4}},
    "TransposedOutputPadding": {"M1": {"first": 5, "up": 4}, "M2": {"first": 4, "up": 3}},
}


def rows(parameter: torch.Tensor, *dropped: int) -> torch.Tensor:
    """A mask with one entry per output channel."""
    mask = torch.ones(parameter.shape[0], dtype=torch.bool)
    mask[list(dropped)] = False
    return mask


def test_all_ten_are_here() -> None:
    assert sorted(WIDTHS) == sorted(topologies.__all__)
    assert len(WIDTHS) == 10


@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_half_of_the_channels_go_exactly(name: str) -> None:
    model: nn.Module = randomise(getattr(topologies, name)())
    exactness = Exactness(model, INPUT)
    found = {kind: widths(exactness.check(kind)) for kind in ("M1", "M2")}
    for kind, expected in WIDTHS[name].items():
        assert {layer: found[kind][layer] for layer in expected} == expected


def test_groups_with_unequal_survivors_keep_as_many_as_the_fullest() -> None:
    model = topologies.Grouped()
    randomise(model)
    # 1, 2, 3 and 0 of four channels survive in the groups: the last group goes, the others keep three each.
    dropped = (1, 2, 3, 4, 5, 11, 12, 13, 14, 15)
    masks = {f"first.{part}": rows(model.first.bias, *dropped) for part in ("weight", "bias")}
    masks |= {f"grouped.{part}": rows(model.grouped.bias, 0, 4, 8, 12, 13, 14, 15) for part in ("weight", "bias")}
    result = Exactness(model, INPUT).check(masks)
    assert widths(result) == {"first": 9, "grouped": 9, "head": 3}
    assert dict(result.module.named_parameters())["grouped.weight"].shape == (9, 3, 3, 3)


@pytest.mark.parametrize("everything", [False, True])
def test_a_sum_loses_the_channels_that_both_branches_lost(everything: bool) -> None:
    model = topologies.BranchMasks()
    randomise(model)
    masks = {"stem.weight": rows(model.stem.bias, 0, 1, 2, 3, 4), "branch.weight": rows(model.stem.bias, 3, 4, 5, 6)}
    if everything:
        masks["stem.bias"] = rows(model.stem.bias, 0, 1, 2, 3, 4)
        masks |= {name: rows(model.stem.bias, 3, 4, 5, 6) for name in ("branch.bias", "norm.weight", "norm.bias")}
    result = Exactness(model, INPUT).check(masks)
    assert widths(result)["stem"] == widths(result)["branch"] == 6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_layers_shared_by_the_levels_of_a_pyramid_absorb_their_constants_once(padding: int, bias: bool) -> None:
    class Levels(nn.Module):
        """What detectors do: one head over feature maps of several sizes."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 8, 3)
            self.shared = nn.Conv2d(8, 8, 3, padding=padding, bias=bias)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            levels = (x, nn.functional.avg_pool2d(x, 2), x * 2)
            return tuple(self.head(self.shared(self.inner(level).sigmoid()).relu()) for level in levels)

    result = Exactness(randomise(Levels()), (torch.zeros(2, 3, 12, 12),)).check("M1")
    # Of four dead channels one stays as a carrier, unless all fold into a bias that the levels share.
    assert widths(result)["inner"] == (4 if bias and not padding else 5)


def test_a_shared_weight_keeps_nonzero_constants() -> None:
    model = topologies.SharedTwice()
    randomise(model)
    with torch.no_grad():
        model.first.bias.fill_(0.5)
    result = Exactness(model, INPUT).check({"first.weight": rows(model.first.bias, 0, 1, 2)})
    assert widths(result)["first"] == 8


def test_one_weight_of_two_grouped_calls_stays_whole() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.shared(self.shared(self.first(x)).relu()))

    result = Exactness(randomise(Twice()), INPUT).check("M2")
    assert widths(result)["shared"] == 8
    assert any("shares its weight" in barrier.reason for barrier in result.barriers)


def test_one_weight_with_two_strides_is_sliced_for_both() -> None:
    class Strides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
            self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x).relu()
            near = torch.conv2d(y, self.kernel, padding=1)
            far = torch.conv2d(y, self.kernel, stride=2, padding=1)
            return self.head(near) + nn.functional.interpolate(self.head(far), scale_factor=2)

    result = Exactness(randomise(Strides()), INPUT).check("M2")
    assert widths(result)["kernel"] == 4
