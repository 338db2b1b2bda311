"""Axes whose size the values decide (``x[mask]``): nobody may ask whether it is 1, and the channels beside it go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ..support.models import assert_exact


def chosen(h: Tensor) -> Tensor:
    """Rows by a mask."""
    return h[h.sum(1) > 0]


def squeezed(h: Tensor) -> Tensor:
    """An axis that vanishes beside one of unknown size."""
    return chosen(h).unsqueeze(0).squeeze()


def shuffled(h: Tensor) -> Tensor:
    """A chain that parts and joins axes."""
    return chosen(h).view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)


def changed(h: Tensor) -> Tensor:
    """Rows written back where they were read."""
    h = h.clone()
    mask = h.sum(1) > 0
    h[mask] = h[mask] * 2
    return h


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "a mask": chosen,
    "places": lambda h: h[(h.sum(1) > 0).nonzero()[:, 0]],
    "spread": lambda h: chosen(h) + h.mean(0, keepdim=True),
    "added": lambda h: chosen(h) + chosen(h).relu(),
    "joined": lambda h: torch.cat([chosen(h), h]),
    "squeezed": squeezed,
    "shuffled": shuffled,
    "changed": changed,
}


class Choosing(nn.Module):
    """linear, `choose`, linear."""

    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.choose, self.after = nn.Linear(6, 8), choose, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.choose(self.before(x)))


@pytest.mark.parametrize("name", CHOICES)
def test_channels_go_beside_an_axis_of_unknown_size(name: str) -> None:
    result = assert_exact(Choosing(CHOICES[name]), (torch.randn(7, 6),), "M2")
    assert result.module.before.weight.shape[0] < 8
