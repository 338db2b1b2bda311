"""A tensor that stands at several places of the example inputs is several inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import reconvene


class Difference(nn.Module):
    def forward(self, x: Tensor, others: list[Tensor], last: Tensor) -> Tensor:
        return x - 2 * others[0] + 4 * last


def test_one_tensor_at_several_places_is_several_inputs() -> None:
    x, y, z = torch.randn(3, 2, 4)
    graph = reconvene.capture(Difference(), (x, [x], x))
    assert torch.equal(graph(x, [y], z), x - 2 * y + 4 * z)


def test_it_is_compiled_as_several() -> None:
    x, y = torch.randn(2, 1, 2, 4)
    model = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    program = reconvene.capture(model, (x, x.clone(), x.clone()))
    for given in (model, program):
        found, _ = reconvene.compile(given, (x, x, x)).run(x, y, y)
        assert torch.allclose(found, model(x, y, y)[0], atol=1e-6)
