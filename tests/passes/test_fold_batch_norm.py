"""Folding batch normalisation: same function, fewer operators, and a reason where it stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.fold_batch_norm import fold_batch_norm
from reconvene.passes.values import operator_name

from ..support.models import assert_same_outputs, randomise

DOUBLE = {"dtype": torch.float64}


def norms_left(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Folds, compares with the model, and counts the normalisations that are left."""
    model = randomise(model).double()
    example = torch.randn(shape, **DOUBLE)
    folded = fold_batch_norm(capture(model, (example,)))
    unseen = torch.randn(shape, **DOUBLE)
    assert_same_outputs(model(unseen), folded(unseen))
    folded.graph.lint()
    return sum(operator_name(node) == "aten.batch_norm" for node in folded.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda: nn.Conv2d(3, 8, 3), nn.BatchNorm2d, (2, 3, 8, 8)),
        (lambda: nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d, (2, 3, 8, 8)),
        (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.BatchNorm2d, (2, 4, 8, 8)),
        (lambda: nn.ConvTranspose2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d, (2, 4, 8, 8)),
        (lambda: nn.ConvTranspose2d(3, 8, 3, stride=2), nn.BatchNorm2d, (2, 3, 8, 8)),
        (lambda: nn.Conv1d(3, 8, 3), nn.BatchNorm1d, (2, 3, 8)),
        (lambda: nn.Linear(6, 8), nn.BatchNorm1d, (4, 6)),
    ],
)
def test_a_norm_after_a_layer_is_folded(
    layer: Callable[[], nn.Module], norm: Callable[[int], nn.Module], shape: tuple[int, ...]
) -> None:
    assert norms_left(nn.Sequential(layer(), norm(8), nn.ReLU()), shape) == 0


def test_a_norm_without_affine_part_is_folded() -> None:
    assert norms_left(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), (2, 3, 8, 8)) == 0


def test_two_norms_in_a_row_are_folded() -> None:
    assert norms_left(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)), (2, 3, 8, 8)) == 0


def test_a_norm_by_the_batchs_own_statistics_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    assert norms_left(model, (2, 3, 8, 8)) == 1


def test_a_norm_after_something_else_stays() -> None:
    assert norms_left(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), (2, 3, 8, 8)) == 1


class Reused(nn.Module):
    """A convolution with its norm, and something that `finish` does with them."""

    def __init__(self, finish: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.finish = finish

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self, x)


@pytest.mark.parametrize(
    ("finish", "left"),
    [
        (lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x)), 1),
        (lambda m, x: m.norm(m.conv(m.norm(m.conv(x)))), 2),
        (lambda m, x: m.norm(m.conv(x)) + m.norm(m.other(x)), 0),
        (lambda m, x: m.norm(m.conv(x)) + m.conv.bias.sum(), 1),
        (lambda m, x: m.norm(torch.conv2d(x, m.conv.weight, x.mean((0, 2, 3)), padding=1)), 1),
    ],
    ids=[
        "its layer has another reader",
        "its layer runs twice",
        "it is used twice",
        "the bias is read",
        "the bias is computed",
    ],
)
def test_shared_parts(finish: Callable[..., Tensor], left: int) -> None:
    assert norms_left(Reused(finish), (2, 3, 8, 8)) == left


def test_the_module_it_came_from_is_left_as_it_was() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    module = capture(model, (torch.randn(2, 3, 8, 8),))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fold_batch_norm(module)
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in before.items())
