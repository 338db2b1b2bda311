"""How much outputs hang on a layer's channels: exact where there is one output, and in the mean where there are more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.operations import operations_of
from reconvene.passes.recovery.influence import influences
from reconvene.passes.rules import layer_of


def told(model: nn.Module, calls: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Influences of the channels of every layer, in order."""
    graph: CapturedModule = canonicalize(capture(model, calls[0]))
    axes = {op.node: layer.axis for op in operations_of(graph).values() if (layer := layer_of(op)) is not None}
    return list(influences(graph, calls, axes).values())


def test_one_output_by_hand() -> None:
    """z = 3 a - 4 b of a linear layer's outputs: influences are as 9 to 16; the output's own is 1 over its variance."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, -4.0]]))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    first, last = told(model, [(x,)])
    assert first.tolist() == pytest.approx([9 * float(last), 16 * float(last)], rel=1e-5)
    variance = float(model(x).detach().var(correction=0))
    assert 0.01 < float(last) * variance < 10  # One squared normal number an example, of mean 1, over 6 examples.


def test_all_positions_count() -> None:
    """The mean over p positions hangs on each by 1 / p, so on a channel by p / p^2."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        model[3].weight.fill_(1.0)
    channels, last = told(model, [(torch.randn(4, 1, 3, 3),)])
    assert channels.tolist() == pytest.approx([float(last) / 9] * 2, rel=1e-5)


def test_what_nothing_hangs_on_is_zero() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight[:, 1] = 0
        model[0].bias.copy_(torch.tensor([9.0, 9.0, -1e3, 9.0]))
    found, _ = told(model, [(torch.randn(64, 3),)])
    assert (found == 0).tolist() == [False, True, True, False] and found.dtype is torch.float64


def test_a_batch_is_cut_and_calls_are_averaged() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(64, 3)
    few = told(model, [(x,)])
    wanted = told(model, [(x[:8],)])
    torch.testing.assert_close(few, wanted)
    both = told(model, [(x[:8],), (x[:8],)])
    assert all(0.2 < float(a.sum() / b.sum()) < 5 for a, b in zip(both, wanted, strict=True))


def test_outputs_without_gradients_say_nothing() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(x).argmax(1)

    (found,) = told(Chosen(), [(torch.randn(5, 3),)])
    assert found.shape == (1,) and not found.any()
