"""Channels that a solving anew makes up for best: which go, from where, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.methods.reconstruction import spread
from reconvene.passes.recovery.elimination import Elimination
from reconvene.passes.recovery.least_squares import LeastSquares

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True, eq=False)
class Group:
    size: int
    blocks: int = 1


def group(size: int, blocks: int = 1) -> Any:
    return Group(size, blocks)


def costs(*values: float) -> Elimination:
    return Elimination(np.arange(len(values)), np.array(values))


def test_the_cheapest_of_all_groups_go_first() -> None:
    a, b = group(4), group(4)
    found = {a: costs(1, 2, 8, 9), b: costs(3, 4, 5, 6)}
    assert [spread(found, count / 8, Widths()) for count in (1, 3, 5)] == [
        {a: 1, b: 0},
        {a: 2, b: 1},
        {a: 2, b: 3},  # The last of each group stays.
    ]
    assert spread(found, 0.0, Widths()) == {a: 0, b: 0}


def test_steps_leave_multiples_floors_and_equal_blocks() -> None:
    a, b = group(10), group(8, blocks=2)
    found = {a: costs(*range(1, 11)), b: costs(*([5.0] * 8))}
    for share in np.linspace(0, 0.9, 10):
        lost = spread(found, float(share), Widths(multiple=4, minimum=3))
        assert (10 - lost[a]) % 4 == 0 or lost[a] == 0
        assert lost[b] in (0, 4) and 10 - lost[a] >= 3
        assert lost[a] + lost[b] <= round(share * 18)


def redundant() -> nn.Module:
    """Of the 16 channels of the first layer, 6 are others' copies; what reads them does not know."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight[10:] = 2 * model[0].weight[:6]
        model[0].bias[10:] = 2 * model[0].bias[:6]
    return model.eval()


def test_channels_that_others_stand_for_go_and_nothing_is_lost() -> None:
    model = redundant()
    found = reconvene.prune(
        model, (IMAGES[:1],), "reconstruction", 6 / 24, calibration=IMAGES, ridge=1e-6,
        recover=LeastSquares(ridge=1e-6),
    )  # fmt: skip
    assert {entry.name: entry.got for entry in found.report.groups} == {"0.weight": 6, "2.weight": 0, "6.weight": 0}
    gone = set(range(16)) - set(found.plan.kept["0.weight"][0].tolist())
    assert all((channel + 10 in gone) != (channel in gone) for channel in range(6))
    torch.testing.assert_close(found.module(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-4)
    assert found.report.options["method"] == "reconstruction"


def test_a_share_of_every_group_on_request() -> None:
    found = reconvene.prune(
        redundant(), (IMAGES[:1],), "reconstruction", 0.25, calibration=IMAGES, allocation="uniform"
    )
    assert [entry.got for entry in found.report.groups] == [4, 2, 0]
    assert found.recovery is None and found.certificate.max_relative < 1e-6


class Blocks(nn.Module):
    """A stream that two layers read, one of them in groups, beside a recurrent layer's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.left, self.right = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.Conv2d(8, 8, 1),
        )
        self.rows, self.state, self.last = nn.Linear(8, 12), nn.GRU(12, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.relu(self.make(x))
        joined = torch.relu(self.left(made)) + self.right(made)
        rows = self.rows(joined.mean(3).transpose(1, 2))
        return self.last(self.state(rows)[0][:, -1])


def test_grouped_readers_count_and_channels_that_no_layer_reads_stay() -> None:
    torch.manual_seed(1)
    found = reconvene.prune(Blocks().eval(), (IMAGES[:2],), "reconstruction", 0.3, calibration=IMAGES[:8])
    groups = {entry.name: entry for entry in found.report.groups}
    assert groups["make.weight"].got % 2 == 0
    assert sum(entry.got for entry in groups.values()) > 0
    assert groups["rows.weight"].got == 0 and "no convolution or linear layer reads" in groups["rows.weight"].reasons[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocation": "fair"}, "no allocation 'fair'; choose costs or uniform"),
        ({"ridge": 0}, "ridge is 0.0; give a number above 0"),
        ({"scope": "global"}, "a scope is not for the method reconstruction"),
        ({"latency": 0.5, "target": "rpi4"}, "a latency cannot be aimed at"),
        ({"mood": 1}, "the method reconstruction has no option 'mood'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reconvene.prune(redundant(), (IMAGES[:1],), "reconstruction", calibration=IMAGES, **options)


def test_without_calibration_inputs_nothing_can_be_told() -> None:
    from reconvene.frontend.capture import capture
    from reconvene.passes.pruning.methods import METHODS
    from reconvene.passes.pruning.methods.base import Aim
    from reconvene.passes.pruning.scores import Evidence

    with pytest.raises(InputError, match="give it calibration inputs"):
        METHODS["reconstruction"].prune(capture(redundant(), (IMAGES[:1],)), Evidence((IMAGES[:1],)), Aim(0.2))


def test_the_calibration_inputs_are_synthetic_unless_given() -> None:
    found = reconvene.prune(redundant(), (IMAGES[:1],), "reconstruction", 0.25, seed=1)
    again = reconvene.prune(redundant(), (IMAGES[:1],), "reconstruction", 0.25, seed=1)
    assert sum(entry.got for entry in found.report.groups) > 0
    assert torch.equal(found.plan.kept["0.weight"][0], again.plan.kept["0.weight"][0])
