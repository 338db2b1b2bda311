"""Values that calls write to: what is read of them is what is there then, and what is written over unread is none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fuzzing.quantised import QuantisedConv, QuantisedLinear, coded
from torch import Tensor
from torch.nn import functional as F

import reconvene
from reconvene.passes.integers.lowering import with_integers
from tests.support.lowered import FINE, Layer, lowered
from tests.support.stateful import Keeping

RESULT = (0.05, 3)


def slice_clamped(model: Any, x: Tensor) -> Tensor:
    y = coded(x, *FINE)
    y[:, :2].relu_()
    return coded(y + 1.0, *RESULT)


def slice_copied(model: Any, x: Tensor) -> Tensor:
    y = coded(x, *FINE)
    moved = y.clone()
    moved[:, :2] = y[:, 2:]
    return coded(moved * moved, *RESULT)


def zeros_filled(model: Any, x: Tensor) -> Tensor:
    part = torch.zeros(2, 4, 3, 5)
    part[:, :2] = x[:, :2]
    return coded(coded(x, *FINE) + part, *RESULT)


def function_of_a_view(model: Any, x: Tensor) -> Tensor:
    y = torch.sigmoid(coded(x, *FINE))
    y.view(2, -1)[:, :7].zero_()
    return coded(torch.tanh(y), *RESULT)


@pytest.mark.parametrize("function", [slice_clamped, slice_copied, zeros_filled, function_of_a_view])
def test_what_is_written_to_and_read_is_float(function: Callable[..., Tensor]) -> None:
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    program, exported = lowered(Keeping(function), x)
    assert torch.equal(program.module(x), exported(x))
    assert program.floats


def test_activations_in_place_are_on_codes_and_nothing_is_left_of_them() -> None:
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    program, exported = lowered(Layer(QuantisedConv(4, 6, 1), lambda y: y.relu_()), x)
    assert program.layers == 1 and program.floats == ()
    assert "relu_" not in program.module.code
    assert float((program.module(x) - exported(x)).abs().max()) <= 0.0501


def added(model: Any, x: Tensor) -> Tensor:
    y = coded(coded(x, *FINE) + model.state, *RESULT)
    model.state.add_(1)
    return y


def scaled(model: Any, x: Tensor) -> Tensor:
    y = coded(coded(x, *FINE) * model.state, *RESULT)
    model.state.copy_(model.state * 0.5)
    return y


def offset(model: Any, x: Tensor) -> Tensor:
    y = coded(F.linear(coded(x, *FINE), model.layer.weight, model.state), *RESULT)
    model.state.add_(1)
    return y


@pytest.mark.parametrize("function", [added, scaled, offset])
def test_state_is_no_constant(function: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    x, model = torch.randn(3, 4), Keeping(function, state=torch.ones(4))
    model.layer = QuantisedLinear(4, 4)
    program = with_integers(torch.export.export(model, (x,)).module(check_guards=False))
    for _ in range(3):
        torch.testing.assert_close(program.module(x), model(x), rtol=0, atol=1e-6)


def test_compiled_code_carries_state_from_call_to_call() -> None:
    x, model = torch.randn(3, 4), Keeping(added, state=torch.zeros(4))
    built = reconvene.compile(model, (x,), dtype="int8")
    for _ in range(3):
        torch.testing.assert_close(torch.as_tensor(built.run(x)), model(x), rtol=0, atol=1e-6)


def drawn(model: Any, x: Tensor) -> Tensor:
    return coded(coded(x, *FINE) + torch.bernoulli(model.chance), *RESULT)


def test_random_numbers_of_constants_are_no_constants() -> None:
    x = torch.randn(3, 4)
    program, _ = lowered(Keeping(drawn, chance=torch.full((4,), 0.5)), x)
    assert len({float(program.module(x).sum()) for _ in range(40)}) > 1
    with pytest.raises(reconvene.ReconveneError, match="draws random numbers"):
        reconvene.compile(Keeping(drawn, chance=torch.full((4,), 0.5)), (x,), dtype="int8")
