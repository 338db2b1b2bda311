"""Captured modules go over to other types and devices as their models do, or say which line does not tell how."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture


class Made(nn.Module):
    """Joins something that forward makes to the outputs of a layer."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.make = nn.Linear(4, 4), make

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.make(x)


class Recurrent(nn.Module):
    """Its first state is zeros of the type and on the device of the input."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer, self.head = kind(4, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: torch.zeros(4, 4, dtype=x.dtype, device=x.device),
    "ones and eye": lambda x: torch.ones(4, 4).to(x) + torch.eye(4, dtype=x.dtype, device=x.device),
    "full": lambda x: torch.full((4, 4), 0.5, dtype=x.dtype, device=x.device),
    "arange": lambda x: torch.arange(16, dtype=x.dtype, device=x.device).reshape(4, 4),
    "eye converted": lambda x: torch.eye(4).to(x),
    "whole numbers": lambda x: (torch.arange(4, device=x.device) > 1).to(torch.int64) * x.new_ones(4, 4),
}


def pairs(model: nn.Module, x: Tensor) -> list[nn.Module]:
    return [capture(model, (x,)), compact(model, (x,)).module]


@pytest.mark.parametrize("name", EXACT)
def test_numbers_that_are_made_go_over_to_a_wider_type_and_to_another_device(name: str) -> None:
    model, x = Made(EXACT[name]).eval(), torch.randn(3, 4)
    wanted = copy.deepcopy(model).double()(x.double())
    for module in pairs(model, x):
        found = copy.deepcopy(module).double()(x.double())
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, wanted)
        back = copy.deepcopy(module).double().float()(x)
        torch.testing.assert_close(back, model(x))
        assert copy.deepcopy(module).to("meta")(x.to("meta")).is_meta, "nothing stays on the device of the example"
        torch.testing.assert_close(module(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_go_over_with_their_first_state(kind: type[nn.RNNBase], dtype: torch.dtype) -> None:
    model, x = Recurrent(kind).eval(), torch.randn(2, 3, 4)
    wanted = copy.deepcopy(model).to(dtype)(x.to(dtype))
    for module in pairs(model, x):
        torch.testing.assert_close(copy.deepcopy(module).to(dtype)(x.to(dtype)), wanted)
        assert module.to("meta")(x.to("meta")).is_meta


UNKNOWN: dict[str, tuple[Callable[[Tensor], Tensor], torch.dtype]] = {
    "a conversion": (lambda x: x.mT.float().softmax(-1).type_as(x), torch.float64),
    "half of one": (lambda x: torch.zeros(4, 4, dtype=x.dtype), torch.float16),
    "narrower": (lambda x: torch.eye(4).to(x), torch.bfloat16),
    "no number of float32": (lambda x: torch.full((4, 4), 0.1, dtype=x.dtype), torch.float64),
    "steps": (lambda x: torch.linspace(0, 1, 16, dtype=x.dtype).reshape(4, 4), torch.float64),
    "a sum's type": (lambda x: x.mT.cumsum(0, dtype=torch.float32), torch.float64),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_graph_does_not_tell_is_refused_by_line_and_nothing_is_changed(name: str) -> None:
    make, dtype = UNKNOWN[name]
    model, x = Made(make).eval(), torch.randn(4, 4)
    for module in pairs(model, x):
        with pytest.raises(
            InputError, match=r"cannot make the module \w+: '\w+' at \S*test_literals.py:\d+ names float32"
        ):
            module.to(dtype)
        torch.testing.assert_close(module(x), model(x))
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
