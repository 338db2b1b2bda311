"""What a decomposed program computes from no input is a constant of it, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from reconvene.backends.importing.constant_folding import fold_constants

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, call: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.register_buffer("places", torch.tensor([2, 0, 1]))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def folded(call: Callable[[Net, Tensor], Tensor]) -> tuple[ExportedProgram, list[str]]:
    """A program after folding, and the operators that it has left."""
    program = export(Net(call), (X,)).run_decompositions()
    before = program.module()(X)
    fold_constants(program)
    assert torch.equal(program.module()(X), before)
    return program, [node.target.name() for node in program.graph.nodes if node.op == "call_function"]


def test_indices_computed_from_a_range_are_one_constant() -> None:
    program, left = folded(lambda _, x: x[torch.arange(3) * 2 % 3] + 1)
    assert left == ["aten::index.Tensor", "aten::add.Tensor"]
    (constant,) = program.constants.values()
    assert constant.tolist() == [0, 2, 1]


def test_integers_that_the_model_keeps_are_known() -> None:
    assert folded(lambda net, x: x[net.places + 0])[1] == ["aten::index.Tensor"]


@pytest.mark.parametrize(
    ("call", "left"),
    [
        (lambda net, x: x @ net.weight.t(), ["aten::permute", "aten::mm"]),
        (lambda net, x: x * (net.scale + 1), ["aten::add.Tensor", "aten::mul.Tensor"]),
        (lambda _, x: x + torch.zeros(4), ["aten::full", "aten::add.Tensor"]),
        (
            lambda _, x: x[0, 0] + torch.ones(1).expand(2000, 2000),
            [*["aten::select.int"] * 2, "aten::full", "aten::expand", "aten::add.Tensor"],
        ),
    ],
    ids=["a weight", "a buffer of numbers", "what comes from nothing", "what is much larger than what it is made of"],
)
def test_what_stays(call: Callable[[Net, Tensor], Tensor], left: list[str]) -> None:
    assert folded(call)[1] == left


def test_random_numbers_are_drawn_by_every_call() -> None:
    program = export(Net(lambda _, x: x + torch.randn(4).abs()), (X,)).run_decompositions()
    fold_constants(program)
    assert not program.constants
    assert not torch.equal(program.module()(X), program.module()(X))


def test_a_check_of_what_is_known_stays_a_check() -> None:
    """`torch.export` writes one before it changes a type, and it has no value."""
    program, left = folded(lambda net, x: x * net.places.float().sum())
    assert left[0] == "aten::_assert_tensor_metadata" and len(program.constants) == 1


def test_one_of_several_results_is_a_constant() -> None:
    program, left = folded(lambda _, x: x[torch.arange(6).view(2, 3).max(1)[1]])
    assert left == ["aten::index.Tensor"] and [list(value) for value in program.constants.values()] == [[2, 2]]


def test_what_no_memory_holds_is_not_computed() -> None:
    class Endless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(10**6, 10**7)[0, :4] * 2

    program = export(Endless(), (X,)).run_decompositions()
    before = [node.name for node in program.graph.nodes]
    fold_constants(program)
    assert [node.name for node in program.graph.nodes] == before
