"""Statistics of inputs: moments against PyTorch's, the divergence by hand, and descent that lessens it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.recovery.matching import _Moments, divergence, matched, norms_with_statistics


def graph_of(model: nn.Module, x: Tensor) -> CapturedModule:
    return canonicalize(capture(model.eval(), (x,)))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 3)])
def test_moments_and_their_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    variance, mean = torch.var_mean(x, axes, unbiased=False)
    found = _Moments.apply(x)
    torch.testing.assert_close(found, (mean, variance))
    assert torch.autograd.gradcheck(_Moments.apply, (x,))


def test_the_divergence_by_hand() -> None:
    """Two channels: one as it is stored; the other has mean 3 and variance 4 where 1 and 2 are stored."""
    norm = nn.BatchNorm2d(2, eps=0.0)
    norm.running_mean.copy_(torch.tensor([0.0, 1.0]))
    norm.running_var.copy_(torch.tensor([1.0, 2.0]))
    x = torch.tensor([[-1.0, 1.0], [1.0, 5.0]]).reshape(2, 2, 1, 1)
    wanted = (4 / 2 + (3 - 1) ** 2 / 2 - 1 - math.log(2)) / 2 / 2
    assert divergence(graph_of(norm, x), (x,)) == pytest.approx(wanted)


def test_inputs_are_drawn_to_the_stored_statistics() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model[0].running_mean.copy_(torch.tensor([2.0, -1.0]))
    model[0].running_var.copy_(torch.tensor([4.0, 0.25]))
    with torch.no_grad():  # So that the second normalisation knows what goes with the first.
        model.train()
        for _ in range(50):
            model(
                torch.randn(8, 2, 8, 8) * torch.tensor([2.0, 0.5])[:, None, None]
                + torch.tensor([2.0, -1.0])[:, None, None]
            )
    x = torch.randn(8, 2, 8, 8)
    graph = graph_of(model, x)
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    (found,) = matched(graph, [x], 80)
    assert divergence(graph, (found,)) < 0.1 * divergence(graph, (x,))
    torch.testing.assert_close(found.mean((0, 2, 3)), model[0].running_mean, rtol=0.2, atol=0.2)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    assert all(parameter.grad is None for parameter in graph.parameters())


def test_values_that_are_viewed_in_the_order_of_memory_are_matched_too() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm1d(4 * 36)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.read(x).view(-1, 4 * 36))

    x = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    graph = graph_of(Viewed(), x)
    (found,) = matched(graph, [x], 5)
    assert found.is_contiguous() and divergence(graph, (found,)) < divergence(graph, (x,))


def test_the_same_seed_draws_the_same_inputs() -> None:
    x = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    graph = graph_of(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), x)
    first, again, other = (matched(graph, [x], 3, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_only_normalisations_that_store_something_count() -> None:
    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stored, self.batch = nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)
            self.instance = nn.InstanceNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.instance(self.batch(self.stored(x)))

    found = norms_with_statistics(graph_of(Norms(), torch.randn(4, 3, 5)))
    assert len(found) == 1
