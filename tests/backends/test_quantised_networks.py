"""Networks that `reconvene.quantize` made, compiled: near what PyTorch computes, and what is left in float32 is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene
from tests.support.quantized import signal_to_noise

pytest.importorskip("torchao", reason="pip install '.[int8]'")


def compiled(model: nn.Module, *shape: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """What the rounded graph gives, what its code does, and the operators in float32 by name."""
    torch.manual_seed(0)
    inputs = torch.randn(8, *shape)
    quantized = reconvene.quantize(model.eval(), inputs, observer="min-max").module
    built = reconvene.compile(quantized, (inputs[:1],), dtype="int8", check=False)
    return quantized(inputs[:1]), torch.as_tensor(built.run(inputs[:1])), built.floats


class Attention(nn.Module):
    """A block of a transformer, and a recurrent layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.state = nn.Linear(8, 16), nn.Linear(16, 8), nn.LSTM(8, 6, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(x)))
        result: Tensor = self.last(self.state(x)[0][:, -1])
        return result


def test_attention_and_recurrent_layers_are_float_between_linear_ones() -> None:
    wanted, found, floats = compiled(Attention(), 2, 8)
    assert signal_to_noise(wanted, found) > 30
    named = {told.partition(" at ")[0] for told in floats}
    assert {"layer_norm", "scaled_dot_product_attention", "lstm"} <= named
    assert not any(told.startswith(("linear", "gelu")) for told in floats)


class Lines(nn.Module):
    """A network along lines: nothing of it is left in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.alone = nn.Conv1d(3, 8, 5, padding=2), nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.slope, self.norm = nn.PReLU(8), nn.BatchNorm1d(8)
        self.up, self.position = nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1), nn.Parameter(torch.randn(1, 6, 18))
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.first(x))
        x = F.max_pool1d(x - F.relu(self.norm(self.alone(x))), 2)
        x = F.interpolate(F.relu(self.up(x)), scale_factor=1.5) * self.position
        result: Tensor = self.last(F.adaptive_avg_pool1d(x, 1).flatten(1))
        return result


def test_a_network_along_lines_is_all_codes() -> None:
    wanted, found, floats = compiled(Lines(), 3, 12)
    assert floats == () and signal_to_noise(wanted, found) > 30
