"""Complex numbers are not taken for their real parts: constants, ranges, and layers that have complex weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.facts import constants_of
from reconvene.passes.operations import operations_of
from reconvene.passes.propagation import propagate_constants
from reconvene.passes.ranges import Ranges

from ..support.models import assert_exact

Z = torch.fft.fft2


def test_a_stored_number_with_an_imaginary_part_is_no_constant() -> None:
    found = constants_of(torch.tensor([[1 + 0j, 2 + 1j], [1 + 0j, 0j]]))
    assert found.known.tolist() == [[True, False], [True, True]]
    assert np.where(found.known, found.value, -1).tolist() == [[1, -1], [1, 0]]
    whole = constants_of(torch.full((2, 3), 1.5 + 0j))
    assert (whole.value.tolist(), whole.known.tolist()) == ([[1.5]], [[True]])
    assert constants_of(torch.full((2, 3), 1.5 + 1j)).nothing


class Masked(nn.Module):
    """Between two convolutions, of which the first has channels that are zero."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Conv2d(3, 8, 1), inner, nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


@pytest.mark.parametrize(
    ("inner", "left"),
    [
        (lambda y: (Z(y) + 1j).imag, 8),
        (lambda y: (Z(y) + (1 - 2j)).abs(), 8),
        (lambda y: torch.complex(y, y * 0 + 2).imag, 8),
        (lambda y: (torch.complex(y, y * 0) - 4).sqrt().imag, 8),
        (lambda y: torch.complex(y, y * 0).exp().real, 4),
        (lambda y: (Z(y) * (1 + 2j)).real + Z(y).conj().imag, 4),
        (lambda y: torch.where(y > -9, 1j, torch.complex(y, y)).imag, 8),
        (lambda y: torch.atan2(y, -y.abs()), 8),
    ],
    ids=["plus i", "size", "beside a number", "root of a negative one", "real", "of zero", "chosen", "atan2 of zeros"],
)
def test_channels_of_complex_values(inner: Callable[[Tensor], Tensor], left: int) -> None:
    result = assert_exact(Masked(inner), (torch.randn(2, 3, 4, 6),), "M2")
    assert result.module.before.weight.shape[0] == left


class ComplexLayer(nn.Module):
    """linear, linear with complex numbers, linear; some rows and columns are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.middle, self.after = nn.Linear(3, 8), nn.Linear(8, 8, dtype=torch.complex128), nn.Linear(8, 2)
        with torch.no_grad():
            self.before.weight[::2] = 0.0  # Constants, of which the first is zero.
            self.before.bias[0] = 0.0
            self.middle.weight[:3] = 0.0
            self.middle.bias[1] = 2.0
            self.middle.bias[2] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        z = F.linear(torch.complex(y, torch.zeros_like(y)), self.middle.weight, self.middle.bias)
        return self.after(z.abs() + z.imag)


def test_layers_with_complex_weights_lose_zeros_and_keep_imaginary_parts() -> None:
    result = assert_exact(ComplexLayer(), (torch.randn(5, 3),))
    assert result.module.before.weight.shape[0] == 7
    assert result.module.middle.weight.shape == (6, 7)


def test_complex_values_have_no_bounds() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = Z(x)
            return (x / (z * z + 1)).abs()

    graph = canonicalize(capture(Square(), (torch.randn(2, 4, 4),)))
    ranges = Ranges(graph)
    names = {node.name: ranges[node] for node in graph.graph.nodes if node.op == "call_function"}
    assert not names["add"].nonzero
    assert not names["div"].finite
    assert names["abs_1"].low == 0
    assert propagate_constants(graph, operations_of(graph))
