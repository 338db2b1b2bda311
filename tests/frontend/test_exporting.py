"""What torch.export is given and what is done where it fails: repeated inputs, ``.data``, forwards that only bytecode tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import CaptureError
from reconvene.frontend.capture import capture


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


class Scaled(nn.Module):
    """A forward that goes through NumPy, which only the bytecode tells."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(torch.from_numpy(x.detach().numpy() * 2)).relu())


def test_what_cannot_be_traced_is_exported_strictly() -> None:
    model, x = Scaled().eval(), torch.randn(3, 8)
    module = capture(model, (x,))
    for given in (x, torch.randn(3, 8)):
        torch.testing.assert_close(module(given), model(given))


def test_data_of_a_value_is_the_value_without_gradients() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden, self.out = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, ids: Tensor) -> Tensor:
            hidden = self.hidden(self.table(ids).data).relu()
            return self.out(hidden).masked_fill(ids.data.eq(0).unsqueeze(-1), 0.0)

    model = Padded().eval()
    module = capture(model, (torch.randint(0, 9, (2, 5)),))
    ids = torch.randint(0, 9, (3, 5))
    assert torch.equal(module(ids), model(ids))
    module(ids).sum().backward()
    assert module.get_parameter("table.weight").grad is None


def test_what_neither_way_can_follow_is_refused_with_its_line() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1.0 if x.detach().numpy().sum() > 0 else 2.0)

    with pytest.raises(CaptureError, match=rf"{Path(__file__).name}:{Deciding.forward.__code__.co_firstlineno + 1}"):
        capture(Deciding(), (torch.randn(3, 8),))
