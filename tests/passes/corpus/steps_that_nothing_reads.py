"""A step of a recurrent layer that nothing reads is needed by the steps after it."""

import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

aten = torch.ops.aten


def draw(how, seed, *shape):
    """Random float64 numbers, the same for the same seed."""
    return how(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without(axis, dropped, *shape):
    """True everywhere but at some positions of an axis."""
    kept = torch.ones(shape, dtype=torch.bool)
    kept.index_fill_(axis, torch.tensor(dropped), False)
    return kept


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(draw(torch.randn, 1, 5, 6) * 0.4)
        self.w2 = nn.Parameter(draw(torch.randn, 2, 5, 5) * 0.4)
        self.w3 = nn.Parameter(draw(torch.randn, 3, 5))
        self.w4 = nn.Parameter(draw(torch.randn, 4, 5))
        self.w5 = nn.Parameter(draw(torch.randn, 5, 3, 20))

    def forward(self, x1):
        v1 = aten.zeros.default([1, 2, 5], dtype=torch.float64)
        v2 = aten.rnn_tanh.input(x1, v1, [self.w1, self.w2, self.w3, self.w4], True, 1, 0.0, False, False, True)
        v3 = aten.flatten.using_ints(v2[0], 1)
        v4 = aten.linear.default(v3, self.w5, None)
        return (v4,)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 4, 6), generator=generator, dtype=torch.float64),)


model = Net().eval()
masks = {
    "w5": without(1, [5, 6, 7, 8, 9], 3, 20),
}
result = compact(capture(model, inputs(0)), inputs(0), masks)
with torch.no_grad():
    for name, kept in masks.items():
        getattr(model, name)[~kept] = 0.0
    expected, found = model(*inputs(1)), result.module(*inputs(1))
for one, other in zip(expected, found, strict=True):
    assert one.shape == other.shape, f"shape {tuple(other.shape)} instead of {tuple(one.shape)}"
    assert one.dtype == other.dtype, f"{other.dtype} instead of {one.dtype}"
    one, other = one.double(), other.double()
    difference = float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)
    assert difference <= 1e-12, f"masked and compacted differ by {difference:.1e} of the largest output"
