"""Sampling at given points: which axis of the points is which of the result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.passes.values import operator_name

from ..support.models import view_of


class Sampled(nn.Module):
    def forward(self, image: Tensor, points: Tensor) -> Tensor:
        return F.grid_sample(image, points, align_corners=False)


@pytest.mark.parametrize("size", [(4, 5), (4, 5, 6)])
def test_axes_of_the_points_are_the_batch_and_the_image_of_the_result(size: tuple[int, ...]) -> None:
    view = view_of(Sampled(), (torch.randn(2, 3, *[7] * len(size)), torch.randn(2, *size, len(size))))
    (call,) = (node for node in view.module.graph.nodes if operator_name(node).startswith("aten.grid_sampler"))
    image, points = call.args[:2]
    assert view.axes.of(points, 0) == view.axes.of(image, 0) == view.axes.of(call, 0)
    assert view.axes.of(image, 1) == view.axes.of(call, 1)
    for axis in range(len(size)):
        assert view.axes.of(points, axis + 1) == view.axes.of(call, axis + 2)
        assert view.axes.of(call, axis - len(size)) == view.axes.of(call, axis + 2)
    assert len({view.axes.of(call, axis) for axis in range(len(size) + 2)}) == len(size) + 2
