"""Two cuts of one padded plane are not multiples of one plane."""

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
        self.w1 = nn.Parameter(draw(torch.randn, 1, 4, 3, 3, 3) * 0.2)
        self.w2 = nn.Parameter(draw(torch.randn, 2, 4))
        self.w3 = nn.Parameter(draw(torch.randn, 3, 2, 8, 3, 3))

    def forward(self, x1):
        v1 = aten.conv2d.default(x1, self.w1, self.w2)
        v2 = aten.pad.default(v1, [1, 1, 1, 1])
        v3 = aten.slice.Tensor(v2, 2, 0, 4)
        v4 = aten.slice.Tensor(v2, 2, 2, 6)
        v5 = aten.cat.default([v3, v4], 1)
        v6 = aten.conv2d.default(v5, self.w3, None, [1, 1], [1, 1])
        return (v6,)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 3, 6, 6), generator=generator, dtype=torch.float64),)


model = Net().eval()
masks = {
    "w1": without(0, [1, 2], 4, 3, 3, 3),
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
