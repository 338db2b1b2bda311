"""A channel axis with one position left does not vanish in a squeeze that names no axis."""

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
        self.w6 = nn.Parameter(draw(torch.randn, 6, 2, 1, 2, 2) * 0.5)
        self.w22 = nn.Parameter(draw(torch.randn, 22, 3, 2) * 0.707)

    def forward(self, x5):
        v7 = aten.conv2d.default(x5, self.w6, None, [1, 1], [1, 1], [1, 2], 1)
        v8 = aten.squeeze.default(v7)
        v14 = aten.tensor_split.indices(v8, [1], 0)
        v21 = aten.movedim.int(v14[0], 1, -1)
        v23 = aten.linear.default(v21, self.w22, None)
        return (v23,)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 1, 7, 7), generator=generator, dtype=torch.float64),)


model = Net().eval()
masks = {
    "w6": without(0, [1], 2, 1, 2, 2),
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
